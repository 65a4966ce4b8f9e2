"""The vision part of a checkpoint: from an image's file to the vectors that stand for it among the tokens."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from contextlib import nullcontext
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from g4agent.errors import ImageError
from g4agent.gemma4.soft_tokens import SPELLED
from g4agent.image import Image, ImageKey
from g4agent_torch.many_tokens import multiplies_slowly, widened
from g4agent_torch.one_token import pass_of

MAX_PIXELS: Final = 80_000_000
"""Of an image: a small file can hold an enormous picture."""
MANY: Final = 2
"""Tokens of a pass that is one of many, to `pass_of`."""
KEPT: Final = 8
"""Images whose vectors are kept for the next session or pass that shows them."""


class Vision:
    """transformers' own vision tower and image processor, unforked.

    The processor is the one on Pillow, whatever else is installed: vectors are part of what keys and values are stored
    by, so they must not depend on which library has resized an image.

    Args:
        model: The base model with a vision part, without its language model's head.
        device: Where it runs.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

        model.audio_tower = model.embed_audio = None
        self._model, self._device = model, device
        parts = [getattr(model, "vision_tower", None), model.embed_vision]
        nn.ModuleList([part for part in parts if part is not None]).to(device)
        config = model.config.vision_config
        size, pooled = config.patch_size, config.pooling_kernel_size
        if parts[0] is None:  # the 12B model takes the pooled patches as they are
            size, pooled = size * pooled, 1
        self._processor: Any = Gemma4ImageProcessorPil(patch_size=size, pooling_kernel_size=pooled)
        self._lock = threading.Lock()
        self._counts: dict[ImageKey, int] = {}
        self._vectors: OrderedDict[ImageKey, Tensor] = OrderedDict()

    @classmethod
    def of(cls, model: PreTrainedModel, device: torch.device) -> Self | None:
        """That of a loaded checkpoint; None where it has none."""
        base = getattr(model, "model", None)
        if getattr(base, "embed_vision", None) is None:
            return None
        return cls(base, device)

    def soft_tokens(self, image: Image) -> int:
        """Vectors that an image becomes. Raises ImageError where it cannot be decoded."""
        if image.key not in self._counts:
            self._counts[image.key] = int(self.processed(image)["num_soft_tokens_per_image"][0])
        return self._counts[image.key]

    def vectors(self, image: Image) -> Tensor:
        """[soft tokens, hidden], on the device."""
        with self._lock:
            if image.key in self._vectors:
                self._vectors.move_to_end(image.key)
                return self._vectors[image.key]
        inputs = self.processed(image)
        pixels, places = (inputs[name].to(self._device) for name in ("pixel_values", "image_position_ids"))
        slow = multiplies_slowly(self._device, self._model.dtype)
        with pass_of(MANY) if self._device.type == "cpu" else nullcontext(), widened(slow):
            features = self._model.get_image_features(pixels, places, return_dict=True)
        vectors: Tensor = features.pooler_output[0]
        with self._lock:
            self._vectors[image.key] = vectors
            while len(self._vectors) > KEPT:
                self._vectors.popitem(last=False)
        return vectors

    def processed(self, image: Image) -> Any:
        """Patches and their places, as the image processor gives them."""
        import PIL.Image
        import PIL.ImageOps

        try:
            with PIL.Image.open(io.BytesIO(image.data)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ImageError(
                        f"The image {image.name} has {opened.width} × {opened.height} pixels: too many.",
                        hint="Make it smaller.",
                    )
                upright = PIL.ImageOps.exif_transpose(opened).convert("RGB")
            inputs = self._processor(upright, max_soft_tokens=image.tokens, return_tensors="pt")
        except (OSError, ValueError, SyntaxError, EOFError, PIL.Image.DecompressionBombError) as error:
            raise ImageError(
                f"The image {image.name} cannot be decoded: {error}", hint="Open it in a viewer, and save it anew."
            ) from error
        assert inputs["num_soft_tokens_per_image"][0] >= SPELLED, image
        return inputs
