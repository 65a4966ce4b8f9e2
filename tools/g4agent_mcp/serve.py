"""`g4agent mcp-serve`: an agent as a server's one tool, for editors and other agents that speak MCP.

The server speaks on standard input and output. A call runs a prompt in a session of its own, or goes on with an earlier
one; the steps come as progress, and cancelling the call stops the run at a well-formed place.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio

from g4agent import __version__
from g4agent.cli import options as o
from g4agent.errors import G4AgentError
from g4agent.events import RunFinished, StepFinished, ToolStarted
from g4agent.verdict import Outcome

if TYPE_CHECKING:
    from mcp.server import Server, ServerRequestContext
    from mcp.types import CallToolRequestParams, CallToolResult

    from g4agent.agent import Agent
    from g4agent.events import Event

SCHEMA = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "description": "What the agent shall do."},
        "session": {"type": "string", "description": "Go on with the session of an earlier answer."},
    },
    "required": ["prompt"],
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "outcome": {"type": "string", "description": "done, or why not."},
        "reason": {"type": "string"},
        "session": {"type": "string"},
        "steps": {"type": "integer"},
    },
    "required": ["answer", "outcome", "reason", "session", "steps"],
}


def mcp_serve(
    agent: o.AgentPath = None,
    model: o.Model = None,
    policy: o.PolicyFile = None,
    max_steps: o.MaxSteps = None,
    max_tokens: o.MaxTokens = None,
    max_seconds: o.MaxSeconds = None,
    sandbox: o.SandboxName = None,
    allow_degraded: o.Degraded = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    offline: o.Offline = False,
    verbose: o.Verbose = False,
) -> None:
    """Offer an agent to MCP clients, on standard input and output.

    Nobody watches: a call that needs a person waits in the store (`g4agent approve`), and what cannot be undone needs a
    rule.
    """
    from g4agent.cli.drive import reported_errors
    from g4agent.cli.headless import unwatched

    with reported_errors(verbose):
        configured = o.AgentOptions(
            agent=agent,
            model=model,
            policy=policy,
            max_steps=max_steps,
            max_tokens=max_tokens,
            max_seconds=max_seconds,
            sandbox=sandbox,
            allow_degraded=allow_degraded,
            device=device,
            dtype=dtype,
            offline=offline,
        ).configure()
        anyio.run(_serve, unwatched(configured))


async def _serve(agent: Agent) -> None:
    from mcp.server.stdio import stdio_server

    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints must not get between the messages
    sys.stdout = sys.stderr
    async with agent, stdio_server(stdout=anyio.wrap_file(protocol)) as (read, write):
        server = agent_server(agent)
        await server.run(read, write, server.create_initialization_options())


def agent_server(agent: Agent) -> Server[Any]:
    """A server with one tool that runs the agent. Runs wait for each other: they share the model."""
    from mcp.server import Server
    from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool

    name = tool_name(agent.name)
    one_at_a_time = anyio.Lock()

    async def list_tools(context: ServerRequestContext[Any], parameters: object) -> ListToolsResult:
        can = ", ".join(tool.name for tool in agent.tools)
        description = f"Runs an agent with the tools {can}." if can else "Asks a language model."
        return ListToolsResult(
            tools=[Tool(name=name, description=description, input_schema=SCHEMA, output_schema=ANSWER)]
        )

    async def call_tool(context: ServerRequestContext[Any], parameters: CallToolRequestParams) -> CallToolResult:
        arguments = parameters.arguments or {}
        prompt, session_id = arguments.get("prompt"), arguments.get("session")
        if parameters.name != name or not isinstance(prompt, str) or not isinstance(session_id, str | None):
            return CallToolResult(content=[TextContent(text=f"call {name} with a prompt")], is_error=True)
        try:
            async with one_at_a_time, agent.session(session_id) as session, aclosing(session.stream(prompt)) as events:
                answer = await _follow(events, context)
        except G4AgentError as error:
            return CallToolResult(content=[TextContent(text=str(error))], is_error=True)
        return CallToolResult(
            content=[TextContent(text=answer["answer"] or f"{answer['outcome']}: {answer['reason']}")],
            structured_content=answer,
            is_error=answer["outcome"] != Outcome.DONE,
        )

    return Server("g4agent", version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def tool_name(agent: str) -> str:
    """The last part of an agent's name, which may be a path or `module:attribute`."""
    last = re.split(r"[/:]", agent.rstrip("/"))[-1].removesuffix(".py")
    return re.sub(r"[^A-Za-z0-9_]", "_", last) or "agent"


async def _follow(events: AsyncGenerator[Event, None], context: ServerRequestContext[Any]) -> dict[str, Any]:
    """Reports every call as progress; gives what came of the run."""
    done = 0
    async for event in events:
        match event:
            case ToolStarted(call):
                await context.session.report_progress(done, message=f"calls {call.name}")
            case StepFinished():
                done += 1
            case RunFinished(session_id, verdict, answer, _, steps):
                ended = {"outcome": verdict.outcome.value, "reason": verdict.reason}
                return {"answer": answer, **ended, "session": session_id, "steps": steps}
    raise AssertionError("a run that is not cancelled ends with RunFinished")
