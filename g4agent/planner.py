"""The planner loop: generate → parse → validate → decide → journal → execute → append → checkpoint.

`plan` drives one user turn of a session and yields everything that happens. Whatever ends it (answer, budget, error,
cancellation), every call has got its one result, the transcript is well formed, and each finished step is committed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import anyio
from pydantic import TypeAdapter, ValidationError

from g4agent.budget import Spending
from g4agent.call_keys import make_key
from g4agent.context.window import make_room
from g4agent.errors import ContextOverflowError
from g4agent.events import (
    ApprovalAsked,
    CallMalformed,
    CallReady,
    CallSignals,
    Event,
    GenerationFinished,
    RunContinued,
    RunPaused,
    StepFinished,
    StepStarted,
    TextDelta,
    ThoughtDelta,
    ToolFinished,
    ToolStarted,
    Usage,
    UserSpoke,
)
from g4agent.execute import Execution, execute, reconcile, refused
from g4agent.messages import ToolCall, ToolError, ToolResult
from g4agent.permission import Denied, Waiting
from g4agent.ports.runtime import GenerationLimits
from g4agent.session import Session
from g4agent.store.records import CallRecord
from g4agent.stuck import Circles
from g4agent.tools import InvalidArguments, Tool
from g4agent.verdict import Outcome, Verdict

INTERRUPTED = Verdict(Outcome.INTERRUPTED, "the run was stopped; it can be resumed")
STOPPED = Verdict(Outcome.INTERRUPTED, "somebody ordered the run to stop; it can be resumed")
FULL = Verdict(
    Outcome.CONTEXT_FULL,
    "the context window is full, and nothing more can be taken out: go on in a new session, or load the model with a "
    "larger context_length",
)
POLL_SECONDS = 0.05
"""How often a paused run, or one whose tools are at work, looks for orders."""


@dataclass(slots=True)
class Turn:
    """What a user turn comes to; filled in while `plan` runs. Without a verdict it is still going on."""

    spending: Spending
    verdict: Verdict | None = None
    answer: str = ""
    results: list[ToolResult] = field(default_factory=list)
    circles: Circles | None = None

    def __post_init__(self) -> None:
        repeats = self.spending.budget.repeats
        self.circles = None if repeats is None else Circles(repeats)


@dataclass(slots=True)
class Step:
    """One model generation and what came of its calls."""

    index: int
    calls: list[ToolCall] = field(default_factory=list)
    admitted: list[tuple[ToolCall, Tool]] = field(default_factory=list)
    started: dict[str, datetime] = field(default_factory=dict)
    """By call id, the calls that began to run."""
    executions: dict[str, Execution] = field(default_factory=dict)
    """By call id. A call that may not run gets its execution, an error, before the others start."""
    waiting: list[ApprovalAsked] = field(default_factory=list)
    """Calls that nobody has answered for yet; where there is one, no call of the step runs."""
    earlier: dict[str, CallRecord] = field(default_factory=dict)
    """By call id, attempts at the very call whose outcome has to be found out first."""
    answered: list[str] = field(default_factory=list)
    """Stored questions whose answers the calls of this step were given."""
    signals: dict[str, CallSignals] = field(default_factory=dict)
    repairs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By call id."""
    text: str = ""
    thoughts: str = ""
    usage: Usage = field(default_factory=Usage)
    finished: GenerationFinished | None = None
    failure: Verdict | None = None
    """Set where the calls could not be run at all."""


async def plan(session: Session, turn: Turn) -> AsyncGenerator[Event, None]:
    """Runs the tool loop of the present user turn until the turn has a verdict."""
    while turn.verdict is None:
        async with aclosing(obey(session, turn)) as events:
            async for event in events:
                yield event
        if turn.verdict is not None:
            return
        async with aclosing(reduce(session, turn)) as events:
            async for event in events:
                yield event
        step = Step(session.next_step)
        yield StepStarted(step.index)

        async with undone_if_unfinished(session, turn, step), aclosing(generate(session, turn, step)) as events:
            async for event in events:
                yield event
        if step.finished is None:
            return

        try:
            for call in step.calls:
                await admit(session, step, call)
            if not step.waiting:
                for call, tool in step.admitted:
                    yield ToolStarted(call, tool.where)
                await session.permissions.settle(step.answered)
                await session.journal(step.index, step.admitted)
                await execute_admitted(session, turn, step)
        except Exception as problem:
            step.failure = Verdict(Outcome.INFRASTRUCTURE, f"{type(problem).__name__}: {problem}")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await (suspend if step.waiting else checkpoint)(session, turn, step)

        for question in step.waiting:
            yield question
        if step.waiting:
            return
        for execution in step.executions.values():
            yield ToolFinished(execution.result, execution.seconds, execution.output, execution.degraded)
        yield StepFinished(step.index, step.usage, session.window.ledger)


async def obey(session: Session, turn: Turn) -> AsyncGenerator[Event, None]:
    """Does between two steps what other processes have ordered: waits, passes on what is said, or ends the turn."""
    inbox = session.inbox
    if inbox.paused:
        yield RunPaused()
        began = time.monotonic()
        await _until(lambda: inbox.stopping or not inbox.paused)
        turn.spending.started += time.monotonic() - began
        yield RunContinued()
    if inbox.stopping:
        turn.verdict = STOPPED
        await session.end_turn(turn.verdict)
        return
    for text in inbox.take_said():
        async with aclosing(reduce(session, turn, text)) as events:
            async for event in events:
                yield event
        try:
            turn.spending.usage += await session.say(text)
        except ContextOverflowError as problem:
            turn.verdict = Verdict(
                Outcome.CONTEXT_FULL, f"what was said does not fit in the context: {problem.message}"
            )
            await session.end_turn(turn.verdict)
            return
        yield UserSpoke(text)


async def reduce(session: Session, turn: Turn, text: str | None = None) -> AsyncGenerator[Event, None]:
    """Makes room in the context where it runs out, with a user turn to come or without."""
    try:
        async with aclosing(make_room(session, text)) as events:
            async for event in events:
                turn.spending.usage += event.usage
                yield event
    except BaseException as problem:
        failed = isinstance(problem, Exception)
        turn.verdict = Verdict(Outcome.MODEL_ERROR, f"{type(problem).__name__}: {problem}") if failed else INTERRUPTED
        with anyio.CancelScope(shield=True):
            await session.end_turn(turn.verdict)
        raise


async def generate(session: Session, turn: Turn, step: Step) -> AsyncGenerator[Event, None]:
    """One model step. Leaves `step.finished` unset where the time budget runs out before the model is done."""
    spending, started, before = turn.spending, time.monotonic(), session.conversation.usage
    limits = GenerationLimits(spending.step_tokens_left(), spending.thought_tokens_left(), session.sampling)
    async with aclosing(session.conversation.generate(step.index, limits)) as events:
        async for event in events:
            match event:
                case TextDelta(text):
                    step.text += text
                case ThoughtDelta(text):
                    step.thoughts += text
                case CallReady(call, repairs, signals):
                    step.calls.append(call)
                    step.repairs[call.id] = repairs
                    if signals is not None:
                        step.signals[call.id] = signals
                case CallMalformed(call, error=error):
                    step.calls.append(call)
                    step.executions[call.id] = refused(call, error)
                case GenerationFinished():
                    step.finished = event
            step.usage = replace(session.conversation.usage - before, seconds=time.monotonic() - started)
            yield event
            if step.finished is None and (spending.seconds_left() == 0 or session.inbox.stopping):
                return


@asynccontextmanager
async def undone_if_unfinished(session: Session, turn: Turn, step: Step) -> AsyncIterator[None]:
    """Takes back a generation that did not finish, and ends the turn: by its time budget, a stop or an error."""
    verdict: Verdict | None = None
    try:
        yield
        if step.finished is None:
            verdict = STOPPED if session.inbox.stopping else turn.spending.exhausted()
    except Exception as problem:
        verdict = Verdict(Outcome.MODEL_ERROR, f"{type(problem).__name__}: {problem}")
        raise
    except BaseException:  # cancelled, or the consumer of the events left
        verdict = INTERRUPTED
        raise
    finally:
        if verdict is not None:
            turn.verdict = verdict
            turn.spending.usage += step.usage
            with anyio.CancelScope(shield=True):
                await session.conversation.rewind()
                await session.end_turn(verdict)


async def admit(session: Session, step: Step, call: ToolCall) -> None:
    """Validates a call and lets the policy decide: it is admitted, or has its error as its execution."""
    if call.id in step.executions:
        return
    tool = session.tools.get(call.name)
    if tool is None:
        known = ", ".join(session.tools) or "none"
        error = ToolError("unknown_tool", f"there is no tool called {call.name}; the tools are: {known}")
    else:
        try:
            tool.validate(call.arguments)
        except InvalidArguments as problem:
            error = ToolError("invalid_arguments", str(problem))
        else:
            if tool is session.window.reader:  # gives what the session was given already
                step.admitted.append((call, tool))
                return
            taken = [*step.answered, *(asked.question for asked in step.waiting)]
            signals = step.signals.get(call.id)
            permission = await session.permissions.decide(call, tool, signals, taken, step.admitted)
            if isinstance(permission, Waiting):
                step.waiting.append(ApprovalAsked(permission.question, call, permission.reason))
                return
            if permission.question is not None:
                step.answered.append(permission.question)
            if not isinstance(permission, Denied):
                if permission.earlier is not None:
                    step.earlier[call.id] = permission.earlier
                step.admitted.append((call, tool))
                return
            error = ToolError("denied", permission.reason)
    step.executions[call.id] = refused(call, error)


async def execute_admitted(session: Session, turn: Turn, step: Step) -> None:
    """Runs the admitted calls in parallel. Where the run is stopped, those that had finished keep their results."""
    box = await session.open_box() if any(tool.where == "sandbox" for _, tool in step.admitted) else None

    async def run_one(call: ToolCall, tool: Tool) -> None:
        timeout = session.timeout(tool, turn.spending.seconds_left())
        step.started[call.id] = datetime.now(UTC)
        earlier = step.earlier.get(call.id)
        maker = earlier.made_in if earlier and earlier.made_in else session.id
        key = make_key(maker, earlier.call_id if earlier else call.id, call.name, call.arguments)
        run = execute if earlier is None else reconcile
        with session.running(call):
            step.executions[call.id] = await run(call, tool, box, timeout, session.secrets, key)

    async def stop_when_ordered() -> None:
        await _until(lambda: session.inbox.stopping)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as watch:
        watch.start_soon(stop_when_ordered)
        async with anyio.create_task_group() as group:
            for call, tool in step.admitted:
                group.start_soon(run_one, call, tool)
        watch.cancel_scope.cancel()


async def suspend(session: Session, turn: Turn, step: Step) -> None:
    """Ends the turn before any call of the step runs. Taken up again, it begins with this very generation."""
    calls = "a call waits" if len(step.waiting) == 1 else f"{len(step.waiting)} calls wait"
    questions = ", ".join(asked.question for asked in step.waiting)
    turn.verdict = Verdict(Outcome.AWAITING_APPROVAL, f"{calls} for a person's word: {questions}")
    turn.spending.usage += step.usage
    await session.suspend(step.index, turn.verdict)


async def _until(condition: Callable[[], bool]) -> None:
    """Waits for something that another thread brings about."""
    while not condition():  # noqa: ASYNC110 - an anyio.Event belongs to one thread
        await anyio.sleep(POLL_SECONDS)


async def checkpoint(session: Session, turn: Turn, step: Step) -> None:
    """Gives every call its result, appends the results to the transcript, and commits the step with its verdict."""
    for call in step.calls:
        if call.id not in step.executions:
            stopped = refused(call, ToolError("cancelled", "stopped before there was a result"))
            step.executions[call.id] = replace(stopped, started=step.started.get(call.id))
    step.executions = {call.id: step.executions[call.id] for call in step.calls}
    results = [execution.result for execution in step.executions.values()]
    if results:
        before = session.conversation.usage
        images = {id: execution.images for id, execution in step.executions.items() if execution.images}
        answered = session.conversation.add_results(results, images if session.model.sees_images else None)
        seen = session.window.whole(results, await answered)
        step.usage += session.conversation.usage - before
        step.executions = {r.call_id: replace(step.executions[r.call_id], result=r) for r in seen}
        results = list(seen)
    turn.results += results
    turn.spending.add_step(step.usage, results)
    turn.verdict, turn.answer = judge(turn, step, session.output)
    await session.commit_step(step, turn.verdict)


def judge(turn: Turn, step: Step, output: TypeAdapter[Any] | None) -> tuple[Verdict | None, str]:
    """The verdict and answer after a step; no verdict where the loop goes on."""
    assert step.finished is not None
    if step.failure is not None:
        return step.failure, ""
    if step.calls:
        if any(e.result.error is not None and e.result.error.kind == "cancelled" for e in step.executions.values()):
            return INTERRUPTED, ""
        results = [execution.result for execution in step.executions.values()]
        circle = turn.circles and turn.circles.see(step.calls, results)
        return turn.spending.exhausted() or (Verdict(Outcome.STUCK, circle) if circle else None), ""
    answer = step.text.strip()
    match step.finished.reason:
        case "max_tokens":
            return Verdict(Outcome.CUT_OFF, "the answer was cut off at the step's token budget"), answer
        case "context_full":
            return FULL, answer
        case _ if not answer:
            return Verdict(Outcome.NO_ANSWER, "the model ended its turn without a call or an answer"), answer
        case _:
            return _fitting(answer, output), answer


def _fitting(answer: str, output: TypeAdapter[Any] | None) -> Verdict:
    """Done, where the answer is what the agent's user wants it to be."""
    if output is not None:
        try:
            output.validate_json(answer)
        except ValidationError as problem:
            return Verdict(Outcome.NO_ANSWER, f"the answer has not the wanted shape: {problem.errors()[0]['msg']}")
    return Verdict(Outcome.DONE)
