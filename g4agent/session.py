"""One session: a conversation, its box and its row in the store, kept in step with each other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, aclosing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio.to_thread

from g4agent.budget import Budget, Spending
from g4agent.egress.destinations import Destination
from g4agent.errors import BoxClosedError, ConversationError, ImageError
from g4agent.events import ContextReduced, Event, RunFinished, RunStarted, Usage
from g4agent.execute import call_record
from g4agent.image import Prompt, images_of, shown, text_of
from g4agent.inbox import Inbox
from g4agent.messages import ToolCall, ToolResult
from g4agent.permission import Permissions
from g4agent.ports.runtime import Conversation, ModelInfo, Sampling
from g4agent.ports.sandbox import Box, BoxSpec, LimitName, Limits, Sandbox
from g4agent.run_log import logged
from g4agent.secrets import Secrets
from g4agent.store.records import StepImage, StepRecord, placed
from g4agent.tools import Tool
from g4agent.toolset import ToolSet
from g4agent.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from g4agent.context.window import Window
    from g4agent.egress.service import Egress
    from g4agent.planner import Step, Turn
    from g4agent.recording import RecordingEngine
    from g4agent.run_trace import SessionTrace
    from g4agent.store import Store
    from g4agent.store.leases import Heartbeat

Service: TypeAlias = Callable[[Path, int], AbstractAsyncContextManager[Mapping[str, Path]]]
"""Something that runs outside the box while a session is open: given the session's folder on the host and the seed, it
yields {path in the box: unix socket on the host}."""

Workspace: TypeAlias = Callable[[int], Mapping[str, bytes] | bytes]
"""The files that a new session's workspace starts with, by relative path, or a snapshot to restore; made from the
session's seed."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to."""

    session_id: str
    verdict: Verdict
    answer: str
    usage: Usage
    steps: int
    results: tuple[ToolResult, ...] = ()
    """One per call, in order."""
    output: Any = None
    """The answer as the agent's `output` type, where it has one and the run is done."""


@dataclass(frozen=True, slots=True)
class BoxPlan:
    """How to open a session's box, once a call needs it."""

    sandbox: Callable[[], Sandbox]
    limits: Limits
    allow_degraded: frozenset[LimitName]
    workspace: Workspace | None
    services: tuple[Service, ...]
    folder: Path | None
    """The session's own folder on the host, for services; None where nothing is kept."""
    net: tuple[Destination, ...] = ()
    """Where the box's programs may connect to. Empty: it has no network at all."""


class Session:
    """Several user turns over one conversation, one box and one stored history. Made by `Agent.session`."""

    def __init__(
        self,
        *,
        id: str,
        model: ModelInfo,
        conversation: Conversation,
        window: Window,
        tools: ToolSet,
        box_plan: BoxPlan,
        store: Store | None,
        permissions: Permissions,
        budget: Budget,
        sampling: Sampling,
        thinking: bool,
        output: TypeAdapter[Any] | None = None,
    ) -> None:
        self.output = output
        """What an answer is; None: text."""
        self.id = id
        self.model = model
        self.conversation = conversation
        self.window = window
        """What the conversation's context is filled with."""
        self._tools = tools
        self.permissions = permissions
        self.budget = budget
        self.sampling = sampling
        self.thinking = thinking
        self.inbox = Inbox()
        """Orders from other processes."""
        self.next_step = 0
        self.interrupted = False
        """True while a user turn has begun and not ended: it can be taken up with `run(None)`."""
        self.recorder: RecordingEngine | None = None
        """Keeps the sampled tokens; None for a model that gives none."""
        self.secrets = Secrets()
        """Values that the tools name."""
        self.trace: SessionTrace | None = None
        """Telemetry, where it is wanted."""
        self.journaled = False
        """True while the store has the generation of the step under way."""
        self._heartbeat: Heartbeat | None = None
        self._box_plan = box_plan
        self._box: Box | None = None
        self._sockets: dict[str, Path] | None = None
        self._egress: Egress | None = None
        self._store = store
        self._resources = AsyncExitStack()
        if store is not None:
            from g4agent.store.leases import Heartbeat

            self._heartbeat = Heartbeat(store.leases, store.orders, id, self.inbox)

    @property
    def tools(self) -> ToolSet:
        """What may be called: the agent's tools, and from some time on the one that reads long results back."""
        return self.window.tools(self._tools)

    # The user's side --------------------------------------------------------------------------------------------------

    async def run(self, prompt: Prompt | None) -> RunResult:
        """One user turn to its end; `None` takes up a turn that was interrupted."""
        results: list[ToolResult] = []
        async with aclosing(self._run(prompt, results)) as events:
            async for event in events:
                last = event
        assert isinstance(last, RunFinished)
        done = self.output is not None and last.verdict.outcome is Outcome.DONE
        value = self.output.validate_json(last.answer) if self.output is not None and done else None
        return RunResult(self.id, last.verdict, last.answer, last.usage, last.steps, tuple(results), value)

    async def stream(self, prompt: Prompt | None) -> AsyncGenerator[Event, None]:
        """Like `run`, yielding everything that happens. Leaving the loop early stops the run at a well-formed place."""
        async with aclosing(self._run(prompt, [])) as events:
            async for event in events:
                yield event

    def _run(self, prompt: Prompt | None, results: list[ToolResult]) -> AsyncGenerator[Event, None]:
        events = logged(self._events(prompt, results), self.id)
        return events if self.trace is None else self.trace.watch(events)

    async def _events(self, prompt: Prompt | None, results: list[ToolResult]) -> AsyncGenerator[Event, None]:
        from g4agent.context.window import make_room
        from g4agent.planner import INTERRUPTED, Turn, plan

        turn, room = Turn(Spending(self.budget), results=results), list[ContextReduced]()
        if prompt is not None and images_of(prompt) and not self.model.sees_images:
            raise ImageError(
                f"{self.model.name} sees no images.",
                hint="Use a Gemma 4 checkpoint that has its vision part, or let a tool say what is in the picture.",
            )
        self.inbox.clear()
        if prompt is None:
            if not self.interrupted:
                raise ConversationError(f"session {self.id} has no interrupted run", hint="Give a prompt.")
            await self._take_up(turn)
        else:
            room = [event async for event in make_room(self, prompt)]
            turn.spending.usage += sum((event.usage for event in room), await self.say(prompt))
            self.interrupted = True
        yield RunStarted(self.id, self.model.name, shown(prompt or ""), self.thinking, self.sampling.seed)
        for reduced in room:
            yield reduced
        async with aclosing(plan(self, turn)) as events:
            async for event in events:
                for aside in self._asides():
                    yield aside
                yield event
        for aside in self._asides():
            yield aside
        usage, steps = turn.spending.used_here()
        yield RunFinished(self.id, turn.verdict or INTERRUPTED, turn.answer, usage, steps)

    async def _take_up(self, turn: Turn) -> None:
        """Goes on with the budget that was left, and with the very same generation where its calls were journaled."""
        from g4agent.recount import recount

        if self._store is None:
            return
        await self._in_thread(recount, turn, self._store, self.id)
        if self.recorder is None:
            return
        stored = await self._in_thread(self._store.generation, self.id, self.next_step)
        if stored is not None:
            self.recorder.play(stored)
            self.journaled = True

    async def initial_files(self) -> dict[str, bytes]:
        """The files that the workspace began with, by relative path."""
        from g4agent.project.entries import regular_files

        workspace = self._box_plan.workspace
        files = {} if workspace is None else await self._in_thread(workspace, self.sampling.seed)
        return regular_files(files) if isinstance(files, bytes) else dict(files)

    async def read_file(self, path: str) -> bytes:
        """A file of the workspace."""
        return await (await self.open_box()).read_file(path)

    async def close(self) -> None:
        """Ends the box and the services; what is stored stays."""
        with anyio.CancelScope(shield=True):
            try:
                await self._resources.aclose()
            finally:
                await self.conversation.close()
                if self._heartbeat is not None:
                    await self._in_thread(self._heartbeat.stop)

    # The planner's side -----------------------------------------------------------------------------------------------

    async def say(self, prompt: Prompt) -> Usage:
        """Begins a user turn and commits it. One that is still going on is closed; what it asked for is withdrawn."""
        before = self.conversation.usage if self.next_step else Usage()  # the first turn counts the system turn, too
        await self.conversation.add_user(prompt)
        used = self.conversation.usage - before
        await self.permissions.withdraw()
        self.journaled = False
        delta = self.conversation.take_delta()
        text, images = text_of(prompt), placed(prompt)
        await self.commit(StepRecord(self.next_step, "user", delta, used, text=text, images=images))
        return used

    async def open_box(self) -> Box:
        """The session's box, opened at its first use: services first, then the stored or the initial workspace."""
        if self._box is None:
            plan = self._box_plan
            sockets = await self._start_services()
            spec = BoxSpec(plan.limits, self._tools.source_roots, sockets, allow_degraded=plan.allow_degraded)
            if self._egress is not None:
                spec = replace(spec, ports=self._egress.ports, env=self._egress.environment)
            box = await plan.sandbox().open(spec)
            self._resources.push_async_callback(box.close)
            saved = await self._in_thread(self._store.workspace, self.id) if self._store else None
            if saved is not None:
                await box.restore(saved)
            elif plan.workspace is not None:
                files = plan.workspace(self.sampling.seed)
                if isinstance(files, bytes):
                    await box.restore(files)
                else:
                    for path, data in files.items():
                        await box.write_file(path, data)
            self._box = box
        return self._box

    async def _start_services(self) -> Mapping[str, Path]:
        """Sockets of the session's services, started once."""
        if self._sockets is None:
            sockets: dict[str, Path] = {}
            for service in self._box_plan.services:
                started = service(self._service_folder(), self.sampling.seed)
                sockets |= await self._resources.enter_async_context(started)
            if self._box_plan.net:
                from g4agent.egress.service import Egress

                self._egress = Egress(self._box_plan.net)
                sockets |= self._resources.enter_context(self._egress.served())
            self._sockets = sockets
        return self._sockets

    def _asides(self) -> Sequence[Event]:
        network = () if self._egress is None else self._egress.take_attempts()
        return (*network, *(() if self.recorder is None else self.recorder.take_events()))

    def _service_folder(self) -> Path:
        """The session's folder; a private temporary one where nothing is kept."""
        if self._box_plan.folder is None:
            return Path(self._resources.enter_context(TemporaryDirectory(prefix="g4agent-session-")))
        self._box_plan.folder.mkdir(parents=True, exist_ok=True)
        return self._box_plan.folder

    def running(self, call: ToolCall) -> AbstractContextManager[None]:
        """What a call runs within."""
        return nullcontext() if self.trace is None else self.trace.running(call)

    def timeout(self, tool: Tool, seconds_left: float | None) -> float:
        """Seconds that a call may take."""
        own = tool.timeout if tool.timeout is not None else self._box_plan.limits.wall_seconds
        return own if seconds_left is None else min(own, max(0.001, seconds_left))

    async def journal(self, step: int, calls: Sequence[tuple[ToolCall, Tool]]) -> None:
        """Commits the calls that have an effect, and the generation that they stand in, before any of them runs."""
        intents = [call_record(i, c, t) for i, (c, t) in enumerate(calls) if t.effect != "pure"]
        if self._store is not None and intents:
            generation = await self.recorder.kept() if self.recorder is not None else None
            await self._in_thread(self._store.record_intents, self.id, step, intents, generation)
            self.journaled = True

    async def suspend(self, step: int, verdict: Verdict) -> None:
        """Ends the turn with its last generation kept in the journal and taken back from the conversation."""
        if self._store is not None and self.recorder is not None and not self.journaled:
            await self._in_thread(self._store.record_intents, self.id, step, [], await self.recorder.kept())
        await self.conversation.rewind()
        await self.end_turn(verdict)

    async def commit_step(self, step: Step, verdict: Verdict | None) -> None:
        """Commits a model step in one transaction: transcript, calls, results, usage, workspace, and the turn's end."""
        self.interrupted = verdict is None or verdict.resumable
        tools = [self.tools.get(call.name) for call in step.calls]
        records = [
            call_record(i, call, tool, step.executions[call.id], step.repairs.get(call.id, ()))
            for i, (call, tool) in enumerate(zip(step.calls, tools, strict=True))
        ]
        touched = any(t is not None and t.where == "sandbox" and t.effect != "pure" for t in tools)
        self.permissions.note(records)
        self.window.note(step.executions[call.id].result for call in step.calls)
        if self._store is not None and any(r.result and _broke_the_box(r.result) for r in records):
            await self._drop_box()  # the next call opens a new one, with the workspace of the last committed step
        workspace = await self._snapshot() if self._store is not None and touched else None
        journaled, self.journaled = self.journaled, False
        generation = None if self.recorder is None else await self.recorder.kept()
        await self.commit(
            StepRecord(
                index=self.next_step,
                kind="model",
                text=step.text,
                thoughts=step.thoughts,
                delta=self.conversation.take_delta(),
                usage=step.usage,
                generation=None if journaled else generation,
                calls=tuple(records),
                verdict=verdict,
                workspace=workspace,
                memory=None if self.recorder is None else self.recorder.memory,
                images=tuple(
                    StepImage(image, call.id) for call in step.calls for image in step.executions[call.id].images
                ),
            )
        )

    async def _snapshot(self) -> bytes | None:
        """The workspace; None where there is no box, or it is found broken."""
        if self._box is None:
            return None
        try:
            return await self._box.snapshot()
        except BoxClosedError:
            await self._drop_box()
            return None

    async def _drop_box(self) -> None:
        if self._box is not None:
            await self._box.close()
            self._box = None

    async def end_turn(self, verdict: Verdict) -> None:
        """Records the end of a turn whose last generation did not finish. It can be taken up again."""
        self.interrupted = True
        if self._store is not None:
            await self._in_thread(self._store.end_turn, self.id, verdict)

    async def commit(self, step: StepRecord) -> None:
        """Commits a step, and counts it."""
        self.next_step += 1
        self.window.see(step)
        if self._store is not None:
            await self._in_thread(self._store.commit_step, self.id, step)

    @staticmethod
    async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
        return await anyio.to_thread.run_sync(partial(function, *args))


def _broke_the_box(result: ToolResult) -> bool:
    return result.error is not None and result.error.kind == "sandbox"
