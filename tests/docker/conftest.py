"""Fixtures of the Docker tests: a real engine of their own, the host's bait, and the conformance suite on the path.

The engine is Docker's; `G4AGENT_TEST_ENGINE=podman` runs the same tests over Podman.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from g4agent_docker import DockerSandbox

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from docker_engine import Engine, running_engine
from sandbox_host import Host, bait


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with bait(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="session")
def engine_kind() -> str:
    return os.environ.get("G4AGENT_TEST_ENGINE", "docker")


@pytest.fixture(scope="session")
def engine(engine_kind: str) -> Iterator[Engine]:
    with running_engine(engine_kind) as engine:
        yield engine


@pytest.fixture(scope="session")
def sandbox(engine: Engine) -> DockerSandbox:
    return DockerSandbox(base_url=engine.url)
