"""Secrets in real boxes: the tool has them, and nothing that is kept or shown does."""

from __future__ import annotations

from pathlib import Path

import pytest
import secret_agent

from g4agent_bubblewrap import BubblewrapSandbox

pytestmark = pytest.mark.anyio


async def test_agent(sandbox: BubblewrapSandbox, tmp_path: Path) -> None:
    """A secret that a tool lets slip is found in events, on the screen, in the store or in another process's /proc."""
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    await secret_agent.check(sandbox, degraded, tmp_path, command_lines)


def command_lines() -> bytes:
    """What every process of the host was started with."""
    found = b""
    for path in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found
