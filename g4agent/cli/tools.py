"""`g4agent tools`: what an agent may do, and what the installed packs offer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from g4agent.cli import options as o

if TYPE_CHECKING:
    from g4agent.tools import Tool


def tools(
    agent: o.AgentPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per tool on standard output.")] = False,
    verbose: o.Verbose = False,
) -> None:
    """List the tools of an agent, or of every installed pack: what repeating a call does, and where it runs.

    pure changes nothing, idempotent nothing more, once must not be repeated blindly. sandbox is the session's closed
    box, box a closed one of the tool's own, host this process with all its rights.
    """
    from g4agent.cli.console import stdout, table
    from g4agent.cli.drive import reported_errors
    from g4agent.tools import signature

    with reported_errors(verbose):
        found = [(owner, tool) for owner, own in _owners(agent) for tool in own]
        if as_json:
            for owner, tool in found:
                typer.echo(json.dumps({"of": owner, **_described(tool)}))
            return
        rows = [(owner, signature(tool), tool.effect, tool.where, _summary(tool)) for owner, tool in found]
        stdout().print(table("of", "tool", "effect", "runs in", "what it does", rows=rows), soft_wrap=True)


def _owners(agent: str | None) -> list[tuple[str, Sequence[Tool]]]:
    from g4agent.registry import load_agent, load_tool_pack, names

    if agent is not None:
        loaded = load_agent(agent)
        return [(loaded.name, loaded.tools)]
    return [(name, load_tool_pack(name)) for name in names("tools")]


def _described(tool: Tool) -> dict[str, object]:
    return {
        "name": tool.name,
        "description": tool.description,
        "effect": tool.effect,
        "where": tool.where,
        "timeout": tool.timeout,
        "schema": tool.schema,
    }


def _summary(tool: Tool) -> str:
    return tool.description.partition("\n")[0]
