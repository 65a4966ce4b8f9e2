"""What calls cost, in a unit that the tools' author chooses: money, credits, points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from g4agent.errors import ToolDefinitionError
from g4agent.messages import JsonValue

if TYPE_CHECKING:
    from g4agent.tools import Tool

Cost: TypeAlias = float | str
"""The same for every call, or the name of the argument that says it."""


def check_cost(tool: str, cost: Cost | None, schema: Mapping[str, JsonValue]) -> None:
    """Raises ToolDefinitionError unless every valid call of the tool has a cost that can be told."""
    if cost is None:
        return
    if not isinstance(cost, str):
        if not (math.isfinite(cost) and cost >= 0):
            raise ToolDefinitionError(f"a call of {tool} costs {cost!r}", hint="Give a number of 0 or more.")
        return
    properties, required = schema.get("properties"), schema.get("required")
    declared = properties.get(cost) if isinstance(properties, Mapping) else None
    kind = declared.get("type") if isinstance(declared, Mapping) else None
    if kind not in ("number", "integer") or not (isinstance(required, list) and cost in required):
        raise ToolDefinitionError(
            f"the cost of {tool} is its argument {cost!r}, which is no required number",
            hint="Name a parameter of type int or float that has no default, or give a number.",
        )


def cost_of(tool: Tool, arguments: Mapping[str, JsonValue]) -> float:
    """What a valid call costs: 0 where its tool declares nothing, and never less, whatever the argument is."""
    if not isinstance(tool.cost, str):
        return tool.cost or 0.0
    value = arguments.get(tool.cost)
    return max(0.0, value) if isinstance(value, int | float) else 0.0
