"""A picture for the model: from people with a prompt, or from a tool with its result."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from g4agent.errors import ImageError
from g4agent.messages import JsonValue

SOFT_TOKENS: Final = (70, 140, 280, 560, 1120)
"""What an image may take of the context, at most: Gemma 4 was trained with these."""
DEFAULT_SOFT_TOKENS: Final = 280
MAX_BYTES: Final = 20 * 1024 * 1024
"""Of an image's file."""

_STARTS: Final = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


class ImageKey(NamedTuple):
    """Names what a model sees of an image: its file's content, and how large it is shown."""

    sha256: str
    tokens: int


class Image:
    """A PNG, JPEG, GIF (its first frame) or WebP, as the bytes of its file.

    Args:
        source: The file, or its bytes.
        name: How people and the model read of it; by default the file's path, or a name made of the content.
        tokens: What it may take of the context, one of `SOFT_TOKENS`: more shows finer detail.

    Raises:
        ImageError: The file cannot be read, is none of these, or is too large.
    """

    __slots__ = ("data", "media_type", "name", "sha256", "tokens")

    def __init__(
        self, source: str | os.PathLike[str] | bytes, *, name: str = "", tokens: int = DEFAULT_SOFT_TOKENS
    ) -> None:
        shown = name or (str(source)[:200] if not isinstance(source, bytes) else "")
        data = source if isinstance(source, bytes) else _read(Path(source))
        if len(data) > MAX_BYTES:
            raise ImageError(
                f"The image {shown} has {len(data):,} bytes; {MAX_BYTES:,} are allowed.", hint="Make it smaller."
            )
        media_type = media_type_of(data)
        if media_type is None:
            raise ImageError(f"{shown or 'This'} is no image of a known format.", hint="Use PNG, JPEG, GIF or WebP.")
        if tokens not in SOFT_TOKENS:
            raise ImageError(f"An image cannot take {tokens} tokens.", hint=f"Use {', '.join(map(str, SOFT_TOKENS))}.")
        self.data, self.media_type, self.tokens = data, media_type, tokens
        self.sha256: str = hashlib.sha256(data).hexdigest()
        self.name = shown or f"{self.sha256[:16]}.{media_type.partition('/')[2]}"

    @property
    def key(self) -> ImageKey:
        return ImageKey(self.sha256, self.tokens)

    @property
    def described(self) -> dict[str, JsonValue]:
        """What stands for it in a tool's result, and in all that people read."""
        return {"image": self.name, "media_type": self.media_type, "bytes": len(self.data)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (self.key, self.name) == (other.key, other.name)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Image({self.name!r}, {self.media_type}, {len(self.data):,} bytes, tokens={self.tokens})"


Prompt: TypeAlias = str | Sequence[str | Image]
"""What a person says: text, or texts and images in their order."""
ImagesOfCalls: TypeAlias = Mapping[str, Sequence[Image]]
"""By call id, the images in a call's result."""


def media_type_of(data: bytes) -> str | None:
    """The type of an image by its first bytes; None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)


def parts_of(prompt: Prompt) -> list[str | Image]:
    """A prompt's texts, trimmed as the chat template trims each, and its images."""
    parts = [prompt] if isinstance(prompt, str) else prompt
    return [part.strip() if isinstance(part, str) else part for part in parts]


def images_of(prompt: Prompt) -> list[Image]:
    """A prompt's images, in order."""
    return [] if isinstance(prompt, str) else [part for part in prompt if isinstance(part, Image)]


def text_of(prompt: Prompt) -> str:
    """A prompt's text alone."""
    return prompt if isinstance(prompt, str) else "".join(part for part in parts_of(prompt) if isinstance(part, str))


def shown(prompt: Prompt) -> str:
    """A prompt as people read it, with a note in the place of each image."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(part if isinstance(part, str) else note(part) for part in parts_of(prompt) if part)


def note(image: Image) -> str:
    """Name, type and size of an image."""
    return f"[image {image.name}, {image.media_type}, {len(image.data):,} bytes]"


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ImageError(
                f"The image {file} has {file.stat().st_size:,} bytes; {MAX_BYTES:,} are allowed.",
                hint="Make it smaller.",
            )
        return file.read_bytes()
    except OSError as error:
        raise ImageError(f"The image {file} cannot be read: {error.strerror}.", hint="Check its name.") from error
