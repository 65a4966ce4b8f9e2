"""An MCP server with everything that is difficult: `python awkward_server.py [http PORT]`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import mcp.types as types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server

PNG = "iVBORw0KGgo="
EMPTY: dict[str, Any] = {"type": "object"}
HINTS = types.ToolAnnotations(read_only_hint=True)
RECURSIVE = {
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/node"}},
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
}
COUNTED = {"type": "object", "properties": {"from": {"type": "integer", "minimum": 1}}, "required": ["from"]}
TOOLS = [
    types.Tool(name="files/read-it.now", description="", title="Read it", input_schema=EMPTY, annotations=HINTS),
    types.Tool(name="files/read_it.now", description="Read it too.", input_schema=EMPTY),
    types.Tool(name="x" * 100, description="A long name.", input_schema=EMPTY),
    types.Tool(name="7up", description="A digit first.", input_schema=COUNTED),
    types.Tool(name="tree", description="A schema that contains itself.", input_schema=RECURSIVE),
    types.Tool(
        name="broken",
        description="No schema at all.",
        input_schema={"type": "object", "properties": {"a": {"type": "no"}}},
    ),
    *(
        types.Tool(name=name, description=f"{name}.", input_schema=EMPTY)
        for name in ("crash", "hang", "flood", "fail", "picture", "cancelled", "network", "environment", "count")
    ),
]
cancelled = 0
counted = 0


async def list_tools(context: ServerRequestContext[Any], parameters: Any) -> types.ListToolsResult:
    """Two pages."""
    if parameters is not None and parameters.cursor == "2":
        return types.ListToolsResult(tools=TOOLS[4:])
    return types.ListToolsResult(tools=TOOLS[:4], next_cursor="2")


async def call_tool(
    context: ServerRequestContext[Any], parameters: types.CallToolRequestParams
) -> types.CallToolResult:
    """Text, unless the tool's name says otherwise."""
    global cancelled, counted
    text = parameters.name
    match parameters.name:
        case "crash":
            print("the disk is on fire", file=sys.stderr, flush=True)
            os._exit(3)
        case "hang":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                raise
        case "cancelled":
            text = str(cancelled)
        case "count":
            counted += 1
            text = str(counted)
        case "flood":
            text = "x" * 200_000
        case "7up":
            return types.CallToolResult(content=[], structured_content={"result": parameters.arguments})
        case "environment":
            text = os.environ.get("TOKEN", "") + os.environ.get("HOME_SECRET", "")
        case "network":
            try:
                socket.create_connection(("1.1.1.1", 53), timeout=2)
                text = "open"
            except OSError as error:
                text = f"closed: {error}"
        case "fail":
            return types.CallToolResult(content=[types.TextContent(text="no such order")], is_error=True)
        case "picture":
            link = types.ResourceLink(name="notes", uri="demo://notes", description="Notes.")
            embedded = types.TextResourceContents(uri="demo://a", text="inside")
            return types.CallToolResult(
                content=[
                    types.TextContent(text="here"),
                    types.ImageContent(data=PNG, mime_type="image/png"),
                    types.EmbeddedResource(resource=embedded),
                    link,
                ]
            )
    return types.CallToolResult(content=[types.TextContent(text=text)])


server: Server[Any] = Server("awkward", on_list_tools=list_tools, on_call_tool=call_tool)


async def main() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        import uvicorn

        uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
    elif sys.argv[1:2] == ["silent"]:
        sys.stdin.read()
    else:
        asyncio.run(main())
