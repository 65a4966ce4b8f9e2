"""The checkpoint's `tokenizer.json` behind the core's `Tokenizer` port: plain text in, exact text out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from g4agent.errors import ModelLoadError, TokenizerError
from g4agent.gemma4.tokens import CONTROL_TOKENS, IMAGE_OPEN


class TorchTokenizer:
    """Hugging Face's `tokenizers` with every control token disabled for input.

    Special tokens of the file are switched off in the library; those that a file declares as ordinary added tokens
    would still match, so text with such a string is cut inside it. Either way `encode` never yields a control id.

    Args:
        file: A `tokenizer.json`.
        vocab_size: Rows of the model's embedding.

    Raises:
        ModelLoadError: The file cannot be read, or it is not a Gemma 4 tokenizer: control tokens are missing or have
            other ids, or there are more tokens than embeddings.
    """

    def __init__(self, file: Path, vocab_size: int) -> None:
        try:
            self._inner = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for every fault of the file
            raise ModelLoadError(
                f"The tokenizer file {file} cannot be read: {error}.", hint="Download the checkpoint again."
            ) from error
        self._inner.no_padding()
        self._inner.no_truncation()
        self._inner.encode_special_tokens = True
        self._size = self._inner.get_vocab_size(with_added_tokens=True)
        if self._size > vocab_size:
            raise ModelLoadError(
                f"The tokenizer {file} has {self._size} tokens, the model only {vocab_size} embeddings.",
                hint="Weights and tokenizer are not of the same checkpoint.",
            )
        self._check_control_tokens(file, vocab_size)
        added = {id: token.content for id, token in self._inner.get_added_tokens_decoder().items() if token.special}
        disabled = CONTROL_TOKENS | added
        self._disabled_ids = frozenset(disabled)
        self._disabled = re.compile("|".join(re.escape(text) for text in disabled.values() if len(text) > 1))
        for text in disabled.values():
            self.encode(f"a{text} {text}{text}")

    @property
    def vocab_size(self) -> int:
        return self._size

    def encode(self, text: str) -> list[int]:
        """Plain text to ids.

        Raises:
            TokenizerError: The vocabulary gives a control id even for a part of its string.
        """
        ids = self._ids(text)
        if self._disabled_ids.isdisjoint(ids):
            return ids
        cuts = [match.start() + 1 for match in self._disabled.finditer(text)]
        pieces = zip([0, *cuts], [*cuts, len(text)], strict=True)
        ids = [id for start, end in pieces for id in self._ids(text[start:end])]
        if not self._disabled_ids.isdisjoint(ids):
            raise TokenizerError(
                f"The tokenizer gives control tokens {sorted(self._disabled_ids.intersection(ids))} for plain text.",
                hint="Use the tokenizer.json of an official Gemma 4 checkpoint.",
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._inner.decode(list(ids), skip_special_tokens=False)
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def _check_control_tokens(self, file: Path, vocab_size: int) -> None:
        needed = {id: text for id, text in CONTROL_TOKENS.items() if id < IMAGE_OPEN or vocab_size > IMAGE_OPEN}
        wrong = [f"{text} ({id})" for id, text in needed.items() if self._inner.token_to_id(text) != id]
        if wrong:
            raise ModelLoadError(
                f"The tokenizer {file} lacks Gemma 4 control tokens at their ids: {', '.join(wrong[:6])}"
                f"{' and more' if len(wrong) > 6 else ''}.",
                hint="It belongs to another model. Use the tokenizer.json of an official Gemma 4 checkpoint.",
            )
