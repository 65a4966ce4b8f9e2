"""Tokenizers for the native format: one byte per token, and a small trained BPE behind transformers' fast tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from g4agent.gemma4.tokens import CONTROL_TOKENS
from g4agent.testing import ByteTokenizer

RESERVED = 107
SAMPLE = """The weather in Zürich is sunny, 15 °C. Was kostet das? こんにちは世界 🙂 def f(x): return {"a": [1, 2.5]}
call:get_weather{location:,days:3} response:get_weather{value:} declaration:{description:,parameters:{properties:{
type:,required:[]}}} thought system user model <| |> turn tool_call tool_response channel think
"""


@pytest.fixture(scope="session")
def byte_tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="session")
def fast_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` with byte-level BPE, control tokens and the newline at Gemma 4's ids."""
    from transformers import PreTrainedTokenizerFast

    trained = _byte_level(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(SAMPLE.splitlines(keepends=True) * 4, trainer)
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    pieces.remove("Ċ")  # byte-level BPE's spelling of the newline
    names = [CONTROL_TOKENS.get(token, f"<unused{token}>") for token in range(RESERVED)]
    vocab = {piece: token for token, piece in enumerate([*names, "Ċ", *pieces])}
    merges = [tuple(merge) for merge in _merges(trained)]
    tokenizer = _byte_level(models.BPE(vocab=vocab, merges=merges))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@dataclass(frozen=True)
class FastTokenizer:
    """The `Tokenizer` port over a fast tokenizer; `split` is what keeps control tokens out of plain text."""

    fast: Any
    split: bool = True

    @property
    def vocab_size(self) -> int:
        return len(self.fast)

    def encode(self, text: str) -> list[int]:
        return list(self.fast.encode(text, add_special_tokens=False, split_special_tokens=self.split))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.fast.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@pytest.fixture(scope="session")
def bpe_tokenizer(fast_tokenizer: Any) -> FastTokenizer:
    return FastTokenizer(fast_tokenizer)


@pytest.fixture(scope="session")
def careless_tokenizer(fast_tokenizer: Any) -> FastTokenizer:
    """Breaks the port's contract as fast tokenizers do by default: control strings in text become control tokens."""
    return FastTokenizer(fast_tokenizer, split=False)


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[Any]:
    return json.loads(tokenizer.to_str())["model"]["merges"]
