"""What each token of a transcript belongs to, read from its control tokens alone.

No tokenizer is needed: turns take turns, and the only text that is looked at is the id behind `<|turn>`, which is the
same for every turn of a role. What the model itself may have written astray (a lone `<|turn>` or `<tool_response|>`)
is text: a turn opens behind the end of another one only, and a result behind id 50 only, with which a generation ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from g4agent.gemma4.tokens import (
    BOS,
    CALL_CLOSE,
    CALL_OPEN,
    CHANNEL_CLOSE,
    CHANNEL_OPEN,
    IMAGE_CLOSE,
    IMAGE_OPEN,
    RESPONSE_CLOSE,
    RESPONSE_OPEN,
    THINK,
    TOOL_CLOSE,
    TOOL_OPEN,
    TURN_CLOSE,
    TURN_OPEN,
    is_soft,
)

Kind: TypeAlias = Literal["system", "tools", "user", "summary", "thoughts", "calls", "results", "answers"]
"""`answers`: the model's visible text, and the structure of its turns."""
KINDS: tuple[Kind, ...] = get_args(Kind)

_NEAR = 3
"""Between `<turn|>` and the next `<|turn>` stands a newline."""
_ENDS: dict[int, tuple[Kind, int, frozenset[int]]] = {
    CHANNEL_OPEN: ("thoughts", CHANNEL_CLOSE, frozenset({CALL_OPEN, RESPONSE_OPEN, TURN_CLOSE})),
    CALL_OPEN: ("calls", CALL_CLOSE, frozenset({CALL_OPEN, RESPONSE_OPEN, CHANNEL_OPEN, TURN_CLOSE})),
    RESPONSE_OPEN: ("results", RESPONSE_CLOSE, frozenset()),
}
"""By its first token, what a part of a model turn is, its last token, and those before which it ends without."""


@dataclass(frozen=True, slots=True)
class Section:
    """Neighbouring tokens of one kind. Each call, thought and result is one of its own."""

    kind: Kind
    start: int
    end: int
    turn: int
    """Counts the turns of the transcript, the system turn included."""

    @property
    def length(self) -> int:
        return self.end - self.start


def has_system_turn(tokens: Sequence[int], system: str) -> bool:
    """Whether the first turn is a system turn, where only the system text is known and not the tools."""
    return bool(system.strip()) or any(token in (TOOL_OPEN, THINK) for token in tokens[: first_turn_end(tokens)])


class SectionReader:
    """Reads a transcript that grows, and is cut now and then, without ever reading all of it again.

    Args:
        has_system: Whether the first turn is a system turn.
    """

    def __init__(self, has_system: bool) -> None:
        self._has_system = has_system
        self.sections: list[Section] = []
        """Without gaps: their lengths add up to the tokens read."""
        self.counts = Counter[Kind]()
        """Tokens by kind."""
        self._turns: list[tuple[int, Kind]] = []
        """Start and role of each turn; the role is `answers` for the model's."""

    def read(self, tokens: Sequence[int], changed: int = 0) -> None:
        """Takes in a transcript that is the one of the last call up to the token `changed`."""
        while self.sections and self.sections[-1].end > changed:
            self._drop()
        if self.sections:
            self._drop()  # the last one may go on
        while self._turns and self._turns[-1][0] >= self._length:
            self._turns.pop()
        while (start := self._length) < len(tokens):
            kind, end = self._next(tokens, start)
            self.sections.append(Section(kind, start, end, len(self._turns)))
            self.counts[kind] += end - start

    @property
    def _length(self) -> int:
        return self.sections[-1].end if self.sections else 0

    def _drop(self) -> None:
        section = self.sections.pop()
        self.counts[section.kind] -= section.length

    def _next(self, tokens: Sequence[int], start: int) -> tuple[Kind, int]:
        """Kind and end of the section that starts here."""
        first = tokens[start]
        if first == BOS and start == 0:
            return "system", 1
        opens = _opens_turn(tokens, start)
        if opens:
            self._turns.append((start, self._role(tokens, start)))
        role = self._turns[-1][1] if self._turns else "system"
        if role == "system" and first == TOOL_OPEN:
            return "tools", _find(tokens, start, TOOL_CLOSE) + 1
        if role == "answers" and first in _ENDS and not opens:
            kind, last, before = _ENDS[first]
            end = start + 1
            while end < len(tokens) and tokens[end] != last and tokens[end] not in before:
                end += 1
            end = min(len(tokens), end + (end < len(tokens) and tokens[end] == last))
            return kind, _images_end(tokens, end) if kind == "results" else end
        stops = {"system": {TOOL_OPEN}, "answers": set(_ENDS)}.get(role, set())
        end = start + 1
        while end < len(tokens) and tokens[end] not in stops and not _opens_turn(tokens, end):
            end += 1
        return role, end

    def _role(self, tokens: Sequence[int], start: int) -> Kind:
        """The role of the turn that opens here. A user turn right behind the first one is a summary."""
        if not self._turns and self._has_system:
            return "system"
        speakers = [turn for turn in self._turns if turn[1] != "system"]
        if not speakers:
            return "user"
        if tokens[start + 1 : start + 2] != tokens[speakers[0][0] + 1 : speakers[0][0] + 2]:
            return "answers"
        return "summary" if len(speakers) == 1 else "user"


def read_sections(tokens: Sequence[int], has_system: bool) -> list[Section]:
    """All sections of a transcript."""
    reader = SectionReader(has_system)
    reader.read(tokens)
    return reader.sections


def _opens_turn(tokens: Sequence[int], at: int) -> bool:
    return tokens[at] == TURN_OPEN and (at <= 1 or TURN_CLOSE in tokens[max(0, at - _NEAR) : at])


def _images_end(tokens: Sequence[int], at: int) -> int:
    """Where the images that begin at `at`, if any do, have ended: they belong to the result before them."""
    while tokens[at : at + 1] == [IMAGE_OPEN] and at + 1 < len(tokens) and is_soft(tokens[at + 1]):
        at = _find(tokens, at, IMAGE_CLOSE) + 1
    return at


def _find(tokens: Sequence[int], start: int, token: int) -> int:
    return next((i for i in range(start, len(tokens)) if tokens[i] == token), len(tokens) - 1)


def first_turn_end(tokens: Sequence[int]) -> int:
    """Where the first turn, the system turn if there is one, has its `<turn|>`."""
    return next((i for i, token in enumerate(tokens) if token == TURN_CLOSE), len(tokens))


def same_start(old: Sequence[int], new: Sequence[int]) -> int:
    """How many ids two sequences have in common at their start."""
    pairs = zip(old, new, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)))


def without_thoughts(turn: Sequence[int]) -> list[int]:
    """A model turn's ids without its thought channels.

    A thought runs from `<|channel>` to `<channel|>`; one that the model left open ends where a call or the end of the
    turn begins, as the parser reads it.
    """
    kept: list[int] = []
    inside = False
    for token in turn:
        inside = (inside or token == CHANNEL_OPEN) and token not in (CALL_OPEN, TURN_CLOSE)
        if not inside:
            kept.append(token)
        inside = inside and token != CHANNEL_CLOSE
    return kept
