"""A small byte-level tokenizer with Gemma 4's control tokens at their official ids, as a checkpoint folder holds it."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from g4agent.gemma4.tokens import CONTROL_TOKENS, VIDEO

FIRST_BYTE = 108


def build_tokenizer(*, images: bool = False) -> Tokenizer:
    """Ids 0 to 106 are control or unused tokens, 107 the newline, 108 and up the bytes; with `images`, unused ones
    behind them up to the control tokens of images."""
    names = [CONTROL_TOKENS.get(i, f"<unused{i}>") for i in range(107)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: i for i, name in enumerate([*names, "Ċ"])}
    vocabulary |= {letter: FIRST_BYTE + i for i, letter in enumerate(a for a in alphabet if a != "Ċ")}
    if images:
        more = range(len(vocabulary), VIDEO + 1)
        vocabulary |= {CONTROL_TOKENS.get(i, f"<unused{i}>"): i for i in more}
        names += [CONTROL_TOKENS[i] for i in more if i in CONTROL_TOKENS]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return tokenizer


def write_tokenizer(folder: Path, *, images: bool = False) -> None:
    build_tokenizer(images=images).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
