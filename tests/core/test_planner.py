"""The planner loop with a scripted model: every ending leaves one result per call and a well-formed transcript."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing

import anyio
import pytest

from g4agent import Agent, Budget, Outcome, Policy, Rule, tool
from g4agent.events import (
    CallReady,
    Event,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from g4agent.messages import ToolCall, ToolResult
from g4agent.testing import Reply, ScriptedModel, call, calls, say
from g4agent.tools import Tool

pytestmark = pytest.mark.anyio

RAN: list[str] = []


@tool(where="host", effect="pure")
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    RAN.append(f"add {a} {b}")
    return a + b


@tool(where="host")
async def pay(amount: int) -> dict[str, int]:
    """Pays an amount."""
    RAN.append(f"pay {amount}")
    return {"paid": amount}


@tool(where="host")
def fail() -> str:
    """Always fails."""
    raise RuntimeError("no such luck")


@tool(where="host", timeout=0.05)
async def hang() -> str:
    """Never returns."""
    await anyio.sleep_forever()
    return "never"


@tool(where="host")
async def nap(seconds: float) -> float:
    """Sleeps."""
    await anyio.sleep(seconds)
    return seconds


TOOLS = [add, pay, fail, hang, nap]


def agent(script: Sequence[Reply], **settings: object) -> tuple[Agent, ScriptedModel]:
    RAN.clear()
    model = ScriptedModel(script)
    return Agent(**{"model": model, "tools": TOOLS, "store": False, **settings}), model  # type: ignore[arg-type]


async def test_the_events_of_a_run_come_in_order() -> None:
    """If the loop skipped, doubled or reordered an event, every consumer (CLI, viewer, JSONL) would be wrong."""
    runner, model = agent([call("add", a=1, b=2), say("It is 3.")])
    events = [event async for event in runner.stream("What is 1 + 2?")]
    kinds = [type(e) for e in events if not isinstance(e, TextDelta)]
    step = [StepStarted, CallReady]
    assert [k.__name__ for k in kinds] == [k.__name__ for k in [RunStarted, *step]] + [
        "GenerationFinished",
        "ToolStarted",
        "ToolFinished",
        "StepFinished",
        "StepStarted",
        "GenerationFinished",
        "StepFinished",
        "RunFinished",
    ]
    assert isinstance(events[-1], RunFinished)
    assert (events[-1].verdict.outcome, events[-1].answer, events[-1].steps) == (Outcome.DONE, "It is 3.", 2)
    assert model.results == [ToolResult("s1c0", "add", 3)]
    model.assert_complete()


async def test_run_returns_what_stream_showed() -> None:
    """`run` must be the same path as `stream`, not a second implementation."""
    runner, _ = agent([calls(call("add", a=1, b=2), call("pay", amount=5)), say("Done.")])
    result = await runner.run("Go")
    assert result.verdict.ok and result.answer == "Done." and result.steps == 2
    assert [r.value for r in result.results] == [3, {"paid": 5}]


def test_the_sync_api_wraps_the_async_one() -> None:
    """Scripts without an event loop need the same results and the same events."""
    runner, _ = agent([call("add", a=2, b=2), say("4")])
    assert runner.run_sync("2 + 2?").answer == "4"
    runner, _ = agent([call("add", a=2, b=2), say("4")])
    assert isinstance(list(runner.stream_sync("2 + 2?"))[-1], RunFinished)


async def test_parallel_calls_run_in_parallel() -> None:
    """Calls that the model makes at once must not wait for each other."""
    runner, model = agent([calls(*(call("nap", seconds=0.2) for _ in range(5))), say("Rested.")])
    started = time.monotonic()
    await runner.run("Sleep")
    assert time.monotonic() - started < 0.8
    assert [r.call_id for r in model.results] == [f"s1c{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (call("subtract", a=1, b=2), "unknown_tool", "there is no tool called subtract"),
        (call("add", a="one", b=2), "invalid_arguments", "a"),
        (call("add", a=1), "invalid_arguments", "b"),
        (call("fail"), "exception", "RuntimeError: no such luck"),
        (call("hang"), "timeout", "no result after 0.05 s"),
    ],
)
async def test_a_call_that_goes_wrong_is_answered_with_an_error(reply: Reply, kind: str, message: str) -> None:
    """A model must see what it did wrong; a run must not end, nor lose the result, because of one bad call."""
    runner, model = agent([reply, say("Sorry.")])
    result = await runner.run("Go")
    assert result.verdict.ok
    (error,) = [r.error for r in model.results]
    assert error is not None and error.kind == kind and message in error.message


async def test_an_invalid_call_beside_a_valid_one_does_not_stop_it() -> None:
    """Each call stands for itself, and results keep the order of the calls."""
    runner, model = agent([calls(call("add", a="x", b=1), call("add", a=1, b=1)), say("2")])
    await runner.run("Go")
    assert [r.error is None for r in model.results] == [False, True]
    assert RAN == ["add 1 1"]


async def test_errors_in_a_row_end_the_run() -> None:
    """A model stuck on a broken call must end with a typed verdict, not loop until the step budget."""
    runner, _ = agent([call("nope")] * 10, budget=Budget(consecutive_errors=3))
    result = await runner.run("Go")
    assert (result.verdict.outcome, result.steps) == (Outcome.TOO_MANY_ERRORS, 3)


async def test_a_success_resets_the_error_count() -> None:
    """Recovering from an error is normal: only errors in a row count."""
    runner, _ = agent(
        [call("nope"), call("add", a=1, b=1), call("nope"), call("add", a=1, b=1), say("ok")],
        budget=Budget(consecutive_errors=2),
    )
    assert (await runner.run("Go")).verdict.ok


async def test_budgets_end_the_run_with_a_typed_verdict() -> None:
    """Steps and time are hard caps, and the verdict says which one it was."""
    runner, _ = agent([call("add", a=1, b=1)] * 10, budget=Budget(steps=4))
    result = await runner.run("Go")
    assert result.verdict.outcome is Outcome.BUDGET and "step budget" in result.verdict.reason and result.steps == 4
    runner, _ = agent([call("nap", seconds=30)], budget=Budget(wall_seconds=0.1, consecutive_errors=9))
    result = await runner.run("Go")
    assert result.verdict.outcome is Outcome.BUDGET and "time budget" in result.verdict.reason


async def test_policy_denies_asks_and_allows() -> None:
    """What the policy denies must not run, and the model must be told; `ask` without anyone to ask means no."""
    policy = Policy((Rule("deny", tool="pay"), Rule("ask", tool="add")))
    runner, model = agent([calls(call("pay", amount=1), call("add", a=1, b=1)), say("ok")], policy=policy)
    result = await runner.run("Go")
    assert RAN == [] and result.verdict.ok
    assert [r.error.kind for r in model.results if r.error] == ["denied", "denied"]

    asked: list[str] = []

    async def approve(request: ToolCall, tool: Tool, reason: str) -> bool:
        asked.append(f"{tool.name}: {reason}")
        return True

    runner, model = agent([call("add", a=1, b=1), say("2")], policy=policy, approve=approve)
    await runner.run("Go")
    assert RAN == ["add 1 1"] and asked == ["add: the policy asks about this tool"]


async def test_cancelling_during_a_call_still_gives_every_call_a_result() -> None:
    """A stopped run must leave a transcript in which each call is answered, or it could never be resumed."""
    runner, model = agent([calls(call("add", a=1, b=1), call("nap", seconds=30)), say("never")])
    seen: list[Event] = []

    async def consume() -> None:
        async for event in runner.stream("Go"):
            seen.append(event)

    with anyio.move_on_after(0.3):
        await consume()
    assert any(isinstance(e, ToolStarted) for e in seen) and not any(isinstance(e, ToolFinished) for e in seen)
    assert [(r.value, r.error.kind if r.error else None) for r in model.results] == [(2, None), (None, "cancelled")]


async def test_leaving_the_event_loop_early_stops_before_the_call_runs() -> None:
    """`break` in `async for` is a stop: nothing runs afterwards, and the announced call gets a result."""
    runner, model = agent([call("pay", amount=7), say("never")])
    async with aclosing(runner.stream("Go")) as events:
        async for event in events:
            if isinstance(event, ToolStarted):
                break
    assert RAN == []
    assert [r.error.kind for r in model.results if r.error] == ["cancelled"]


async def test_an_empty_turn_is_not_a_success() -> None:
    """A model that says nothing and does nothing must not look like a finished run."""
    runner, _ = agent([say("")])
    assert (await runner.run("Go")).verdict.outcome is Outcome.NO_ANSWER


async def test_a_session_takes_several_turns() -> None:
    """Chat: one conversation, one box, counters per run."""
    runner, model = agent([say("Hi."), call("add", a=1, b=1), say("2")])
    async with runner.session() as session:
        first, second = await session.run("Hello"), await session.run("1 + 1?")
    assert (first.answer, second.answer, second.steps) == ("Hi.", "2", 2)
    assert model.prompts == ["Hello", "1 + 1?"]
    assert isinstance(second.session_id, str) and first.session_id == second.session_id


async def test_every_step_reports_its_usage() -> None:
    """StepFinished closes each step, so that a viewer can show time and tokens per step."""
    runner, _ = agent([call("add", a=1, b=1), say("2")])
    finished = [e async for e in runner.stream("Go") if isinstance(e, StepFinished)]
    assert [e.step for e in finished] == [1, 2]
