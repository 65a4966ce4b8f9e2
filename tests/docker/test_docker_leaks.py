"""Hundreds of calls in one container leave nothing behind."""

from __future__ import annotations

import os

import box_leaks
import pytest
from docker_engine import Engine
from test_docker_life import containers

from g4agent.ports.sandbox import BoxSpec
from g4agent_docker import DockerSandbox

POOL = 20
"""Descriptors that the SDK's pool of connections to the engine may hold, whatever the number of calls."""


@pytest.mark.anyio
@pytest.mark.slow
async def test_many_calls(sandbox: DockerSandbox, engine: Engine) -> None:
    """Processes, descriptors, containers or temporary files grow with the number of calls."""

    before = len(os.listdir("/proc/self/fd"))

    def leftovers() -> object:
        return containers(engine), len(os.listdir("/proc/self/fd")) <= before + POOL

    await box_leaks.check(sandbox, BoxSpec(), leftovers)
