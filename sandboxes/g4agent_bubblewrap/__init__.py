"""The default sandbox on Linux: one bubblewrap box per session, without a daemon."""

from g4agent_bubblewrap.sandbox import BubblewrapSandbox

__all__ = ["BubblewrapSandbox"]
