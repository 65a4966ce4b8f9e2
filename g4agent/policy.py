"""Allow, ask or deny, call by call: the one place that says what a model may do."""

from __future__ import annotations

import json
import operator
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from g4agent.errors import ConfigError
from g4agent.events import CallSignals
from g4agent.messages import JsonValue, ToolCall
from g4agent.tools import Effect, Tool, Where

Decision = Literal["allow", "ask", "deny"]

Approve: TypeAlias = Callable[[ToolCall, Tool, str], Awaitable[bool]]
"""Asks a person: the call, its tool, and why it is asked about. True lets it run."""

_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True, slots=True)
class CallContext:
    """A valid call that wants to run, and what is known about it."""

    call: ToolCall
    tool: Tool
    signals: CallSignals | None = None
    """None where the engine gives no probabilities."""
    untrusted: tuple[str, ...] = ()
    """Tools marked `untrusted` whose results this session has read."""
    earlier: int = 0
    """Calls of the same tool that have run in this session, or are about to in the same step."""
    cost: float = 0.0
    """What the call costs."""
    spent: float = 0.0
    """What such calls of this session have cost, of all tools."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a call, and why."""

    decision: Decision
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """Decides the calls that match all of its conditions. A condition on what is not known does not match."""

    decision: Decision
    tool: str = "*"
    """Name of the tool, with `*` and `?`."""
    effect: Effect | None = None
    where: Where | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    """By argument (`address.zip` for one inside another), what it must be: text with `*` and `?`, or a comparison with
    a number (`> 100`). Of a list, one item must match. What is not text is compared as JSON."""
    tainted: bool | None = None
    """Whether the session has read a result of a tool marked `untrusted`."""
    calls_over: int | None = None
    """Matches once the tool has run this often in the session."""
    cost_over: float | None = None
    """Matches a call that costs more than this."""
    total_cost_over: float | None = None
    """Matches a call that costs something, and with which all of the session's calls cost more than this."""
    tool_probability_below: float | None = None
    """From here on see `CallSignals`."""
    arguments_probability_below: float | None = None
    mask_pressure_above: float | None = None
    reason: str = ""
    """Told to the person who is asked, and to the model where the call is denied."""

    def __post_init__(self) -> None:
        for pattern in self.arguments.values():
            _comparison(pattern)

    def matches(self, context: CallContext) -> bool:
        tool = context.tool
        return (
            fnmatchcase(tool.name, self.tool)
            and self.effect in (None, tool.effect)
            and self.where in (None, tool.where)
            and self.tainted in (None, bool(context.untrusted))
            and (self.calls_over is None or context.earlier >= self.calls_over)
            and (self.cost_over is None or context.cost > self.cost_over)
            and (self.total_cost_over is None or 0 < context.cost > self.total_cost_over - context.spent)
            and all(_matches(pattern, context.call.arguments, path) for path, pattern in self.arguments.items())
            and self._matches_signals(context.signals)
        )

    def _matches_signals(self, signals: CallSignals | None) -> bool:
        tool, arguments = self.tool_probability_below, self.arguments_probability_below
        pressure = self.mask_pressure_above
        if signals is None:
            return (tool, arguments, pressure) == (None, None, None)
        return (
            (tool is None or signals.tool < tool)
            and (arguments is None or signals.arguments < arguments)
            and (pressure is None or signals.mask_pressure > pressure)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in order; the first that matches decides.

    Where none does, a `once` call is denied in a headless run, and asked about in a session that has read untrusted
    results; any other call gets `default`. That allows: a tool is only there because the agent's author gave it, and it
    runs in a closed sandbox unless the author said `host` by name.
    """

    rules: tuple[Rule, ...] = ()
    default: Decision = "allow"
    headless: bool = False
    """True where nobody watches: what must not be repeated then needs a rule that allows it."""

    def decide(self, context: CallContext) -> Ruling:
        for rule in self.rules:
            if rule.matches(context):
                return Ruling(rule.decision, rule.reason or _default_reason(rule))
        if context.tool.effect == "once":
            if self.headless:
                return Ruling("deny", "its effect cannot be undone, and no rule allows it where nobody watches")
            if context.untrusted:
                return Ruling("ask", f"the session has read untrusted results of {', '.join(context.untrusted)}")
        return Ruling(self.default, f"where no rule says more, the policy says {self.default}")


def _default_reason(rule: Rule) -> str:
    """The rule's own words for what it is about."""
    said = [
        ("the session has read untrusted results", bool(rule.tainted)),
        (f"it was called {rule.calls_over} times before", rule.calls_over is not None),
        (f"it costs more than {rule.cost_over}", rule.cost_over is not None),
        (f"the session's calls would cost more than {rule.total_cost_over}", rule.total_cost_over is not None),
        ("the model was not sure of the tool", rule.tool_probability_below is not None),
        ("the model was not sure of the arguments", rule.arguments_probability_below is not None),
        ("the model wanted to write something else", rule.mask_pressure_above is not None),
        (f"of its {', '.join(rule.arguments)}", bool(rule.arguments)),
    ]
    why = " and ".join(text for text, holds in said if holds)
    return why or ("the policy asks about this tool" if rule.decision == "ask" else "the policy does not allow it")


def _matches(pattern: str, arguments: JsonValue | Mapping[str, JsonValue], path: str) -> bool:
    """Whether the argument at a path, or an item of it, is as the pattern says; False where there is none."""
    value: object = arguments
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    found = value if isinstance(value, list) else [value]
    comparison = _comparison(pattern)
    if comparison is None:
        return any(fnmatchcase(item if isinstance(item, str) else json.dumps(item), pattern) for item in found)
    compare, limit = comparison
    return any(isinstance(item, int | float) and not isinstance(item, bool) and compare(item, limit) for item in found)


def _comparison(pattern: str) -> tuple[Callable[[float, float], bool], float] | None:
    """`> 100` as a function and its second argument; None for a pattern of text. Raises ConfigError."""
    sign = next((sign for sign in _COMPARISONS if pattern.startswith(sign)), None)
    if sign is None:
        return None
    try:
        return _COMPARISONS[sign], float(pattern.removeprefix(sign))
    except ValueError:
        raise ConfigError(f"{pattern!r} compares with no number", hint="Write for example '> 100'.") from None
