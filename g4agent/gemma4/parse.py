"""What the model writes, read token by token: thoughts, answer, calls, and where the turn ends.

A state machine on ids, so that text which merely spells a control token is text, and a call is born from token 48 and
from nothing else. Nothing is lost: the `text` of all events but `CallText`, joined, is the decoded input.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from g4agent.gemma4.decode import Detokenizer
from g4agent.gemma4.tokens import (
    CALL_CLOSE,
    CALL_OPEN,
    CHANNEL_CLOSE,
    CHANNEL_OPEN,
    CONTROL_TOKENS,
    EOS,
    RESPONSE_CLOSE,
    RESPONSE_OPEN,
    TURN_CLOSE,
    TURN_OPEN,
    Control,
    Segment,
    Text,
    to_text,
)

if TYPE_CHECKING:
    from g4agent.ports.runtime import Tokenizer

_LABEL: Final = "thought\n"
_ENDS_TURN: Final = frozenset({EOS, TURN_CLOSE, RESPONSE_OPEN, TURN_OPEN})
_ENDS_CALL: Final = frozenset({CALL_OPEN, CALL_CLOSE, CHANNEL_OPEN, *_ENDS_TURN})
_CLOSES_THOUGHT: Final = frozenset({CHANNEL_CLOSE, RESPONSE_CLOSE, *_ENDS_CALL})
"""No thought is open right after one of these in a prompt, where `<tool_response|>` is never astray."""


class State(enum.Enum):
    """Where in the model's turn the next token falls."""

    TEXT = enum.auto()
    LABEL = enum.auto()
    """Right after `<|channel>`, before the line that names the channel is complete."""
    THOUGHT = enum.auto()
    CALL = enum.auto()
    END = enum.auto()


@dataclass(frozen=True, slots=True)
class AnswerText:
    """Text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ThoughtText:
    """Text inside a thought channel. A label line other than `thought` is part of it."""

    text: str


@dataclass(frozen=True, slots=True)
class CallText:
    """A piece of a call that is being written, delimiters included. It comes again, whole, in `CallEnd`."""

    text: str


@dataclass(frozen=True, slots=True)
class RawCall:
    """What the model wrote between `<|tool_call>` and the end of the call."""

    payload: tuple[Segment, ...]
    """Text runs and the control tokens between them, the delimiter `<|"|>` above all."""
    end: Literal["closed", "stopped", "cut"]
    """Closed by `<tool_call|>`; stopped by another token with which the model went on or ended; cut from outside."""

    @property
    def text(self) -> str:
        """The official spelling, for people and logs."""
        return to_text(self.payload)


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call is over, well formed or not."""

    call: RawCall

    @property
    def text(self) -> str:
        """The call with its brackets, as it stands in the transcript."""
        close = CONTROL_TOKENS[CALL_CLOSE] if self.call.end == "closed" else ""
        return CONTROL_TOKENS[CALL_OPEN] + self.call.text + close


@dataclass(frozen=True, slots=True)
class Mark:
    """A control token as structure, or astray: `<|channel>` with its label, `<channel|>`, a lone `<tool_call|>`."""

    id: int
    label: str = ""

    @property
    def text(self) -> str:
        """The token's string and the label."""
        return CONTROL_TOKENS[self.id] + self.label


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The model stopped: `<turn|>` or `<eos>`, `<|tool_response>` to ask for results, or `<|turn>` where it wrongly
    goes on in another role."""

    id: int

    @property
    def text(self) -> str:
        """The token's string."""
        return CONTROL_TOKENS[self.id]


@dataclass(frozen=True, slots=True)
class Excess:
    """Anything after the end of the turn, such as a tool result that the model made up. Never part of an answer."""

    text: str


ParseEvent: TypeAlias = AnswerText | ThoughtText | CallText | CallEnd | Mark | TurnEnd | Excess


class Parser:
    """Reads one generation. Feed every id, then `finish`. It never raises, whatever the ids are."""

    def __init__(self, tokenizer: Tokenizer, initial_state: State = State.TEXT) -> None:
        assert initial_state not in (State.CALL, State.END)
        self._detokenizer = Detokenizer(tokenizer)
        self._state: State = initial_state
        self._label = ""
        self._payload: list[Segment] = []
        self._run: list[str] = []
        self._opened_here = False

    @property
    def state(self) -> State:
        """Where the next token falls."""
        return self._state

    def feed(self, token: int) -> list[ParseEvent]:
        """The events that this token completes."""
        if token not in CONTROL_TOKENS:
            return self._text(self._detokenizer.push(token))
        events = self._text(self._detokenizer.flush())
        if self._state is State.LABEL:
            events += self._end_label()
        return events + self._control(token)

    def finish(self) -> list[ParseEvent]:
        """The events that the end of the generation completes; a call that is still open is cut off."""
        events = self._text(self._detokenizer.flush())
        if self._state is State.LABEL:
            events += self._end_label()
        if self._state is State.CALL:
            events.append(self._end_call("cut"))
        self._state = State.END
        return events

    def _control(self, token: int) -> list[ParseEvent]:
        if self._state is State.END:
            return [Excess(CONTROL_TOKENS[token])]
        if self._state is State.CALL:
            return self._control_in_call(token)
        if token in _ENDS_TURN:
            self._state = State.END
            return [TurnEnd(token)]
        if token == CALL_OPEN:
            self._state = State.CALL
            return []
        if token == CHANNEL_OPEN:
            self._state, self._label, self._opened_here = State.LABEL, "", True
            return []
        if token == CHANNEL_CLOSE:
            self._state = State.TEXT
        return [Mark(token)]

    def _control_in_call(self, token: int) -> list[ParseEvent]:
        if token not in _ENDS_CALL:
            self._close_run()
            self._payload.append(Control(token))
            return [CallText(CONTROL_TOKENS[token])]
        if token == CALL_CLOSE:
            return [self._end_call("closed")]
        ended = self._end_call("stopped")
        return [ended, *self._control(token)]

    def _end_call(self, end: Literal["closed", "stopped", "cut"]) -> CallEnd:
        self._close_run()
        call = RawCall(tuple(self._payload), end)
        self._payload.clear()
        self._state = State.TEXT
        return CallEnd(call)

    def _close_run(self) -> None:
        if self._run:
            self._payload.append(Text("".join(self._run)))
            self._run.clear()

    def _text(self, text: str) -> list[ParseEvent]:
        if not text:
            return []
        match self._state:
            case State.TEXT:
                return [AnswerText(text)]
            case State.THOUGHT:
                return [ThoughtText(text)]
            case State.CALL:
                self._run.append(text)
                return [CallText(text)]
            case State.END:
                return [Excess(text)]
            case State.LABEL:
                self._label += text
                unfinished = len(self._label) < len(_LABEL) and _LABEL.startswith(self._label)
                return [] if unfinished else self._end_label()

    def _end_label(self) -> list[ParseEvent]:
        """Takes the label off where it is the known one, with or without its newline; anything else is thought."""
        label = self._label if self._label == _LABEL.rstrip() else _LABEL if self._label.startswith(_LABEL) else ""
        rest = self._label[len(label) :]
        self._state = State.THOUGHT
        events: list[ParseEvent] = [Mark(CHANNEL_OPEN, label)] if self._opened_here else []
        return [*events, ThoughtText(rest)] if rest else events


def initial_state_from(prompt: Sequence[int]) -> State:
    """The state in which a generation after this prompt starts: inside a thought where the prompt leaves one open."""
    for distance, token in enumerate(reversed(prompt)):
        if token == CHANNEL_OPEN:
            return State.THOUGHT if distance else State.LABEL
        if token in _CLOSES_THOUGHT:
            break
    return State.TEXT


def parse(tokenizer: Tokenizer, tokens: Iterable[int], initial_state: State = State.TEXT) -> list[ParseEvent]:
    """All events of a complete generation, with neighbouring deltas of one kind joined."""
    parser = Parser(tokenizer, initial_state)
    events = [event for token in tokens for event in parser.feed(token)] + parser.finish()
    joined: list[ParseEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, AnswerText | ThoughtText | CallText | Excess) and type(last) is type(event):
            joined[-1] = type(event)(last.text + event.text)
        else:
            joined.append(event)
    return joined
