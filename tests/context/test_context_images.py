"""Images in older results leave the context with them."""

from __future__ import annotations

from g4agent.context.rungs import old_end, trim_results
from g4agent.gemma4 import render
from g4agent.gemma4.sections import read_sections
from g4agent.gemma4.soft_tokens import image_block, keys_in
from g4agent.gemma4.tokens import CALL_CLOSE, CALL_OPEN, Control, Segment, Text, encode_segments
from g4agent.image import Image
from g4agent.messages import ToolResult
from g4agent.testing import ByteTokenizer

PICTURES = [Image(b"\x89PNG\r\n\x1a\n" + name, name=f"{name.decode()}.png") for name in (b"mug", b"cup")]


def test_an_old_picture_goes_and_its_description_stays() -> None:
    """A picture is most of what its result takes; the newest one is still being looked at."""
    results = [ToolResult(f"s{i}c0", "draw", {**image.described}) for i, image in enumerate(PICTURES)]
    talk: list[Segment] = [*render.user_turn("Go"), *render.model_turn_open(True, "small")]
    for image, result in zip(PICTURES, results, strict=True):
        talk += [Control(CALL_OPEN), Text("call:draw{}"), Control(CALL_CLOSE)]
        shown = [image_block(image.key, 280)]
        talk += render.tool_responses([("draw", result.response())], False, False, shown)
    tokens = encode_segments(ByteTokenizer(), talk)
    sections = read_sections(tokens, has_system=False)
    new, trimmed = trim_results(tokens, sections, old_end(tokens, sections, 1), results, 200, ByteTokenizer())
    assert trimmed == ["s0c0"] and keys_in(new) == {PICTURES[1].key} and len(new) < len(tokens) - 200
    assert "mug.png" in ByteTokenizer().decode([id for id in new if id < 1 << 20])
