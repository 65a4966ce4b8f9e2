"""Notices a model that goes round in circles."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from g4agent.messages import ToolCall, ToolResult, call_identity

LONGEST_CIRCLE = 3
"""Steps of the longest circle that is looked for."""


class Circles:
    """Watches the steps of one run: calls and what came of them.

    Args:
        repeats: How often a circle may be gone round.
    """

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._steps = deque[tuple[object, ...]](maxlen=LONGEST_CIRCLE * repeats)

    def see(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> str | None:
        """Takes note of a step; the reason why the run is stuck, or None.

        A call that is repeated and brings something new is none: something is being waited for, or paged through.
        """
        self._steps.append(tuple(_identity(call, result) for call, result in zip(calls, results, strict=True)))
        for length in range(1, LONGEST_CIRCLE + 1):
            recent = list(self._steps)[-length * self._repeats :]
            if len(recent) == length * self._repeats and recent == recent[:length] * self._repeats:
                names = ", ".join(dict.fromkeys(call.name for call in calls))
                if length == 1:
                    return f"{names} was called {self._repeats} times in the same way, with the same result"
                return f"the same {length} steps were gone through {self._repeats} times, with the same results"
        return None


def _identity(call: ToolCall, result: ToolResult) -> tuple[object, ...]:
    return (*call_identity(call.name, call.arguments), repr(result.response()))
