"""Gemma 4's control tokens, and text that can never become one.

A prompt is a sequence of segments. A control token only ever comes from a `Control` segment, by id; every `Text`, be it
a literal of the format or something a user, tool or web page wrote, is encoded as plain text. So a user who types
`<turn|>` gets the characters of that string, not the token.

Ids and strings: google-deepmind/gemma `_tokenizer.py`, transformers `configuration_gemma4.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from g4agent.errors import TokenizerError

if TYPE_CHECKING:
    from g4agent.ports.runtime import Tokenizer

PAD: Final = 0
EOS: Final = 1
BOS: Final = 2
UNK: Final = 3
MASK: Final = 4
TOOL_OPEN: Final = 46
TOOL_CLOSE: Final = 47
CALL_OPEN: Final = 48
CALL_CLOSE: Final = 49
RESPONSE_OPEN: Final = 50
"""Also a stop token: the model asks for results with it."""
RESPONSE_CLOSE: Final = 51
QUOTE: Final = 52
"""String delimiter, the same on both sides."""
THINK: Final = 98
"""Switches thinking on, in the system turn."""
CHANNEL_OPEN: Final = 100
CHANNEL_CLOSE: Final = 101
TURN_OPEN: Final = 105
TURN_CLOSE: Final = 106

IMAGE_OPEN: Final = 255_999
AUDIO_OPEN: Final = 256_000
IMAGE: Final = 258_880
AUDIO: Final = 258_881
IMAGE_CLOSE: Final = 258_882
AUDIO_CLOSE: Final = 258_883
VIDEO: Final = 258_884

SOFT_BASE: Final = 1 << 30
"""From here on ids are soft tokens of images; see `soft_tokens`."""

CONTROL_TOKENS: Final = MappingProxyType(
    {
        PAD: "<pad>",
        EOS: "<eos>",
        BOS: "<bos>",
        UNK: "<unk>",
        MASK: "<mask>",
        TOOL_OPEN: "<|tool>",
        TOOL_CLOSE: "<tool|>",
        CALL_OPEN: "<|tool_call>",
        CALL_CLOSE: "<tool_call|>",
        RESPONSE_OPEN: "<|tool_response>",
        RESPONSE_CLOSE: "<tool_response|>",
        QUOTE: '<|"|>',
        THINK: "<|think|>",
        CHANNEL_OPEN: "<|channel>",
        CHANNEL_CLOSE: "<channel|>",
        TURN_OPEN: "<|turn>",
        TURN_CLOSE: "<turn|>",
        IMAGE_OPEN: "<|image>",
        AUDIO_OPEN: "<|audio>",
        IMAGE: "<|image|>",
        AUDIO: "<|audio|>",
        IMAGE_CLOSE: "<image|>",
        AUDIO_CLOSE: "<audio|>",
        VIDEO: "<|video|>",
    }
)
"""Id → string of every control token."""

_CONTROL_IDS = frozenset(CONTROL_TOKENS)
_CONTROL_STRING = re.compile("|".join(map(re.escape, CONTROL_TOKENS.values())))


def is_soft(id: int) -> bool:
    """Whether an id stands for a vector of an image."""
    return id >= SOFT_BASE


@dataclass(frozen=True, slots=True)
class Control:
    """One control token, or a soft one."""

    id: int

    def __post_init__(self) -> None:
        assert self.id in CONTROL_TOKENS or is_soft(self.id), self.id


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, encoded with control tokens disabled whatever it says."""

    text: str


Segment: TypeAlias = Control | Text


def encode_segments(tokenizer: Tokenizer, segments: Iterable[Segment]) -> list[int]:
    """The ids of a prompt. Neighbouring texts are encoded as one, so that merges across their border are the ones the
    official tokenizer makes on the rendered string.

    Raises:
        TokenizerError: The tokenizer breaks its contract and reads control tokens out of plain text.
    """
    ids: list[int] = []
    run: list[str] = []
    for segment in segments:
        if isinstance(segment, Text):
            run.append(segment.text)
            continue
        ids += _encode_plain(tokenizer, "".join(run))
        ids.append(segment.id)
        run.clear()
    return ids + _encode_plain(tokenizer, "".join(run))


def to_text(segments: Iterable[Segment]) -> str:
    """The rendered string in the official spelling, for people, logs and comparison; never to be tokenised again."""
    return "".join(
        s.text if isinstance(s, Text) else CONTROL_TOKENS[IMAGE if is_soft(s.id) else s.id] for s in segments
    )


def _encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    if not text:
        return []
    ids = tokenizer.encode(text)
    if _CONTROL_IDS.isdisjoint(ids):
        return ids
    # The tokenizer matched a control string. No piece below contains one: each is cut after its "<".
    cuts = [match.start() + 1 for match in _CONTROL_STRING.finditer(text)]
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    ids = [token for piece in pieces for token in tokenizer.encode(piece)]
    if not _CONTROL_IDS.isdisjoint(ids):
        found = sorted(_CONTROL_IDS.intersection(ids))
        raise TokenizerError(
            f"The tokenizer gave control tokens {found} for plain text.",
            hint="Its `encode` must never yield control ids; for Hugging Face, encode with split_special_tokens=True.",
        )
    return ids
