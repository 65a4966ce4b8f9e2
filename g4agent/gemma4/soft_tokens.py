"""Images in a transcript: soft tokens whose ids spell which image they belong to.

The official format has one placeholder, `<|image|>`, once for every vector that the vision part makes of an image. In a
transcript each of them is an id of its own, far above any vocabulary, and together they spell the image's key: the
SHA-256 of its file and the size that it is shown at. So a list of ids says everything that its keys and values depend
on, wherever it is stored, cut, copied or compared. `official` gives the ids as the official processor has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from g4agent.gemma4.tokens import IMAGE, IMAGE_CLOSE, IMAGE_OPEN, SOFT_BASE, Control, Segment, is_soft
from g4agent.image import ImageKey

_BITS: Final = 30
"""Of the key in each id: an id must fit into 31 bits."""
SPELLED: Final = 9
"""Soft tokens that spell a whole key; those behind them begin anew."""
_TOKENS_BITS: Final = 14
"""Of the key, for the size; the 256 above them are the hash."""


def image_block(key: ImageKey, count: int) -> list[Segment]:
    """An image of so many soft tokens, with the tokens around it."""
    assert count >= SPELLED, count
    number = int(key.sha256, 16) << _TOKENS_BITS | key.tokens
    pieces = [number >> _BITS * (SPELLED - 1 - index) & (1 << _BITS) - 1 for index in range(SPELLED)]
    soft = [Control(SOFT_BASE + pieces[index % SPELLED]) for index in range(count)]
    return [Control(IMAGE_OPEN), *soft, Control(IMAGE_CLOSE)]


def blocks(tokens: Sequence[int], start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Start and end of each run of soft tokens from `start` to `end`."""
    end = len(tokens) if end is None else end
    at = start
    while at < end:
        if is_soft(tokens[at]):
            first = at
            while at < end and is_soft(tokens[at]):
                at += 1
            yield first, at
        else:
            at += 1


def key_at(tokens: Sequence[int], start: int) -> ImageKey:
    """The key of the image whose soft tokens begin at `start`."""
    number = 0
    for token in tokens[start : start + SPELLED]:
        number = number << _BITS | token - SOFT_BASE
    return ImageKey(f"{number >> _TOKENS_BITS:064x}", number & (1 << _TOKENS_BITS) - 1)


def keys_in(tokens: Sequence[int]) -> set[ImageKey]:
    """The keys of all images in a transcript."""
    return {key_at(tokens, start) for start, _ in blocks(tokens)}


def whole_start(tokens: Sequence[int], at: int) -> int:
    """The place before `at` where no image is cut: `at` itself, or where the image begins."""
    if not 0 < at < len(tokens) or not is_soft(tokens[at]):
        return at
    while at > 0 and is_soft(tokens[at - 1]):
        at -= 1
    return at


def whole_end(tokens: Sequence[int], at: int) -> int:
    """The place behind `at` where no image is cut: `at` itself, or where the image ends."""
    if at > 0 and is_soft(tokens[at - 1]):
        while at < len(tokens) and is_soft(tokens[at]):
            at += 1
    return at


def official(tokens: Sequence[int]) -> list[int]:
    """A transcript's ids as the official processor gives them."""
    return [IMAGE if is_soft(token) else token for token in tokens]
