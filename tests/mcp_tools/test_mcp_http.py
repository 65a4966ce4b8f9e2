"""`g4agent mcp-serve --http`: the official client over real HTTP, and whoever should not get in."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from g4agent.errors import ConfigError
from g4agent.store import Store
from g4agent_mcp import HttpServer, McpServerError, connect
from g4agent_mcp.http_server import TOKEN, listen

pytestmark = pytest.mark.anyio

OWN = "a-token-of-the-tests-own"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])
"""The protocol with a session, and the one without."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs, and what it said where it is."""

    process: subprocess.Popen[str]
    url: str
    token: str

    @asynccontextmanager
    async def client(self, **settings: Any) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            create_mcp_http_client(headers=headers) as http,
            Client(streamable_http_client(self.url, http_client=http), **settings) as client,
        ):
            yield client

    def post(self, **headers: str) -> int:
        """The status of a first request as any program, or page, may send it."""
        place = urlsplit(self.url)
        assert place.hostname is not None
        connection = HTTPConnection(place.hostname, place.port, timeout=10)
        accepts = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        connection.request("POST", place.path, json.dumps(INITIALIZE), {**accepts, **headers})
        return connection.getresponse().status

    def end(self) -> float:
        """Ends it; gives the seconds that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return time.monotonic() - began


@contextmanager
def serving(agent: str, home: Path, *options: str, **variables: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "g4agent", "mcp-serve", f"served_agents:{agent}", "--http", "127.0.0.1:0"]
    environment = {
        **os.environ,
        "G4AGENT_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parent),
        **variables,
    }
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        said = ""
        while "MCP server: " not in said:
            said = process.stderr.readline()
            assert said, "it ended before it served"
        url = said.split()[-1]
        token = variables.get(TOKEN) or process.stderr.readline().split()[-1]
        yield Served(process, url, token)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with tools, whose token is its own."""
    with serving("notes", tmp_path_factory.mktemp("home"), "--allow-host", "agents.example.org") as served:
        yield served


@MODES
async def test_two_clients_at_once_each_get_their_own_answers(notes: Served, mode: str) -> None:
    """Answers and progress must not reach the other one; the calls wait for each other, and none is lost."""
    seen: dict[str, list[str | None]] = {"Ann": [], "Bob": []}
    kept: dict[str, object] = {}

    async def write(name: str) -> None:
        async def progress(done: float, total: float | None, message: str | None) -> None:
            seen[name].append(message)

        async with notes.client(mode=mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools][:2] == ["notes", "note"]
            for number in range(3):
                text = f"{name} {number}"
                answer = await client.call_tool("note", {"text": text}, progress_callback=progress)
                kept[text] = answer.structured_content
            denied = await client.call_tool("forbidden", {}, progress_callback=progress)
            assert denied.is_error

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(write, "Ann")
            group.start_soon(write, "Bob")
    assert seen["Ann"] == seen["Bob"] == [*["calls note"] * 3, "forbidden failed: denied"]
    assert len(kept) == 6 and {str(value) for value in kept.values()} == {
        "{'folder': '/workspace', 'key': '[secret NOTES_KEY]'}"
    }


@MODES
async def test_a_cancelled_call_ends_and_the_next_one_is_made(notes: Served, mode: str) -> None:
    """A client that gives up must not keep the workspace from the others."""
    async with notes.client(mode=mode) as client, notes.client(mode=mode) as other:
        await client.call_tool("note", {"text": "milk"})
        with anyio.move_on_after(2) as scope:
            await client.call_tool("read_note", {"slowly": True})
        assert scope.cancelled_caught
        with anyio.fail_after(20):
            answer = await other.call_tool("read_note", {})
    assert isinstance(answer.content[0], types.TextContent) and answer.content[0].text == "milk"


@MODES
async def test_the_clients_user_is_asked_by_http_too(notes: Served, mode: str) -> None:
    """What cannot be undone needs a person's word, by whatever way the client came."""
    asked: list[str] = []

    async def elicit(context: object, parameters: Any) -> types.ElicitResult:
        asked.append(parameters.message)
        return types.ElicitResult(action="accept", content={"allow": True})

    async with notes.client(mode=mode, elicitation_callback=elicit) as client:
        answer = await client.call_tool("send", {"to": "Ann"})
    assert not answer.is_error and len(asked) == 1 and asked[0].startswith('send {"to": "Ann"}')


def test_nobody_gets_in_without_the_token_and_no_page_with_it(notes: Served) -> None:
    """Any page in a browser of this machine can send requests here: it has neither token nor a right `Host`."""
    known = {"Authorization": f"Bearer {notes.token}"}
    host = urlsplit(notes.url).netloc
    port = host.split(":")[1]
    assert notes.post(**known) == 200
    assert notes.post() == notes.post(Authorization="Bearer wrong") == notes.post(Authorization=notes.token) == 401
    for origin in ("https://evil.example", "null", f"http://{host}", "http://localhost:3000"):
        assert notes.post(**known, Origin=origin) == 403, origin
    for name in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "0.0.0.0"):
        assert notes.post(**known, Host=name) == 421, name
    for name in (f"localhost:{port}", "agents.example.org", "agents.example.org:443"):
        assert notes.post(**known, Host=name) == 200, name


async def test_our_own_client_needs_the_token_too(notes: Served) -> None:
    """The two ends of this package must understand each other; a wrong token is an error where the agent is made."""
    with connect(HttpServer(notes.url, {"Authorization": f"Bearer {notes.token}"})) as server:
        assert [tool.name for tool in server.tools][:2] == ["notes", "note"]
        assert (await server.call("note", {"text": "x"})) == {"folder": "/workspace", "key": "[secret NOTES_KEY]"}
    with pytest.raises(McpServerError, match="cannot be used"):
        connect(HttpServer(notes.url, {"Authorization": "Bearer wrong"}))


async def test_the_token_may_be_ones_own_and_is_never_printed(tmp_path: Path) -> None:
    """Logs of a service are read by many; a token that was given is known where it is needed."""
    with serving("helper", tmp_path, **{TOKEN: OWN}) as served:
        async with served.client() as client:
            answer = await client.call_tool("helper", {"prompt": "Do it."})
            assert answer.structured_content is not None and answer.structured_content["answer"] == "First."
        served.end()
        assert served.process.stderr is not None
        assert OWN not in served.process.stderr.read() and served.process.returncode == 0


@MODES
async def test_sigterm_ends_it_in_seconds_and_the_run_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A service that is stopped with a run under way: the run is stored as interrupted, and a new server goes on."""
    monkeypatch.setenv("G4AGENT_HOME", str(tmp_path))
    begun = anyio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        begun.set()

    async def run(served: Served) -> None:
        with suppress(BaseExceptionGroup):  # its connection is cut
            async with served.client(mode=mode) as client:
                await client.call_tool("patient", {"prompt": "Wait."}, progress_callback=progress)

    with serving("patient", tmp_path) as served:
        async with anyio.create_task_group() as group:
            group.start_soon(run, served)
            with anyio.fail_after(120):
                await begun.wait()
            seconds = await anyio.to_thread.run_sync(served.end)
        assert seconds < 10 and served.process.returncode == 0
    with Store.open() as store:
        [session] = store.list_sessions(5)
    assert session.status == "interrupted"
    with serving("patient", tmp_path) as again:
        async with again.client(mode=mode) as client:
            answer = await client.call_tool("patient", {"prompt": "Go on.", "session": session.id})
    assert answer.structured_content is not None and answer.structured_content["answer"] == "Waited."


@pytest.mark.parametrize(
    ("address", "token", "says"),
    [
        ("nowhere", "", "'nowhere' is no address"),
        ("127.0.0.1:99999", "", "is no address"),
        ("0.0.0.0:0", "", f"other machines can reach 0.0.0.0:0, and {TOKEN} is not set"),
        ("0.0.0.0:0", OWN, "every address of this machine"),
        ("[::]:0", OWN, "every address of this machine"),
        ("127.0.0.1:0", "short", "fewer than 20 characters"),
        ("192.0.2.1:0", OWN, "cannot listen on 192.0.2.1:0"),
        ("no.such.host.invalid:0", OWN, "there is no host no.such.host.invalid"),
    ],
)
def test_an_open_door_is_refused(monkeypatch: pytest.MonkeyPatch, address: str, token: str, says: str) -> None:
    """Before the agent is loaded, and with what to do instead."""
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(ConfigError) as error:
        listen(address)
    assert says in str(error.value)


def test_names_are_those_that_clients_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is this machine; every other name has to be given; each start has a token of its own."""
    monkeypatch.delenv(TOKEN, raising=False)
    first, second = listen("0"), listen("localhost:0", ["agents.example.org"])
    with first.socket, second.socket:
        assert first.url.startswith("http://127.0.0.1:") and first.generated and len(first.token) > 40
        assert first.token != second.token and first.token not in repr(first)
        assert first.names == ("127.0.0.1", "localhost", "[::1]")
        assert second.names[-1] == "agents.example.org"
    monkeypatch.setenv(TOKEN, OWN)
    open_to_all = listen("0.0.0.0:0", ["agents.example.org"])
    with open_to_all.socket:
        assert open_to_all.names == ("agents.example.org",) and not open_to_all.generated
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen"):
        listen(f"127.0.0.1:{taken.getsockname()[1]}")
