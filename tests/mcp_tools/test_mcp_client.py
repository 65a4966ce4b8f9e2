"""MCP servers as tools: one with everything that is difficult."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from mcp_results import parts, results

from g4agent import Agent, Policy, Rule
from g4agent.errors import ConfigError
from g4agent.events import ToolStarted
from g4agent.testing import ScriptedModel, call, say
from g4agent_mcp import HttpServer, McpServerError, StdioServer, connect, read_servers
from g4agent_mcp.connection import Connection

AWKWARD = Path(__file__).parent / "awkward_server.py"
COMMAND = [sys.executable, str(AWKWARD)]

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """The awkward server on the host, shared by the tests that do not break it."""
    with connect(StdioServer(COMMAND, sandbox=None, timeout=10, files=tmp_path_factory.mktemp("files"))) as connection:
        yield connection


async def test_where_a_server_runs_is_said_truly() -> None:
    """A rule for what runs on the host would let a boxed server's calls wait, or pass one's on the host."""
    policy = Policy((Rule("deny", where="host"),))
    for sandbox, place in (("bubblewrap", "box"), (None, "host")):
        command = ["python3", str(AWKWARD)] if sandbox else COMMAND
        server = StdioServer(command, sandbox=sandbox, folders=[AWKWARD.parent] if sandbox else [])
        with connect(server) as connection:
            assert {tool.where for tool in connection.tools} == {place}
            model = ScriptedModel([call("count"), say("done")])
            agent = Agent(model=model, tools=connection.tools, policy=policy, store=False)
            events = [event async for event in agent.stream("x")]
        started = [event.where for event in events if isinstance(event, ToolStarted)]
        assert started == (["box"] if place == "box" else [])


@pytest.mark.parametrize("protocol", ["old", "new"])
async def test_a_server_may_change_its_tools(protocol: str) -> None:
    """New tools are there after the server has said so; an agent that was made before keeps those that it knows."""
    command = [sys.executable, str(AWKWARD.with_name("growing_server.py")), protocol]
    with connect(StdioServer(command, sandbox=None, prefix="s_")) as connection:
        before = connection.tools
        assert [tool.name for tool in before] == ["s_grow"]
        assert (await results(connection, call("s_grow")))[0].value == "grown"
        with anyio.fail_after(5):
            while connection.tools == before:  # noqa: ASYNC110 - another thread hears it
                await anyio.sleep(0.02)
        assert [tool.name for tool in connection.tools] == ["s_shrink", "s_grown"]
        assert (await results(connection, call("s_grown")))[0].value == "grown"


async def test_names_and_schemas_are_made_to_fit(awkward: Connection) -> None:
    """Slashes, dots, digits, a name of 100 characters, two that become the same, a list in two pages."""
    names = [tool.name for tool in awkward.tools]
    assert names[0] == "files_read_it_now" and names[1].startswith("files_read_it_now_") and names[3] == "_7up"
    assert len(names[2]) == 64 and len(set(names)) == len(names) == 14
    assert list(awkward.left_out) == ["broken"]
    assert awkward.tools[0].description == "Read it"
    assert {tool.effect for tool in awkward.tools} == {"once"} and {tool.where for tool in awkward.tools} == {"host"}


async def test_hints_are_believed_only_if_that_was_said() -> None:
    """A server that calls a payment read-only would have it repeated after a crash."""
    server = StdioServer(
        COMMAND, sandbox=None, trust_hints=True, prefix="s_", tools=frozenset({"files/read-it.now", "count"})
    )
    with connect(server) as connection:
        assert [(tool.name, tool.effect) for tool in connection.tools] == [
            ("s_files_read_it_now", "pure"),
            ("s_count", "once"),
        ]


async def test_results_of_all_kinds_reach_the_model(awkward: Connection) -> None:
    """Text as text, structure as structure, files as paths, links as links, and a refusal as an error."""
    done = await results(
        awkward, call("files_read_it_now"), call("_7up", **{"from": 3}), call("picture"), call("fail"), call("flood")
    )
    assert [r.value for r in done[:2]] == ["files/read-it.now", {"from": 3}]
    text, image, resource, link = done[2].value  # type: ignore[misc]
    assert text == "here" and Path(image["image"]).read_bytes().startswith(b"\x89PNG")  # type: ignore[index,call-overload]
    assert resource == {"resource": "demo://a", "text": "inside"}
    assert link == {"resource": "demo://notes", "name": "notes", "description": "Notes."}
    assert done[3].error is not None and done[3].error.message == "McpToolError: no such order"
    assert isinstance(done[4].value, str) and len(done[4].value) < 21_000 and "characters left out" in done[4].value


async def test_a_picture_outlives_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session names the file: it must be there when the session is looked at later, and once only."""
    monkeypatch.setenv("G4AGENT_HOME", str(tmp_path))
    with connect(StdioServer(COMMAND, sandbox=None)) as connection:
        done = await results(connection, call("picture"), call("picture"))
    (image,) = [part for part in parts(done[0]) if "image" in part]
    assert image in parts(done[1]) and image["media_type"] == "image/png" and image["bytes"] == 8
    (file,) = (tmp_path / "files").iterdir()
    assert str(file) == image["image"] and file.read_bytes().startswith(b"\x89PNG")


async def test_bad_arguments_never_reach_the_server(awkward: Connection) -> None:
    """The server's own schema is the contract, and the model gets the same short message as for any tool."""
    [done] = await results(awkward, call("_7up", **{"from": 0}))
    assert done.error is not None and done.error.kind == "invalid_arguments"


async def test_a_call_that_takes_too_long_is_cancelled_at_the_server() -> None:
    """Else the work would go on for nobody; the server is told, and answers the next call."""
    with connect(StdioServer(COMMAND, sandbox=None, timeout=0.5)) as connection:
        started = time.monotonic()
        done = await results(connection, call("hang"), call("cancelled"))
        assert time.monotonic() - started < 5
    assert done[0].error is not None and done[0].error.kind == "timeout"
    assert done[1].value == "1"


async def test_a_cancelled_run_cancels_its_call() -> None:
    """Ctrl-C must not wait for a server."""
    with connect(StdioServer(COMMAND, sandbox=None)) as connection:
        hang = next(tool for tool in connection.tools if tool.name == "hang")
        with anyio.move_on_after(0.5) as scope:
            await hang.invoke({})
        assert scope.cancelled_caught
        assert await connection.call("cancelled", {}) == "1"


async def test_a_server_that_crashes_is_an_error_and_comes_back() -> None:
    """The call under way fails, with the server's last words, and is not repeated; the next one starts it again."""
    with connect(StdioServer(COMMAND, sandbox=None)) as connection:
        done = await results(connection, call("count"), call("crash"), call("count"))
    assert done[0].value == done[2].value == "1"
    assert done[1].error is not None
    assert "ended during the call" in done[1].error.message and "the disk is on fire" in done[1].error.message


async def test_calls_in_parallel_do_not_wait_for_each_other(awkward: Connection) -> None:
    """One connection, several requests at a time."""
    async with anyio.create_task_group() as group:
        group.start_soon(awkward.call, "hang", {})
        await anyio.sleep(0.1)
        with anyio.fail_after(5):
            assert await awkward.call("files/read-it.now", {}) == "files/read-it.now"
        group.cancel_scope.cancel()


async def test_a_boxed_server_has_no_network_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was given by name is there; on the host the same server could do what you can."""
    monkeypatch.setenv("HOME_SECRET", "secret")
    server = StdioServer(["python3", str(AWKWARD)], env={"TOKEN": "given"}, folders=[AWKWARD.parent])
    with connect(server) as connection:
        assert str(await connection.call("network", {})).startswith("closed")
        assert await connection.call("environment", {}) == "given"
        with pytest.raises(McpServerError, match="ended during the call"):
            await connection.call("crash", {})
        assert await connection.call("count", {}) == "1"


async def test_a_boxed_server_reaches_what_was_named_and_nothing_else() -> None:
    """By the proxy that its environment names."""
    with socket.create_server(("127.0.0.1", 0)) as reachable:
        port = reachable.getsockname()[1]
        script = (
            "import os, socket, sys\n"
            "host, port = os.environ['HTTPS_PROXY'].removeprefix('http://').split(':')\n"
            "for target in sys.argv[1:]:\n"
            "    s = socket.create_connection((host, int(port)))\n"
            "    s.sendall(f'CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n'.encode())\n"
            "    print(target, s.recv(64).split()[1].decode(), file=sys.stderr, flush=True)\n"
        )
        named = f"127.0.0.1:{port}"
        server = StdioServer(["python3", "-c", script, named, "127.0.0.1:9"], net=[named])
        with pytest.raises(McpServerError) as error:
            connect(server)
        assert f"{named} 200" in str(error.value) and "127.0.0.1:9 403" in str(error.value)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (StdioServer(["/nowhere/server"], sandbox=None), "/nowhere/server cannot be used: FileNotFoundError"),
        (StdioServer([sys.executable, "-c", "raise SystemExit('no licence')"], sandbox=None), "no licence"),
        (StdioServer([*COMMAND, "silent"], sandbox=None, start_timeout=1), "did not answer in 1 s"),
        (StdioServer(COMMAND, sandbox=None, tools=frozenset({"none"})), "has no tool none"),
        (StdioServer(["python3", "-c", "print(1)"], sandbox="none"), "no sandbox called 'none'"),
        (HttpServer("http://127.0.0.1:9/mcp", start_timeout=5), "127.0.0.1:9/mcp cannot be used"),
    ],
)
async def test_a_server_that_does_not_start_says_why(server: StdioServer | HttpServer, message: str) -> None:
    """At once, with its own last words, where the agent is made."""
    with pytest.raises(McpServerError) as error:
        connect(server)
    assert message in str(error.value)


async def test_streamable_http_works_and_survives_a_restart() -> None:
    """The same tools by another way; a server that is gone is an error, one that is back is used again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*COMMAND, "http", str(port)])
        while True:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            time.sleep(0.05)

    process = start()
    try:
        with connect(HttpServer(f"http://127.0.0.1:{port}/mcp")) as connection:
            assert await connection.call("count", {}) == "1"
            process.kill()
            process.wait()
            with pytest.raises(McpServerError):
                await connection.call("count", {})
            process = start()
            assert await connection.call("count", {}) == "1"
    finally:
        process.kill()
        process.wait()


def test_the_usual_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mcp.json` as other programs write it; a secret comes from the environment, and must be there."""
    file = tmp_path / "mcp.json"
    web = {"url": "https://example.org/mcp", "headers": {"Authorization": "Bearer ${MY_TOKEN}"}}
    servers = {"my-files": {"command": "node", "args": ["a.js"]}, "web": web}
    file.write_text(json.dumps({"mcpServers": servers}))
    with pytest.raises(ConfigError, match="MY_TOKEN is not set"):
        read_servers(file)
    monkeypatch.setenv("MY_TOKEN", "t")
    assert read_servers(file, sandbox=None, timeout=5) == {
        "my-files": StdioServer(["node", "a.js"], prefix="my_files_", sandbox=None, timeout=5),
        "web": HttpServer("https://example.org/mcp", {"Authorization": "Bearer t"}, prefix="web_", timeout=5),
    }
    file.write_text("[]")
    with pytest.raises(ConfigError, match="names no MCP servers"):
        read_servers(file)


def test_a_forgotten_connection_keeps_no_process(tmp_path: Path) -> None:
    """A script that ends without closing ends nevertheless, and so does its server."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom g4agent_mcp import StdioServer, connect\n"
        f"tools = connect(StdioServer([sys.executable, {str(AWKWARD)!r}], sandbox=None)).tools\nprint(len(tools))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "14\n", "")
