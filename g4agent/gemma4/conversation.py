"""A dialogue with a model that takes and gives token ids: rendered, parsed and kept here, exactly as generated.

The ids in the engine are the history. Nothing is rendered or tokenised twice: a step appends what is new, and a
generation is read while it arrives. Between two user turns everything stays in place except the model's thoughts, which
leave when the next user turn comes, as the chat template has it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from enum import Enum, auto
from typing import Literal

from g4agent.errors import ContextOverflowError, ConversationError
from g4agent.events import (
    CallDelta,
    CallMalformed,
    CallReady,
    GenerationFinished,
    ModelEvent,
    TextDelta,
    ThoughtDelta,
    Usage,
)
from g4agent.gemma4 import render
from g4agent.gemma4.parse import (
    AnswerText,
    CallEnd,
    CallText,
    ParseEvent,
    Parser,
    State,
    ThoughtText,
    initial_state_from,
)
from g4agent.gemma4.repair import Malformed, read_call
from g4agent.gemma4.tokens import (
    BOS,
    CALL_OPEN,
    CHANNEL_CLOSE,
    CHANNEL_OPEN,
    EOS,
    RESPONSE_OPEN,
    TURN_CLOSE,
    TURN_OPEN,
    Control,
    Segment,
    encode_segments,
)
from g4agent.messages import ToolCall, ToolError, ToolResult
from g4agent.ports.runtime import (
    ConversationSetup,
    GenerateRequest,
    GenerationLimits,
    ModelInfo,
    TokenEngine,
    Tokenizer,
    TranscriptDelta,
)
from g4agent.tools import ToolSet

RESERVE = 256
"""Tokens of the window that no generation may use, so that an error result and the end of the turn always fit."""


class Awaits(Enum):
    """What may come next."""

    BEGIN = auto()
    USER = auto()
    GENERATION = auto()
    RESULTS = auto()


class NativeConversation:
    """The `Conversation` of every token runtime."""

    def __init__(self, info: ModelInfo, tokenizer: Tokenizer, engine: TokenEngine) -> None:
        self._info = info
        self._tokenizer = tokenizer
        self.engine = engine
        self._tools = ToolSet()
        self._thinking = False
        self._awaits = Awaits.BEGIN
        self._turn_start = 0
        """Where the present model turn's content starts."""
        self._step_start = 0
        """Where the present generation started."""
        self._taken = 0
        """How much of the transcript `take_delta` has given and is still in place."""
        self._calls: list[ToolCall] = []

    @property
    def length(self) -> int:
        return len(self.engine.tokens)

    async def begin(self, setup: ConversationSetup) -> None:
        self._expect(Awaits.BEGIN)
        self._take_setup(setup)
        declarations = [
            render.declaration(tool.name, tool.description, tool.declaration.parameters) for tool in setup.tools
        ]
        await self._append([Control(BOS), *render.system_turn(setup.system, declarations, setup.thinking)])
        self._awaits = Awaits.USER

    async def restore(self, setup: ConversationSetup, tokens: Sequence[int]) -> None:
        self._expect(Awaits.BEGIN)
        self._take_setup(setup)
        await self.engine.append(tokens)
        self._taken = len(tokens)
        opening = self._ids(render.model_turn_open(thinking=True, variant="small"))
        opens = [i for i, token in enumerate(tokens) if token == TURN_OPEN]
        if opens and list(tokens[opens[-1] : opens[-1] + len(opening)]) == opening:
            self._turn_start = opens[-1] + len(opening)
            self._awaits = Awaits.USER if tokens[-1] == TURN_CLOSE else Awaits.GENERATION
        else:
            self._awaits = Awaits.USER

    async def add_user(self, text: str) -> None:
        if self._awaits is Awaits.GENERATION:  # the last turn was stopped between steps: close it where it is
            await self._close_turn()
        self._expect(Awaits.USER)
        turn_start = self._turn_start or self.length
        turn = self.engine.tokens[turn_start:]
        kept = without_thoughts(turn)
        unchanged = next((i for i, (a, b) in enumerate(zip(turn, kept, strict=False)) if a != b), len(kept))
        newline = render.turn_close(token_present=True) if turn else []
        opening = render.model_turn_open(thinking=True, variant="small")
        added = [*kept[unchanged:], *self._ids([*newline, *render.user_turn(text), *opening])]
        cue = self._ids(render.model_turn_open(self._thinking, self._info.variant))[len(self._ids(opening)) :]
        self._require_room(turn_start + unchanged, len(added) + len(cue) + RESERVE)
        await self._truncate(turn_start + unchanged)
        await self.engine.append(added)
        self._turn_start = self.length
        await self.engine.mark()
        await self.engine.append(cue)
        self._awaits = Awaits.GENERATION

    async def add_results(self, results: Sequence[ToolResult]) -> None:
        self._expect(Awaits.RESULTS)
        if [r.call_id for r in results] != [c.id for c in self._calls]:
            raise ConversationError("the results do not answer the calls of the last step one by one, in order")
        try:
            await self._append(self._responses(results))
        except ContextOverflowError:
            note = ToolError("exception", "the result is too long for what is left of the context window")
            short = [ToolResult(r.call_id, r.name, error=note) for r in results]
            await self._append(self._responses(short))
        self._calls = []
        self._awaits = Awaits.GENERATION

    async def generate(self, step: int, limits: GenerationLimits) -> AsyncGenerator[ModelEvent, None]:
        self._expect(Awaits.GENERATION)
        self._step_start = self.length
        parser = Parser(self._tokenizer, initial_state_from(self.engine.tokens[self._turn_start :]))
        room = self._info.context_length - self.length - RESERVE
        generated = thought = 0
        thought_closed = False
        if room > 0:
            in_thought = parser.state in (State.THOUGHT, State.LABEL)
            request = GenerateRequest(
                max_tokens=min(room, limits.max_tokens),
                sampling=limits.sampling,
                thought_limit=limits.thought_limit,
                in_thought=in_thought,
            )
            async with aclosing(self.engine.generate(request)) as tokens:
                async for token in tokens:
                    generated += 1
                    thought_closed |= token.forced
                    events = parser.feed(token.id)
                    thought += parser.state in (State.THOUGHT, State.LABEL)
                    for event in self._events(step, events):
                        yield event
        for event in self._events(step, parser.finish()):
            yield event
        usage = Usage(generated_tokens=generated, thought_tokens=thought)
        reason = await self._close_generation(full=generated == room or room <= 0)
        yield GenerationFinished(reason, usage, thought_closed)

    async def rewind(self) -> None:
        if self._awaits in (Awaits.GENERATION, Awaits.RESULTS) and self._step_start >= self._turn_start > 0:
            await self._truncate(max(self._step_start, self._turn_start))
            self._calls = []
            self._awaits = Awaits.GENERATION

    def take_delta(self) -> TranscriptDelta:
        delta = TranscriptDelta(self._taken, tuple(self.engine.tokens[self._taken :]))
        self._taken = self.length
        return delta

    async def close(self) -> None:
        await self.engine.close()

    # Generation -------------------------------------------------------------------------------------------------------

    def _events(self, step: int, parsed: Sequence[ParseEvent]) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        for event in parsed:
            match event:
                case ThoughtText(text):
                    events.append(ThoughtDelta(text))
                case AnswerText(text):
                    events.append(TextDelta(text))
                case CallText(text):
                    events.append(CallDelta(len(self._calls), text))
                case CallEnd():
                    events.append(self._call(step, event))
                case (
                    _
                ):  # structure, or what the model wrote after the end of its turn: kept in the ids, shown to nobody
                    pass
        return events

    def _call(self, step: int, end: CallEnd) -> CallReady | CallMalformed:
        read = read_call(end.call, self._tools)
        id = f"s{step}c{len(self._calls)}"
        if isinstance(read, Malformed):
            call = ToolCall(id, read.name, {})
            self._calls.append(call)
            return CallMalformed(call, end.text, ToolError("malformed_call", read.message, end.text))
        call = ToolCall(id, read.name, read.arguments)
        self._calls.append(call)
        return CallReady(call, read.repairs)

    async def _close_generation(self, full: bool) -> Literal["turn_end", "calls", "max_tokens", "context_full"]:
        """Leaves the transcript at a well-formed place, whatever the model stopped with.

        After calls it ends with `<|tool_response>`: small models sometimes end with `<eos>` or `<turn|>` there. After
        anything else it ends with `<turn|>`, and a thought that is still open is closed.
        """
        last = self.engine.tokens[-1]
        stopped = self.length > self._step_start and last in (EOS, TURN_CLOSE, RESPONSE_OPEN)
        end = RESPONSE_OPEN if self._calls else TURN_CLOSE
        if stopped and last != end:
            await self._truncate(self.length - 1)
        if self._calls:
            if not stopped or last != end:
                await self.engine.append([end])
            self._awaits = Awaits.RESULTS
            return "calls"
        if not stopped or last != end:
            await self._close_turn()
        self._awaits = Awaits.USER
        if stopped:
            return "turn_end"
        return "context_full" if full else "max_tokens"

    async def _close_turn(self) -> None:
        open_thought = initial_state_from(self.engine.tokens[self._turn_start :]) is not State.TEXT
        await self.engine.append([CHANNEL_CLOSE, TURN_CLOSE] if open_thought else [TURN_CLOSE])
        self._awaits = Awaits.USER

    def _responses(self, results: Sequence[ToolResult]) -> list[Segment]:
        named = [(result.name, result.response()) for result in results]
        return render.tool_responses(named, opener_present=True, thinking=self._thinking)

    # The transcript ---------------------------------------------------------------------------------------------------

    def _take_setup(self, setup: ConversationSetup) -> None:
        self._tools = ToolSet(setup.tools)
        self._thinking = setup.thinking

    def _ids(self, segments: Sequence[Segment]) -> list[int]:
        return encode_segments(self._tokenizer, segments)

    async def _append(self, segments: Sequence[Segment]) -> None:
        ids = self._ids(segments)
        self._require_room(self.length, len(ids))
        await self.engine.append(ids)

    async def _truncate(self, length: int) -> None:
        if length < self.length:
            await self.engine.truncate(length)
            self._taken = min(self._taken, length)

    def _require_room(self, start: int, added: int) -> None:
        room = self._info.context_length - start
        if added > room:
            raise ContextOverflowError(
                f"{added} tokens do not fit: {room} of {self._info.context_length} are left",
                hint="Start a new session, shorten the input, or use a model with a longer context.",
            )

    def _expect(self, state: Awaits) -> None:
        if self._awaits is not state:
            raise ConversationError(f"the conversation awaits {self._awaits.name.lower()}, not {state.name.lower()}")


def without_thoughts(turn: Sequence[int]) -> list[int]:
    """A model turn's ids without its thought channels.

    A thought runs from `<|channel>` to `<channel|>`; one that the model left open ends where a call begins, as the
    parser reads it.
    """
    kept: list[int] = []
    inside = False
    for token in turn:
        inside = (inside or token == CHANNEL_OPEN) and token != CALL_OPEN
        if not inside:
            kept.append(token)
        inside = inside and token != CHANNEL_CLOSE
    return kept
