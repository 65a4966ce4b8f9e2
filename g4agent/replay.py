"""Runs a stored session again and finds the first token that comes out otherwise.

The model samples every step anew, under the limits, the sampling and the seed of then; what people said and what tools
gave comes from the store. No tool runs, no box opens, nothing is written.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import anyio.to_thread

from g4agent.context.ladder import ContextLadder
from g4agent.context.reducer import Reducer, Rewritten
from g4agent.errors import ConfigError, StoreError
from g4agent.gemma4.conversation import NativeConversation
from g4agent.image import Image
from g4agent.messages import ToolResult
from g4agent.ports.runtime import (
    ChatRuntime,
    ConversationSetup,
    GenerationLimits,
    SampledToken,
    Sampling,
    TokenRuntime,
)
from g4agent.recording import RecordingEngine, open_conversation
from g4agent.store.records import Generation, StepImage, StoredStep, put_together

if TYPE_CHECKING:
    from g4agent.store import Store

T = TypeVar("T")
Part: TypeAlias = Literal["generation", "prompt", "results", "context"]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first token that is not the stored one. An `expected` of None: nothing more was there; `got` likewise."""

    step: int
    part: Part
    """Where: in what the model sampled, or in what was rendered for it: a user turn (with the system turn before the
    first one), a step's results, or what a rung of the context ladder has left."""
    index: int
    """Place, from 0: among the step's sampled tokens, or among all that the step added to the transcript."""
    expected: SampledToken | None
    got: SampledToken | None


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of running a session again."""

    session_id: str
    model: str
    """The model that ran it now."""
    steps: int
    """Steps that came out the same, user turns included."""
    tokens: int
    """Sampled tokens that came out the same."""
    logprob_difference: float
    """The largest difference, in nats, between the stored and the present log probability of such a token: 0 where the
    machine, the kernels and the KV cache compute as they did then."""
    divergence: Divergence | None
    """None: the whole session came out the same."""


async def replay(
    runtime: TokenRuntime | ChatRuntime,
    store: Store,
    session_id: str,
    setup: ConversationSetup,
    sampling: Sampling,
    ladder: ContextLadder | None = None,
) -> Replay:
    """Runs a session again, as far as it comes out the same.

    Args:
        runtime: The model, which may be another one than then.
        store: Where the session lies.
        session_id: The session.
        setup: That of the session.
        sampling: How to sample; the session's own where it shall come out the same.
        ladder: How room was made in the context; None: as an agent does that is told nothing else.

    Raises:
        ConfigError: The model gives no tokens.
        StoreError: A step has no sampled tokens.
    """
    conversation, engine = await open_conversation(runtime)
    try:
        if engine is None:
            raise ConfigError(f"{runtime.info.name} gives no tokens to compare", hint="Use a token runtime.")
        await conversation.begin(setup)
        assert isinstance(conversation, NativeConversation)
        reducer = Reducer(conversation, ladder or ContextLadder(), setup)
        return await _Replayer(store, session_id, conversation, engine, sampling, reducer).run(runtime.info.name)
    finally:
        await conversation.close()


class _Replayer:
    """Goes through a session's steps with a fresh conversation.

    Args:
        store: Where the session lies.
        session_id: The session.
        conversation: Begun with the session's setup, and empty otherwise.
        engine: The conversation's engine, which keeps what is sampled.
        sampling: How to sample.
        reducer: Of the conversation.
    """

    def __init__(
        self,
        store: Store,
        session_id: str,
        conversation: NativeConversation,
        engine: RecordingEngine,
        sampling: Sampling,
        reducer: Reducer,
    ) -> None:
        self._store = store
        self._id = session_id
        self._conversation = conversation
        self._engine = engine
        self._sampling = sampling
        self._reducer = reducer
        self._stored: dict[int, Generation] = {}
        self._results = defaultdict[int, list[ToolResult]](list)
        self._images: dict[int, list[StepImage]] = {}
        """All by step."""
        self._tokens = 0
        self._logprob_difference = 0.0

    async def run(self, model: str) -> Replay:
        """All steps, up to the first divergence. Raises StoreError where a step has no sampled tokens."""
        steps = await _in_thread(lambda: self._store.steps(self._id))
        for step in steps:
            if step.kind in ("model", "summarise"):
                self._stored[step.index] = await self._generation(step)
        for call in await _in_thread(lambda: self._store.calls(self._id)):
            if call.result is not None:
                self._results[call.step].append(call.result)
        self._images = await _in_thread(lambda: self._store.images(self._id))
        divergence, same = None, 0
        for step in steps:
            divergence = await self._step(step)
            if divergence is not None:
                break
            same += 1
        return Replay(self._id, model, same, self._tokens, self._logprob_difference, divergence)

    async def _step(self, step: StoredStep) -> Divergence | None:
        match step.kind:
            case "user":
                return await self._user_turn(step)
            case "model":
                return await self._model_step(step)
            case _:
                return await self._rung(step)

    async def _rung(self, step: StoredStep) -> Divergence | None:
        """Takes a rung of the ladder as it was taken then: with as many recent steps left as give what is stored."""
        reducer, conversation = self._reducer, self._conversation
        delta = await _in_thread(lambda: self._store.delta(self._id, step.index))
        stored = [*conversation.engine.tokens[: delta.start], *delta.tokens]
        results = [result for index in sorted(self._results) if index < step.index for result in self._results[index]]
        new: Rewritten | None = None
        for recent in range(reducer.ladder.recent, 0, -1):
            if step.kind == "summarise":
                new = reducer.summed_up(recent, step.text)
            elif step.kind == "trim_results":
                new = reducer.trimmed(recent, results)
            else:
                new = reducer.without_thoughts(recent)
            if new is not None and new.tokens == stored:
                break
        if new is not None and new.tokens == stored and step.kind == "summarise":
            await reducer.ask(recent, self._stored[step.index].max_tokens, self._sampling)
            got = self._engine.last
            divergence = self._compare_generation(step, self._stored[step.index], got.tokens if got is not None else ())
            if divergence is not None:
                return divergence
        if new is not None:
            await conversation.rewrite(new.tokens)
        return await self._compare_transcript(step, "context")

    async def _user_turn(self, step: StoredStep) -> Divergence | None:
        await self._conversation.add_user(put_together(step.text, self._images.get(step.index, ())))
        return await self._compare_transcript(step, "prompt")

    async def _generation(self, step: StoredStep) -> Generation:
        stored = await _in_thread(lambda: self._store.generation(self._id, step.index))
        if stored is None:
            raise StoreError(
                f"Step {step.index} of session {self._id} has no sampled tokens, so it cannot be replayed.",
                hint="It was made by a chat-only model, or by an older g4agent.",
            )
        return stored

    async def _model_step(self, step: StoredStep) -> Divergence | None:
        stored = self._stored[step.index]
        enough = min(stored.max_tokens, len(stored.tokens) + 1)  # one token more than expected is a divergence already
        limits = GenerationLimits(enough, stored.thought_limit, self._sampling)
        async with aclosing(self._conversation.generate(step.index, limits)) as events:
            async for _ in events:
                pass
        got = self._engine.last
        if (divergence := self._compare_generation(step, stored, got.tokens if got is not None else ())) is not None:
            return divergence
        if results := self._results[step.index]:
            images: dict[str, list[Image]] = defaultdict(list)
            for each in self._images.get(step.index, ()) if self._conversation.info.sees_images else ():
                images[each.call_id or ""].append(each.image)
            await self._conversation.add_results(results, images)
        return await self._compare_transcript(step, "results")

    def _compare_generation(
        self, step: StoredStep, stored: Generation, got: Sequence[SampledToken]
    ) -> Divergence | None:
        at = _first_difference([token.id for token in stored.tokens], [token.id for token in got])
        for old, new in zip(stored.tokens[:at], got[:at], strict=True):
            self._tokens += 1
            if old.logprob is not None and new.logprob is not None:
                difference = abs(old.logprob - _as_stored(new.logprob))
                self._logprob_difference = max(self._logprob_difference, difference)
        return None if at is None else _divergence(step, "generation", at, stored.tokens, got)

    async def _compare_transcript(self, step: StoredStep, part: Part) -> Divergence | None:
        """Compares all that the step changed, where its sampled tokens are known to be the same."""
        stored = await _in_thread(lambda: self._store.delta(self._id, step.index))
        got = self._conversation.take_delta()
        at = 0 if got.start != stored.start else _first_difference(stored.tokens, got.tokens)
        if at is None:
            return None
        return _divergence(step, part, at, *([SampledToken(id) for id in d.tokens] for d in (stored, got)))


def _divergence(
    step: StoredStep,
    part: Part,
    index: int,
    expected: Sequence[SampledToken],
    got: Sequence[SampledToken],
) -> Divergence:
    old, new = (tokens[index] if index < len(tokens) else None for tokens in (expected, got))
    return Divergence(step.index, part, index, old, new)


def _first_difference(expected: Sequence[int], got: Sequence[int]) -> int | None:
    """The first place where two sequences of ids are not alike; None where there is none."""
    for index, (old, new) in enumerate(zip(expected, got, strict=False)):
        if old != new:
            return index
    return None if len(expected) == len(got) else min(len(expected), len(got))


def _as_stored(logprob: float) -> float:
    """In the 32 bits that the store keeps."""
    return float(struct.unpack("<f", struct.pack("<f", logprob))[0])


async def _in_thread(function: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(function)
