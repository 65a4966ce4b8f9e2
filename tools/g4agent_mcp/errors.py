"""What goes wrong with a server, and what a server says went wrong."""

from __future__ import annotations

from g4agent.errors import G4AgentError


class McpServerError(G4AgentError):
    """A server does not start, does not answer in time, or has ended."""


class McpToolError(Exception):
    """What a server says of a call that failed. The model reads it."""
