"""Token ids → text, as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from g4agent.ports.runtime import Tokenizer

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_LONGEST_WAIT: Final = 8
"""Tokens held back before the text is taken to be broken rather than unfinished; a character has at most 4 bytes."""


class Detokenizer:
    """Turns plain token ids into text deltas, and holds back a character whose bytes have not all come.

    Joined, the deltas are what `decode` gives for all ids at once. The work per token is constant: only the ids since
    the last complete character are decoded again.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that became certain with this token; often empty inside a multi-byte character."""
        self._held.append(token)
        text = self._tokenizer.decode(self._held)
        if not text.endswith(_REPLACEMENT):
            self._held.clear()
            return text
        return self._give_up(text) if len(self._held) > _LONGEST_WAIT else ""

    def flush(self) -> str:
        """What is still held back, replacement characters included; due before a control token and at the end."""
        if not self._held:
            return ""
        text = self._tokenizer.decode(self._held)
        self._held.clear()
        return text

    def _give_up(self, text: str) -> str:
        """Invalid bytes: releases all but the last few ids, cut at a border that no character straddles.

        A straddled border would show: a broken character gives more replacement characters in two parts than in one.
        """
        for kept in range(1, 4):
            head, tail = self._held[:-kept], self._held[-kept:]
            released = self._tokenizer.decode(head)
            if released + self._tokenizer.decode(tail) == text:
                self._held = tail
                return released
        return ""
