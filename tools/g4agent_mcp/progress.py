"""What happens in a run, told to a client of MCP as the progress of its call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from g4agent.events import Event, NetworkAttempt, ToolFinished, ToolStarted, UserSpoke

if TYPE_CHECKING:
    from mcp.server import ServerRequestContext


class Progress:
    """The notifications of one call, numbered as they come. Nothing is sent to a client that asked for none."""

    def __init__(self, context: ServerRequestContext[Any]) -> None:
        self._context = context
        self._told = 0

    async def tell(self, event: Event) -> None:
        """Sends the event's line, where it has one."""
        text = line(event)
        if text is not None:
            self._told += 1
            await self._context.session.report_progress(self._told, message=text)


def line(event: Event) -> str | None:
    """One line about an event; None for those that no client waits for."""
    match event:
        case ToolStarted(call):
            return f"calls {call.name}"
        case ToolFinished(result) if result.error is not None:
            return f"{result.name} failed: {result.error.kind}"
        case NetworkAttempt(host, port, allowed, reason):
            return f"connects to {host}:{port}" if allowed else f"may not connect to {host}:{port}: {reason}"
        case UserSpoke(text):
            return f"is told: {text}"
    return None
