"""Shared by the tests of the native format: native text → ids, nasty strings, random JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from g4agent.gemma4.tokens import CONTROL_TOKENS, Control, Segment, Text, encode_segments
from g4agent.ports.runtime import Tokenizer

CONTROL_IDS = {string: token for token, string in CONTROL_TOKENS.items()}
_SPLIT = re.compile("(" + "|".join(map(re.escape, CONTROL_IDS)) + ")")


def segments(native: str) -> list[Segment]:
    """Native text in which every control string stands for its token."""
    return [Control(CONTROL_IDS[part]) if part in CONTROL_IDS else Text(part) for part in _SPLIT.split(native)]


def ids(tokenizer: Tokenizer, native: str) -> list[int]:
    return encode_segments(tokenizer, segments(native))


def controls(tokens: Sequence[int]) -> list[int]:
    return [token for token in tokens if token in CONTROL_TOKENS]


LOOK_ALIKES = [
    "<|turn",
    ">",
    "|>",
    "<",
    '<|"',
    '"|>',
    "< |turn>",
    "<|Turn>",
    "<|turn|>",
    "<unused42>",
    "<start_of_turn>",
    "﹤|turn>",
]

nasty_text = st.lists(st.one_of(st.sampled_from([*CONTROL_IDS, *LOOK_ALIKES]), st.text(max_size=8)), max_size=5).map(
    "".join
)
"""Text with control strings, halves of them and look-alikes in it."""

identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 1e-07, 1e20, 10**300]),
)


def json_values(
    text: st.SearchStrategy[str], keys: st.SearchStrategy[str], number: st.SearchStrategy[Any] = numbers
) -> Any:
    """Random JSON values."""
    scalars = st.one_of(st.none(), st.booleans(), number, text)
    return st.recursive(
        scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(keys, v, max_size=4), max_leaves=12
    )


def arguments(
    text: st.SearchStrategy[str] = nasty_text, keys: st.SearchStrategy[str] = identifiers, **more: Any
) -> Any:
    """Random arguments of a call."""
    return st.dictionaries(keys, json_values(text, keys, **more), max_size=4)
