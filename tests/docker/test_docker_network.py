"""Network by permission in real containers: the cases of the conformance suite, and an agent that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import network_agent
import pytest
from cases_network import NETWORK_CASES, box_with_network
from network_upstream import Upstream, upstream
from sandbox_case import LIMITS

from g4agent.ports.sandbox import BoxSpec
from g4agent_docker import DockerSandbox

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with upstream(tmp_path_factory.mktemp("upstream")) as servers:
        yield servers


@pytest.mark.parametrize("name", NETWORK_CASES)
async def test_case(name: str, sandbox: DockerSandbox, servers: Upstream) -> None:
    """The container lets through what the case's docstring says."""
    async with box_with_network(sandbox, BoxSpec(limits=LIMITS), servers) as (box, egress):
        await NETWORK_CASES[name](box, servers, egress)


async def test_agent(sandbox: DockerSandbox, servers: Upstream, tmp_path: Path) -> None:
    """`Agent(net=…)` does not reach the tool, or an attempt does not become an event."""
    await network_agent.check(sandbox, servers, frozenset(), tmp_path)
