"""Tools of any MCP server (Model Context Protocol), as tools of an agent.

    from g4agent_mcp import StdioServer, connect

    server = connect(StdioServer(["python3", "-m", "their_server"]))     # runs in a closed box of its own
    agent = Agent(tools=[*server.tools])

The official SDK speaks the protocol. A server's names, schemas and results are made to fit; what cannot be is left out
and said. What a server claims about its tools is not believed unless `trust_hints` is set: their effect is `once`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from g4agent_mcp.errors import McpServerError, McpToolError
from g4agent_mcp.servers import HttpServer, StdioServer, read_servers

if TYPE_CHECKING:
    from g4agent_mcp.connection import Connection


def connect(server: StdioServer | HttpServer) -> Connection:
    """Starts a server, or reaches it, and asks for its tools. It ends with the process, or by `Connection.close`.

    Raises:
        McpServerError: It does not start, does not answer in time, or does not speak the protocol.
    """
    from g4agent_mcp.connection import Connection

    return Connection(server)


__all__ = ["HttpServer", "McpServerError", "McpToolError", "StdioServer", "connect", "read_servers"]
