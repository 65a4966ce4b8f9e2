"""A tokenizer without a vocabulary file: one id per byte, and Gemma 4's control tokens at their official ids."""

from __future__ import annotations

from collections.abc import Sequence

from g4agent.gemma4.tokens import CONTROL_TOKENS

_NEWLINE_ID = 107
_FIRST_BYTE_ID = 256


class ByteTokenizer:
    """Implements the `Tokenizer` port. Ids 0 to 106 are control tokens and reserved pieces, 107 is the newline as in
    Gemma 4, byte `b` is `256 + b`; `encode` never yields a control id."""

    @property
    def vocab_size(self) -> int:
        """512: the ids from 108 to 255 are reserved."""
        return _FIRST_BYTE_ID + 256

    def encode(self, text: str) -> list[int]:
        """Plain text as one id per UTF-8 byte."""
        return [_NEWLINE_ID if byte == 0x0A else _FIRST_BYTE_ID + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """Exact text; control tokens and reserved pieces as their strings, incomplete UTF-8 as U+FFFD."""
        parts: list[str] = []
        run = bytearray()
        for token in ids:
            if token == _NEWLINE_ID:
                run.append(0x0A)
            elif _FIRST_BYTE_ID <= token < self.vocab_size:
                run.append(token - _FIRST_BYTE_ID)
            else:
                parts += [run.decode(errors="replace"), CONTROL_TOKENS.get(token, f"<unused{token}>")]
                run.clear()
        return "".join(parts) + run.decode(errors="replace")
