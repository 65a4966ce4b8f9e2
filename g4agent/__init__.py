"""g4agent: agents that act on your own machine, with Gemma 4's native tool calls, closed sandboxes and durable memory.

The names below load when they are first used, so that `import g4agent` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from g4agent.agent import Agent
    from g4agent.budget import Budget
    from g4agent.call_keys import call_key
    from g4agent.errors import G4AgentError
    from g4agent.image import Image
    from g4agent.policy import Policy, Rule
    from g4agent.ports.runtime import CallRules, Sampling
    from g4agent.ports.sandbox import Limits
    from g4agent.secrets import secret
    from g4agent.session import RunResult, Session
    from g4agent.telemetry import Telemetry
    from g4agent.tools import Tool, command_tool, tool
    from g4agent.verdict import Outcome, Verdict

_HOMES = {
    "Agent": "g4agent.agent",
    "Budget": "g4agent.budget",
    "CallRules": "g4agent.ports.runtime",
    "G4AgentError": "g4agent.errors",
    "Image": "g4agent.image",
    "Limits": "g4agent.ports.sandbox",
    "Outcome": "g4agent.verdict",
    "Policy": "g4agent.policy",
    "Rule": "g4agent.policy",
    "RunResult": "g4agent.session",
    "Sampling": "g4agent.ports.runtime",
    "Session": "g4agent.session",
    "Telemetry": "g4agent.telemetry",
    "Tool": "g4agent.tools",
    "Verdict": "g4agent.verdict",
    "call_key": "g4agent.call_keys",
    "command_tool": "g4agent.tools",
    "secret": "g4agent.secrets",
    "tool": "g4agent.tools",
}

__all__ = [
    "Agent",
    "Budget",
    "CallRules",
    "G4AgentError",
    "Image",
    "Limits",
    "Outcome",
    "Policy",
    "Rule",
    "RunResult",
    "Sampling",
    "Session",
    "Telemetry",
    "Tool",
    "Verdict",
    "__version__",
    "call_key",
    "command_tool",
    "secret",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
