"""Fixtures of the bubblewrap tests: the host's bait, the backend, and the conformance suite on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from g4agent_bubblewrap import BubblewrapSandbox

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from sandbox_host import Host, bait


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with bait(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="session")
def sandbox() -> BubblewrapSandbox:
    return BubblewrapSandbox()
