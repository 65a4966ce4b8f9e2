"""Python tools: a fork server per module, which imports the module once and forks a fresh process for each call.

The loader, a process of its own, has imported what all fork servers share, so that the supervisor stays small: the more
pages a process has, the more its forks cost. Who serves a call has its arguments, secrets and output in memory, which a
fork inherits; so of the processes here, each serves one call, or none.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from g4agent_box.inside import kernel
from g4agent_box.inside.calls import (
    Call,
    CallLimits,
    Order,
    close_all,
    fork_and_run,
    prefer_as_victim,
    rehearse,
    run_call,
)
from g4agent_box.inside.protocol import (
    READY,
    TAKEN,
    Head,
    receive_exactly,
    receive_head,
    receive_packet,
    send_frame,
    send_packet,
)

if TYPE_CHECKING:
    from g4agent.tools import Tool

MAX_TRACEBACK = 8000
"""Characters of a traceback that are handed out; its end is kept."""
TAKE_PATIENCE = 1.0
"""Seconds in which a helper must have taken a call; a stopped one does not."""
TRIES = 3
"""Helpers that may die one after another without having taken a call."""
FORK_SERVER_SCORE = 500
"""A fork server dies of memory shortage after the calls and before the supervisor."""


class ToolName(NamedTuple):
    """Where a tool is found: what `g4agent.tool_loading.load_tool` takes."""

    module: str
    attribute: str
    file: str | None

    def load(self) -> Tool:
        """Imports the module, at the first time, and gives the tool."""
        from g4agent.tool_loading import load_tool

        return load_tool(self.module, self.attribute, None if self.file is None else Path(self.file))


class Loader:
    """The process that has imported g4agent and forks the fork servers. It runs no tool code."""

    def __init__(self, link: socket.socket, workspace: str, python_paths: list[str]) -> None:
        self._link = link
        self._workspace = workspace
        self._python_paths = python_paths
        self._servers: set[int] = set()

    def serve(self) -> None:
        """Forks a fork server for each packet, which brings the server's own link, until this link ends."""
        import jsonschema  # noqa: F401 - validation imports it at the first call

        from g4agent.tools import tool

        self._own_tool = tool(effect="pure")(_echo)
        gc.freeze()
        reap_in_background(self._servers)
        self._link.send(READY)
        while (received := receive_packet(self._link)) is not None:
            packet, fds = received
            with socket.socket(fileno=fds[0]) as link, contextlib.suppress(BlockingIOError):
                self._servers.add(fork_and_run(lambda: self._become_server(packet, link)))  # noqa: B023 - at once

    def _become_server(self, packet: Head, link: socket.socket) -> None:
        self._link.close()
        os.chdir(self._workspace)
        name = ToolName(packet["module"], packet["attribute"], packet["file"])
        limits = CallLimits(**packet["limits"])
        ForkServer(link, name, self._own_tool, self._python_paths, limits).serve()


class Spare(NamedTuple):
    """A helper that waits for a call, with its child forked already."""

    pid: int
    link: socket.socket

    def take(self, packet: Head, connection: socket.socket) -> bool:
        """Hands it a call; False where it died without having taken it, and so without having done anything for it.

        That it could be sent says nothing: a process that was killed takes in what is sent until it is gone.
        """
        with self.link, contextlib.suppress(OSError):
            send_packet(self.link, packet, connection.fileno())
            self.link.settimeout(TAKE_PATIENCE)
            try:
                return self.link.recv(64) == TAKEN
            except TimeoutError:
                os.kill(self.pid, signal.SIGKILL)  # its link has not ended, so this is still its number
            self.link.settimeout(None)
            return self.link.recv(64) == TAKEN
        return False


class ForkServer:
    """The process that holds a tool's module. The import is tool code, so it holds no socket but its own link.

    Two forks of a process with many pages take most of a call's time, so those for the next call are made ahead.
    """

    def __init__(
        self, link: socket.socket, name: ToolName, own_tool: Tool, python_paths: list[str], limits: CallLimits
    ) -> None:
        self._link = link
        self._name = name
        self._own_tool = own_tool
        """To rehearse calls with."""
        self._helpers: set[int] = set()
        self._warm: set[str] = set()
        self._spare: Spare | None = None
        send_packet(link, {"server": os.getpid()})
        sys.path[:0] = python_paths
        with contextlib.suppress(OSError):
            prefer_as_victim(FORK_SERVER_SCORE)
        limits.apply()
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nothing, fd)
        os.close(nothing)

    def serve(self) -> None:
        """Loads the tool and serves calls until the supervisor closes the link."""
        failure = _load_failure(self._name)
        if failure is not None:
            send_packet(self._link, {"failed": True})  # so that the next call starts anew
        gc.freeze()
        reap_in_background(self._helpers)
        while (received := receive_packet(self._link)) is not None:
            packet, fds = received
            with socket.socket(fileno=fds[0]) as connection:
                if failure is None:
                    self._start(connection, packet)
                else:
                    with contextlib.suppress(ConnectionError):
                        _answer_unstarted(connection, failure)
            if failure is None:
                with contextlib.suppress(BlockingIOError):  # no room for it: the next call forks its own
                    self._spare = self._fork_spare()

    def _start(self, connection: socket.socket, packet: Head) -> None:
        self._name = self._name._replace(attribute=packet["attribute"])
        if self._name.attribute not in self._warm:
            self._warm.add(self._name.attribute)
            with contextlib.suppress(Exception):  # what is wrong here, the call itself will meet and report
                self._name.load().bind({})  # builds the validator, which every later fork then has
            self._drop_spare()
        waiting, self._spare = self._spare, None
        spare = waiting or self._fork_spare(connection)
        for _ in range(TRIES):
            if spare.take(packet, connection):
                break
            spare = self._fork_spare(connection)
        send_packet(self._link, {"id": packet["id"], "pid": spare.pid})

    def _fork_spare(self, *inherited: socket.socket) -> Spare:
        """Forks a helper, which closes the sockets that it has inherited."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def help_call() -> None:
            for each in (self._link, ours, *inherited):
                each.close()
            kernel.become_subreaper()

            def fork_child(*kept_out: socket.socket) -> Call:
                return Call(
                    lambda head, body, result: _run_tool(self._name, head, body, result),
                    lambda: close_all(*kept_out),
                    self._rehearse_call,
                )

            call = fork_child(theirs)
            rehearse()
            received = receive_packet(theirs)
            if received is None:
                return
            theirs.send(TAKEN)
            theirs.close()
            packet, fds = received
            with socket.socket(fileno=fds[0]) as connection:
                head, body_length = receive_head(connection)
                order = Order({"attribute": packet["attribute"], **head}, receive_exactly(connection, body_length))
                limits = CallLimits(**packet["limits"])
                run_call(call, lambda: fork_child(connection), limits, packet["deadline"], order).send(connection)

        with theirs:
            try:
                pid = fork_and_run(help_call)
            except BlockingIOError:
                ours.close()
                raise
        self._helpers.add(pid)
        return Spare(pid, ours)

    def _rehearse_call(self) -> None:
        """In the child, while it waits. No code of the tool runs: only its name is looked up."""
        rehearse()
        with contextlib.suppress(Exception):  # which the call will meet, and report
            self._name.load()
        json.dumps({"value": self._own_tool.invoke_sync(json.loads('{"text": ""}'))})

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.link.close()  # at which it ends
            self._spare = None


def reap_in_background(children: set[int]) -> None:
    """Waits for the children of the set as they end, and takes them out of it."""

    def reap(signal_number: int, frame: FrameType | None) -> None:
        for pid in list(children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    children.discard(pid)

    signal.signal(signal.SIGCHLD, reap)


def _echo(text: str) -> str:
    """Gives a text back.

    Args:
        text: Any.
    """
    return text


def _load_failure(name: ToolName) -> Head | None:
    """Loads the tool. None, or why it cannot be loaded."""
    try:
        name.load()
    except BaseException as error:
        return _describe(error)
    return None


def _answer_unstarted(connection: socket.socket, failure: Head) -> None:
    """The answer to a call whose tool could not be loaded."""
    _, body_length = receive_head(connection)
    receive_exactly(connection, body_length)
    result = json.dumps({"error": failure}).encode()
    head: Head = {"exit_code": 1, "lengths": [0, 0, len(result)], "totals": [0, 0, len(result)]}
    send_frame(connection, head, result)


def _run_tool(name: ToolName, order: Head, arguments: bytes, result: int) -> NoReturn:
    """The child's work: calls the tool and writes `{"value": …, "images": […]}` or `{"error": …}` to the pipe."""
    code = 1
    try:
        os.environ.update(order["env"])
        # printed lines must have left the process when a timeout ends it
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        answer: dict[str, Any]
        try:
            images: list[Any] = []
            tool = name._replace(attribute=order["attribute"]).load()
            answer = {"value": tool.invoke_sync(json.loads(arguments), images)}
            if images:
                answer["images"] = [
                    {"name": each.name, "tokens": each.tokens, "data": base64.b64encode(each.data).decode()}
                    for each in images
                ]
            code = 0
        except BaseException as error:
            answer = {"error": _describe(error)}
        encoded = json.dumps(answer).encode()
        limit = order["limits"]["output_bytes"]
        if len(encoded) > limit:
            code = 1
            message = f"the result has {len(encoded)} bytes, more than the limit of {limit}"
            encoded = json.dumps({"error": {"kind": "exception", "message": message}}).encode()
        view = memoryview(encoded)
        while view:
            view = view[os.write(result, view) :]
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _describe(error: BaseException) -> Head:
    """An exception as the parts of a ToolError: what went wrong for the model, the trimmed traceback for people."""
    kind = "invalid_arguments" if type(error).__name__ == "InvalidArguments" else "exception"
    text = getattr(error, "message", None) or str(error)
    message = text if kind == "invalid_arguments" else f"{type(error).__name__}: {text}"
    frames = traceback.TracebackException.from_exception(error, limit=-20)
    own = str(Path(__file__).parent)
    kept = [frame for frame in frames.stack if not frame.filename.startswith(own)]
    frames.stack = traceback.StackSummary.from_list(kept)
    return {"kind": kind, "message": message[:MAX_TRACEBACK], "detail": "".join(frames.format())[-MAX_TRACEBACK:]}
