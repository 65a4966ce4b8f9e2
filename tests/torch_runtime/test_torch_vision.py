"""Images in the embedded engine: it computes what transformers' own model does, however they are cut and kept."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import aclosing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from native_tokenizer import build_tokenizer, write_tokenizer
from tiny_models import VARIANTS, seeing_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor

from g4agent.errors import ConversationError, ImageError
from g4agent.gemma4 import render
from g4agent.gemma4.soft_tokens import blocks, image_block, official
from g4agent.gemma4.tokens import IMAGE, Segment, Text, encode_segments
from g4agent.image import SOFT_TOKENS, Image
from g4agent.ports.runtime import GenerateRequest, SampledToken, Sampling
from g4agent_torch import load
from g4agent_torch.engine import TorchEngine
from g4agent_torch.runtime import TorchRuntime

pytestmark = pytest.mark.anyio

Seeing = Callable[..., TorchRuntime]
TOLERANCE = 1e-4


def picture(seed: int, width: int, height: int, tokens: int = 70) -> Image:
    """A PNG of coloured squares."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.NEAREST).save(file, "png")
    return Image(file.getvalue(), tokens=tokens)


FIRST, SECOND, OTHER = picture(1, 320, 200), picture(2, 96, 256), picture(3, 320, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def save(variant: str) -> Path:
        place = tmp_path_factory.mktemp(f"{variant} with eyes")
        seeing_model(variant).save_pretrained(place)
        write_tokenizer(place, images=True)
        return place

    return save


@pytest.fixture(scope="module")
def seeing(folder: Callable[[str], Path]) -> Seeing:
    """A loaded runtime of a variant that sees images."""

    @cache
    def open_runtime(variant: str, **options: Any) -> TorchRuntime:
        return load(str(folder(variant)), **options)

    return open_runtime


def prompt(runtime: TorchRuntime, *images: Image) -> list[int]:
    """A user turn with text before, between and behind images."""
    parts: list[str | list[Segment]] = ["What do these pictures have in common, and what not? " * 2]
    for image in images:
        parts += [image_block(image.key, runtime.soft_tokens(image)), " and "]
    turn = [*render.user_turn(*parts), *render.model_turn_open(True, "small")]
    return encode_segments(runtime.tokenizer, turn)


async def opened(runtime: TorchRuntime, tokens: list[int], *images: Image) -> TorchEngine:
    engine = await runtime.open_engine()
    await engine.show(images)
    await engine.append(tokens)
    return engine


async def generated(engine: TorchEngine, count: int = 1) -> list[SampledToken]:
    request = GenerateRequest(max_tokens=count, sampling=Sampling(temperature=0), stop_ids=frozenset())
    async with aclosing(engine.generate(request)) as tokens:
        return [token async for token in tokens]


def reference(model: PreTrainedModel, runtime: TorchRuntime, tokens: list[int], *images: Image) -> torch.Tensor:
    """Logits after the last token, from the pixels on: transformers' whole model, in one pass without a cache."""
    assert runtime._vision is not None
    inputs = [runtime._vision.processed(image) for image in images]
    ids = torch.tensor([official(tokens)])
    kinds = (ids == IMAGE).int()
    more: dict[str, Any] = {"mm_token_type_ids": kinds}
    if model.config.model_type == "gemma4_unified":  # its forward builds other masks than its own `generate` takes
        more["attention_mask"] = model.create_masks_for_generate(
            config=model.config,
            inputs_embeds=torch.zeros(1, len(tokens), 1),
            attention_mask=None,
            past_key_values=None,
            position_ids=torch.arange(len(tokens))[None],
            mm_token_type_ids=kinds,
        )
    with torch.inference_mode():
        logits: torch.Tensor = model(
            input_ids=ids,
            pixel_values=torch.cat([each["pixel_values"] for each in inputs]),
            image_position_ids=torch.cat([each["image_position_ids"] for each in inputs]),
            use_cache=False,
            logits_to_keep=1,
            **more,
        ).logits
    return logits[0, -1]


@pytest.mark.parametrize("variant", VARIANTS)
async def test_logits_equal_those_of_the_whole_model(variant: str, seeing: Seeing) -> None:
    """The core of it, on every official architecture: the tower's vectors, per-layer embeddings at their places, and
    masks that let an image see all of itself, in passes that would cut both images."""
    runtime, model = seeing(variant, prefill_chunk=32), seeing_model(variant)
    assert runtime.info.sees_images
    tokens = prompt(runtime, FIRST, SECOND)
    engine = await opened(runtime, tokens, FIRST, SECOND)
    await generated(engine)
    expected = reference(model, runtime, tokens, FIRST, SECOND)
    assert engine._logits is not None
    torch.testing.assert_close(engine._logits, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("variant", ["E2B", "31B"])
async def test_pictures_make_a_difference(variant: str, seeing: Seeing) -> None:
    """Equal logits would also come of a model that is blind."""
    runtime = seeing(variant)
    logits = []
    for image in (FIRST, OTHER):
        engine = await opened(runtime, prompt(runtime, image), image)
        await generated(engine)
        logits.append(engine._logits)
    assert logits[0] is not None and logits[1] is not None
    assert float((logits[0] - logits[1]).abs().max()) > 100 * TOLERANCE


@pytest.mark.parametrize("variant", ["E2B", "31B"])
async def test_a_cut_leaves_no_trace(variant: str, seeing: Seeing) -> None:
    """Between images, and within one: what is appended then is computed as if nothing else had been there."""
    runtime = seeing(variant, prefill_chunk=32)
    tokens, other = prompt(runtime, FIRST, SECOND), prompt(runtime, FIRST, OTHER)
    expected = await generated(await opened(runtime, other, FIRST, OTHER), 3)
    start, end = list(blocks(tokens))[1]
    for cut in (start - 3, start + 4, end):
        engine = await opened(runtime, tokens, FIRST, SECOND, OTHER)
        await generated(engine)
        await engine.truncate(cut)
        await engine.truncate(min(cut, start))
        await engine.append(other[min(cut, start) :])
        got = await generated(engine, 3)
        assert [t.id for t in got] == [t.id for t in expected]
        assert [t.logprob for t in got] == pytest.approx([t.logprob for t in expected], abs=TOLERANCE)


@pytest.mark.parametrize("kv_bits", ["16", "4"])
async def test_pages_are_found_by_the_picture(kv_bits: str, seeing: Seeing, tmp_path: Path) -> None:
    """A resumed session computes nothing again; one with another picture in the same place shares nothing behind it."""
    runtime = seeing("wide heads" if kv_bits == "4" else "31B", prefill_chunk=64, kv_bits=kv_bits)
    big, another = picture(1, 320, 200, 280), picture(3, 320, 200, 280)
    tokens = [*prompt(runtime, big), *prompt(runtime, big)]
    engine = await runtime.open_durable_engine(tmp_path)
    await engine.show([big])
    await engine.append(tokens)
    said = await generated(engine, 4)
    await engine.checkpoint()
    before = list(engine.tokens)
    again = await runtime.open_durable_engine(tmp_path)
    await again.show([big])
    await again.append(before)
    resumed = await generated(again, 1)
    assert again.computed_tokens <= 4, "the pages were not found"
    assert len(said) == 4 and [t.id for t in resumed] == [t.id for t in await generated(engine, 1)]

    replaced = [*prompt(runtime, another), *prompt(runtime, big)]
    foreign = await runtime.open_durable_engine(tmp_path)
    await foreign.show([big, another])
    await foreign.append(replaced)
    await generated(foreign, 1)
    at = next(iter(blocks(replaced)))[0]
    assert foreign.computed_tokens >= len(replaced) - at, "keys of another picture were taken"


async def test_soft_tokens_need_their_picture(seeing: Seeing) -> None:
    """A transcript whose images were lost must say so, not go on with padding in their place."""
    runtime = seeing("E2B")
    engine = await opened(runtime, prompt(runtime, FIRST))
    with pytest.raises(ConversationError, match="no image that was shown"):
        await generated(engine)


async def test_damaged_pictures_are_refused(seeing: Seeing) -> None:
    """Before anything is appended: a turn with one could never be computed."""
    runtime = seeing("E2B")
    for data in (FIRST.data[:200], b"\xff\xd8\xff nothing", b"GIF89a"):
        with pytest.raises(ImageError, match="cannot be decoded"):
            runtime.soft_tokens(Image(data, name="x"))
    file = io.BytesIO()
    PIL.Image.new("1", (12_000, 12_000)).save(file, "png")
    assert len(file.getvalue()) < 50_000
    with pytest.raises(ImageError, match="12000 × 12000 pixels: too many"):
        runtime.soft_tokens(Image(file.getvalue()))


class Processor(Gemma4Processor):  # type: ignore[misc]
    """The official one, without the parts for sound and video, which this machine may lack."""

    def check_argument_for_proper_class(self, name: str, value: Any) -> Any:
        return type(value)


@pytest.fixture(scope="module")
def processor() -> Processor:
    around = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    around |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(images=True), pad_token="<pad>", extra_special_tokens=around
    )
    return Processor(None, Gemma4ImageProcessorPil(), tokenizer, None)


@pytest.mark.parametrize("budget", SOFT_TOKENS)
@pytest.mark.parametrize("size", [(320, 200), (96, 256), (2000, 30), (48, 48)])
def test_ids_are_the_official_processors(
    budget: int, size: tuple[int, int], processor: Processor, seeing: Seeing
) -> None:
    """As many placeholders as the model was trained with, at every size and shape, and where the template has them."""
    image = picture(5, *(-(-side // 8) * 8 for side in size), tokens=budget)
    runtime = seeing("E2B")
    turn = render.user_turn("Look: ", image_block(image.key, runtime.soft_tokens(image)), " What is it?\n")
    ours = official(encode_segments(runtime.tokenizer, [*turn, Text("")]))
    text = "<|turn>user\nLook:<|image|>What is it?<turn|>\n"
    theirs = processor(
        images=[PIL.Image.open(io.BytesIO(image.data))], text=[text], max_soft_tokens=budget, add_special_tokens=False
    )
    assert ours == list(theirs["input_ids"][0])
    assert [id == IMAGE for id in ours] == [kind == 1 for kind in theirs["mm_token_type_ids"][0]]
