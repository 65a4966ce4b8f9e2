"""Images as people and tools give them, in prompts, results and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4agent import Agent, Image, tool
from g4agent.errors import ImageError
from g4agent.events import to_json
from g4agent.image import MAX_BYTES, shown, text_of
from g4agent.store.records import placed, put_together
from g4agent.testing import ScriptedModel, call, say
from g4agent.tools import to_json as result_json

PNG = b"\x89PNG\r\n\x1a\n" + bytes(9)
DESCRIBED = {"image": "a.png", "media_type": "image/png", "bytes": 17}


@pytest.mark.parametrize(
    ("data", "kind"),
    [(PNG, "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF\0\0\0\0WEBPVP8 ", "webp")],
)
def test_an_image_is_known_by_its_content(data: bytes, kind: str, tmp_path: Path) -> None:
    """A file's name may lie, and bytes have none."""
    (tmp_path / "x").write_bytes(data)
    from_file, from_bytes = Image(tmp_path / "x"), Image(data)
    assert from_file.media_type == from_bytes.media_type == f"image/{kind}" and from_file.key == from_bytes.key
    assert from_file.name == str(tmp_path / "x") and from_bytes.name == f"{from_bytes.sha256[:16]}.{kind}"
    assert Image(data, tokens=70).key != from_bytes.key, "shown smaller, it is another thing to the model"


def test_what_is_no_image_is_refused_at_once(tmp_path: Path) -> None:
    """With words that say what to do, before a model is loaded for it."""
    with pytest.raises(ImageError, match=r"no image of a known format(.|\n)*PNG, JPEG"):
        Image(b"<svg/>")
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        Image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        Image(tmp_path)
    with pytest.raises(ImageError, match="bytes"):
        Image(PNG + bytes(MAX_BYTES))
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match="bytes"):
        Image(tmp_path / "huge.png")
    with pytest.raises(ImageError, match=r"100 tokens(.|\n)*70, 140, 280, 560, 1120"):
        Image(PNG, tokens=100)


IMAGES = [Image(PNG, name="a.png"), Image(b"GIF89a", name="b.gif")]


@given(st.lists(st.sampled_from(["", " x", "two\nlines ", *IMAGES]), max_size=6))
def test_a_prompt_comes_back_from_its_text_and_images(prompt: Sequence[str | Image]) -> None:
    """The store keeps a step's text and the places of its images: replay says the very same again."""
    text, images = text_of(prompt), placed(prompt)
    again = put_together(text, images)
    assert text_of(again) == text and placed(again) == images


def test_what_people_read_has_no_bytes() -> None:
    """Neither lines of JSON nor a terminal are the place for them."""
    assert shown(["See", IMAGES[0], ""]) == "See\n[image a.png, image/png, 17 bytes]"
    images: list[Image] = []
    assert result_json("f", {"plots": [IMAGES[0]], "n": 1}, images) == {"plots": [DESCRIBED], "n": 1}
    assert images == [IMAGES[0]]


@tool(where="host", effect="pure")
async def draw() -> list[Any]:
    """Draws."""
    return ["Here:", Image(PNG, name="a.png")]


@pytest.mark.anyio
async def test_a_model_that_is_blind_reads_what_there_is() -> None:
    """Its prompts cannot have images; of results it gets name, type and size, as it did before there were any."""
    agent = Agent(model=ScriptedModel([call("draw"), say("A drawing.")]), tools=[draw], store=False)
    with pytest.raises(ImageError, match="sees no images"):
        await agent.run([IMAGES[0], "What is it?"])
    events = [to_json(event) async for event in agent.stream(["Draw", "!"])]
    (finished,) = [event for event in events if event["type"] == "tool_finished"]
    assert finished["result"]["value"] == ["Here:", DESCRIBED] and "images" not in finished["result"]
