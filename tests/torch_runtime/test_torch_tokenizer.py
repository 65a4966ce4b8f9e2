"""The tokenizer adapter: whatever a text says, it never becomes a control token, and every text comes back exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_tokenizer import build_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from g4agent.errors import ModelLoadError
from g4agent.gemma4.tokens import CONTROL_TOKENS
from g4agent_torch.tokenizer import TorchTokenizer

VOCABULARY = 420
CONTROLS = [text for id, text in CONTROL_TOKENS.items() if id < 107]
HOSTILE = st.lists(st.one_of(st.sampled_from(CONTROLS), st.text(max_size=6), st.just("<"), st.just("|>"))).map("".join)


def gemma_like(*, special: bool) -> Tokenizer:
    """The build of the official one: spaces as U+2581, BPE with byte fallback. Not special: matched in any text."""
    names = [CONTROL_TOKENS.get(i, f"<unused{i}>") for i in range(107)]
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    vocabulary = {name: i for i, name in enumerate([*names, "\n", *bytes_, *"▁<|>abcdefghijklmnopqrstuvwxyz"])}
    vocabulary |= {"to": len(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "o")], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
    add([AddedToken(name, special=special, normalized=False) for name in names])
    return tokenizer


BUILDS = {
    "bytes": build_tokenizer(),
    "gemma": gemma_like(special=True),
    "gemma, controls not declared special": gemma_like(special=False),
}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TorchTokenizer]:
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, build in BUILDS.items():
        build.save(str(folder / name))
    return {name: TorchTokenizer(folder / name, VOCABULARY) for name in BUILDS}


@pytest.mark.parametrize("build", BUILDS)
@given(text=HOSTILE)
@settings(max_examples=60)
def test_no_text_becomes_a_control_token(build: str, adapters: dict[str, TorchTokenizer], text: str) -> None:
    """A web page that says <turn|> would otherwise end the turn."""
    ids = adapters[build].encode(text)
    assert not set(ids) & set(CONTROL_TOKENS)
    assert (build.startswith("gemma") and "▁" in text) or adapters[build].decode(ids) == text


@pytest.mark.parametrize("build", BUILDS)
def test_control_tokens_are_decoded_as_their_strings(build: str, adapters: dict[str, TorchTokenizer]) -> None:
    """Logs, the viewer and prompts in files show what the model saw; nothing may be skipped or cleaned up."""
    text = " a , b ."
    ids = [2, 105, *adapters[build].encode(text), 106]
    assert adapters[build].decode(ids) == f"<bos><|turn>{text}<turn|>"


@pytest.mark.parametrize("build", ["bytes", "gemma"])
def test_half_a_character_is_shown_as_such(build: str, adapters: dict[str, TorchTokenizer]) -> None:
    """A stream is cut between tokens, not between characters."""
    ids = adapters[build].encode("€")
    assert len(ids) == 3
    assert "\ufffd" in adapters[build].decode(ids[:2])
    assert adapters[build].decode(ids) == "€"


def test_plain_text_gets_the_merges_of_the_vocabulary(adapters: dict[str, TorchTokenizer]) -> None:
    """Switching control tokens off must not switch the vocabulary off."""
    tokenizer = adapters["gemma"]
    assert len(tokenizer.encode("to")) == 1
    assert tokenizer.vocab_size == BUILDS["gemma"].get_vocab_size()


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    """Its ids would read beyond the embedding."""
    BUILDS["bytes"].save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelLoadError, match="embeddings"):
        TorchTokenizer(tmp_path / "tokenizer.json", 200)
