"""Keeps what an engine samples, and plays a stored generation again in the place of the model.

A generation whose calls were journaled must not be sampled anew after a crash: the model might word a call otherwise,
and a call that may have done its work would not be recognised. Played back, it goes through the same conversation and
parser as when it was made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio.to_thread

from g4agent.events import PagesLost
from g4agent.ports.runtime import (
    ChatRuntime,
    Conversation,
    DurableEngine,
    DurableRuntime,
    GenerateRequest,
    GrammarRuntime,
    ImageEngine,
    ImageRuntime,
    MemoryUse,
    SampledToken,
    TokenEngine,
    TokenRuntime,
)
from g4agent.store.records import Generation

if TYPE_CHECKING:
    from g4agent.image import Image
    from g4agent.store import Store


class RecordingEngine:
    """A `TokenEngine` over another one.

    Args:
        engine: Does the work.
    """

    def __init__(self, engine: TokenEngine) -> None:
        self._engine = engine
        self._stored: Generation | None = None
        self.last: Generation | None = None
        """The newest generation, as far as it has come."""
        self.memory: MemoryUse | None = None
        """What the session took when `kept` was last called."""

    def play(self, generation: Generation) -> None:
        """Has the next `generate` yield this generation's tokens."""
        self._stored = generation

    @property
    def tokens(self) -> Sequence[int]:
        return self._engine.tokens

    @property
    def computed_tokens(self) -> int:
        return self._engine.computed_tokens

    async def append(self, ids: Sequence[int]) -> None:
        await self._engine.append(ids)

    async def show(self, images: Iterable[Image]) -> None:
        if isinstance(self._engine, ImageEngine):
            await self._engine.show(images)

    async def show_stored(self, store: Store, session_id: str) -> None:
        """Has the engine know the images of a stored session."""
        images = await anyio.to_thread.run_sync(store.images, session_id)
        await self.show(each.image for step in images.values() for each in step)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[SampledToken, None]:
        stored, self._stored = self._stored, None
        limits = (request.max_tokens, request.thought_limit) if stored is None else _limits(stored)
        sampled: list[SampledToken] = []
        try:
            async with aclosing(self._engine.generate(request) if stored is None else self._again(stored)) as tokens:
                async for token in tokens:
                    sampled.append(token)
                    yield token
        finally:
            self.last = Generation(*limits, tuple(sampled))

    async def _again(self, stored: Generation) -> AsyncGenerator[SampledToken, None]:
        for token in stored.tokens:
            await self._engine.append([token.id])
            yield token

    async def mark(self) -> None:
        await self._engine.mark()

    async def truncate(self, length: int) -> None:
        await self._engine.truncate(length)

    async def kept(self) -> Generation | None:
        """The newest generation, its keys and values on disk where they can be: to be called before a commit."""
        if isinstance(self._engine, DurableEngine):
            self.memory = await self._engine.checkpoint()
        return self.last

    def take_events(self) -> Sequence[PagesLost]:
        """What became of saved keys and values since the last call."""
        reports = self._engine.take_reports() if isinstance(self._engine, DurableEngine) else ()
        return [PagesLost(report) for report in reports]

    async def close(self) -> None:
        await self._engine.close()


def _limits(generation: Generation) -> tuple[int, int | None]:
    return generation.max_tokens, generation.thought_limit


async def open_conversation(
    runtime: TokenRuntime | ChatRuntime, store: Store | None = None
) -> tuple[Conversation, RecordingEngine | None]:
    """A conversation and, where it is one of token ids, the engine that keeps them.

    Args:
        runtime: The model.
        store: Beside which its keys and values may lie; None: they lie nowhere.
    """
    if isinstance(runtime, ChatRuntime):
        return await runtime.open_conversation(), None
    from g4agent.gemma4.conversation import NativeConversation

    accepts = runtime.accepts_grammar if isinstance(runtime, GrammarRuntime) else None
    if store is not None and store.pages is not None and isinstance(runtime, DurableRuntime):
        engine = RecordingEngine(await runtime.open_durable_engine(store.pages))
    else:
        engine = RecordingEngine(await runtime.open_engine())
    sees = runtime.soft_tokens if isinstance(runtime, ImageRuntime) and runtime.info.sees_images else None
    return NativeConversation(runtime.info, runtime.tokenizer, engine, accepts, sees), engine
