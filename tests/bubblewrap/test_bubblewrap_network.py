"""Network by permission in real boxes: the cases of the conformance suite, and an agent that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import network_agent
import pytest
from cases_network import NETWORK_CASES, box_with_network
from network_upstream import Upstream, upstream
from sandbox_case import LIMITS

from g4agent.ports.sandbox import BoxSpec
from g4agent_bubblewrap import BubblewrapSandbox

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with upstream(tmp_path_factory.mktemp("upstream")) as servers:
        yield servers


@pytest.mark.parametrize("name", NETWORK_CASES)
async def test_case(name: str, sandbox: BubblewrapSandbox, servers: Upstream) -> None:
    """The box lets through what the case's docstring says."""
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    spec = BoxSpec(limits=LIMITS, allow_degraded=degraded)
    async with box_with_network(sandbox, spec, servers) as (box, egress):
        await NETWORK_CASES[name](box, servers, egress)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_agent(sandbox: BubblewrapSandbox, servers: Upstream, tmp_path: Path, anyio_backend: str) -> None:
    """`Agent(net=…)` does not reach the tool, or an attempt does not become an event, on either event loop."""
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    await network_agent.check(sandbox, servers, degraded, tmp_path)
