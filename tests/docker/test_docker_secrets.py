"""Secrets in real containers: the tool has them, and nothing that is kept, shown or told by the engine does."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pytest
import secret_agent
from docker_engine import Engine

from g4agent_docker import DockerSandbox

pytestmark = pytest.mark.anyio


async def test_agent(sandbox: DockerSandbox, engine: Engine, tmp_path: Path) -> None:
    """A secret that a tool lets slip is found in events, on the screen, in the store or by `docker inspect`."""

    def inspected() -> bytes:
        client = docker.DockerClient(base_url=engine.url)
        try:
            containers = client.containers.list()
            assert containers, "the session's container must be there to be looked at"
            return b"".join(
                json.dumps(client.api.inspect_container(str(each.id)), ensure_ascii=False).encode()
                for each in containers
            )
        finally:
            client.close()

    await secret_agent.check(sandbox, frozenset(), tmp_path, inspected)
