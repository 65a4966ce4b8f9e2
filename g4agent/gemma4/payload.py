"""The payload of a call, `call:NAME{key:value,…}`, read strictly: the official grammar, as JSON values.

The grammar is the one of Google's `dialog` package, and what the official template writes beyond it: exponents in
numbers, and keys that are not identifiers (`Content-Type`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from g4agent.errors import G4AgentError
from g4agent.gemma4.tokens import CONTROL_TOKENS, QUOTE, Segment, Text
from g4agent.messages import JsonValue

MAX_DEPTH: Final = 64
"""Containers within containers; deeper payloads are not read."""

_FOLDED: Final = {token: chr(0xDC00 + index) for index, token in enumerate(CONTROL_TOKENS)}
_UNFOLDED: Final = {ord(_FOLDED[token]): string for token, string in CONTROL_TOKENS.items()} | {
    ord(_FOLDED[QUOTE]): '"'
}
_SURROGATE = re.compile("[\ud800-\udfff]")

DELIMITER: Final = _FOLDED[QUOTE]
"""The string delimiter in a folded payload."""
CONTROL_CLASS: Final = "\udc00-\udfff"
"""All control tokens of a folded payload, for a regular expression's character class."""

NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.:/-]*"
NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")

_HEAD = re.compile(f"call:({NAME}){{")
_KEY = re.compile(rf"""[^\s,:=(){{}}\[\]"'{CONTROL_CLASS}]+""")
_STRING = re.compile(f"{DELIMITER}([^{CONTROL_CLASS}]*){DELIMITER}")
_LITERAL = re.compile(r"[^,}\]]+")
_CONSTANTS: Final[dict[str, JsonValue]] = {"true": True, "false": False, "null": None}


class CallSyntaxError(G4AgentError):
    """A call's payload is not in the native syntax. The message says where, in words that a model can use."""


def fold(payload: Sequence[Segment]) -> str:
    """The payload as one string in which every control token is a single lone surrogate: decoded text holds none, so a
    delimiter and text that spells one stay apart."""
    return "".join(
        _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", segment.text) if isinstance(segment, Text) else _FOLDED[segment.id]
        for segment in payload
    )


def show(folded: str, limit: int = 60) -> str:
    """A piece of a folded payload for a message; delimiters as `"`, so that it teaches nobody to spell them."""
    text = folded.translate(_UNFOLDED)
    return text if len(text) <= limit else text[:limit] + "…"


def read_number(text: str) -> int | float | None:
    """The number that the whole text is, integers as integers; None where it is none or too large to be held."""
    match = NUMBER.fullmatch(text)
    if match is None:
        return None
    if match[1] is None and match[2] is None:
        return int(text) if len(text) <= 4000 else None  # Python refuses to convert more than 4,300 digits
    number = float(text)
    return number if math.isfinite(number) else None


def read_strict(payload: Sequence[Segment]) -> tuple[str, dict[str, JsonValue]]:
    """Name and arguments of a well-formed call.

    Raises:
        CallSyntaxError: Anything is out of order: a missing delimiter, a space, a repeated key, text after the end.
    """
    return _Reader(fold(payload)).call()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def call(self) -> tuple[str, dict[str, JsonValue]]:
        head = _HEAD.match(self._text)
        if head is None:
            raise self._error("a call starts with call:NAME{")
        self._at = head.end()
        arguments = self._object(1)
        if self._at < len(self._text):
            raise self._error("nothing may follow the closing }")
        return head[1], arguments

    def _value(self, depth: int) -> JsonValue:
        if depth > MAX_DEPTH:
            raise self._error("the arguments are nested too deeply")
        if self._take("{"):
            return self._object(depth)
        if self._take("["):
            return self._array(depth)
        if self._text.startswith(DELIMITER, self._at):
            return self._string()
        return self._literal()

    def _object(self, depth: int) -> dict[str, JsonValue]:
        members: dict[str, JsonValue] = {}
        if self._take("}"):
            return members
        while True:
            key = _KEY.match(self._text, self._at)
            if key is None:
                raise self._error("expected a key")
            if key[0] in members:
                raise self._error(f"the key {key[0]} is there twice")
            self._at = key.end()
            if not self._take(":"):
                raise self._error(f"expected a colon after the key {key[0]}")
            members[key[0]] = self._value(depth + 1)
            if self._take("}"):
                return members
            if not self._take(","):
                raise self._error("expected , or } after a value")

    def _array(self, depth: int) -> list[JsonValue]:
        items: list[JsonValue] = []
        if self._take("]"):
            return items
        while True:
            items.append(self._value(depth + 1))
            if self._take("]"):
                return items
            if not self._take(","):
                raise self._error("expected , or ] after an item")

    def _string(self) -> str:
        string = _STRING.match(self._text, self._at)
        if string is None:
            raise self._error("a string has no closing delimiter")
        self._at = string.end()
        return string[1]

    def _literal(self) -> JsonValue:
        literal = _LITERAL.match(self._text, self._at)
        text = literal[0] if literal else ""
        number = read_number(text)
        if number is None and text not in _CONSTANTS:
            raise self._error("a string must stand between delimiters; else only numbers, true, false and null")
        self._at += len(text)
        return _CONSTANTS[text] if number is None else number

    def _take(self, character: str) -> bool:
        taken = self._text.startswith(character, self._at)
        self._at += taken
        return taken

    def _error(self, expected: str) -> CallSyntaxError:
        rest = self._text[self._at :]
        return CallSyntaxError(f"{expected}, at: {show(rest)}" if rest else f"{expected}, at the end")
