"""A token engine that plays scripted native text, one piece per generation."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import anyio.lowlevel

from g4agent.errors import ContextOverflowError, ConversationError
from g4agent.gemma4.tokens import CHANNEL_CLOSE, CHANNEL_OPEN, CONTROL_TOKENS, Control, Segment, Text, encode_segments
from g4agent.ports.runtime import GenerateRequest, ModelInfo, SampledToken
from g4agent.testing.conversation import SCRIPTED
from g4agent.testing.tokenizer import ByteTokenizer

_CONTROL_IDS = {string: id for id, string in CONTROL_TOKENS.items()}
_CONTROL_PATTERN = re.compile("(" + "|".join(re.escape(s) for s in _CONTROL_IDS) + ")")


@dataclass(slots=True)
class ScriptedRuntime:
    """A token runtime whose engines generate the script's pieces in turn.

    Each piece is native text in which control strings stand for control tokens, for example
    `'<|tool_call>call:add{a:1}<tool_call|><|tool_response>'`.
    """

    script: Sequence[str]
    info: ModelInfo = SCRIPTED
    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)
    position: int = 0

    async def open_engine(self) -> ScriptedEngine:
        return ScriptedEngine(self)

    async def close(self) -> None:
        return None

    def assert_complete(self) -> None:
        """Raises AssertionError unless every piece of the script was generated."""
        assert self.position == len(self.script), f"{len(self.script) - self.position} scripted pieces were not used"

    def ids(self, native: str) -> list[int]:
        """Token ids of native text, control strings included."""
        pieces = _CONTROL_PATTERN.split(native)
        segments: list[Segment] = [Control(_CONTROL_IDS[p]) if p in _CONTROL_IDS else Text(p) for p in pieces]
        return encode_segments(self.tokenizer, segments)


class ScriptedEngine:
    """Keeps the sequence as a real engine does: stop ids, token and thought limits, the context window."""

    def __init__(self, runtime: ScriptedRuntime) -> None:
        self._runtime = runtime
        self._tokens: list[int] = []
        self.computed_tokens = 0

    @property
    def tokens(self) -> Sequence[int]:
        return self._tokens

    async def append(self, ids: Sequence[int]) -> None:
        if len(self._tokens) + len(ids) > self._runtime.info.context_length:
            raise ContextOverflowError(f"{len(ids)} tokens do not fit after {len(self._tokens)}")
        self._tokens += ids

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[SampledToken, None]:
        runtime = self._runtime
        if runtime.position >= len(runtime.script):
            raise ConversationError("the script is over", hint="Add a piece to the ScriptedRuntime's script.")
        piece = runtime.ids(runtime.script[runtime.position])
        runtime.position += 1
        room = min(request.max_tokens, runtime.info.context_length - len(self._tokens))
        for token in islice(_within_thought_limit(piece, request), room):
            await anyio.lowlevel.checkpoint()
            self._tokens.append(token.id)
            self.computed_tokens = len(self._tokens)
            yield token
            if token.id in request.stop_ids:
                return

    async def mark(self) -> None:
        return None

    async def truncate(self, length: int) -> None:
        del self._tokens[length:]

    async def close(self) -> None:
        return None


def _within_thought_limit(piece: Iterable[int], request: GenerateRequest) -> Iterator[SampledToken]:
    """The piece, with a thought that grows too long closed by force and the rest of it left out."""
    thinking, thought, skipping = request.in_thought, 0, False
    for token in piece:
        if thinking and token != CHANNEL_CLOSE:
            if thought == request.thought_limit:
                thinking, skipping = False, True
                yield SampledToken(CHANNEL_CLOSE, forced=True)
            thought += 1
        elif token in (CHANNEL_OPEN, CHANNEL_CLOSE):
            thinking = token == CHANNEL_OPEN
        if not skipping:
            yield SampledToken(token)
        elif token == CHANNEL_CLOSE:
            skipping = False
