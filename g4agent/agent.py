"""The agent: a model, tools, a sandbox and rules, ready to run prompts."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import anyio
import anyio.to_thread
from pydantic import TypeAdapter

from g4agent.budget import Budget
from g4agent.context.ladder import ContextLadder
from g4agent.context.shelf import ResultShelf
from g4agent.context.window import Window
from g4agent.egress.destinations import parse_destinations
from g4agent.errors import ConfigError
from g4agent.events import Event
from g4agent.folder_workspace import folder_workspace
from g4agent.image import Prompt
from g4agent.permission import Permissions
from g4agent.policy import Approve, Policy
from g4agent.ports.runtime import CallRules, ChatRuntime, Conversation, ConversationSetup, Sampling, TokenRuntime
from g4agent.ports.sandbox import LimitName, Limits, Sandbox
from g4agent.recording import open_conversation
from g4agent.secrets import Secrets, SecretSource
from g4agent.session import BoxPlan, RunResult, Service, Session, Workspace
from g4agent.store.ids import session_id as new_id
from g4agent.tools import Tool
from g4agent.toolset import ToolSet

if TYPE_CHECKING:
    from g4agent.replay import Replay
    from g4agent.store import NewSession, Store, StoredSession
    from g4agent.telemetry import Telemetry

T = TypeVar("T")


@dataclass(kw_only=True)
class Agent:
    """Everything that defines an agent. Cheap to make: weights load and boxes open when a run needs them.

    Use it as an async context manager, or call `aclose`, to free the weights.
    """

    model: str | TokenRuntime | ChatRuntime = "nano"
    """`[runtime:]model`, where model is `nano`, a checkpoint folder or a hub id; or a loaded runtime."""
    name: str = "agent"
    system: str = ""
    tools: Sequence[Tool] = ()
    sandbox: str | Sandbox = "bubblewrap"
    limits: Limits = field(default_factory=Limits)
    allow_degraded: frozenset[LimitName] = frozenset()
    """Limits that may stay unenforced where the host lacks the means, each by name."""
    policy: Policy = field(default_factory=Policy)
    approve: Approve | Literal["later"] | None = None
    """Asked where the policy says `ask`. `later`: the run stops, and goes on when the stored question was answered and
    the session is resumed. None: nobody can be asked, so the answer is no."""
    budget: Budget = field(default_factory=Budget)
    sampling: Sampling = field(default_factory=Sampling)
    thinking: bool = False
    calls: CallRules = field(default_factory=CallRules)
    """Which calls may be made, and whether they are masked by their schemas while the model writes them."""
    context: ContextLadder | None = field(default_factory=ContextLadder)
    """How room is made before the context window is full. None: not at all."""
    output: type[Any] | None = None
    """What a run's answer is: a pydantic model, or any type that pydantic makes JSON of. None: text. The model is told
    its schema, an engine that can mask is held to it, and `RunResult.output` has the validated value."""
    store: str | Path | Store | bool | None = None
    """None: the default store (`$G4AGENT_HOME`, else the user's data folder). Else a path or URL, or an open store.
    False: keep nothing, for tests and benchmarks."""
    workspace: Workspace | Path | None = None
    """What a new session's workspace holds: a function of the seed, or a folder to copy."""
    services: Sequence[Service] = ()
    net: Sequence[str] = ()
    """Where tools in the sandbox may connect to, each as "host:port": by a proxy on the host, which checks every
    attempt and makes it an event. Empty: no network."""
    secrets: SecretSource | None = field(default=None, repr=False)
    """Where the values come from that tools name with `@tool(secrets=…)`: a mapping, or a function of the name. None:
    this process's environment variables."""
    telemetry: Telemetry | bool | None = None
    """What runs tell OpenTelemetry (extra `otel`). None: nothing, unless the OTEL_* environment variables name an OTLP
    endpoint or exporter."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """For the runtime's `load`: dtype, device, context_length, kv_bits, offline. A stored session remembers some of
    them (`SESSION_OPTIONS`), with which the command line takes it up again; here the agent's own hold."""

    def __post_init__(self) -> None:
        self._toolset = ToolSet(self.tools)
        self._net = parse_destinations(self.net)
        self._output: TypeAdapter[Any] | None = None if self.output is None else TypeAdapter(self.output)
        self._runtime: TokenRuntime | ChatRuntime | None = None
        self._loaded_here = False
        self._open_store: Store | None = None

    def replace(self, **changes: Any) -> Agent:
        """A copy with other settings. Weights that are loaded already are shared if the model stays the same; they are
        freed by the agent that loaded them."""
        other = replace(self, **changes)
        if "model" not in changes and "model_options" not in changes:
            other._runtime = self._runtime
        return other

    # Runs -------------------------------------------------------------------------------------------------------------

    async def run(self, prompt: Prompt) -> RunResult:
        """Runs one prompt, of text or of texts and images, in a new session, to its end."""
        async with self.session() as session:
            return await session.run(prompt)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """Like `run`, yielding everything that happens."""
        async with self.session() as session, aclosing(session.stream(prompt)) as events:
            async for event in events:
                yield event

    async def resume(self, session_id: str, prompt: Prompt | None = None) -> RunResult:
        """Takes up a stored session: with a prompt for a new turn, without to go on with an interrupted one."""
        async with self.session(session_id) as session:
            return await session.run(prompt)

    async def fork(self, session_id: str, step: int | None = None) -> str:
        """A new session with a stored one's history up to and including a step, the last one if None; returns its id.

        See `Store.fork`. Go on with `resume` or `session`.
        """
        store = await self._require_store()
        id = (await _in_thread(lambda: store.session(session_id))).id
        return await _in_thread(lambda: store.fork(id, step))

    async def replay(self, session_id: str, sampling: Sampling | None = None) -> Replay:
        """Has the model sample a stored session anew, its results taken from the store, up to the first other token.

        Args:
            session_id: The session, or a unique prefix of its id.
            sampling: In the place of the session's own.

        Raises:
            ConfigError: The session was made with other tools, or this model gives no tokens.
            StoreError: A step has no sampled tokens.
        """
        from g4agent.replay import replay

        store, runtime = await self._require_store(), await self.load()
        stored = await _in_thread(lambda: store.session(session_id))
        self._require_same_tools(stored, runtime)
        setup = replace(self._setup(), system=stored.system, thinking=stored.thinking)
        return await replay(runtime, store, stored.id, setup, sampling or stored.sampling, self.context)

    def run_sync(self, prompt: Prompt) -> RunResult:
        """`run` for code that is not async."""
        return anyio.run(self.run, prompt)

    def stream_sync(self, prompt: Prompt) -> Iterator[Event]:
        """`stream` for code that is not async."""
        from anyio.from_thread import start_blocking_portal

        with start_blocking_portal() as portal:
            events = self.stream(prompt)
            try:
                while True:
                    try:
                        yield portal.call(anext, events)
                    except StopAsyncIteration:
                        return
            finally:
                portal.call(events.aclose)

    # Sessions ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self, session_id: str | None = None) -> AsyncGenerator[Session, None]:
        """A new session, or a stored one by its id or a unique prefix of it.

        Raises:
            SessionNotFoundError: The store has no such session.
            SessionBusyError: Another process drives it.
            SecretMissingError: A tool names a secret that the agent's source of secrets lacks.
            ConfigError: The stored session was made with another model or system turn, or telemetry is asked for and
                cannot be had.
        """
        from g4agent.telemetry import open_telemetry

        telemetry = open_telemetry(self.telemetry)
        secrets = Secrets((name for tool in self.tools for name in tool.secrets), self.secrets)
        runtime = await self.load()
        conversation, recorder = await open_conversation(runtime, await self.open_store())
        try:
            session = await self._open_session(session_id, runtime, conversation)
            session.recorder, session.secrets = recorder, secrets
            if recorder is not None and session_id is not None and runtime.info.sees_images:
                await recorder.show_stored(await self._require_store(), session.id)
            if telemetry is not None:
                session.trace = telemetry.trace(session, runtime, self.name, self._system())
        except BaseException:
            await conversation.close()
            raise
        try:
            yield session
        finally:
            await session.close()

    async def _open_session(
        self, session_id: str | None, runtime: TokenRuntime | ChatRuntime, conversation: Conversation
    ) -> Session:
        store = await self.open_store()
        if store is None and self.approve == "later":
            raise ConfigError("this agent keeps no sessions, so nobody can answer later", hint="Give it a store.")
        setup = self._setup()
        if session_id is None:
            await conversation.begin(setup)
            new = self._new_session(runtime)
            id = (
                new_id(time.time_ns() // 1_000_000)
                if store is None
                else await _in_thread(lambda: store.create_session(new, lease=True))
            )
            return self._session(id, runtime, conversation, store, setup, self.sampling)
        kept = await self._require_store()
        id = (await _in_thread(lambda: kept.session(session_id))).id
        await _in_thread(lambda: kept.leases.acquire(id))
        try:
            return await self._restore_session(id, kept, runtime, conversation, setup)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await _in_thread(lambda: kept.leases.release(id))
            raise

    async def _restore_session(
        self,
        id: str,
        store: Store,
        runtime: TokenRuntime | ChatRuntime,
        conversation: Conversation,
        setup: ConversationSetup,
    ) -> Session:
        stored = await _in_thread(lambda: store.session(id))
        self._require_same_model(stored, runtime)
        tokens = await _in_thread(lambda: store.transcript(stored.id))
        setup = replace(setup, system=stored.system, thinking=stored.thinking)
        await conversation.restore(setup, tokens)
        session = self._session(stored.id, runtime, conversation, store, setup, stored.sampling)
        session.next_step = stored.steps
        session.interrupted = stored.interrupted
        session.permissions.note(await _in_thread(lambda: store.calls(stored.id)))
        session.permissions.unresolved = await _in_thread(lambda: store.open_calls(stored.id))
        return session

    def _new_session(self, runtime: TokenRuntime | ChatRuntime) -> NewSession:
        from g4agent.store import NewSession
        from g4agent.store.records import session_options

        info = runtime.info
        given = self.model_options if isinstance(self.model, str) else {}  # else somebody else loaded the runtime
        declared = json.dumps([[t.name, t.description, t.declaration.parameters] for t in self._toolset.values()])
        return NewSession(
            agent=self.name,
            model=info.name,
            fingerprint=info.fingerprint,
            variant=info.variant,
            system=self._system(),
            thinking=self.thinking,
            sampling=self.sampling,
            tools_hash=hashlib.sha256(declared.encode()).hexdigest(),
            model_options=session_options(given),
        )

    def _setup(self) -> ConversationSetup:
        schema = None if self._output is None else self._output.json_schema()
        shelf = None
        if self.context is not None and self._toolset:
            shelf = ResultShelf(self.context.largest_results, self._toolset)
        tools = tuple(self._toolset.values())
        return ConversationSetup(self._system(), tools, self.thinking, self.calls, schema, shelf)

    def _system(self) -> str:
        """The system text, with the shape of the answer where there is one."""
        if self._output is None:
            return self.system
        shape = json.dumps(self._output.json_schema())
        return f"{self.system}\n\nGive your final answer as JSON of this schema, and nothing else: {shape}".strip()

    def _require_same_model(self, stored: StoredSession, runtime: TokenRuntime | ChatRuntime) -> None:
        if stored.fingerprint != runtime.info.fingerprint:
            raise ConfigError(
                f"session {stored.id} was made with {stored.model}, not with {runtime.info.name}",
                hint=f"Resume it with --model {stored.model}; other weights would not read its tokens alike.",
            )
        self._require_same_tools(stored, runtime)

    def _require_same_tools(self, stored: StoredSession, runtime: TokenRuntime | ChatRuntime) -> None:
        if stored.tools_hash != self._new_session(runtime).tools_hash:
            raise ConfigError(
                f"session {stored.id} was made with other tools",
                hint="Resume it with the agent as it was: the declarations stand in its transcript.",
            )

    def _session(
        self,
        id: str,
        runtime: TokenRuntime | ChatRuntime,
        conversation: Conversation,
        store: Store | None,
        setup: ConversationSetup,
        sampling: Sampling,
    ) -> Session:
        return Session(
            id=id,
            model=runtime.info,
            conversation=conversation,
            window=Window(conversation, setup, runtime.info, self.context, store, id),
            tools=self._toolset,
            box_plan=self._box_plan(id, store),
            store=store,
            permissions=Permissions(
                id, self._toolset, self.policy, self.approve, store.questions if store is not None else None
            ),
            budget=self.budget,
            sampling=sampling,
            thinking=setup.thinking,
            output=self._output,
        )

    def _box_plan(self, session_id: str, store: Store | None) -> BoxPlan:
        workspace = self.workspace
        return BoxPlan(
            sandbox=self._load_sandbox,
            limits=self.limits,
            allow_degraded=self.allow_degraded,
            workspace=folder_workspace(workspace) if isinstance(workspace, Path) else workspace,
            services=tuple(self.services),
            folder=store.session_folder(session_id) if store is not None else None,
            net=self._net,
        )

    def _load_sandbox(self) -> Sandbox:
        from g4agent.registry import load_sandbox

        return load_sandbox(self.sandbox) if isinstance(self.sandbox, str) else self.sandbox

    # Parts ------------------------------------------------------------------------------------------------------------

    async def load(self) -> TokenRuntime | ChatRuntime:
        """The model runtime, loaded at first use."""
        from g4agent.registry import load_runtime

        if self._runtime is None:
            model = self.model
            if isinstance(model, str):
                self._runtime = await _in_thread(lambda: load_runtime(model, self.model_options))
                self._loaded_here = True
            else:
                self._runtime = model
        return self._runtime

    async def open_store(self) -> Store | None:
        """The store, opened at first use; None if the agent keeps nothing."""
        from g4agent.store import Store

        if self.store is False:
            return None
        if isinstance(self.store, Store):
            return self.store
        if self._open_store is None:
            place = None if isinstance(self.store, bool) else self.store
            self._open_store = await _in_thread(lambda: Store.open(place))
        return self._open_store

    async def _require_store(self) -> Store:
        store = await self.open_store()
        if store is None:
            raise ConfigError("this agent keeps no sessions (store=False)", hint="Give it the store they lie in.")
        return store

    async def aclose(self) -> None:
        """Frees the weights and closes the store, as far as they were loaded and opened by this very agent."""
        if self._runtime is not None and self._loaded_here:
            await self._runtime.close()
        self._runtime = None
        if self._open_store is not None:
            self._open_store.close()
            self._open_store = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


async def _in_thread(function: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(function)
