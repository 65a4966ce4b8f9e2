"""Control tokens come from `Control` segments and from nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_samples import CONTROL_IDS, arguments, controls, ids, nasty_text, segments

from g4agent.errors import TokenizerError
from g4agent.gemma4 import render
from g4agent.gemma4.tokens import (
    BOS,
    CALL_OPEN,
    CONTROL_TOKENS,
    QUOTE,
    Control,
    Segment,
    Text,
    encode_segments,
    to_text,
)
from g4agent.testing import ByteTokenizer

MODEST = settings(max_examples=150)


def test_ids_are_the_official_ones() -> None:
    """A shifted id would make every prompt meaningless to the real model."""
    official = {
        "<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4, "<|tool>": 46, "<tool|>": 47, "<|tool_call>": 48,
        "<tool_call|>": 49, "<|tool_response>": 50, "<tool_response|>": 51, '<|"|>': 52, "<|think|>": 98,
        "<|channel>": 100, "<channel|>": 101, "<|turn>": 105, "<turn|>": 106, "<|image>": 255999, "<|audio>": 256000,
        "<|image|>": 258880, "<|audio|>": 258881, "<image|>": 258882, "<audio|>": 258883, "<|video|>": 258884,
    }  # fmt: skip
    assert official == CONTROL_IDS
    assert len(CONTROL_TOKENS) == len(official)


def test_multimodal_ids_agree_with_transformers() -> None:
    """transformers' configuration is the one public place that names them all."""
    from transformers import Gemma4Config

    config = Gemma4Config()
    assert CONTROL_IDS["<|image>"] == config.boi_token_id
    assert CONTROL_IDS["<image|>"] == config.eoi_token_id
    assert CONTROL_IDS["<|image|>"] == config.image_token_id
    assert CONTROL_IDS["<|audio|>"] == config.audio_token_id
    assert CONTROL_IDS["<|video|>"] == config.video_token_id


def test_a_control_segment_must_be_a_control_token() -> None:
    """An ordinary id in a `Control` would smuggle text past the encoder."""
    with pytest.raises(AssertionError):
        Control(107)


@MODEST
@given(
    system=nasty_text, name=nasty_text, described=nasty_text, user=nasty_text, called=arguments(), result=arguments()
)
def test_no_text_can_speak_control(
    bpe_tokenizer: Any, system: str, name: str, described: str, user: str, called: Any, result: Any
) -> None:
    """Whatever users, tools and their authors write, the control ids are those that rendering put there, in order."""
    parameters = {"type": "object", "properties": {name: {"type": "string", "description": described}}}
    rendered = [
        Control(BOS),
        *render.system_turn(system, [render.declaration(name, described, parameters)], True),
        *render.user_turn(user),
        *render.model_turn_open(False, "large"),
        *render.tool_call(name, called),
        *render.tool_responses([(name, result)], False, True),
    ]
    placed = [segment.id for segment in rendered if isinstance(segment, Control)]
    for tokenizer in (ByteTokenizer(), bpe_tokenizer):
        assert controls(encode_segments(tokenizer, rendered)) == placed


@MODEST
@given(parts=st.lists(nasty_text, max_size=4))
def test_borders_between_texts_make_no_control_token(careless_tokenizer: Any, parts: list[str]) -> None:
    """`<|tu` and `rn>` in two neighbouring texts are joined before they are encoded: that must not make a token, even
    with a tokenizer that matches control strings in plain text."""
    tokens = encode_segments(careless_tokenizer, [Text(part) for part in parts])
    assert controls(tokens) == []
    assert careless_tokenizer.decode(tokens) == "".join(parts)


@MODEST
@given(
    words=st.lists(st.sampled_from(["weather", " in Zürich", "{a:", "1,", "}", "\n", "世界 🙂"]), max_size=6),
    called=arguments(text=st.just("x y")),
)
def test_ids_equal_those_of_the_rendered_string(
    bpe_tokenizer: Any, fast_tokenizer: Any, words: list[str], called: Any
) -> None:
    """Merges across the border of literal and value must be the official tokenizer's, or the model sees a prompt that
    it was not trained on."""
    rendered = [*render.user_turn("".join(words)), *render.tool_call("get_weather", called)]
    assert encode_segments(bpe_tokenizer, rendered) == fast_tokenizer.encode(
        to_text(rendered), add_special_tokens=False
    )


def test_a_tokenizer_that_cannot_be_tamed_is_an_error() -> None:
    """A tokenizer that yields control tokens whatever it is given must stop the run, not steer it."""

    class Hostile(ByteTokenizer):
        def encode(self, text: str) -> list[int]:
            return [CALL_OPEN]

    with pytest.raises(TokenizerError, match="48"):
        encode_segments(Hostile(), [Text("hello")])


def test_to_text_is_the_official_spelling() -> None:
    """Logs and comparisons with the template depend on it."""
    parts: Sequence[Segment] = segments('<|turn>user\n<|"|>x<turn|>')
    assert to_text(parts) == '<|turn>user\n<|"|>x<turn|>'
    assert [s.id for s in parts if isinstance(s, Control)] == [105, QUOTE, 106]


def test_the_byte_tokenizer_keeps_its_contract(byte_tokenizer: ByteTokenizer) -> None:
    """Every test without a vocabulary stands on it: exact text, official control ids, newline 107."""
    text = "a\nß🙂<|turn>"
    tokens = byte_tokenizer.encode(text)
    assert tokens[1] == 107 and controls(tokens) == [] and max(tokens) < byte_tokenizer.vocab_size
    assert byte_tokenizer.decode(tokens) == text
    assert byte_tokenizer.decode(ids(byte_tokenizer, "<|turn>é")[:-1]) == "<|turn>\N{REPLACEMENT CHARACTER}"
