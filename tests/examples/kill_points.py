"""Kills nano at seeded points of the retail tasks, takes the sessions up again, and compares the end states.

    PYTHONPATH=examples python tests/examples/kill_points.py [--points 200] [--seed 1] [--cut]

A point lies before or after a commit of the store, a call in the sandbox, or a booking of the payment provider. With
`--cut`, the last bytes of the store's write-ahead log are lost as well, as when the power fails. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import sqlite3
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import torch
from retail_checkout.agent import agent as shop_agent
from retail_checkout.payments import Ledger, payment_service
from retail_checkout.tasks import State, Task, check, end_state
from retail_checkout.tools import TOOLS

import g4agent.planner
from g4agent import Agent, Sampling
from g4agent.gemma4.grammar import call_grammar
from g4agent.store import Store
from g4agent.store.database import Database
from g4agent_torch import load

KINDS = (
    "buy_one",
    "buy_to_a_new_address",
    "buy_with_gift_card",
    "cancel_pending",
    "return_everything",
    "declined_card",
)
MOST_TICKS = 10_000


class Bomb:
    """Counts the points that a run passes, and kills the process at the chosen one."""

    def __init__(self, at: int) -> None:
        self.at, self.passed = at, 0

    def tick(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        """Puts a point before and after everything that must not be lost or done twice."""
        writing, tick = Database.writing, self.tick

        @contextmanager
        def counted_writing(database: Database) -> Iterator[Any]:
            tick()
            with writing(database) as db:
                yield db
            tick()

        Database.writing = counted_writing  # type: ignore[method-assign]
        for name in ("execute", "reconcile"):
            setattr(g4agent.planner, name, self._around(getattr(g4agent.planner, name)))
        for name in ("charge", "refund"):
            setattr(Ledger, name, self._around_sync(getattr(Ledger, name)))

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*args: Any) -> Any:
            self.tick()
            done = await function(*args)
            self.tick()
            return done

        return counted

    def _around_sync(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            done = function(*args, **kwargs)
            self.tick()
            return done

        return counted


def in_child(body: Callable[[], int]) -> int | None:
    """Runs the body in a fork; its exit code, or None where it was killed."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = body()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the run ended with {status}"
    return status if status >= 0 else None


def agent_for(task: Task, runtime: Any, folder: Path) -> Agent:
    """The shop's agent in the task's shop, its payment provider's ledger beside the store."""
    start = (folder / "first.db").read_bytes()

    def provider(session_folder: Path, seed: int) -> Any:
        return payment_service(Ledger(folder / "payments.db"))

    return shop_agent.replace(
        model=runtime,
        store=folder / "store.db",
        workspace=lambda seed: {"shop.db": start},
        services=[provider],
        sampling=Sampling(temperature=0),
        budget=replace(shop_agent.budget, steps=12, step_tokens=256),
    )


def set_up(task: Task, folder: Path) -> None:
    """The task's shop, and the payment provider with the past orders' payments."""
    with closing(Ledger(folder / "payments.db")) as ledger:
        (folder / "first.db").write_bytes(task.start(ledger).connection.serialize())


def take_up(task: Task, runtime: Any, folder: Path, bomb: Bomb) -> int:
    """Begins the task's session, or goes on with it; 0 where it is over."""
    bomb.arm()

    async def run() -> None:
        agent = agent_for(task, runtime, folder)
        store = await agent.open_store()
        assert store is not None
        stored = store.list_sessions()
        begun = [s.id for s in stored if s.steps > 0]
        if begun and not store.session(begun[0]).interrupted:
            await agent.aclose()
            return
        async with agent.session(begun[0] if begun else None) as session:
            result = await session.run(None if begun else task.build().prompt)
            (folder / "answer").write_text(result.answer)
        await agent.aclose()

    anyio.run(run)
    (folder / "ticks").write_text(str(bomb.passed))
    return 0


def finished(folder: Path) -> State:
    """The end state of shop and ledger, from the workspace as the store has it."""
    with opened(folder) as (shop, ledger):
        return end_state(shop, ledger)


@contextmanager
def opened(folder: Path) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """The shop's database and the ledger's."""
    with Store.open(folder / "store.db") as store:
        workspace = store.workspace(next(s.id for s in store.list_sessions() if s.steps > 0))
    assert workspace is not None
    with tarfile.open(fileobj=io.BytesIO(workspace)) as tar:
        member = tar.extractfile(next(m for m in tar if m.name.endswith("shop.db")))
        assert member is not None
        data = member.read()
    with closing(sqlite3.connect(":memory:")) as shop, closing(Ledger(folder / "payments.db")) as ledger:
        shop.deserialize(data)
        yield shop, ledger.connection


def cut_the_log(folder: Path, rng: random.Random) -> None:
    """Loses the last bytes of the write-ahead log."""
    log = folder / "store.db-wal"
    if log.exists() and (size := log.stat().st_size):
        os.truncate(log, max(0, size - rng.randint(1, 6000)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the points")
    parser.add_argument("--cut", action="store_true")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    runtime = load("nano")
    assert runtime.accepts_grammar(call_grammar(TOOLS).text)  # compiled once, before the forks
    rng, counts = random.Random(options.seed), Counter[str]()
    expected: dict[str, tuple[State, int]] = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            task, folder = Task(kind, 0), Path(name)
            set_up(task, folder)
            assert in_child(partial(take_up, task, runtime, folder, Bomb(0))) == 0
            judged = _judge(task, folder)
            assert judged, f"nano does not do {task.name} undisturbed"
            expected[kind] = finished(folder), int((folder / "ticks").read_text())
    for _ in range(options.points):
        kind = rng.choice(KINDS)
        state, ticks = expected[kind]
        with tempfile.TemporaryDirectory() as name:
            task, folder = Task(kind, 0), Path(name)
            set_up(task, folder)
            at = rng.randint(1, ticks)
            for attempt in range(6):
                bomb = Bomb(at if attempt == 0 else rng.randint(1, 2 * ticks) if attempt < 3 else MOST_TICKS)
                if in_child(partial(take_up, task, runtime, folder, bomb)) == 0:
                    break
                counts["kills"] += 1
                with Store.open(folder / "store.db") as store:
                    counts["unreadable"] += not all(store.steps(s.id) is not None for s in store.list_sessions())
                if options.cut:
                    cut_the_log(folder, rng)
            counts["points"] += 1
            if (found := finished(folder)) != state:
                counts["other end state"] += 1
                print(f"{task.name}, killed first at {at} of {ticks}: {_difference(state, found)}", file=sys.stderr)
    print(json.dumps(dict.fromkeys(("unreadable", "other end state"), 0) | dict(counts)))
    return 1 if counts["unreadable"] or counts["other end state"] else 0


def _difference(expected: State, found: State) -> dict[str, Any]:
    return {
        table: {"lacks": list(expected[table] - found[table]), "has": list(found[table] - expected[table])}
        for table in expected
        if expected[table] != found[table]
    }


def _judge(task: Task, folder: Path) -> bool:
    with opened(folder) as (shop, ledger):
        return check(task, shop, ledger, (folder / "answer").read_text()).passed


if __name__ == "__main__":
    sys.exit(main())
