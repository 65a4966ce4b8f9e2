"""How a stretch of tokens is named: by everything that its keys and values depend on."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from typing import Any, Final

from g4agent.gemma4.soft_tokens import SPELLED, whole_end
from g4agent_torch.turboquant.cache import SINKS
from g4agent_torch.turboquant.layout import PAGE_TOKENS

FORMAT: Final = 1
"""Of the files. Part of every address, so that files of another format are never read, only swept."""


def start_of(segment: int) -> int:
    """Position of a segment's first token."""
    return SINKS + segment * PAGE_TOKENS if segment else 0


def segments_in(length: int) -> int:
    """Full segments of a sequence of `length` tokens."""
    return max(0, (length - SINKS) // PAGE_TOKENS)


def root_address(model: str, dtype: str, cache: Any) -> str:
    """The address before the first segment.

    Args:
        model: Fingerprint of the weights.
        dtype: Precision in which they run.
        cache: Everything that decides how the cache stores keys and values, as JSON has it.
    """
    described = json.dumps([FORMAT, SINKS, PAGE_TOKENS, model, dtype, cache], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def next_address(parent: str, ids: Sequence[int]) -> str:
    """The address of `ids` behind what `parent` names: 64 hexadecimal digits."""
    packed = array("i", ids)
    assert packed.itemsize == 4, packed.itemsize
    return hashlib.sha256(bytes.fromhex(parent) + packed.tobytes()).hexdigest()


def named(tokens: Sequence[int], start: int, end: int) -> Sequence[int]:
    """The ids that the keys and values of a stretch depend on: its own, and where it ends within an image as many of
    the next as spell which image that is."""
    return tokens[start : min(whole_end(tokens, end), end + SPELLED)]


class Chain:
    """The addresses of one sequence's segments, each computed once.

    Args:
        root: From `root_address`.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._addresses: list[str] = []

    def before(self, segment: int, tokens: Sequence[int]) -> str:
        """The address that a segment's own follows: that of the segment before it, or the root."""
        return self.address(segment - 1, tokens) if segment else self.root

    def address(self, segment: int, tokens: Sequence[int]) -> str:
        """The address of a full segment of `tokens`, the sequence from its start."""
        assert segment < segments_in(len(tokens)), (segment, len(tokens))
        while len(self._addresses) <= segment:
            at = len(self._addresses)
            ids = named(tokens, start_of(at), start_of(at + 1))
            self._addresses.append(next_address(self._addresses[-1] if at else self.root, ids))
        return self._addresses[segment]

    def cut(self, length: int) -> None:
        """Forgets the segments that are not whole in the first `length` tokens, or depend on others."""
        del self._addresses[segments_in(length - SPELLED) :]
