"""Our tools and their results as MCP has them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcp import types

from g4agent.messages import ToolResult

if TYPE_CHECKING:
    from g4agent.image import Image
    from g4agent.tools import Tool
    from g4agent_mcp.asking import Person

NOT_ASKED = "this client cannot ask its user (no elicitation): a rule of the agent's policy has to allow the call"


def declared(tool: Tool) -> types.Tool:
    """A tool with its whole schema, and what repeating a call does as hints."""
    hints = types.ToolAnnotations(
        read_only_hint=tool.effect == "pure",
        idempotent_hint=tool.effect != "once",
        destructive_hint=tool.effect == "once",
    )
    return types.Tool(name=tool.name, description=tool.description, input_schema=dict(tool.schema), annotations=hints)


def answered(result: ToolResult, images: Sequence[Image], person: Person) -> types.CallToolResult:
    """A call's result: text as it is, an object also as structure, the images behind it, an error as its message."""
    if result.error is not None:
        return failed(f"{result.error.message}; {NOT_ASKED}" if person.unasked else result.error.message)
    value = result.value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    pictures = [
        types.ImageContent(data=base64.b64encode(image.data).decode(), mime_type=image.media_type) for image in images
    ]
    return types.CallToolResult(
        content=[types.TextContent(text=text), *pictures],
        structured_content=value if isinstance(value, dict) else None,
    )


def failed(message: str) -> types.CallToolResult:
    """A call that came to nothing."""
    return types.CallToolResult(content=[types.TextContent(text=message)], is_error=True)
