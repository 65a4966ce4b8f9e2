"""An MCP server whose tools change while it is called: `python growing_server.py old`, without any SDK, speaks the
protocol with a handshake, `new` the one since 2026-07-28."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import mcp.types as types
from mcp.server import NotificationOptions, Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged

names = ["grow"]


def grow() -> None:
    names[:] = ["shrink", "grown"]


def old() -> None:
    """One JSON document per line."""
    for line in sys.stdin:
        request = json.loads(line)
        method, result = request.get("method"), None
        if "id" not in request:
            continue
        if method == "initialize":
            info = {"name": "growing", "version": "1"}
            able = {"tools": {"listChanged": True}}
            result = {"protocolVersion": "2025-06-18", "capabilities": able, "serverInfo": info}
        elif method == "tools/list":
            result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}
        elif method == "tools/call":
            grow()
            print(json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}), flush=True)
            result = {"content": [{"type": "text", "text": "grown"}]}
        error = {"code": -32601, "message": f"no {method}"}
        answer = {"error": error} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)


async def new() -> None:
    bus = InMemorySubscriptionBus()

    async def list_tools(context: ServerRequestContext[Any], parameters: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool(name=name, input_schema={"type": "object"}) for name in names])

    async def call_tool(context: ServerRequestContext[Any], parameters: Any) -> types.CallToolResult:
        grow()
        await bus.publish(ToolsListChanged())
        return types.CallToolResult(content=[types.TextContent(text="grown")])

    server: Server[Any] = Server(
        "growing", on_list_tools=list_tools, on_call_tool=call_tool, on_subscriptions_listen=ListenHandler(bus)
    )
    async with stdio_server() as (read, write):
        changes = NotificationOptions(tools_changed=True)
        await server.run(read, write, server.create_initialization_options(changes))


if __name__ == "__main__":
    old() if sys.argv[1] == "old" else asyncio.run(new())
