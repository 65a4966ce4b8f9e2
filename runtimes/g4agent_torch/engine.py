"""One session's token sequence over shared weights.

Nothing is computed before it is needed: `append` and `truncate` change the list of tokens, and the next sampled token
has the cache catch up with it, chunk by chunk.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio.lowlevel
import anyio.to_thread
import torch
from torch import Tensor

from g4agent.errors import ContextOverflowError, ConversationError
from g4agent.gemma4.soft_tokens import blocks, key_at, whole_end, whole_start
from g4agent.gemma4.tokens import CHANNEL_CLOSE, is_soft
from g4agent.image import Image, ImageKey
from g4agent.ports.runtime import GenerateRequest, MemoryUse, SampledToken, Sampling
from g4agent_torch.decoder import Decoder
from g4agent_torch.kv import MAX_MARKS, KVStore
from g4agent_torch.masking import GrammarCompiler, Guide
from g4agent_torch.pages.address import segments_in
from g4agent_torch.pages.keeper import Keeper
from g4agent_torch.pages.state import CacheState
from g4agent_torch.residents import Residents
from g4agent_torch.sampling import choose
from g4agent_torch.thoughts import ThoughtMeter
from g4agent_torch.vision import Vision

T = TypeVar("T")
MARKS_ALSO_SAVED: Final = 2
"""Marks held in memory by an engine that saves pages, and finds the others on disk."""


class Turns:
    """Lets engines over the same weights work one after the other, in the order they ask: token by token.

    The queue belongs to an event loop. Engines in different loops stay correct (they share nothing but weights that no
    one writes), they only are not queued; where `one_token.py` is at work, their passes wait for one another.
    """

    def __init__(self) -> None:
        self._limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("g4agent_torch_turns")

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread. Cancelling waits for its end: work is never left behind half done."""
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(1)
            self._limiter.set(limiter)
        return await anyio.to_thread.run_sync(work, limiter=limiter)


class TorchEngine:
    """`DurableEngine` and `ImageEngine` over a decoder and a KV cache.

    The cache holds a prefix of `tokens`; a token that was just sampled is computed when the one after it is asked for.
    `_logits` are those after the cache's last token, or None where they were not wanted or a cut has outdated them.
    Whenever the cache was lost, in part or before there was one, its pages are looked for before anything is computed.
    Forward passes end at marks, so that sessions with the same system turn cut it into the same passes.
    """

    def __init__(
        self,
        decoder: Decoder,
        store: KVStore,
        grammars: GrammarCompiler,
        turns: Turns,
        residents: Residents,
        *,
        context_length: int,
        prefill_chunk: int,
        keeper: Keeper | None = None,
        vision: Vision | None = None,
    ) -> None:
        self._decoder, self._store, self._grammars, self._turns = decoder, store, grammars, turns
        self._residents = residents
        self._context_length, self._prefill_chunk = context_length, prefill_chunk
        self._vision = vision
        self._images: dict[ImageKey, Image] = {}
        self._tokens: list[int] = []
        self._kv = store.new()
        self._logits: Tensor | None = None
        self._computed = 0
        self._marks_due: list[int] = []
        self._keeper = keeper
        self._unsearched = keeper is not None
        """Whether there may be pages of tokens that the cache does not hold."""
        self.reports: list[str] = []
        self.generating = False
        """Whether somebody waits for its next token."""
        self._saved: MemoryUse | None = None
        """What of the cache was put on disk last, unless less is left of it."""
        self._held = self._marked = 0
        """What the cache took when it was counted last, and what of it only marks held."""
        self._busy = threading.Lock()
        """Held by whoever works on the cache: this engine, or another that needs its memory."""

    @property
    def tokens(self) -> Sequence[int]:
        return self._tokens

    @property
    def computed_tokens(self) -> int:
        return self._computed

    async def append(self, ids: Sequence[int]) -> None:
        if len(self._tokens) + len(ids) > self._context_length:
            raise ContextOverflowError(
                f"{len(ids)} tokens do not fit: {len(self._tokens)} of {self._context_length} are in use.",
                hint="Start a new session, shorten the input, or load the model with a larger context_length.",
            )
        vocabulary = range(self._decoder.vocab_size)
        if unknown := [id for id in ids if id not in vocabulary and not (self._vision and is_soft(id))]:
            raise ConversationError(f"Token ids {unknown[:5]} are not in the model's {len(vocabulary)} tokens.")
        self._tokens.extend(ids)

    async def show(self, images: Iterable[Image]) -> None:
        self._images |= {image.key: image for image in images}

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[SampledToken, None]:
        if not self._tokens:
            raise ConversationError("There is nothing to generate from.", hint="Append a prompt first.")
        thought = ThoughtMeter(request.thought_limit, request.in_thought)
        guide = Guide(request.mask, self._grammars, thought) if request.mask else None
        self.generating = True
        try:
            for _ in range(min(request.max_tokens, self._context_length - len(self._tokens))):
                if thought.must_close:
                    token = SampledToken(CHANNEL_CLOSE, forced=True)
                elif guide is not None and (only := guide.forced()) is not None:
                    token = SampledToken(only, forced=True)  # not computed now: it joins the next forward pass
                else:
                    token = await self._sample(request.sampling, guide)
                # No await from here to the yield: a token is part of the sequence exactly if it was given out.
                self._tokens.append(token.id)
                thought.see(token.id)
                if guide is not None:
                    guide.see(token.id)
                yield token
                if token.id in request.stop_ids:
                    return
        finally:
            self.generating = False

    async def mark(self) -> None:
        async with self._alone():
            length = len(self._tokens)
            if length > self._kv.length:
                self._marks_due.append(length)
            else:
                self._mark_here()

    async def truncate(self, length: int) -> None:
        if not 0 <= length <= len(self._tokens):
            raise ConversationError(f"Cannot cut {len(self._tokens)} tokens to {length}.")
        async with self._alone():
            if length < self._kv.length:
                whole = whole_start(self._tokens, length)
                self._unsearched = self._kv.truncate(whole) < whole and self._keeper is not None
                self._logits = None
            del self._tokens[length:]
            self._marks_due = [mark for mark in self._marks_due if mark <= length]
            if self._saved is not None and self._saved.tokens > length:
                self._saved = None
            if self._keeper is not None:
                self._keeper.cut(length, self._kv.length)

    async def checkpoint(self) -> MemoryUse | None:
        if (keeper := self._keeper) is None:
            return None

        def save() -> MemoryUse | None:
            with self._busy:
                if self._kv.length:  # else it is on disk already, or there was nothing yet
                    self._saved = MemoryUse(self._kv.length, *keeper.checkpoint(self._kv, self._tokens))
                return self._saved

        saved = await self._turns.run(save)
        await anyio.to_thread.run_sync(keeper.flush)
        return saved

    @property
    def held_bytes(self) -> int:
        """What the cache takes; while it is being worked on, what it took when it was counted last."""
        if self._busy.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._busy.release()
        return self._held

    def put_on_disk(self) -> int:
        """Saves the cache and lets go of it, to take it back when it is needed; returns the bytes that this freed.

        0 where it cannot be saved, or is being worked on."""
        if self._keeper is None or not self._kv.length or not self._busy.acquire(blocking=False):
            return 0
        try:
            saved = MemoryUse(self._kv.length, *self._keeper.save(self._kv, self._tokens))
            if not self._keeper.flush():
                return 0
            self._count()
            freed = self._held
            self._drop_cache()
            self._saved = saved
            return freed
        finally:
            self._busy.release()

    def take_reports(self) -> Sequence[str]:
        reports, self.reports = self.reports, []
        return [*reports, *(self._keeper.take_reports() if self._keeper is not None else ())]

    async def close(self) -> None:
        async with self._alone():
            if self._keeper is not None:
                self._keeper.close()
                self._keeper, self._unsearched = None, False
            self._kv, self._logits, self._saved = self._store.new(), None, None
            self._tokens.clear()
            self._images.clear()
            self._marks_due.clear()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Has nobody else work on the cache: another engine may be putting it on disk, from a thread."""
        if not self._busy.acquire(blocking=False):
            with anyio.CancelScope(shield=True):  # a session is closed also where it is cancelled
                await anyio.to_thread.run_sync(self._busy.acquire)
        try:
            yield
        finally:
            self._busy.release()

    async def _sample(self, sampling: Sampling, guide: Guide | None) -> SampledToken:
        while True:
            token = await self._turns.run(lambda: self._advance(sampling, guide))
            if token is not None:
                return token

    def _advance(self, sampling: Sampling, guide: Guide | None) -> SampledToken | None:
        """One chunk of work in a thread: returns the next token, or None while the cache is still behind."""
        with self._busy, torch.inference_mode():
            self._residents.use(self)
            end = len(self._tokens)
            if self._unsearched:
                self._search()
            if self._kv.length == end and self._logits is None:  # cut back to where the logits were not kept
                self._kv.truncate(end - 1)
            if (start := self._kv.length) < end:
                stop = self._whole(start, min(end, start + self._prefill_chunk, *self._marks_due))
                self._forward(start, stop, want_logits=stop == end)
            if self._logits is None:
                return None
            allowed = guide.allowed() if guide is not None else None
            return choose(self._logits, sampling, end, allowed)

    def _search(self) -> None:
        """Takes the cache from its pages as far as they reach beyond what it holds."""
        assert self._keeper is not None
        self._unsearched = False
        found = self._keeper.restore(self._tokens, self._kv.length)
        if found is not None:
            self._kv, self._logits = found, None
            self._make_room(only_idle=True)
        passed = [mark for mark in self._marks_due if mark <= self._kv.length]
        del self._marks_due[: len(passed)]
        if passed and passed[-1] == self._kv.length:
            self._mark_here()

    def _whole(self, start: int, stop: int) -> int:
        """The end of a pass from `start` on that would end at `stop`: no image is cut, as its tokens may see those
        behind them."""
        before = whole_start(self._tokens, stop)
        return before if before > start else whole_end(self._tokens, stop)

    def _vectors(self, start: int, stop: int) -> list[tuple[int, Tensor]]:
        """The images of a pass: where each begins, and its vectors."""
        if self._vision is None:
            return []
        found = []
        for at, end in blocks(self._tokens, start, stop):
            image = self._images.get(key_at(self._tokens, at))
            if image is None or len(vectors := self._vision.vectors(image)) != end - at:
                raise ConversationError(
                    f"The soft tokens from {at} to {end} are of no image that was shown.", hint="Call `show` first."
                )
            found.append((at - start, vectors))
        return found

    def _forward(self, start: int, stop: int, *, want_logits: bool) -> None:
        ids = self._tokens[start:stop]
        try:
            images = self._vectors(start, stop)
            self._logits = self._decoder.forward(ids, self._kv, want_logits=want_logits, images=images)
        except BaseException:  # out of memory: some layers hold the chunk and some do not
            self._drop_cache()
            raise
        self._computed += len(ids)
        grown = segments_in(self._kv.length) > segments_in(self._kv.length - len(ids))
        if grown or self._kv.marked_bytes > self._marked:
            self._make_room()
        if self._keeper is not None:
            self._keeper.note(self._kv, self._tokens, len(ids))
        while self._marks_due and self._marks_due[0] <= self._kv.length:
            del self._marks_due[0]
            self._mark_here()

    def _make_room(self, *, only_idle: bool = False) -> None:
        """Has others go to disk where all take too much; if they still do, what is saved of this one's past goes."""
        self._count()
        if self._residents.make_room(self, only_idle=only_idle) > 0 and self._keeper is not None:
            self._kv.forget_marks()
            self._count()

    def _count(self) -> None:
        rows = CacheState(self._kv).bytes_at(self._kv.length)[0] if self._kv.length else 0
        self._marked = self._kv.marked_bytes
        self._held = rows + self._marked

    def _drop_cache(self) -> None:
        self._kv, self._logits, self._saved, self._held, self._marked = self._store.new(), None, None, 0, 0
        if self._keeper is not None:
            self._keeper.lose()
            self._unsearched = True

    def _mark_here(self) -> None:
        self._kv.mark(self._kv.length, MAX_MARKS if self._keeper is None else MARKS_ALSO_SAVED)
        if self._keeper is not None:
            self._keeper.mark(self._kv, self._tokens)
