"""One server: started or reached, asked for its tools, called, and started again when it has ended."""

from __future__ import annotations

import atexit
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread
import mcp.types as mcp
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

import g4agent
from g4agent.errors import ToolDefinitionError
from g4agent.tools import PythonTarget, Tool
from g4agent.validation import check_schema
from g4agent_mcp import convert
from g4agent_mcp.boxed import ORDERS
from g4agent_mcp.errors import McpServerError, McpToolError
from g4agent_mcp.loop import portal
from g4agent_mcp.servers import HttpServer, StdioServer

MAX_PAGES = 100
"""Of a server's list of tools: one without end must not hold the start."""
MAX_STARTS = 10
"""How often one connection starts its server; more is a server that ends at every call."""
CLOSE_SECONDS = 10.0
STDERR_CHARS = 2000


@dataclass(slots=True)
class _Link:
    """A server that is up."""

    client: Client
    stop: anyio.Event
    ended: Future[None]
    """Done when the server is down again."""


class Connection:
    """A server and its tools. Threads and event loops may share it; so may agents."""

    def __init__(self, server: StdioServer | HttpServer) -> None:
        self.server = server
        self.left_out: dict[str, str] = {}
        """Tools that cannot be taken over, by the server's names, with the reason."""
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._starts = 0
        self._closed = False
        self._changed = False
        """True once the server has said that its tools are others now."""
        self._temporary = tempfile.TemporaryDirectory(prefix="g4agent-mcp-")
        self._save = convert.saver(server.files)
        atexit.register(self.close)
        try:
            listed = portal().call(self._list_tools, self._up().client)
        except BaseException:
            self.close()
            raise
        self._tools = tuple(self._native(listed))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server, or leaves it where it is reached by HTTP. Calls under way fail."""
        with self._lock:
            self._closed = True
            self._down()
            self._temporary.cleanup()
        atexit.unregister(self.close)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The server's tools. Asked for again after the server has said that they changed; an agent keeps those that it
        was made with, which stand in its sessions' transcripts."""
        if self._changed and not self._closed:
            self._changed = False
            listed = portal().call(self._list_tools, self._up().client)
            self.left_out.clear()
            self._tools = tuple(self._native(listed))
        return self._tools

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Calls a tool by the server's own name; gives what `native_result` does. Cancelling tells the server, and does
        not wait for it.

        Raises:
            McpToolError: The server says that the call failed.
            McpServerError: The server has ended, or cannot be started again. The call is not repeated by itself.
        """
        link = await anyio.to_thread.run_sync(self._up)
        future = portal().start_task_soon(self._call, link, name, dict(arguments))
        try:
            return await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        except CancelledError as error:
            raise McpServerError(f"{self.server.name} was closed during the call") from error
        finally:
            future.cancel()

    async def _call(self, link: _Link, name: str, arguments: dict[str, Any]) -> Any:
        try:
            result = await link.client.call_tool(name, arguments)
        except MCPError as error:
            if error.code != mcp.CONNECTION_CLOSED:
                raise McpToolError(error.message) from error
            link.stop.set()
            raise McpServerError(f"{self.server.name} ended during the call{self._last_words()}") from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            link.stop.set()
            raise McpServerError(f"{self.server.name} has ended{self._last_words()}") from error
        return convert.native_result(result, self._save)

    # The server's life ------------------------------------------------------------------------------------------------

    def _up(self) -> _Link:
        """The running server, started if it is not."""
        with self._lock:
            if self._closed:
                raise McpServerError(f"the connection to {self.server.name} was closed")
            if self._link is None or self._link.stop.is_set() or self._link.ended.done():
                self._down()
                self._link = self._start()
            return self._link

    def _start(self) -> _Link:
        if self._starts == MAX_STARTS:
            raise McpServerError(f"{self.server.name} has ended {MAX_STARTS} times{self._last_words()}")
        self._starts += 1
        ready: Future[tuple[Client, anyio.Event]] = Future()
        ended = portal().start_task_soon(self._hold, ready)
        ended.add_done_callback(lambda _: ready.cancel())
        seconds = self.server.start_timeout
        try:
            client, stop = ready.result(seconds)
        except TimeoutError as error:
            ended.cancel()
            raise McpServerError(f"{self.server.name} did not answer in {seconds:g} s{self._last_words()}") from error
        except CancelledError as error:
            problem = None if ended.cancelled() else ended.exception()
            said = f": {_innermost(problem)}" if problem is not None else ""
            raise McpServerError(f"{self.server.name} cannot be used{said}{self._last_words()}") from error
        return _Link(client, stop, ended)

    async def _hold(self, ready: Future[tuple[Client, anyio.Event]]) -> None:
        """Keeps the client open, in one task from beginning to end, as its cancel scopes ask for."""
        stop = anyio.Event()
        async with AsyncExitStack() as stack:
            transport = await self._transport(stack)
            info = mcp.Implementation(name="g4agent", version=g4agent.__version__)
            client = await stack.enter_async_context(Client(transport, client_info=info, message_handler=self._heard))
            tools = client.server_capabilities.tools
            if client.protocol_version in MODERN_PROTOCOL_VERSIONS and tools is not None and tools.list_changed:
                await stack.enter_async_context(client.listen(tools_list_changed=True))  # older servers tell unasked
            if ready.set_running_or_notify_cancel():
                ready.set_result((client, stop))
                await stop.wait()

    async def _heard(self, message: object) -> None:
        if isinstance(message, mcp.ToolListChangedNotification):
            self._changed = True

    async def _transport(self, stack: AsyncExitStack) -> Transport:
        server = self.server
        if isinstance(server, HttpServer):
            http = await stack.enter_async_context(create_mcp_http_client(headers=dict(server.headers)))
            return streamable_http_client(server.url, http_client=http)
        command, env = list(server.command), dict(server.env)
        if server.sandbox is not None:
            settings = {
                "command": command,
                "sandbox": server.sandbox,
                "folders": [str(Path(folder).resolve()) for folder in server.folders],
                "env": env,
                "limits": asdict(server.limits),
                "net": list(server.net),
            }
            command, env = [sys.executable, "-m", "g4agent_mcp.boxed"], {ORDERS: json.dumps(settings)}
        errors = stack.enter_context(self._stderr.open("a"))
        return stdio_client(StdioServerParameters(command=command[0], args=command[1:], env=env), errors)

    @property
    def _stderr(self) -> Path:
        return Path(self._temporary.name) / "stderr"

    def _down(self) -> None:
        link, self._link = self._link, None
        if link is not None and not link.ended.done():
            portal().start_task_soon(_set, link.stop)
            with suppress(BaseException):  # how a server that is not wanted any more ends is of no interest
                link.ended.result(CLOSE_SECONDS)

    def _last_words(self) -> str:
        """What the server wrote to standard error last."""
        text = self._stderr.read_text(errors="replace").strip() if self._stderr.exists() else ""
        return f"; it said: {text[-STDERR_CHARS:]}" if text else ""

    # Its tools --------------------------------------------------------------------------------------------------------

    async def _list_tools(self, client: Client) -> list[mcp.Tool]:
        found: list[mcp.Tool] = []
        cursor = None
        with anyio.move_on_after(self.server.start_timeout) as scope:
            for _ in range(MAX_PAGES):
                page = await client.list_tools(cursor=cursor, cache_mode="refresh")
                found += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
        if scope.cancelled_caught:
            raise McpServerError(f"{self.server.name} did not name its tools{self._last_words()}")
        wanted = self.server.tools
        if wanted is not None and (missing := sorted(wanted - {tool.name for tool in found})):
            has = ", ".join(tool.name for tool in found) or "none"
            raise McpServerError(f"{self.server.name} has no tool {', '.join(missing)}", hint=f"It has: {has}.")
        return [tool for tool in found if wanted is None or tool.name in wanted]

    def _native(self, listed: list[mcp.Tool]) -> list[Tool]:
        server = self.server
        names = convert.native_names((tool.name for tool in listed), server.prefix)
        tools = []
        for tool in listed:
            if tool.execution is not None and tool.execution.task_support == "required":
                self.left_out[tool.name] = "it only runs as a task, which MCP has yet to settle"
                continue
            schema = convert.native_schema(tool)
            try:
                check_schema(names[tool.name], schema)
                tools.append(
                    Tool(
                        name=names[tool.name],
                        description=convert.native_description(tool),
                        schema=schema,
                        target=PythonTarget(self._caller(tool.name), __name__, names[tool.name]),
                        effect=convert.claimed_effect(tool.annotations) if server.trust_hints else "once",
                        timeout=server.timeout,
                        where="box" if isinstance(server, StdioServer) and server.sandbox is not None else "host",
                        untrusted=server.untrusted,
                    )
                )
            except ToolDefinitionError as error:
                self.left_out[tool.name] = error.message
        return tools

    def _caller(self, name: str) -> Callable[..., Any]:
        async def call(**arguments: Any) -> Any:
            return await self.call(name, arguments)

        return call


async def _set(event: anyio.Event) -> None:
    event.set()


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
