"""Secrets in real boxes: the tool has them, and nothing that is kept or shown does."""

from __future__ import annotations

from pathlib import Path

import pytest
import secret_agent

from g4agent import Agent
from g4agent.headless.checks import Command, run_checks
from g4agent.testing import ScriptedModel, call, say
from g4agent_bubblewrap import BubblewrapSandbox

pytestmark = pytest.mark.anyio


async def test_agent(sandbox: BubblewrapSandbox, tmp_path: Path) -> None:
    """A secret that a tool lets slip is found in events, on the screen, in the store or in another process's /proc."""
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    await secret_agent.check(sandbox, degraded, tmp_path, command_lines)


async def test_checks(sandbox: BubblewrapSandbox) -> None:
    """A check after the run prints what a tool has left in the workspace, and reports carry it on."""
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    agent = Agent(
        model=ScriptedModel([call("careless", how="file"), say("Done.")]),
        tools=[secret_agent.careless],
        sandbox=sandbox,
        secrets={"API_KEY": "a value of its own"},
        store=False,
        allow_degraded=degraded,
    )
    async with agent.session() as session:
        await session.run("Be careless")
        assert await session.read_file("key.txt") == b"a value of its own"
        check = Command(("sh", "-c", "cat key.txt; exit 3"), "command")
        (found,) = await run_checks([check], session, None)  # type: ignore[arg-type]
    assert found.detail == "exit code 3: [secret API_KEY]"


def command_lines() -> bytes:
    """What every process of the host was started with."""
    found = b""
    for path in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found
