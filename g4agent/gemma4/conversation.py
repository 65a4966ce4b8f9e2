"""A dialogue with a model that takes and gives token ids: rendered, parsed and kept here, exactly as generated.

The ids in the engine are the history. Nothing is rendered or tokenised twice: a step appends what is new, and a
generation is read while it arrives. Between two user turns everything stays in place except the model's thoughts, which
leave when the next user turn comes, as the chat template has it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from enum import Enum, auto
from typing import Literal

from g4agent.errors import ConfigError, ContextOverflowError, ConversationError
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
from g4agent.gemma4.grammar import answer_grammar, call_grammar
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
from g4agent.gemma4.signals import CallMeter
from g4agent.gemma4.tokens import (
    BOS,
    CALL_CLOSE,
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
    CallRules,
    ConversationSetup,
    GenerateRequest,
    GenerationLimits,
    ModelInfo,
    OutputMask,
    TokenEngine,
    Tokenizer,
    TranscriptDelta,
)
from g4agent.tools import MAX_NAME_LENGTH, Tool
from g4agent.toolset import ToolSet

CLOSE = 2
"""Tokens that the end of a turn may need: `<channel|>` and `<turn|>`."""
ERROR = 256
"""Tokens kept free for each call of a step, so that its result, or an error in the place of it, always fits."""
TOO_LONG = ToolError("exception", "the result is too long for what is left of the context window")


_THINKING = (State.LABEL, State.THOUGHT)


class Awaits(Enum):
    """What may come next."""

    BEGIN = auto()
    USER = auto()
    GENERATION = auto()
    RESULTS = auto()


class NativeConversation:
    """The `Conversation` of every token runtime."""

    def __init__(
        self,
        info: ModelInfo,
        tokenizer: Tokenizer,
        engine: TokenEngine,
        accepts_grammar: Callable[[str], bool] | None = None,
    ) -> None:
        self._info = info
        self._tokenizer = tokenizer
        self.engine = engine
        self._accepts_grammar = accepts_grammar
        """Whether a grammar compiles in the engine; None where it cannot mask."""
        self._rules = CallRules()
        self._grammar: str | None = None
        self._answer: str | None = None
        self.unmasked: Mapping[str, tuple[str, ...]] = {}
        """By tool, the rules of its schema that no mask enforces, only the validator."""
        self._tools = ToolSet()
        self._thinking = False
        self._awaits = Awaits.BEGIN
        self._turn_start = 0
        """Where the present model turn's content starts."""
        self._undo: int | None = None
        """Where the last generation started, until it is committed."""
        self._usage = Usage()
        self._taken = 0
        """How much of the transcript `take_delta` has given and is still in place."""
        self._calls: list[ToolCall] = []

    @property
    def length(self) -> int:
        return len(self.engine.tokens)

    @property
    def usage(self) -> Usage:
        return self._usage

    async def begin(self, setup: ConversationSetup) -> None:
        self._expect(Awaits.BEGIN)
        self._take_setup(setup)
        declarations = [
            render.declaration(tool.name, tool.description, tool.declaration.parameters) for tool in setup.tools
        ]
        ids = self._ids([Control(BOS), *render.system_turn(setup.system, declarations, setup.thinking)])
        self._require_room(0, len(ids))
        await self._force(ids)
        await self.engine.mark()  # here sessions of one agent part
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
        if self._awaits is not Awaits.GENERATION:  # else the last turn was stopped between steps: it is closed here
            self._expect(Awaits.USER)
        start = self._turn_start or self.length
        turn = self.engine.tokens[start:]
        closed = [*turn, *(self._closing() if self._awaits is Awaits.GENERATION else ())]
        kept = without_thoughts(closed)
        same = next((i for i, (a, b) in enumerate(zip(turn, kept, strict=False)) if a != b), min(len(turn), len(kept)))
        newline = render.turn_close(token_present=True) if turn else []
        opening = render.model_turn_open(thinking=True, variant="small")
        added = [*kept[same:], *self._ids([*newline, *render.user_turn(text), *opening])]
        cue = self._ids(render.model_turn_open(self._thinking, self._info.variant))[len(self._ids(opening)) :]
        self._require_room(start + same, len(added) + len(cue) + CLOSE)
        await self._truncate(start + same)
        await self._force(added)
        self._turn_start = self.length
        await self.engine.mark()
        await self._force(cue)
        self._awaits = Awaits.GENERATION

    async def add_results(self, results: Sequence[ToolResult]) -> Sequence[ToolResult]:
        self._expect(Awaits.RESULTS)
        if [r.call_id for r in results] != [c.id for c in self._calls]:
            raise ConversationError("the results do not answer the calls of the last step one by one, in order")
        ids = self._ids(self._responses(results))
        if self.length + len(ids) + CLOSE > self._info.context_length:
            results = [ToolResult(r.call_id, r.name, error=TOO_LONG) for r in results]
            ids = self._ids(self._responses(results))
        await self._force(ids)
        self._calls = []
        self._awaits = Awaits.GENERATION
        return results

    async def generate(self, step: int, limits: GenerationLimits) -> AsyncGenerator[ModelEvent, None]:
        self._expect(Awaits.GENERATION)
        self._undo, before = self.length, self._usage
        parser = Parser(self._tokenizer, initial_state_from(self.engine.tokens[self._turn_start :]))
        meter = CallMeter(self._tokenizer)
        thought_closed = False
        if (room := self._room()) > 0:
            request = GenerateRequest(
                max_tokens=min(room, limits.max_tokens),
                sampling=limits.sampling,
                thought_limit=limits.thought_limit,
                in_thought=parser.state in _THINKING,
                mask=self._mask(),
            )
            async with aclosing(self.engine.generate(request)) as tokens:
                async for token in tokens:
                    thought_closed |= token.forced and token.id == CHANNEL_CLOSE
                    events = parser.feed(token.id)
                    meter.see(token)
                    self._usage += Usage(generated_tokens=1, thought_tokens=int(parser.state in _THINKING))
                    for event in self._events(step, events, meter):
                        yield event
                    if self._calls and self._room() <= 0:  # another call could not be answered any more
                        break
        for event in self._events(step, parser.finish(), meter):
            yield event
        reason = await self._close_generation(full=self._room() <= 0)
        yield GenerationFinished(reason, self._usage - before, thought_closed)

    async def rewind(self) -> None:
        if self._undo is not None:
            await self._truncate(self._undo)
            self._undo = None
            self._calls = []
            self._awaits = Awaits.GENERATION

    def take_delta(self) -> TranscriptDelta:
        delta = TranscriptDelta(self._taken, tuple(self.engine.tokens[self._taken :]))
        self._taken = self.length
        self._undo = None
        return delta

    async def close(self) -> None:
        await self.engine.close()

    # Generation -------------------------------------------------------------------------------------------------------

    def _mask(self) -> OutputMask | None:
        """What the next generation may write; None where nothing needs an engine's mask."""
        if self._accepts_grammar is None or not (self._tools or self._answer):
            return None
        turn = self.engine.tokens[self._turn_start :]
        choice = self._rules.choice
        calls: Literal["allowed", "required", "forbidden"] = "allowed"
        if choice == "none" or not self._tools:
            calls = "forbidden"
        elif choice != "auto" and CALL_CLOSE not in turn:
            calls = "required"
        named = calls == "required" and choice != "required"
        grammar = self._grammar_of([self._tools[choice]]) if named else self._grammar
        return OutputMask(grammar, calls, self._answer, may_think=self._thinking)

    def _grammar_of(self, tools: Sequence[Tool]) -> str | None:
        if not self._rules.masked or self._accepts_grammar is None or not tools:
            return None
        grammar = call_grammar(tools, parallel=self._rules.parallel, accepts=self._accepts_grammar)
        self.unmasked = {**self.unmasked, **grammar.unmasked}
        return grammar.text

    def _events(self, step: int, parsed: Sequence[ParseEvent], meter: CallMeter) -> list[ModelEvent]:
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
                    events.append(self._call(step, event, meter))
                case (
                    _
                ):  # structure, or what the model wrote after the end of its turn: kept in the ids, shown to nobody
                    pass
        return events

    def _call(self, step: int, end: CallEnd, meter: CallMeter) -> CallReady | CallMalformed:
        read = read_call(end.call, self._tools)
        id = f"s{step}c{len(self._calls)}"
        if isinstance(read, Malformed):
            call = ToolCall(id, read.name[:MAX_NAME_LENGTH], {})
            self._calls.append(call)
            return CallMalformed(call, end.text, ToolError("malformed_call", read.message, end.text))
        call = ToolCall(id, read.name[:MAX_NAME_LENGTH], read.arguments)
        self._calls.append(call)
        return CallReady(call, read.repairs, meter.take())

    async def _close_generation(self, full: bool) -> Literal["turn_end", "calls", "max_tokens", "context_full"]:
        """Leaves the transcript at a well-formed place, whatever the model stopped with.

        After calls it ends with `<|tool_response>`: small models sometimes end with `<eos>` or `<turn|>` there. After
        anything else it ends with `<turn|>`, and a thought that is still open is closed.
        """
        assert self._undo is not None
        last = self.engine.tokens[-1]
        stopped = self.length > self._undo and last in (EOS, TURN_CLOSE, RESPONSE_OPEN)
        end = RESPONSE_OPEN if self._calls else TURN_CLOSE
        if stopped and last != end:
            await self._truncate(self.length - 1)
        if self._calls:
            if not stopped or last != end:
                await self._force([end])
            self._awaits = Awaits.RESULTS
            return "calls"
        if not stopped or last != end:
            await self._force(self._closing())
        self._awaits = Awaits.USER
        if stopped:
            return "turn_end"
        return "context_full" if full else "max_tokens"

    def _closing(self) -> list[int]:
        """What ends the model turn here: an open thought is closed first."""
        open_thought = initial_state_from(self.engine.tokens[self._turn_start :]) is not State.TEXT
        return [CHANNEL_CLOSE, TURN_CLOSE] if open_thought else [TURN_CLOSE]

    def _room(self) -> int:
        """Tokens that the model may still generate in this step, with room for the results of one more call."""
        return self._info.context_length - self.length - CLOSE - ERROR * (len(self._calls) + 1)

    def _responses(self, results: Sequence[ToolResult]) -> list[Segment]:
        named = [(result.name, result.response()) for result in results]
        return render.tool_responses(named, opener_present=True, thinking=self._thinking)

    # The transcript ---------------------------------------------------------------------------------------------------

    def _take_setup(self, setup: ConversationSetup) -> None:
        self._tools = ToolSet(setup.tools)
        self._thinking = setup.thinking
        self._rules = setup.calls
        if (choice := setup.calls.choice) not in ("auto", "required", "none", *self._tools):
            raise ConfigError(f"there is no tool called {choice!r} to choose", hint="Name one of the agent's tools.")
        if choice != "auto" and self._accepts_grammar is None:
            raise ConfigError(f"this model's engine cannot promise the tool choice {choice!r}", hint="Use auto.")
        self._grammar = self._grammar_of(setup.tools)
        if setup.answer_schema is not None and setup.calls.masked and self._accepts_grammar is not None:
            self._answer = answer_grammar(setup.answer_schema)

    def _ids(self, segments: Sequence[Segment]) -> list[int]:
        return encode_segments(self._tokenizer, segments)

    async def _force(self, ids: Sequence[int]) -> None:
        await self.engine.append(ids)
        self._usage += Usage(prompt_tokens=len(ids))

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
