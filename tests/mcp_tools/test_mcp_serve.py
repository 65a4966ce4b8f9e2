"""`g4agent mcp-serve`, called by the official client and by an agent of ours."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client, types

from g4agent import Agent
from g4agent.testing import ScriptedModel, call, say
from g4agent_mcp import StdioServer, connect
from g4agent_mcp.agent_server import tool_name

pytestmark = pytest.mark.anyio


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"G4AGENT_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}


def command(agent: str) -> list[str]:
    return [sys.executable, "-m", "g4agent", "mcp-serve", f"served_agents:{agent}"]


def client(agent: str, environment: dict[str, str], **settings: Any) -> AbstractAsyncContextManager[Client]:
    program, *arguments = command(agent)
    return Client(stdio_client(StdioServerParameters(command=program, args=arguments, env=environment)), **settings)


async def test_a_call_runs_the_agent_and_another_goes_on_with_its_session(environment: dict[str, str]) -> None:
    """What is printed on the way must not get between the messages; steps come as progress."""
    seen: list[str | None] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    async with client("helper", environment) as served:
        [tool, own] = (await served.list_tools()).tools
        assert own.name == "wait" and own.input_schema["required"] == ["seconds"]
        assert tool.name == "helper" and tool.description == "Runs an agent with the tools wait."
        first = await served.call_tool("helper", {"prompt": "Do it."}, progress_callback=progress)
        assert first.structured_content is not None and not first.is_error
        assert first.structured_content["answer"] == "First." and first.structured_content["outcome"] == "done"
        session = first.structured_content["session"]
        second = await served.call_tool("helper", {"prompt": "Again.", "session": session})
        assert second.structured_content is not None and second.structured_content["answer"] == "Second."
        assert second.structured_content["session"] == session
        unknown = await served.call_tool("helper", {"prompt": "x", "session": "zzzz"})
        assert unknown.is_error and "There is no session 'zzzz'" in str(unknown.content)
        assert (await served.call_tool("helper", {})).is_error
    assert seen == ["calls wait"]


async def test_a_picture_goes_out_as_a_picture(environment: dict[str, str]) -> None:
    """A client's model can see it; its path would say nothing to a client on another machine."""
    async with client("painter", environment) as served:
        answer = await served.call_tool("paint", {})
    text, image = answer.content
    assert isinstance(text, types.TextContent) and '"image": "mug.png"' in text.text
    assert isinstance(image, types.ImageContent) and image.mime_type == "image/png"
    assert base64.b64decode(image.data) == b"\x89PNG\r\n\x1a\n of a mug"


async def test_a_cancelled_call_leaves_a_session_that_can_go_on(environment: dict[str, str]) -> None:
    """The client gives up: the run stops, its call has a result, and the server answers again."""
    async with client("slow", environment) as served:
        with anyio.move_on_after(3) as scope:
            await served.call_tool("slow", {"prompt": "Wait."})
        assert scope.cancelled_caught
        with anyio.fail_after(20):
            assert (await served.call_tool("slow", {})).is_error
    shown = await anyio.run_process(
        [sys.executable, "-m", "g4agent", "sessions", "list"], env={**os.environ, **environment}
    )
    assert "interrupted" in shown.stdout.decode()


async def test_a_call_that_needs_a_person_waits_and_says_so(environment: dict[str, str]) -> None:
    """Nobody watches: the run ends as waiting, with the question's id, and is no success."""
    async with client("careful", environment) as served:
        answer = await served.call_tool("careful", {"prompt": "x"})
    assert answer.is_error and answer.structured_content is not None
    assert answer.structured_content["outcome"] == "awaiting_approval"


async def test_one_agent_may_be_anothers_tool(environment: dict[str, str]) -> None:
    """Served here and connected there: both ends are ours, and the SDK is between."""
    with connect(StdioServer(command("helper"), env=environment, sandbox=None)) as server:
        model = ScriptedModel([call("helper", prompt="Do it."), say("done")])
        result = await Agent(model=model, tools=server.tools, store=False).run("x")
    value: Any = result.results[0].value
    assert value["answer"] == "First." and value["steps"] == 2


async def test_the_agents_tools_are_called_in_its_sandbox(environment: dict[str, str]) -> None:
    """No model is loaded, the workspace lasts from call to call, the schema decides, and a secret stays one."""
    seen: list[str | None] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    async with client("notes", environment) as served:
        tools = {tool.name: tool for tool in (await served.list_tools()).tools}
        assert list(tools) == ["notes", "note", "read_note", "send", "forbidden"]
        hints = [tool.annotations for tool in list(tools.values())[1:]]
        assert [(h.read_only_hint, h.idempotent_hint, h.destructive_hint) for h in hints if h is not None] == [
            (False, True, False),
            (True, True, False),
            (False, False, True),
            (True, True, False),
        ]
        kept = await served.call_tool("note", {"text": "milk"}, progress_callback=progress)
        assert kept.structured_content == {"folder": "/workspace", "key": "[secret NOTES_KEY]"}
        assert text(await served.call_tool("read_note", {})) == "milk"
        for name, arguments, says in (
            ("note", {"words": 1}, "text"),
            ("forbidden", {}, "forbidden is not allowed"),
            ("unknown", {}, "call notes with a prompt, or one of: note, read_note, send, forbidden"),
        ):
            answer = await served.call_tool(name, arguments, progress_callback=progress)
            assert answer.is_error and says in text(answer)
    assert seen == ["calls note", "note failed: invalid_arguments", "forbidden failed: denied"]
    stored = await anyio.run_process(
        [sys.executable, "-m", "g4agent", "sessions", "list"], env={**os.environ, **environment}
    )
    assert "notes" in stored.stdout.decode(), "what clients did can be looked up"


def text(answer: Any) -> str:
    (content,) = answer.content
    return str(content.text)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_clients_user_is_asked_where_the_client_can(environment: dict[str, str], mode: str) -> None:
    """In the handshake's protocol and in the one without: an effect happens without a word, or a no is no answer."""
    asked: list[str] = []
    answers = iter([("accept", True), ("accept", False), ("decline", None)])

    async def elicit(context: object, parameters: Any) -> types.ElicitResult:
        asked.append(parameters.message)
        action, allow = next(answers)
        return types.ElicitResult(action=action, content=None if allow is None else {"allow": allow})

    async with client("notes", environment, mode=mode, elicitation_callback=elicit) as served:
        assert text(await served.call_tool("send", {"to": "me"})) == "sent to me", "a rule allows it"
        assert text(await served.call_tool("send", {"to": "Ann"})) == "sent to Ann"
        for name in ("Bob", "Cy"):
            answer = await served.call_tool("send", {"to": name})
            assert answer.is_error and "send was not approved" in text(answer) and "elicitation" not in text(answer)
    reason = "its effect cannot be undone, and no rule allows it. Allow it?"
    assert asked == [f'send {{"to": "{name}"}}\n{reason}' for name in ("Ann", "Bob", "Cy")]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_where_nobody_can_be_asked_the_answer_is_no(environment: dict[str, str], mode: str) -> None:
    """A client without forms gets an error that says what would help, and the effect does not happen."""
    async with client("notes", environment, mode=mode) as served:
        answer = await served.call_tool("send", {"to": "Ann"})
    assert answer.is_error and "send was not approved" in text(answer) and "no elicitation" in text(answer)


async def test_a_cancelled_call_ends_and_the_next_one_is_made(environment: dict[str, str]) -> None:
    """A tool at work in the sandbox blocks the session, or takes the workspace with it."""
    async with client("notes", environment) as served:
        await served.call_tool("note", {"text": "milk"})
        with anyio.move_on_after(2) as scope:
            await served.call_tool("read_note", {"slowly": True})
        assert scope.cancelled_caught
        with anyio.fail_after(20):
            assert text(await served.call_tool("read_note", {})) == "milk"


@pytest.mark.parametrize(
    ("agent", "name"),
    [("/a/b/coding_assistant", "coding_assistant"), ("shop.agents:main", "main"), ("my-agent.py", "my_agent")],
)
async def test_the_tool_is_called_as_the_agent(agent: str, name: str) -> None:
    """A client shows this name to its model."""
    assert tool_name(agent) == name


async def test_a_broken_agent_is_an_error_and_no_server(environment: dict[str, str]) -> None:
    """The client sees the end of the connection; the person sees why."""
    done = subprocess.run(  # noqa: ASYNC221
        [*command("none")], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == 1 and "defines no Agent called 'none'" in done.stderr
