"""`g4agent mcp-serve`: an agent and its tools for editors and other agents that speak MCP."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from g4agent.cli import options as o

if TYPE_CHECKING:
    from g4agent.agent import Agent


def mcp_serve(
    served: Annotated[
        str | None, typer.Argument(metavar="AGENT", help="Folder with agent.py, Python file, or module:attribute.")
    ] = None,
    agent: o.AgentPath = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="By streamable HTTP, with a token; without a host on 127.0.0.1."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name that clients reach it by, such as a proxy's."),
    ] = None,
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
    """Offer an agent and its tools to MCP clients, on standard input and output or by streamable HTTP.

    HTTP needs a token: that in the variable G4AGENT_MCP_TOKEN, else one is made and shown.

    Nobody watches: a call that needs a person waits in the store (`g4agent approve`), and what cannot be undone needs a
    rule.
    """
    from g4agent.cli.drive import reported_errors
    from g4agent.cli.headless import unwatched

    with reported_errors(verbose):
        configured = o.AgentOptions(
            agent=served or agent,
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
        if http is None:
            anyio.run(_serve_stdio, unwatched(configured))
        else:
            from g4agent_mcp.http_server import listen, serve_http

            anyio.run(serve_http, unwatched(configured), listen(http, allow_host or ()))


async def _serve_stdio(agent: Agent) -> None:
    from mcp.server.stdio import stdio_server

    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints must not get between the messages
    sys.stdout = sys.stderr
    from g4agent_mcp.agent_server import agent_server

    async with agent, stdio_server(stdout=anyio.wrap_file(protocol)) as (read, write):
        server = agent_server(agent)
        await server.run(read, write, server.create_initialization_options())
