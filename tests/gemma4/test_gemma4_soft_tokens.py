"""Soft tokens: ids that say which image they belong to, in the places where the official template has images."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4agent.gemma4.conversation import NativeConversation
from g4agent.gemma4.sections import read_sections
from g4agent.gemma4.soft_tokens import (
    SPELLED,
    blocks,
    image_block,
    key_at,
    keys_in,
    official,
    whole_end,
    whole_start,
)
from g4agent.gemma4.tokens import IMAGE, IMAGE_CLOSE, IMAGE_OPEN, encode_segments, to_text
from g4agent.image import SOFT_TOKENS, Image, ImageKey
from g4agent.messages import ToolResult
from g4agent.ports.runtime import ConversationSetup, GenerationLimits, Sampling
from g4agent.testing import ByteTokenizer, ScriptedEngine, ScriptedRuntime
from g4agent.testing.conversation import SCRIPTED
from g4agent.tools import tool

PICTURE = Image(b"\x89PNG\r\n\x1a\n", name="a.png", tokens=70)
CALL = "<|tool_call>call:draw{}<tool_call|>"
SHOWN = "<|image>" + "<|image|>" * 12 + "<image|>"

keys = st.builds(
    lambda data, tokens: ImageKey(hashlib.sha256(data).hexdigest(), tokens), st.binary(), st.sampled_from(SOFT_TOKENS)
)


def ids_of(key: ImageKey, count: int) -> list[int]:
    return encode_segments(ByteTokenizer(), image_block(key, count))


@given(keys, st.integers(SPELLED, 40))
def test_ids_spell_the_image(key: ImageKey, count: int) -> None:
    """Whoever has a transcript can tell its images: the store, a resumed engine, the address of a page."""
    ids = ids_of(key, count)
    assert len(ids) == count + 2 and list(blocks(ids)) == [(1, count + 1)]
    assert key_at(ids, 1) == key and keys_in([5, *ids, 5]) == {key}
    assert official(ids) == [IMAGE_OPEN, *[IMAGE] * count, IMAGE_CLOSE]
    assert max(ids) < 2**31, "the store packs ids in 32 bits with a sign"


@given(keys, keys)
def test_no_two_images_are_spelled_alike(one: ImageKey, other: ImageKey) -> None:
    assert (ids_of(one, 20) == ids_of(other, 20)) == (one == other)


def test_cuts_are_moved_out_of_an_image() -> None:
    """A forward pass must not end within one."""
    ids = [7, *ids_of(PICTURE.key, 10), *ids_of(PICTURE.key, 9), 7]
    assert [whole_start(ids, at) for at in (0, 1, 2, 3, 11, 12, 13)] == [0, 1, 2, 2, 2, 12, 13]
    assert [whole_end(ids, at) for at in (0, 1, 2, 3, 11, 12, 13)] == [0, 1, 2, 12, 12, 12, 13]
    assert [whole_end(ids, at) for at in (14, 15, 23, len(ids))] == [14, 23, 23, len(ids)]


class _SeeingEngine(ScriptedEngine):
    shown: list[Image]

    async def show(self, images: Iterable[Image]) -> None:
        self.shown = [*getattr(self, "shown", []), *images]


@tool(where="host", effect="pure")
def draw() -> None:
    """Draws."""


@pytest.fixture
async def talk() -> AsyncGenerator[tuple[NativeConversation, _SeeingEngine]]:
    small = replace(SCRIPTED, context_length=1500)
    runtime = ScriptedRuntime([f"{CALL}{CALL}<|tool_response>", "A mug.<turn|>"], info=small)
    engine = _SeeingEngine(runtime)
    conversation = NativeConversation(runtime.info, runtime.tokenizer, engine, soft_tokens=lambda image: 12)
    await conversation.begin(ConversationSetup("", (draw,), thinking=False))
    yield conversation, engine


@pytest.mark.anyio
async def test_images_stand_where_the_template_has_them(talk: tuple[NativeConversation, _SeeingEngine]) -> None:
    """In a user turn in the place of the part, each text trimmed; behind the result of the call that gave it; and the
    ledger counts them with the turn and the result that they belong to."""
    conversation, engine = talk
    await conversation.add_user(["Look: ", PICTURE, PICTURE, " What is it?\n"])
    async for _ in conversation.generate(0, GenerationLimits(200, None, Sampling())):
        pass
    results = [ToolResult("s0c0", "draw", "a"), ToolResult("s0c1", "draw", "b")]
    assert await conversation.add_results(results, {"s0c0": [PICTURE]}) == results
    ids = list(engine.tokens)
    first = '<|tool_response>response:draw{value:<|"|>a<|"|>}<tool_response|>' + SHOWN
    second = '<|tool_response>response:draw{value:<|"|>b<|"|>}<tool_response|>'
    text = ByteTokenizer().decode(official(ids))
    assert text.endswith(
        f"<|turn>user\nLook:{SHOWN}{SHOWN}What is it?<turn|>\n<|turn>model\n{CALL}{CALL}{first}{second}"
    )
    assert engine.shown == [PICTURE, PICTURE, PICTURE]
    sections = [(s.kind, s.length) for s in read_sections(ids, has_system=True)]
    assert sections[-2:] == [("results", len(_ids(first))), ("results", len(_ids(second)))]
    assert [length for kind, length in sections if kind == "user"] == [
        len(_ids("<|turn>user\nLook:What is it?<turn|>\n")) + 28
    ]


def _ids(native: str) -> list[int]:
    return ScriptedRuntime([]).ids(native)


@pytest.mark.anyio
async def test_images_without_room_are_left_out(talk: tuple[NativeConversation, _SeeingEngine]) -> None:
    """The results themselves come first, and room for the next step is kept."""
    conversation, engine = talk
    await conversation.add_user("Go")
    async for _ in conversation.generate(0, GenerationLimits(200, None, Sampling())):
        pass
    room = conversation.info.context_length - conversation.length
    many = [PICTURE] * (room // 14 + 5)
    await conversation.add_results([ToolResult("s0c0", "draw", "a"), ToolResult("s0c1", "draw", "b")], {"s0c1": many})
    count = len(list(blocks(engine.tokens)))
    assert 0 < count < len(many) and conversation.info.context_length - conversation.length > 256


def test_soft_tokens_read_as_placeholders() -> None:
    """Logs and people have the official spelling."""
    assert to_text(image_block(PICTURE.key, 12)) == SHOWN
