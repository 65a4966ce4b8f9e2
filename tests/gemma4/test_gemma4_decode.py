"""Token ids → text, as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from g4agent.gemma4.decode import Detokenizer
from g4agent.testing import ByteTokenizer

MODEST = settings(max_examples=200)


def deltas(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(token) for token in tokens), detokenizer.flush()]


@MODEST
@given(text=st.text(max_size=30))
def test_no_delta_shows_half_a_character(bpe_tokenizer: Any, text: str) -> None:
    """A replacement character that is taken back by the next token would flicker, and stay in every log."""
    for tokenizer in (ByteTokenizer(), bpe_tokenizer):
        parts = deltas(tokenizer, tokenizer.encode(text))
        assert "".join(parts) == text
        assert all("\N{REPLACEMENT CHARACTER}" not in part for part in parts) or "\N{REPLACEMENT CHARACTER}" in text


@MODEST
@given(data=st.binary(max_size=60))
def test_invalid_bytes_come_out_as_decode_has_them(data: bytes) -> None:
    """A broken stream must neither raise, nor lose text, nor differ from the transcript decoded at once."""
    tokenizer = ByteTokenizer()
    tokens = [256 + byte for byte in data]
    assert "".join(deltas(tokenizer, tokens)) == data.decode(errors="replace")


def test_work_per_token_is_bounded() -> None:
    """An endless run of invalid bytes must not make every token dearer than the one before."""

    class Counting(ByteTokenizer):
        decoded = 0

        def decode(self, ids: Sequence[int]) -> str:
            Counting.decoded += len(ids)
            return super().decode(ids)

    tokens = [256 + 0xFF] * 5000
    assert "".join(deltas(Counting(), tokens)) == "\N{REPLACEMENT CHARACTER}" * 5000
    assert Counting.decoded < 50 * len(tokens)
