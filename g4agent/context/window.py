"""A session's context window: what is in it, and room made before it is full."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from g4agent.context.ladder import RUNGS, ContextLadder, Rung
from g4agent.context.ledger import Ledger
from g4agent.events import ContextReduced, Usage
from g4agent.messages import ToolResult
from g4agent.ports.runtime import Conversation, ConversationSetup, ModelInfo
from g4agent.store.records import StepKind, StepRecord
from g4agent.tools import Tool
from g4agent.toolset import ToolSet
from g4agent.verdict import Verdict

if TYPE_CHECKING:
    from g4agent.context.reducer import Reducer
    from g4agent.gemma4.sections import SectionReader
    from g4agent.image import Prompt
    from g4agent.session import Session
    from g4agent.store import Store


class Window:
    """What the planner and people want to know of a conversation's length, and what is done about it.

    A chat-only model has no transcript of ours: then there is no ledger, and no room to be made.

    Args:
        conversation: Begun or restored with the setup.
        setup: Of the conversation.
        model: Of the conversation.
        ladder: How room is made; None: not at all.
        store: Where the session is kept; None: nowhere.
        session_id: Of the session.
    """

    def __init__(
        self,
        conversation: Conversation,
        setup: ConversationSetup,
        model: ModelInfo,
        ladder: ContextLadder | None,
        store: Store | None,
        session_id: str,
    ) -> None:
        from g4agent.gemma4.conversation import NativeConversation

        self.shelf = setup.shelf
        if self.shelf is not None:
            self.shelf.source = self._results
        self.reducer: Reducer | None = None
        self._model = model
        self._native = conversation if isinstance(conversation, NativeConversation) else None
        self._sections: SectionReader | None = None
        self._changed = 0
        self._store = store
        self._session_id = session_id
        self._kept: list[ToolResult] = []
        self._last: StepKind | None = None
        if self._native is None:
            return
        from g4agent.context.reducer import Reducer
        from g4agent.gemma4.sections import SectionReader

        self._sections = SectionReader(setup.has_system_turn)
        if ladder is not None:
            self.reducer = Reducer(self._native, ladder, setup)

    @property
    def ledger(self) -> Ledger | None:
        """Tokens by what they belong to, as of the last committed step; None for a chat-only model."""
        if self._sections is None or self._native is None:
            return None
        self._sections.read(self._native.engine.tokens, self._changed)
        self._changed = self._native.length
        return Ledger(
            **{str(kind): count for kind, count in self._sections.counts.items()},
            window=self._model.context_length,
            token_bytes=self._model.token_bytes,
        )

    def note(self, results: Iterable[ToolResult]) -> None:
        """Keeps a step's results for the shelf, where no store does."""
        if self.shelf is not None and self._store is None:
            self._kept += results

    async def _results(self) -> Sequence[ToolResult]:
        if self._store is None:
            return self._kept
        calls = await anyio.to_thread.run_sync(self._store.calls, self._session_id)
        return [call.result for call in calls if call.result is not None]

    async def verdict(self) -> Verdict | None:
        """How the last turn ended, as the store has it."""
        if self._store is None:
            return None
        return (await anyio.to_thread.run_sync(self._store.session, self._session_id)).verdict

    def see(self, step: StepRecord) -> None:
        """Takes note of a step that is being committed."""
        self._changed = min(self._changed, step.delta.start)
        self._last = step.kind

    async def climbing(self) -> bool:
        """Whether a rung was the last step: a climb that was broken off goes on to its goal."""
        if self._last is None and self._store is not None:
            steps = await anyio.to_thread.run_sync(self._store.steps, self._session_id)
            self._last = steps[-1].kind if steps else None
        return self._last in RUNGS

    @property
    def reader(self) -> Tool | None:
        """The tool that reads results back, whether it is declared yet or not."""
        return None if self.shelf is None else self.shelf.tool

    def tools(self, own: ToolSet) -> ToolSet:
        """The agent's own tools, and the one that reads results back once the transcript declares it."""
        if self.shelf is None or self._native is None or self.shelf.tool.name not in self._native.tools:
            return own
        return ToolSet([*own.values(), self.shelf.tool])

    def whole(self, given: Sequence[ToolResult], seen: Sequence[ToolResult]) -> Sequence[ToolResult]:
        """Of the results that tools gave and those that the model sees: what is kept as a step's results."""
        return seen if self.shelf is None else given

    async def tokens_of(self, prompt: Prompt) -> int:
        """What a user turn takes. Raises ImageError for an image that cannot be shown."""
        if self._native is None:
            return 0
        from g4agent.gemma4 import render
        from g4agent.gemma4.tokens import encode_segments

        said = await self._native.pictures.user_turn(prompt)
        turn = [*said, *render.model_turn_open(False, self._model.variant)]
        return len(encode_segments(self._native.tokenizer, turn))


async def make_room(session: Session, prompt: Prompt | None = None) -> AsyncGenerator[ContextReduced, None]:
    """Climbs the ladder where the transcript, with a user turn to come, is longer than it says.

    Each rung that gains something is committed as a step of its own before its event comes.
    """
    reducer = session.window.reducer
    if reducer is None or session.journaled:  # a step that is taken up again is the very step of then
        return
    needed = 0 if prompt is None else await session.window.tokens_of(prompt)
    ladder, conversation = reducer.ladder, reducer.conversation
    start, goal = (int(reducer.usable * fraction) - needed for fraction in (ladder.start, ladder.goal))
    if needed > reducer.usable or conversation.length <= goal:
        return
    if conversation.length <= start and not await session.window.climbing():
        return
    for recent in range(ladder.recent, 0, -1):
        for rung in ladder.rungs:
            if session.inbox.stopping:
                return
            reduced = await _take(session, reducer, rung, recent)
            if reduced is not None:
                yield reduced
            if conversation.length <= goal:
                return
        if conversation.length <= start:
            return


async def _take(session: Session, reducer: Reducer, rung: Rung, recent: int) -> ContextReduced | None:
    """One rung, committed; None where it gains nothing."""
    conversation, began = reducer.conversation, time.monotonic()
    before, used = conversation.length, conversation.usage
    new = await reducer.rewritten(rung, recent, session.sampling, lambda: session.inbox.stopping)
    if new is None:
        return None
    with anyio.CancelScope(shield=True):
        await conversation.rewrite(new.tokens)
        usage: Usage = replace(conversation.usage - used, seconds=time.monotonic() - began)
        step = session.next_step
        await session.commit(
            StepRecord(
                index=step,
                kind=rung,
                delta=conversation.take_delta(),
                usage=usage,
                text=new.text,
                generation=session.recorder.last if rung == "summarise" and session.recorder is not None else None,
                verdict=None if session.interrupted else await session.window.verdict(),
            )
        )
    return ContextReduced(step, rung, before, conversation.length, usage, new.trimmed, new.summary)
