"""An agent's tools, called by a client of MCP in the place of a model.

Each call is a turn of one session without a model: it goes through the planner as a model's call would, with schema,
policy, a person's word, sandbox, secrets, journal and store. The workspace lasts from call to call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskStatus

from g4agent.errors import G4AgentError
from g4agent.events import (
    CallReady,
    Event,
    GenerationFinished,
    ModelEvent,
    RunFinished,
    TextDelta,
    ToolFinished,
    Usage,
)
from g4agent.messages import JsonValue, ToolCall, ToolResult
from g4agent.policy import Rule
from g4agent.ports.runtime import ConversationSetup, GenerationLimits, ModelInfo, TranscriptDelta
from g4agent_mcp.progress import Progress

if TYPE_CHECKING:
    from mcp.server import ServerRequestContext

    from g4agent.agent import Agent
    from g4agent.image import Image, ImagesOfCalls, Prompt
    from g4agent.session import Session
    from g4agent.tools import Tool
    from g4agent_mcp.asking import Person

CLIENT = ModelInfo(
    "mcp-client", "mcp-client", "small", 1 << 30, parameters=0, dtype="none", device="none", sees_images=True
)
UNDONE = Rule("ask", effect="once", reason="its effect cannot be undone, and no rule allows it")
"""The last rule: without it whatever a client asks for would be done."""


@dataclass(slots=True)
class _Order:
    """A call to make, and what comes of it."""

    name: str
    arguments: Mapping[str, JsonValue]
    progress: Progress
    person: Person
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    result: ToolResult | None = None
    images: Sequence[Image] = ()
    problem: str = ""


class DirectTools:
    """The tools of an agent for calls from outside. Calls wait for each other; `open` gives one that is at work.

    Args:
        agent: Whose tools, workspace, sandbox, policy, secrets and store. Its model is not loaded.
    """

    def __init__(self, agent: Agent) -> None:
        self._client = _Client()
        self._order: _Order | None = None
        self._agent = agent.replace(
            model=self._client,
            policy=replace(agent.policy, rules=(*agent.policy.rules, UNDONE), headless=False),
            approve=self._approve,
            budget=replace(agent.budget, steps=2),
            output=None,
            thinking=False,
        )
        self._send, self._orders = anyio.create_memory_object_stream[_Order](0)

    @classmethod
    @asynccontextmanager
    async def open(cls, agent: Agent) -> AsyncIterator[Self]:
        """Works until the block ends. The session begins with the first call."""
        direct = cls(agent)
        async with anyio.create_task_group() as group:
            await group.start(direct._work)
            yield direct
            group.cancel_scope.cancel()

    async def call(
        self, name: str, arguments: Mapping[str, JsonValue], context: ServerRequestContext[Any], person: Person
    ) -> tuple[ToolResult, Sequence[Image]]:
        """Makes one call and waits for it; gives the images in the result, too. Cancelling ends it.

        Raises:
            G4AgentError: The session could not be opened, or the run ended without a result.
        """
        order = _Order(name, arguments, Progress(context), person)
        try:
            await self._send.send(order)
            await order.done.wait()
        finally:
            order.scope.cancel()
        if order.result is None:
            raise G4AgentError(order.problem)
        return order.result, order.images

    async def _work(self, *, task_status: TaskStatus[None]) -> None:
        """Makes one call after the other, in one task from beginning to end, as a session's cancel scopes ask for."""
        session: Session | None = None
        async with AsyncExitStack() as stack:
            task_status.started()
            async for order in self._orders:
                self._order = order
                try:
                    if session is None:
                        session = await stack.enter_async_context(self._agent.session())
                    with order.scope:
                        await self._make(session, order)
                except G4AgentError as error:
                    order.problem = str(error)
                except Exception as error:  # the client is told; the next call may do better
                    order.problem = f"{type(error).__name__}: {error}"
                order.done.set()

    async def _make(self, session: Session, order: _Order) -> None:
        self._client.next = (order.name, order.arguments)
        async with aclosing(session.stream(f"A client of MCP calls {order.name}.")) as events:
            async for event in events:
                await self._follow(event, order)

    async def _follow(self, event: Event, order: _Order) -> None:
        await order.progress.tell(event)
        match event:
            case ToolFinished(result):
                order.result, order.images = result, self._client.images
            case RunFinished(verdict=verdict):
                order.problem = verdict.reason

    async def _approve(self, call: ToolCall, tool: Tool, reason: str) -> bool:
        assert self._order is not None
        return await self._order.person.approves(call, reason)


class _Client:
    """A chat runtime whose conversation makes the call that is next, and ends the turn after its result."""

    info = CLIENT

    def __init__(self) -> None:
        self.next: tuple[str, Mapping[str, JsonValue]] | None = None
        self.images: list[Image] = []
        """Those in the result of the last call."""

    async def open_conversation(self) -> _Calling:
        return _Calling(self)

    async def close(self) -> None:
        return None


class _Calling:
    def __init__(self, client: _Client) -> None:
        self._client = client

    async def generate(self, step: int, limits: GenerationLimits) -> AsyncGenerator[ModelEvent, None]:
        call, self._client.next = self._client.next, None
        if call is None:
            yield TextDelta("The client has the result.")
            yield GenerationFinished("turn_end", Usage())
        else:
            yield CallReady(ToolCall(f"s{step}c0", *call))
            yield GenerationFinished("calls", Usage())

    async def begin(self, setup: ConversationSetup) -> None:
        return None

    async def restore(self, setup: ConversationSetup, tokens: Sequence[int]) -> None:
        return None

    async def add_user(self, prompt: Prompt) -> None:
        return None

    async def add_results(
        self, results: Sequence[ToolResult], images: ImagesOfCalls | None = None
    ) -> Sequence[ToolResult]:
        self._client.images = [image for each in (images or {}).values() for image in each]
        return results

    async def rewind(self) -> None:
        return None

    def take_delta(self) -> TranscriptDelta:
        return TranscriptDelta(0, ())

    length = 0
    usage = Usage()

    async def close(self) -> None:
        return None
