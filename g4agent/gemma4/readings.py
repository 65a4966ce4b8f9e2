"""Every way in which a malformed payload can be read as a call.

A pushdown reader over the folded payload. Where more than one reading of a place is possible, all are followed, so that
the caller can see whether a repair is the only one. Two levels of trust:

- delimiters are trusted: what stands between two of them is a string, and only the syntax around is forgiven;
- delimiters are not trusted: one or both may be missing, and strings may be bare.

The worklist makes recursion unnecessary; its budget makes every input end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from g4agent.gemma4.payload import CONTROL_CLASS, DELIMITER, MAX_DEPTH, NAME, read_number

MAX_STATES: Final = 20_000
"""Places visited before a payload is given up as too ambiguous."""
MAX_READINGS: Final = 256
"""Readings given before that."""

_HEAD = re.compile(rf"(?P<prefix>\s*(?:call\b)?\s*:?\s*)(?P<name>{NAME})\s*(?P<open>[{{(]|$)")
_NAME = re.compile(rf"\s*(?:call\b)?\s*:?\s*({NAME})")
_KEY = re.compile(rf"""[^,:=(){{}}\[\]"'\n{CONTROL_CLASS}]+?(?=\s*[:=])""")
_QUOTED_KEY = re.compile(
    rf"""(?:{DELIMITER}([^{CONTROL_CLASS}]+){DELIMITER}|"([^"{CONTROL_CLASS}]+)"|'([^'{CONTROL_CLASS}]+)')"""
)
_NEXT_KEY = re.compile(rf"""\s*["'{DELIMITER}]?([^,:=(){{}}\[\]"'{CONTROL_CLASS}]+?)["'{DELIMITER}]?\s*[:=]""")
_SEPARATOR = re.compile(r"\s*([:=])")
_STRING = re.compile(f"{DELIMITER}([^{CONTROL_CLASS}]*){DELIMITER}")
_PROPER = {q: re.compile(rf"{q}(?:[^{q}\\{CONTROL_CLASS}]|\\.)*{q}", re.DOTALL) for q in ('"', "'")}
_CONTROL = re.compile(f"[{CONTROL_CLASS}]")
_LITERAL = re.compile(rf"""[^\s,:=(){{}}\[\]"'{CONTROL_CLASS}]+""")
_VALUE_END = re.compile(r"\s*(?:[,}\])]|$)")
_SPACE = re.compile(r"\s+")
_JSON: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_PYTHON: Final[dict[str, bool | None]] = {"True": True, "False": False, "None": None}
_OPEN_ENDED: Final = frozenset({"unclosed_string", "bare_string"})
"""With one of these, a bracket at the very end closes something: it is not text before a bracket that is missing."""
_NO_STRING: Final = frozenset({"", "null", "None"})
_CLOSING: Final = {"{": "}", "[": "]", "(": ")"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar, and how it was spelled: a number may turn out to be wanted as text."""

    value: bool | int | float | str | None
    text: str


Node: TypeAlias = "Leaf | list[Node] | dict[str, Node]"


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the payload's arguments."""

    arguments: dict[str, Node]
    repairs: frozenset[str]


class TooManyReadingsError(Exception):
    """The payload is so broken that its readings cannot all be looked at."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A finished member of a container; containers grow as linked lists, which the alternatives share."""

    before: _Entry | None
    key: str
    node: Node


@dataclass(frozen=True, slots=True)
class _Frame:
    """A container that is being read."""

    close: str
    parent: _Frame | None
    depth: int
    entries: _Entry | None = None
    key: str = ""

    def node(self) -> dict[str, Node] | list[Node]:
        entries: list[_Entry] = []
        entry = self.entries
        while entry is not None:
            entries.append(entry)
            entry = entry.before
        entries.reverse()
        return [e.node for e in entries] if self.close == "]" else {e.key: e.node for e in entries}

    def holds(self, key: str) -> bool:
        entry = self.entries
        while entry is not None and entry.key != key:
            entry = entry.before
        return entry is not None


_Expects: TypeAlias = Literal["first", "next", "value", "after", "nothing"]
"""What may come at a place: a container's first member or its end, a member after a comma, a value, a comma or the end,
and nothing after the last bracket."""


@dataclass(frozen=True, slots=True)
class _State:
    """One place in the payload, with one way to have come there."""

    at: int
    frame: _Frame
    repairs: frozenset[str]
    expects: _Expects

    def go(self, at: int, frame: _Frame, expects: _Expects, *repairs: str) -> _State:
        return _State(at, frame, self.repairs.union(repairs), expects)


def head_of(folded: str) -> str | None:
    """The name that the payload starts with, even where nothing after it can be read."""
    name = _NAME.match(folded)
    return name[1] if name else None


def readings(folded: str, keys: Collection[str], trust_delimiters: bool) -> Iterator[Reading]:
    """All readings of a folded payload; the same one may come twice.

    Args:
        folded: The payload (`payload.fold`).
        keys: The tool's parameters: a comma within a bare string ends it only if one of them follows.
        trust_delimiters: The level of trust.

    Raises:
        TooManyReadingsError: The budget is used up.
    """
    head = _HEAD.match(folded)
    if head is None:
        return
    repairs = set()
    if head["prefix"] != "call:":
        repairs.add("missing_call_prefix" if head["prefix"].strip() != "call:" else "whitespace")
    if head.end("name") != head.start("open"):
        repairs.add("whitespace")
    if head["open"] != "{":
        repairs.add("round_brackets" if head["open"] else "missing_brace")
    if not head["open"]:
        yield Reading({}, frozenset(repairs))
        return
    frame = _Frame(_CLOSING[head["open"]], None, 1)
    start = _State(head.end(), frame, frozenset(repairs), "first")
    for count, reading in enumerate(_Reader(folded, keys, trust_delimiters).run(start)):
        if count == MAX_READINGS:
            raise TooManyReadingsError
        yield reading


class _Reader:
    def __init__(self, text: str, keys: Collection[str], trust: bool) -> None:
        self._text = text
        self._keys = keys
        self._trust = trust
        self._end = len(text.rstrip())
        self._bracket_last = text.endswith(("}", ")", "]"), 0, self._end)

    def run(self, start: _State) -> Iterator[Reading]:
        waiting, visited = [start], 0
        while waiting:
            visited += 1
            if visited > MAX_STATES:
                raise TooManyReadingsError
            state = waiting.pop()
            if space := _SPACE.match(self._text, state.at):
                state = replace(state, at=space.end(), repairs=state.repairs | {"whitespace"})
            match state.expects:
                case "first" | "next":
                    waiting.extend(self._member(state))
                case "value":
                    waiting.extend(self._value(state))
                case "after":
                    waiting.extend(self._after(state))
                case "nothing" if state.at == len(self._text):
                    arguments = state.frame.node()
                    assert isinstance(arguments, dict)
                    yield Reading(arguments, state.repairs)

    # Containers -------------------------------------------------------------------------------------------------------

    def _member(self, state: _State) -> Iterator[_State]:
        frame = state.frame
        if self._text.startswith(frame.close, state.at):
            yield from self._close(state, *(["trailing_comma"] if state.expects == "next" else []))
            return
        if frame.close == "]":
            yield replace(state, expects="value")
            return
        if quoted := _QUOTED_KEY.match(self._text, state.at):
            key, repair, end = next(g for g in quoted.groups() if g), "quoted_key", quoted.end()
        elif bare := _KEY.match(self._text, state.at):
            key, repair, end = bare[0], "spaced_key" if " " in bare[0] else "", bare.end()
        else:
            return
        separator = _SEPARATOR.match(self._text, end)
        known = self._known(key, frame)
        if separator is None or frame.holds(known):
            return
        repairs = [repair] if repair else []
        if known != key:
            repairs.append("renamed_key")
        if separator[1] == "=":
            repairs.append("equals_separator")
        if len(separator[0]) > 1:
            repairs.append("whitespace")
        yield state.go(separator.end(), replace(frame, key=known), "value", *repairs)

    def _after(self, state: _State) -> Iterator[_State]:
        if self._text.startswith(",", state.at):
            yield state.go(state.at + 1, state.frame, "next")
        elif self._text.startswith(state.frame.close, state.at):
            yield from self._close(state)
        elif state.at >= self._end and not (self._bracket_last and state.repairs & _OPEN_ENDED):
            yield from self._close(replace(state, at=self._end), "missing_brace")

    def _close(self, state: _State, *repairs: str) -> Iterator[_State]:
        frame, at = state.frame, min(state.at + 1, self._end)
        if frame.parent is None:
            yield state.go(at, frame, "nothing", *repairs)
        else:
            yield self._done(state, at, frame.node(), frame.parent, *repairs)

    def _done(self, state: _State, at: int, node: Node, frame: _Frame, *repairs: str) -> _State:
        return state.go(at, replace(frame, entries=_Entry(frame.entries, frame.key, node), key=""), "after", *repairs)

    def _known(self, key: str, frame: _Frame) -> str:
        """The parameter that a key means: itself, or the only one that differs by case, spaces and hyphens alone."""
        if frame.parent is not None or key in self._keys:
            return key
        same = [known for known in self._keys if _loose(known) == _loose(key)]
        return same[0] if len(same) == 1 else key

    # Values -----------------------------------------------------------------------------------------------------------

    def _value(self, state: _State) -> Iterator[_State]:
        first = self._text[state.at : state.at + 1]
        if first in ("{", "[") and state.frame.depth < MAX_DEPTH:
            yield state.go(state.at + 1, _Frame(_CLOSING[first], state.frame, state.frame.depth + 1), "first")
        elif first == DELIMITER:
            yield from self._delimited(state)
        elif first in ('"', "'"):
            yield from self._quoted(state, first)
        else:
            yield from self._literal(state)
        if not self._trust and first != DELIMITER:
            yield from self._undelimited(state)

    def _delimited(self, state: _State) -> Iterator[_State]:
        string = _STRING.match(self._text, state.at)
        if string and _VALUE_END.match(self._text, string.end()):
            yield self._leaf(state, string.end(), string[1])
        if not self._trust:
            for end in self._bare_ends(state.at + 1, state.frame):
                yield self._leaf(state, end, self._text[state.at + 1 : end], "unclosed_string")

    def _quoted(self, state: _State, quote: str) -> Iterator[_State]:
        """A string between plain quotes: up to the first one that ends it, which may be an unescaped one inside."""
        repair = "quoted_json_strings" if quote == '"' else "single_quotes"
        proper = _PROPER[quote].match(self._text, state.at)
        if proper and _VALUE_END.match(self._text, proper.end()):
            ends = [proper.end() - 1]
        else:
            inside = range(state.at + 1, self._plain_until(state.at))
            ends = [i for i in inside if self._text[i] == quote and _VALUE_END.match(self._text, i + 1)]
        for end in ends:
            raw = self._text[state.at + 1 : end]
            for text in {raw, _unescaped(raw, quote)}:
                yield self._leaf(state, end + 1, text, repair)

    def _literal(self, state: _State) -> Iterator[_State]:
        literal = _LITERAL.match(self._text, state.at)
        if literal is None or not _VALUE_END.match(self._text, literal.end()):
            return
        text = literal[0]
        number = read_number(text)
        if number is not None or text in _JSON:
            leaf = Leaf(_JSON[text] if number is None else number, text)
            yield self._done(state, literal.end(), leaf, state.frame)
        elif text in _PYTHON:
            yield self._done(state, literal.end(), Leaf(_PYTHON[text], text), state.frame, "python_literals")

    def _undelimited(self, state: _State) -> Iterator[_State]:
        end = self._plain_until(state.at)
        if end > state.at and self._text.startswith(DELIMITER, end) and _VALUE_END.match(self._text, end + 1):
            yield self._leaf(state, end + 1, self._text[state.at : end], "missing_opening_delimiter")
        for end in self._bare_ends(state.at, state.frame):
            text = self._text[state.at : end].rstrip()
            if text not in _NO_STRING:
                yield self._leaf(state, end, text, "bare_string")

    def _bare_ends(self, start: int, frame: _Frame) -> Iterator[int]:
        """Where a string without a closing delimiter may end: before what closes its container, before a comma that a
        key follows, or at the end of a payload that lacks its closing bracket."""
        limit = self._plain_until(start)
        for at in range(start, limit):
            character = self._text[at]
            ends_item = character == "," and (frame.close == "]" or self._key_follows(at + 1, frame))
            if ends_item or (character == frame.close and (frame.parent is not None or at == self._end - 1)):
                yield at
        if limit >= self._end and not self._text.endswith(frame.close, 0, self._end):
            yield self._end

    def _plain_until(self, at: int) -> int:
        """Where the next control token is, or the end."""
        control = _CONTROL.search(self._text, at)
        return control.start() if control else len(self._text)

    def _key_follows(self, at: int, frame: _Frame) -> bool:
        key = _NEXT_KEY.match(self._text, at)
        return key is not None and (frame.parent is not None or self._known(key[1], frame) in self._keys)

    def _leaf(self, state: _State, at: int, text: str, *repairs: str) -> _State:
        return self._done(state, at, Leaf(text, text), state.frame, *repairs)


def _loose(key: str) -> str:
    return re.sub(r"[\s_-]+", "_", key.strip()).casefold()


def _unescaped(raw: str, quote: str) -> str:
    """The text with JSON's escapes undone, or as it is where they are not JSON's."""
    if "\\" not in raw:
        return raw
    body = raw.replace("\\'", "'").replace('"', '\\"') if quote == "'" else raw
    try:
        text = json.loads(f'"{body}"', strict=False)
    except ValueError:
        return raw
    return str(text)
