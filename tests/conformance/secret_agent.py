"""An agent whose tools let a secret slip, and where its value must not be found afterwards."""

from __future__ import annotations

import base64
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from g4agent import Agent
from g4agent.cli.console import stdout
from g4agent.cli.render import Story
from g4agent.events import Event, ToolFinished, to_json
from g4agent.ports.sandbox import LimitName, Sandbox
from g4agent.store import Store
from g4agent.testing import ScriptedModel, call, say

sys.path.insert(0, str(Path(__file__).with_name("tools_in_box")))

from secret_tools import careless, careless_command, curious

WAYS = ("return", "raise", "document", "environment", "stderr")


def forms(value: str) -> list[bytes]:
    """How the value would stand in a file."""
    data = value.encode()
    texts = [value, quote(value, safe=""), data.hex(), json.dumps(value)[1:-1]]
    inner = [base64.b64encode(bytes(offset) + data)[4:-4].decode() for offset in range(3)]
    return [text.encode() for text in (*texts, *inner)]


async def check(
    sandbox: Sandbox, degraded: frozenset[LimitName], folder: Path, while_open: Callable[[], bytes] = bytes
) -> None:
    """Runs every way of letting it slip, and looks through events, screen, store and `while_open()`."""
    value = f's3/{secrets.token_hex(8)}+ü"&{secrets.token_hex(4)}'
    script = [*(call("careless", how=way) for way in WAYS), call("careless_command", code=0)]
    model = ScriptedModel([*script, call("curious"), say("Done.")])
    with Store.open(folder / "store.db") as store:
        agent = Agent(
            model=model,
            tools=[careless, careless_command, curious],
            sandbox=sandbox,
            secrets={"API_KEY": value},
            store=store,
            allow_degraded=degraded,
        )
        events: list[Event] = []
        seen = repr(agent).encode()
        console = stdout()
        with console.capture() as shown:
            story = Story(console, verbose=True)
            async with agent.session() as session:
                async for event in session.stream("Be careless"):
                    events.append(event)
                    story.show(event)
                seen += while_open() + repr(session.secrets).encode()
        results = [event.result for event in events if isinstance(event, ToolFinished)]
        assert [result.error is None for result in results] == [True, False, True, True, True, True, True], results
        masked = "[secret API_KEY]"
        assert results[0].value == f"<{masked}>"
        assert results[1].error is not None and results[1].error.message.startswith(
            f"RuntimeError: 401 for key {masked}"
        )
        ((key, (plain, coded)),) = results[2].value.items()  # type: ignore[union-attr, misc]
        assert (key, plain, coded["quoted"], coded["hex"]) == (masked,) * 4 and masked in coded["basic"]
        assert results[3].value["API_KEY"] == masked  # type: ignore[call-overload, index]
        assert results[5].value["stdout"].startswith(f"out {masked}\n")  # type: ignore[call-overload, index, union-attr]
        assert results[6].value == ["SecretMissingError"], "a call has what only another tool names"
        seen += "".join(json.dumps(to_json(event), ensure_ascii=False) for event in events).encode()
        seen += shown.get().encode() + repr((events, model.prompts, model.results)).encode()
    seen += b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert masked.encode() in seen
    for form in forms(value):
        assert form not in seen, form
