"""Agents for `g4agent mcp-serve`, by `served_agents:NAME`. Their models only play scripts."""

from __future__ import annotations

import anyio

from g4agent import Agent, Policy, Rule, tool
from g4agent.testing import ScriptedModel, call, say

print("an agent's module that prints")


@tool(effect="pure", where="host")
async def wait(seconds: float) -> str:
    """Wait.

    Args:
        seconds: How long.
    """
    print("and a tool that prints")
    await anyio.sleep(seconds)
    return "waited"


helper = Agent(model=ScriptedModel([call("wait", seconds=0), say("First."), say("Second.")]), tools=[wait])
slow = Agent(model=ScriptedModel([call("wait", seconds=60), say("Never said.")]), tools=[wait])
careful = Agent(
    model=ScriptedModel([call("wait", seconds=0), say("x")]), tools=[wait], policy=Policy((Rule("ask", "wait"),))
)
