"""What calls of an MCP server's tools come to."""

from __future__ import annotations

from typing import Any

from g4agent import Agent
from g4agent.messages import ToolResult
from g4agent.testing import Reply, ScriptedModel, say
from g4agent_mcp.connection import Connection


async def results(connection: Connection, *replies: Reply) -> list[ToolResult]:
    """What the agent's calls come to."""
    model = ScriptedModel([*replies, say("done")])
    result = await Agent(model=model, tools=connection.tools, store=False).run("x")
    return list(result.results)


def parts(result: ToolResult) -> list[dict[str, Any]]:
    assert isinstance(result.value, list)
    return [part for part in result.value if isinstance(part, dict)]
