"""An agent whose tool uses the network, and what its events must say of it."""

from __future__ import annotations

import sys
from pathlib import Path

from network_upstream import Upstream

from g4agent import Agent
from g4agent.cli.console import stdout
from g4agent.cli.render import Story
from g4agent.events import Event, NetworkAttempt, ToolFinished, to_json
from g4agent.ports.sandbox import LimitName, Sandbox
from g4agent.testing import ScriptedModel, call, say

sys.path.insert(0, str(Path(__file__).with_name("tools_in_box")))

from network_tools import fetch


async def check(sandbox: Sandbox, servers: Upstream, degraded: frozenset[LimitName], folder: Path) -> None:
    """Runs the agent with a permitted and a denied address, and without `net`."""
    servers.visitors.clear()
    urls = [f"https://localhost:{port}/" for port in (servers.tls_port, servers.other_port)]
    script = [*(call("fetch", url=url) for url in urls), say("Done.")]
    (folder / "authority.pem").write_bytes(servers.authority.read_bytes())
    agent = Agent(
        model=ScriptedModel(script),
        tools=[fetch],
        sandbox=sandbox,
        net=servers.allowed,
        store=False,
        workspace=folder,
        allow_degraded=degraded,
    )
    events: list[Event] = [event async for event in agent.stream("Fetch both")]
    told = [event for event in events if isinstance(event, NetworkAttempt | ToolFinished)]
    allowed, first, refused, second = told
    assert allowed == NetworkAttempt("localhost", servers.tls_port, True)
    assert isinstance(first, ToolFinished) and first.result.value == "hello tls", first
    assert refused == NetworkAttempt("localhost", servers.other_port, False, "not on the agent's net list")
    assert isinstance(second, ToolFinished) and second.result.error is not None
    assert "403 not on the agent's net list" in second.result.error.message
    assert servers.visitors == ["tls /"]
    assert to_json(refused) == {
        "type": "network_attempt",
        "host": "localhost",
        "port": servers.other_port,
        "allowed": False,
        "reason": "not on the agent's net list",
        "count": 1,
    }
    console = stdout()
    with console.capture() as shown:
        for event in (allowed, refused):
            Story(console).show(event)
    assert f"network: localhost:{servers.tls_port}\n" in shown.get()
    assert f"network denied: localhost:{servers.other_port}: not on" in shown.get()

    closed = agent.replace(model=ScriptedModel([call("fetch", url=urls[0]), say("Done.")]), net=())
    result = await closed.run("Fetch")
    assert result.results[0].error is not None and "refused" in result.results[0].error.message
    assert servers.visitors == ["tls /"]
