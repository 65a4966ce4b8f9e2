"""Documents in a small context: how much of one is shown, and text that is safe to pass on."""

from __future__ import annotations

MAX_CHARS = 8000
"""Of document text in one result."""


def clean(text: str) -> str:
    """The text with what UTF-8 cannot express, such as half of a character pair, replaced by `?`."""
    return text.encode("utf-8", "replace").decode()


def cut(text: str, chars: int) -> str:
    """The text, or its first `chars` characters and how many it has."""
    return text if len(text) <= chars else f"{text[:chars]}… [cut, {len(text)} characters]"
