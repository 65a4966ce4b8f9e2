"""After a crash between a call's start and its step's commit, the very same generation is taken up."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from g4agent import Agent, tool
from g4agent.errors import SessionBusyError
from g4agent.messages import ToolCall
from g4agent.store import Store
from g4agent.testing import ScriptedRuntime
from g4agent.tools import Tool

pytestmark = pytest.mark.anyio

PAY_ONE = "<|tool_call>call:pay{amount:1}<tool_call|><|tool_response>"
PAY_TWO = "<|tool_call>call:pay{amount:2}<tool_call|><|tool_response>"
BOOK = Path("unset")


@tool(effect="once", where="host")
def pay(amount: int) -> str:
    """Pays; the first time, the process dies before it can say so."""
    first = not BOOK.exists()
    with BOOK.open("a") as book:
        book.write(f"{amount}\n")
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return "paid"


def killed_run(place: Path) -> None:
    """Runs the agent in a child that its own tool kills."""
    child = os.fork()
    if child == 0:
        try:
            Agent(model=ScriptedRuntime([PAY_ONE]), tools=[pay], store=place).run_sync("Pay 1")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


async def test_a_call_that_a_crash_interrupted_is_not_worded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampled anew, the call might ask for 2, which nobody would recognise as the payment that may have been made."""
    monkeypatch.setitem(globals(), "BOOK", tmp_path / "book")
    await anyio.to_thread.run_sync(killed_run, tmp_path / "store.db")
    assert BOOK.read_text() == "1\n"
    asked: list[ToolCall] = []

    async def refuse(call: ToolCall, tool: Tool, reason: str) -> bool:
        assert "outcome is unknown" in reason
        asked.append(call)
        return False

    with Store.open(tmp_path / "store.db") as store:
        (summary,) = store.list_sessions()
        assert store.generation(summary.id, 1) is not None
        model = ScriptedRuntime(["I asked.<turn|>", PAY_TWO])
        result = await Agent(model=model, tools=[pay], store=store, approve=refuse).resume(summary.id)
        assert [(call.name, call.arguments) for call in asked] == [("pay", {"amount": 1})]
        assert result.verdict.ok and result.answer == "I asked." and BOOK.read_text() == "1\n"
        expected = ScriptedRuntime([]).ids(PAY_ONE)
        transcript = store.transcript(summary.id)
        assert any(transcript[i : i + len(expected)] == expected for i in range(len(transcript)))
        assert store.leases.holder(summary.id) is None


async def test_a_session_that_is_open_cannot_be_opened_again(tmp_path: Path) -> None:
    """A second `resume`, in another terminal, must be told so before it does anything."""
    with Store.open(tmp_path / "store.db") as store, Store.open(tmp_path / "store.db") as other:
        async with Agent(model=ScriptedRuntime(["Hi.<turn|>"]), store=store).session() as session:
            await session.run("Hello")
            with pytest.raises(SessionBusyError):
                await Agent(model=ScriptedRuntime([]), store=other).resume(session.id, "And?")
        result = await Agent(model=ScriptedRuntime(["Yes.<turn|>"]), store=other).resume(session.id, "And?")
        assert result.answer == "Yes."
