"""`g4agent tools`: what an agent may do, and what the installed packs offer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from g4agent.cli import options as o

if TYPE_CHECKING:
    from g4agent.policy import Policy
    from g4agent.tools import Tool


@dataclass(frozen=True, slots=True)
class Owner:
    """An agent or a pack, and its tools."""

    name: str
    tools: Sequence[Tool]
    policy: Policy
    problem: str = ""
    """Why a pack cannot be loaded."""


def tools(
    agent: o.AgentPath = None,
    policy: o.PolicyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per tool on standard output.")] = False,
    verbose: o.Verbose = False,
) -> None:
    """List the tools of an agent, or of every installed pack: what repeating a call does, where it runs, who allows it.

    pure changes nothing, idempotent nothing more, once must not be repeated blindly. sandbox is the session's closed
    box, box a closed one of the tool's own, host this process with all its rights. permission is what the policy says:
    the agent's, that of --policy, or without either the default; "or" where it depends on the call.
    """
    from g4agent.cli.console import stdout, table
    from g4agent.cli.drive import reported_errors
    from g4agent.tools import signature

    with reported_errors(verbose):
        owners = _owners(agent, policy)
        if as_json:
            for owner in owners:
                if owner.problem:
                    typer.echo(json.dumps({"of": owner.name, "problem": owner.problem}))
                for tool in owner.tools:
                    typer.echo(json.dumps({"of": owner.name, **_described(tool, owner.policy)}))
            return
        rows = []
        for owner in owners:
            if owner.problem:
                rows.append((owner.name, "-", "-", "-", "-", "-", owner.problem))
            for tool in owner.tools:
                needs = ", ".join(tool.secrets) or "-"
                rights = (tool.effect, tool.where, permission(tool, owner.policy), needs)
                rows.append((owner.name, signature(tool), *rights, _summary(tool)))
        columns = ("of", "tool", "effect", "runs in", "permission", "secrets", "what it does")
        stdout().print(table(*columns, rows=rows), soft_wrap=True)


def permission(tool: Tool, policy: Policy) -> str:
    """What a policy says of a tool: `allow`, `allow or ask` where it depends on the call, and what differs headless."""
    watched, headless = (_decisions(tool, replace(policy, headless=unwatched)) for unwatched in (False, True))
    return watched if watched == headless else f"{watched}, headless {headless}"


def _decisions(tool: Tool, policy: Policy) -> str:
    """The decisions of the rules that may match, up to the first that always does, or else the policy's own."""
    from g4agent.messages import ToolCall
    from g4agent.policy import CallContext, Rule

    context = CallContext(ToolCall("", tool.name, {}), tool)
    decisions = []
    for rule in policy.rules:
        always = Rule(rule.decision, rule.tool, rule.effect, rule.where)
        if always.matches(context):
            decisions.append(rule.decision)
            if replace(rule, reason="") == always:
                break
    else:
        decisions.append(replace(policy, rules=()).decide(context).decision)
    return " or ".join(sorted(set(decisions)))


def _owners(agent: str | None, policy: o.PolicyFile) -> list[Owner]:
    from g4agent.errors import ConfigError
    from g4agent.policy import Policy
    from g4agent.policy_file import read_policy
    from g4agent.registry import load_agent, load_tool_pack, names

    given = None if policy is None else read_policy(policy)
    if agent is not None:
        loaded = load_agent(agent)
        return [Owner(loaded.name, loaded.tools, given or loaded.policy)]
    owners = []
    for name in names("tools"):
        try:
            owners.append(Owner(name, load_tool_pack(name), given or Policy()))
        except (ConfigError, ImportError) as error:
            problem = f"{error.message}: {error.hint}" if isinstance(error, ConfigError) else str(error)
            owners.append(Owner(name, (), Policy(), problem))
    return owners


def _described(tool: Tool, policy: Policy) -> dict[str, object]:
    return {
        "name": tool.name,
        "description": tool.description,
        "effect": tool.effect,
        "where": tool.where,
        "permission": permission(tool, policy),
        "secrets": list(tool.secrets),
        "untrusted": tool.untrusted,
        "timeout": tool.timeout,
        "schema": tool.schema,
    }


def _summary(tool: Tool) -> str:
    return tool.description.partition("\n")[0]
