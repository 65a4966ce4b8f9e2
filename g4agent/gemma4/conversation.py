"""A dialogue with a model that takes and gives token ids: rendered, parsed and kept here, exactly as generated.

The ids in the engine are the history. Nothing is rendered or tokenised twice: a step appends what is new, and a
generation is read while it arrives. Between two user turns everything stays in place except the model's thoughts, which
leave when the next user turn comes, as the chat template has it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from enum import Enum, auto
from typing import Literal

from g4agent.context.shelf import ResultShelf, put_away, shortened
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
from g4agent.gemma4.masks import CallMasks
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
from g4agent.gemma4.pictures import Pictures
from g4agent.gemma4.repair import Malformed, read_call
from g4agent.gemma4.sections import first_turn_end, same_start, without_thoughts
from g4agent.gemma4.signals import CallMeter
from g4agent.gemma4.tokens import (
    BOS,
    CHANNEL_CLOSE,
    EOS,
    RESPONSE_OPEN,
    TURN_CLOSE,
    TURN_OPEN,
    Control,
    Segment,
    encode_segments,
)
from g4agent.image import Image, ImagesOfCalls, Prompt, images_of
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
        soft_tokens: Callable[[Image], int] | None = None,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self.engine = engine
        self.masks = CallMasks(accepts_grammar)
        self.pictures = Pictures(info.name, engine, soft_tokens)
        self._tools = ToolSet()
        self._shelf: ResultShelf | None = None
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

    @property
    def tools(self) -> ToolSet:
        """The tools that are declared in the transcript."""
        return self._tools

    def count(self, usage: Usage) -> None:
        """Adds to the usage what was computed beside the transcript."""
        self._usage += usage

    async def begin(self, setup: ConversationSetup) -> None:
        self._expect(Awaits.BEGIN)
        self._take_setup(setup)
        declarations = [render.declaration(t.name, t.description, t.declaration.parameters) for t in setup.tools]
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
        self._look_through()
        self._awaits = Awaits.GENERATION if self._turn_start and tokens[-1] != TURN_CLOSE else Awaits.USER

    async def add_user(self, prompt: Prompt) -> None:
        said = await self.pictures.user_turn(prompt)
        if self._awaits is not Awaits.GENERATION:  # else the last turn was stopped between steps: it is closed here
            self._expect(Awaits.USER)
        start = self._turn_start or self.length
        turn = self.engine.tokens[start:]
        closed = [*turn, *(self._closing() if self._awaits is Awaits.GENERATION else ())]
        kept = without_thoughts(closed)
        same = same_start(turn, kept)
        newline = render.turn_close(token_present=True) if turn else []
        opening = render.model_turn_open(thinking=True, variant="small")
        added = [*kept[same:], *self._ids([*newline, *said, *opening])]
        cue = self._ids(render.model_turn_open(self._thinking, self.info.variant))[len(self._ids(opening)) :]
        self._require_room(start + same, len(added) + len(cue) + CLOSE)
        await self.pictures.show(images_of(prompt))
        await self._truncate(start + same)
        await self._force(added)
        self._turn_start = self.length
        await self.engine.mark()
        await self._force(cue)
        self._awaits = Awaits.GENERATION

    async def add_results(
        self, results: Sequence[ToolResult], images: ImagesOfCalls | None = None
    ) -> Sequence[ToolResult]:
        self._expect(Awaits.RESULTS)
        if [r.call_id for r in results] != [c.id for c in self._calls]:
            raise ConversationError("the results do not answer the calls of the last step one by one, in order")
        results, blocks = await self.pictures.decoded(results, images)
        shown = results if self._shelf is None else await self._shorten(results, self._shelf)
        ids = self._ids(self._responses(shown))
        if any(blocks):
            room = self.info.context_length - self.length - len(ids) - CLOSE - ERROR
            ids = self._ids(self._responses(shown, await self.pictures.fitting(blocks, room)))
        if self.length + len(ids) + CLOSE > self.info.context_length:
            shown = [ToolResult(r.call_id, r.name, error=TOO_LONG) for r in results]
            ids = self._ids(self._responses(shown))
        await self._force(ids)
        self._calls = []
        self._awaits = Awaits.GENERATION
        return shown

    def with_tool(self, tokens: Sequence[int], tool: Tool) -> list[int]:
        """A transcript with a tool in its system turn, behind the others; as it is where the tool is there already."""
        end = first_turn_end(tokens)
        return [*tokens[:end], *(() if tool.name in self._tools else self._declaration(tool)), *tokens[end:]]

    async def rewrite(self, tokens: Sequence[int]) -> None:
        """Puts another transcript in the place of this one, which awaits the same."""
        longer = len(tokens) - self.length
        same = same_start(self.engine.tokens, tokens)
        await self._truncate(same)
        await self._force(tokens[same:])
        self._undo = None if self._undo is None else self._undo + longer
        self._look_through()

    async def generate(self, step: int, limits: GenerationLimits) -> AsyncGenerator[ModelEvent, None]:
        self._expect(Awaits.GENERATION)
        self._undo, before = self.length, self._usage
        parser = Parser(self.tokenizer, initial_state_from(self.engine.tokens[self._turn_start :]))
        meter = CallMeter(self.tokenizer)
        thought_closed = False
        if (room := self._room()) > 0:
            request = GenerateRequest(
                max_tokens=min(room, limits.max_tokens),
                sampling=limits.sampling,
                thought_limit=limits.thought_limit,
                in_thought=parser.state in _THINKING,
                mask=self.masks.mask(self.engine.tokens[self._turn_start :]),
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
        return self.info.context_length - self.length - CLOSE - ERROR * (len(self._calls) + 1)

    def _responses(self, results: Sequence[ToolResult], images: Sequence[Sequence[Segment]] = ()) -> list[Segment]:
        named = [(result.name, result.response()) for result in results]
        return render.tool_responses(named, opener_present=True, thinking=self._thinking, images=images)

    async def _shorten(self, results: Sequence[ToolResult], shelf: ResultShelf) -> list[ToolResult]:
        """The results as they fit: into their share of the window, and into what is left of it."""

        def length(result: ToolResult) -> int:
            return len(self._ids(render.tool_responses([(result.name, result.response())], False, self._thinking)))

        share = int(self.info.context_length * shelf.share) // len(results)
        if all(length(result) <= min(share, self._left(len(results))) for result in results):
            return list(results)
        declared = self.with_tool(self.engine.tokens, shelf.tool)
        if len(declared) + CLOSE + ERROR * (len(results) + 1) > self.info.context_length:
            return list(results)  # what does not fit is refused
        await self.rewrite(declared)
        limit = min(share, self._left(len(results)))
        return [r if length(r) <= limit else shortened(r, limit, length) or put_away(r) for r in results]

    def _left(self, results: int) -> int:
        """Tokens that each of some results may have, with room for the model to go on and be answered once more."""
        return max(0, self.info.context_length - self.length - CLOSE - ERROR) // results

    # The transcript ---------------------------------------------------------------------------------------------------

    def _declaration(self, tool: Tool) -> list[int]:
        return self._ids(render.declaration(tool.name, tool.description, tool.declaration.parameters))

    def _look_through(self) -> None:
        """Finds out where the last model turn's content begins, and whether the shelf's tool is declared."""
        tokens, end = self.engine.tokens, first_turn_end(self.engine.tokens)
        opening = self._ids(render.model_turn_open(thinking=True, variant="small"))
        last = next((i for i in range(len(tokens) - 1, -1, -1) if tokens[i] == TURN_OPEN), len(tokens))
        self._turn_start = last + len(opening) if list(tokens[last : last + len(opening)]) == opening else 0
        if self._shelf is not None and (tool := self._shelf.tool).name not in self._tools:
            declared = self._declaration(tool)
            if list(tokens[end - len(declared) : end]) == declared:
                self._tools = ToolSet([*self._tools.values(), tool])
                self.masks.take_tools(self._tools)

    def _take_setup(self, setup: ConversationSetup) -> None:
        self._tools = ToolSet(setup.tools)
        self._shelf = setup.shelf
        if self._shelf is not None:
            self._shelf.fit(self.info.context_length)
        self._thinking = setup.thinking
        self.masks.take_setup(setup)

    def _ids(self, segments: Sequence[Segment]) -> list[int]:
        return encode_segments(self.tokenizer, segments)

    async def _force(self, ids: Sequence[int]) -> None:
        await self.engine.append(ids)
        self._usage += Usage(prompt_tokens=len(ids))

    async def _truncate(self, length: int) -> None:
        if length < self.length:
            await self.engine.truncate(length)
            self._taken = min(self._taken, length)

    def _require_room(self, start: int, added: int) -> None:
        room = self.info.context_length - start
        if added > room:
            raise ContextOverflowError(
                f"{added} tokens do not fit: {room} of {self.info.context_length} are left",
                hint="Nothing was changed. Put long input into a file that a tool reads in parts, begin a new session, "
                "or load the model with a larger context_length.",
            )

    def _expect(self, state: Awaits) -> None:
        if self._awaits is not state:
            raise ConversationError(f"the conversation awaits {self._awaits.name.lower()}, not {state.name.lower()}")
