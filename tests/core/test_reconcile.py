"""Interrupted calls: the same key goes to the same call, and a tool that can find out is asked instead of a person."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from g4agent import Agent, call_key, tool
from g4agent.errors import ConfigError, ToolDefinitionError
from g4agent.store import Store
from g4agent.testing import ScriptedRuntime
from g4agent.tools import Tool

pytestmark = pytest.mark.anyio

PAY = "<|tool_call>call:pay{amount:1}<tool_call|><|tool_response>"
BOOK = Path("unset")


def find_payment(key: str) -> str | None:
    """Looks in the book."""
    lines = BOOK.read_text().splitlines() if BOOK.exists() else []
    if "unreadable" in lines:
        raise OSError("the book is wet")
    return "paid before" if any(line.startswith(f"{key} paid") for line in lines) else None


@tool(effect="once", where="host", reconcile=find_payment)
def pay(amount: int) -> str:
    """Pays, and dies the first time before it says so."""
    first = not BOOK.exists()
    with BOOK.open("a") as book:
        book.write(f"{call_key()} {'paid' if os.environ.get('TEST_PAYS') or not first else 'begun'}\n")
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return "paid"


def killed_run(place: Path) -> None:
    """Runs the agent in a child that its own tool kills."""
    child = os.fork()
    if child == 0:
        try:
            Agent(model=ScriptedRuntime([PAY]), tools=[pay], store=place).run_sync("Pay 1")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture
async def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A store in which a payment was interrupted: after it was made (parameter True), or before."""
    monkeypatch.setitem(globals(), "BOOK", tmp_path / "book")
    if request.param:
        monkeypatch.setenv("TEST_PAYS", "1")
    await anyio.to_thread.run_sync(killed_run, tmp_path / "store.db")
    return tmp_path / "store.db"


async def resumed(place: Path) -> tuple[str | None, str | None]:
    """Value and error of the call once the session is taken up; nobody can be asked."""
    with Store.open(place) as store:
        (summary,) = await anyio.to_thread.run_sync(store.list_sessions)
        result = await Agent(model=ScriptedRuntime(["Fine.<turn|>"]), tools=[pay], store=store).resume(summary.id)
        (got,) = result.results
        return got.value, got.error.message if got.error else None  # type: ignore[return-value]


@pytest.mark.parametrize("killed", [True], indirect=True)
async def test_what_was_done_is_not_done_again(killed: Path) -> None:
    """Exactly once, without a person: the book says that the money has moved."""
    assert await resumed(killed) == ("paid before", None)
    assert len(BOOK.read_text().splitlines()) == 1


@pytest.mark.parametrize("killed", [False], indirect=True)
async def test_what_was_not_done_is_done_under_the_same_key(killed: Path) -> None:
    """The key is how the other side recognises the second attempt."""
    assert await resumed(killed) == ("paid", None)
    first, second = BOOK.read_text().splitlines()
    assert first.split()[0] == second.split()[0] and [first.split()[1], second.split()[1]] == ["begun", "paid"]


@pytest.mark.parametrize("killed", [False], indirect=True)
async def test_where_it_cannot_be_found_out_nothing_runs(killed: Path) -> None:
    """An error while finding out is no licence to pay."""
    BOOK.write_text(BOOK.read_text() + "unreadable\n")
    value, error = await resumed(killed)
    assert value is None and error is not None and "cannot be found out: OSError: the book is wet" in error
    assert len(BOOK.read_text().splitlines()) == 2


async def test_keys_differ_by_session_call_and_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two payments of the same amount are two payments."""
    monkeypatch.setitem(globals(), "BOOK", tmp_path / "book")
    BOOK.write_text("")
    twice = "<|tool_call>call:pay{amount:1}<tool_call|><|tool_call>call:pay{amount:1}<tool_call|><|tool_response>"
    for _ in range(2):
        await Agent(model=ScriptedRuntime([twice, "Done.<turn|>"]), tools=[pay], store=False).run("Pay")
    assert len(set(BOOK.read_text().splitlines())) == 4


def test_outside_a_call_there_is_no_key() -> None:
    """A constant key would make every payment but the first a repeat."""
    with pytest.raises(ConfigError, match="no tool call is running"):
        call_key()


def test_a_reconciler_takes_the_key_and_nothing_else() -> None:
    """A wrong signature must show at definition, not after a crash."""

    def wrong(order: str) -> None:
        """Looks."""

    def made() -> Tool:
        return tool(where="host", reconcile=wrong)(lambda_free)

    with pytest.raises(ToolDefinitionError, match="must be `key`"):
        made()


def lambda_free(amount: int) -> str:
    """Pays."""
    return "paid"


@pytest.mark.parametrize("killed", [True], indirect=True)
async def test_a_copy_of_the_session_asks_with_the_key_of_then(killed: Path, tmp_path: Path) -> None:
    """A fork and an import under another id would look for a payment of their own, find none, and pay twice."""
    with Store.open(killed) as store:
        (summary,) = store.list_sessions()
        store.export_session(summary.id, tmp_path / "session.g4")
        for copy in (store.fork(summary.id), store.import_session(tmp_path / "session.g4")):
            model = ScriptedRuntime(["Fine.<turn|>"])
            result = await Agent(model=model, tools=[pay], store=store).resume(copy)
            assert [r.value for r in result.results] == ["paid before"]
    assert len(BOOK.read_text().splitlines()) == 1
