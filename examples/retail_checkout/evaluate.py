"""Lets an agent do the tasks, each in a session of its own, and judges the end states.

python -m retail_checkout.evaluate [MODEL] [TASKS PER KIND]        from the folder `examples`
"""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio

from g4agent import Agent, Sampling
from retail_checkout.agent import agent as shop_agent
from retail_checkout.payments import Ledger, payment_service
from retail_checkout.plans import PLANS
from retail_checkout.tasks import Judgement, Task, check


def prepare(agent: Agent, task: Task, ledger: Ledger) -> Agent:
    """The agent with the task's shop as workspace and a payment provider over `ledger`, which outlives the session.

    Args:
        agent: Any agent with the shop's tools.
        task: What to do.
        ledger: Empty; gets the payments of the shop's past orders.
    """
    start = task.start(ledger).connection.serialize()

    @asynccontextmanager
    async def service(folder: Path, seed: int) -> AsyncIterator[dict[str, Path]]:
        async with payment_service(ledger) as sockets:
            yield sockets

    return agent.replace(workspace=lambda seed: {"shop.db": start}, services=[service])


async def run_task(agent: Agent, task: Task) -> Judgement:
    """Runs one task in a new session and judges the end state."""
    with closing(Ledger()) as ledger, closing(sqlite3.connect(":memory:")) as shop:
        async with prepare(agent, task, ledger).session() as session:
            result = await session.run(task.build().prompt)
            shop.deserialize(await session.read_file("shop.db"))
        if not result.verdict.ok:
            return Judgement(False, f"the run ended: {result.verdict.outcome}, {result.verdict.reason}")
        return check(task, shop, ledger.connection, result.answer)


async def main(model: str, per_kind: int) -> None:
    """Prints one line per task and the number that passed."""
    tasks = [Task(kind, seed) for kind in PLANS for seed in range(per_kind)]
    passed = 0
    async with shop_agent.replace(model=model, store=False, sampling=Sampling(temperature=0)) as agent:
        await agent.load()
        for task in tasks:
            judgement = await run_task(agent, task)
            passed += judgement.passed
            print(f"{'pass' if judgement.passed else 'FAIL'}  {task.name}  {judgement.why}")
    print(f"{passed} of {len(tasks)} tasks done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Does the shop's tasks and counts those done right.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--per-kind", type=int, default=1, help="tasks of each kind")
    options = parser.parse_args()
    anyio.run(main, options.model, options.per_kind)
