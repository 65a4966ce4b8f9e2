"""One retail task, end to end: the model calls the shop's tools in a closed sandbox, and the order is shown.

python examples/retail_checkout/demo.py [--kind KIND] [--seed N] [--think] [--model MODEL]
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from g4agent import Budget, Sampling
from g4agent.cli.console import stdout
from g4agent.cli.render import Story
from g4agent.events import RunFinished
from retail_checkout.agent import agent as shop_agent
from retail_checkout.evaluate import prepare
from retail_checkout.payments import Ledger
from retail_checkout.plans import PLANS
from retail_checkout.tasks import Task, check

BUDGET = Budget(steps=15, step_tokens=400)
"""Ends a run in which the model repeats itself."""
TASK_NOT_DONE = 3
"""Exit code where everything ran and the model did not do what was asked."""


async def demo(task: Task, model: str, think: bool) -> int:
    """Runs the task, prints the newest order and its payment, and says whether the end state is right."""
    prompt = task.build().prompt
    with closing(Ledger()) as ledger, closing(sqlite3.connect(":memory:")) as shop:
        agent = prepare(
            shop_agent.replace(model=model, thinking=think, budget=BUDGET, sampling=Sampling(temperature=0)),
            task,
            ledger,
        )
        print(f"customer: {prompt}\n", flush=True)
        async with agent, agent.session() as session:
            story = Story(stdout(), verbose=False)
            async for event in session.stream(prompt):
                story.show(event)
            assert isinstance(event, RunFinished)
            shop.deserialize(await session.read_file("shop.db"))
        judgement = check(task, shop, ledger.connection, event.answer)
        print("\nthe newest order in the shop's database (shop.db in the sandbox's workspace):")
        print_rows(shop, "SELECT * FROM orders ORDER BY rowid DESC LIMIT 1")
        print("the last payment in the provider's ledger (outside the sandbox):")
        print_rows(ledger.connection, "SELECT * FROM charges ORDER BY rowid DESC LIMIT 1")
        done = event.verdict.ok and judgement.passed
        print("\ntask done" if done else f"\ntask NOT done: {judgement.why or event.verdict.reason}")
        return 0 if done else TASK_NOT_DONE


def print_rows(database: sqlite3.Connection, query: str) -> None:
    """Prints each row as `column=value` pairs."""
    rows = database.execute(query)
    names = [column[0] for column in rows.description]
    for row in rows:
        print("  " + "  ".join(f"{name}={value}" for name, value in zip(names, tuple(row), strict=True)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One retail task with a real model in a closed sandbox.")
    parser.add_argument("--kind", choices=list(PLANS), default="buy_one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--think", action="store_true")
    options = parser.parse_args()
    sys.exit(anyio.run(demo, Task(options.kind, options.seed), options.model, options.think))
