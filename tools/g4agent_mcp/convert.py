"""What a server says, made to fit: names, schemas and results."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from mcp.types import CallToolResult, EmbeddedResource, TextContent, TextResourceContents, Tool, ToolAnnotations

from g4agent.errors import ImageError
from g4agent.image import Image
from g4agent.messages import JsonValue
from g4agent.tools import MAX_NAME_LENGTH, Effect
from g4agent_mcp.errors import McpToolError

TEXT_CHARS = 20_000
"""Of one text in a result, what the model is shown: head and tail."""


def native_names(names: Iterable[str], prefix: str) -> dict[str, str]:
    """By a server's names, names that an agent's tools may have: letters, digits and `_`, and no two alike."""
    taken: dict[str, str] = {}
    for name in names:
        fitting = re.sub(r"\W", "_", f"{prefix}{name}", flags=re.ASCII)
        if not re.match(r"[A-Za-z_]", fitting):
            fitting = f"_{fitting}"
        if len(fitting) > MAX_NAME_LENGTH or fitting in taken.values():
            mark = hashlib.sha256(name.encode()).hexdigest()[:6]
            fitting = f"{fitting[: MAX_NAME_LENGTH - 7]}_{mark}"
        taken[name] = fitting
    return taken


def native_schema(tool: Tool) -> dict[str, JsonValue]:
    """The schema of a tool's arguments, said to be of an object even where the server left that out."""
    schema = {key: value for key, value in tool.input_schema.items() if key not in ("$schema", "$id")}
    return cast("dict[str, JsonValue]", {**schema, "type": "object", "properties": schema.get("properties") or {}})


def native_description(tool: Tool) -> str:
    """What it does, in the server's words; else its title, else its name."""
    title = tool.title or (tool.annotations.title if tool.annotations else None)
    return (tool.description or "").strip() or title or tool.name


def claimed_effect(hints: ToolAnnotations | None) -> Effect:
    """What a server says that repeating a call does."""
    if hints is None:
        return "once"
    return "pure" if hints.read_only_hint else "idempotent" if hints.idempotent_hint else "once"


def native_result(result: CallToolResult, save: Callable[[bytes, str], Path]) -> Any:
    """A result as a tool returns it: structured content where there is any, one text as it is, and several parts as a
    list; an image as `Image`.

    Args:
        result: What the server answered.
        save: Keeps the bytes of an image, sound or file, given its media type; the model gets the path.

    Raises:
        McpToolError: The server says that the call failed.
    """
    parts = [_part(content, save) for content in result.content]
    if result.is_error:
        texts = [part if isinstance(part, str) else str(part) for part in parts]
        raise McpToolError("\n".join(texts) or "the server says that the call failed, and not why")
    files = [part for part in parts if isinstance(part, dict | Image)]
    if result.structured_content is not None:
        value: JsonValue = result.structured_content
        if isinstance(value, dict) and value.keys() == {"result"}:
            value = value["result"]  # how servers wrap what is no object
        return {"result": value, "files": files} if files else value
    return parts[0] if len(parts) == 1 else parts


def _part(content: Any, save: Callable[[bytes, str], Path]) -> JsonValue | Image:
    """Text as it is; an image that a model can see; anything else as an object that says what and where it is."""
    if isinstance(content, TextContent):
        return shorten(content.text)
    if isinstance(content, EmbeddedResource):
        resource = content.resource
        if isinstance(resource, TextResourceContents):
            return {"resource": str(resource.uri), "text": shorten(resource.text)}
        return {"resource": str(resource.uri), **_saved("file", resource.blob, resource.mime_type, save)}
    if content.type in ("image", "audio"):
        saved = _saved(content.type, content.data, content.mime_type, save)
        try:
            return Image(str(saved["image"]))
        except (KeyError, ImageError):  # a sound, or a picture in another format
            return saved
    described: Mapping[str, Any] = content.model_dump(mode="json", exclude_none=True, include={"name", "description"})
    return {"resource": str(content.uri), **described}


def _saved(kind: str, data: str, media: str | None, save: Callable[[bytes, str], Path]) -> dict[str, JsonValue]:
    raw, media = base64.b64decode(data), media or "application/octet-stream"
    return {kind: str(save(raw, media)), "media_type": media, "bytes": len(raw)}


def shorten(text: str) -> str:
    """A text with its middle left out where it is long."""
    if len(text) <= TEXT_CHARS:
        return text
    head, tail = TEXT_CHARS * 2 // 5, TEXT_CHARS * 3 // 5
    return f"{text[:head]}\n[{len(text) - head - tail} characters left out]\n{text[-tail:]}"


def saver(folder: Path | None) -> Callable[[bytes, str], Path]:
    """Keeps files in a folder, each named by its content; by default in `files` beside the store, where they stay."""

    def save(data: bytes, media: str) -> Path:
        from g4agent.store.database import default_path

        place = folder or default_path().parent / "files"
        place.mkdir(parents=True, exist_ok=True)
        suffix = mimetypes.guess_extension(media.partition(";")[0].strip()) or ".bin"
        file = place / f"{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
        file.write_bytes(data)
        return file

    return save
