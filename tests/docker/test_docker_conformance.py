"""The conformance suite against real containers. The starred cases run always, those that take long by `-m slow`."""

from __future__ import annotations

import pytest
import sandbox_suite
from sandbox_host import Host

from g4agent.ports.sandbox import BoxSpec
from g4agent_docker import DockerSandbox

pytestmark = pytest.mark.anyio

LONG = {
    "p01_fork_bomb",
    "p04_deaf_and_stopped",
    "p06_memory",
    "p08_kill_everything",
    "p18_spared_by_the_kernel",
    "p20_processor_time",
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in sandbox_suite.CASES]
)
async def test_case(name: str, sandbox: DockerSandbox, host: Host) -> None:
    """The container lets through what the case's docstring says."""
    box = await sandbox.open(BoxSpec(limits=sandbox_suite.LIMITS))
    try:
        await sandbox_suite.CASES[name].run(box, host)
    finally:
        await box.close()
