"""Agents for `g4agent mcp-serve`, by `served_agents:NAME`. Their models only play scripts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import anyio

from g4agent import Agent, Image, Policy, Rule, secret, tool
from g4agent.testing import ScriptedModel, call, say

PNG = b"\x89PNG\r\n\x1a\n of a mug"
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


@tool(effect="pure", where="host")
async def wait_once() -> str:
    """Wait for a minute, unless that was done before."""
    waited = Path(os.environ["G4AGENT_HOME"], "waited")
    if not waited.exists():
        waited.touch()
        await anyio.sleep(60)
    return "waited"


helper = Agent(model=ScriptedModel([call("wait", seconds=0), say("First."), say("Second.")]), tools=[wait])
slow = Agent(model=ScriptedModel([call("wait", seconds=60), say("Never said.")]), tools=[wait])
patient = Agent(model=ScriptedModel([call("wait_once"), say("Waited.")]), tools=[wait_once])
careful = Agent(
    model=ScriptedModel([call("wait", seconds=0), say("x")]), tools=[wait], policy=Policy((Rule("ask", "wait"),))
)


@tool(effect="idempotent", secrets=["NOTES_KEY"])
def note(text: str) -> dict[str, str]:
    """Keep a text in the workspace.

    Args:
        text: What to keep.
    """
    Path("note.txt").write_text(text)
    return {"folder": str(Path.cwd()), "key": secret("NOTES_KEY")}


@tool(effect="pure")
def read_note(slowly: bool = False) -> str:
    """Read what was kept.

    Args:
        slowly: Take a minute.
    """
    time.sleep(60 if slowly else 0)
    return Path("note.txt").read_text()


@tool
def send(to: str) -> str:
    """Send what was kept, which cannot be undone.

    Args:
        to: Whom to.
    """
    Path("sent.txt").write_text(to)
    return f"sent to {to}"


@tool(effect="pure")
def forbidden() -> str:
    """Do what the policy does not allow."""
    return "done"


@tool(effect="pure")
def paint() -> list[Any]:
    """Paint."""
    return ["A picture:", Image(PNG, name="mug.png")]


painter = Agent(model="no model is loaded for a tool's call", tools=[paint])

notes = Agent(
    model="no model is loaded for a tool's call",
    tools=[note, read_note, send, forbidden],
    policy=Policy((Rule("deny", tool="forbidden"), Rule("allow", tool="send", arguments={"to": "me"}))),
    secrets={"NOTES_KEY": "swordfish-7"},
)
