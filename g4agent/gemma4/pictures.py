"""The images of one conversation: made into soft tokens, and given to the engine that computes with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import anyio.to_thread

from g4agent.errors import ImageError
from g4agent.gemma4 import render
from g4agent.gemma4.soft_tokens import image_block
from g4agent.gemma4.tokens import Segment
from g4agent.image import Image, ImagesOfCalls, Prompt, parts_of
from g4agent.messages import ToolResult
from g4agent.ports.runtime import ImageEngine, TokenEngine

Blocks: TypeAlias = list[tuple[Image, list[Segment]]]
"""Images with what they are in a transcript."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """See the module."""

    model: str
    engine: TokenEngine
    soft_tokens: Callable[[Image], int] | None
    """Vectors that the model makes of an image; None: it sees none."""

    async def show(self, images: Sequence[Image]) -> None:
        """Has the engine know images whose soft tokens are about to come."""
        if images and isinstance(self.engine, ImageEngine):
            await self.engine.show(images)

    async def user_turn(self, prompt: Prompt) -> list[Segment]:
        """What a user turn is rendered to. Raises ImageError for an image that cannot be shown."""
        return render.user_turn(*[p if isinstance(p, str) else await self._block(p) for p in parts_of(prompt)])

    async def decoded(
        self, results: Sequence[ToolResult], images: ImagesOfCalls | None
    ) -> tuple[list[ToolResult], list[Blocks]]:
        """The results, with a note in one that has a damaged image; and the sound images of each."""
        noted, blocks = list(results), [Blocks() for _ in results]
        for index, result in enumerate(results if images else ()):
            for image in (images or {}).get(result.call_id, ()):
                try:
                    blocks[index].append((image, await self._block(image)))
                except ImageError as problem:
                    noted[index] = replace(result, value={**noted[index].response(), "note": problem.message})
        return noted, blocks

    async def fitting(self, blocks: Sequence[Blocks], room: int) -> list[list[Segment]]:
        """Of each result's images those that fit into so many tokens, in order; the engine then knows them."""
        fitting = [list[Segment]() for _ in blocks]
        for index, (image, block) in ((index, pair) for index, pairs in enumerate(blocks) for pair in pairs):
            if len(block) <= room:
                room -= len(block)
                fitting[index] += block
                await self.show([image])
        return fitting

    async def _block(self, image: Image) -> list[Segment]:
        if self.soft_tokens is None:
            raise ImageError(f"{self.model} sees no images.", hint="Use a Gemma 4 checkpoint that has its vision part.")
        return image_block(image.key, await anyio.to_thread.run_sync(self.soft_tokens, image))
