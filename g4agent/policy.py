"""Allow, ask or deny, per tool: the one place that says what a model may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from g4agent.messages import ToolCall
from g4agent.tools import Effect, Tool

Decision = Literal["allow", "ask", "deny"]

Approve: TypeAlias = Callable[[ToolCall, Tool, str], Awaitable[bool]]
"""Asks a person: the call, its tool, and why it is asked about. True lets it run."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Decides the calls that match all of its conditions."""

    decision: Decision
    tool: str = "*"
    """Name of the tool, with `*` and `?`."""
    effect: Effect | None = None
    where: Literal["sandbox", "host"] | None = None

    def matches(self, tool: Tool) -> bool:
        return (
            fnmatchcase(tool.name, self.tool)
            and self.effect in (None, tool.effect)
            and self.where in (None, tool.where)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in order; the first that matches decides, and `default` where none does.

    The default allows: a tool is only there because the agent's author gave it, and it runs in a closed sandbox unless
    the author said `host` by name.
    """

    rules: tuple[Rule, ...] = ()
    default: Decision = "allow"

    def decide(self, tool: Tool) -> Decision:
        for rule in self.rules:
            if rule.matches(tool):
                return rule.decision
        return self.default
