"""The host's side of one open box, whatever backend holds it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import posixpath
import signal
import socket
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Protocol

import anyio

from g4agent.errors import BoxClosedError, WorkspacePathError
from g4agent.ports.sandbox import BoxSpec, ExecResult, LimitName, MiB, PythonCall, PythonOutcome
from g4agent_box.answers import parse_reply, tool_outcome
from g4agent_box.channel import Lost, Reply, receive, send
from g4agent_box.inside.protocol import Head
from g4agent_box.parts import Parts

WORKSPACE = "/workspace"
GRACE = 1.0
"""Seconds past a call's deadline in which the box itself must have ended it."""
END_PATIENCE = 10.0
"""Seconds for the supervisor to end a call when told to, or to exit when the box is closed."""
PRELOAD_PATIENCE = 60.0
FILE_TIMEOUT = 60.0
MAX_LISTING = 32 * MiB
HEAD_SLACK = 1 * MiB
"""Bytes that an answer may have on top of its payload."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """What is left of a request that gave no answer."""

    timed_out: bool


class Holder(Protocol):
    """What a backend keeps of a running box: how to see it, end it and clear it away."""

    backend: str

    def last_words(self) -> str:
        """What the box, or what holds it, last complained of; for messages."""
        ...

    def oom_kills(self) -> int:
        """How many processes of the box the kernel has ended for lack of memory, 0 where that cannot be seen."""
        ...

    async def wait(self) -> None:
        """Waits for the end of every process of the box."""
        ...

    async def kill(self) -> None:
        """Ends every process of the box."""
        ...

    async def release(self) -> None:
        """Removes what is left of a box that has ended."""
        ...


class SupervisedBox:
    """One session's box; see `g4agent.ports.sandbox.Box`. Its supervisor (`inside`) listens on `control`."""

    workspace = PurePosixPath(WORKSPACE)

    def __init__(
        self,
        spec: BoxSpec,
        holder: Holder,
        control: socket.socket,
        degraded: tuple[LimitName, ...],
    ) -> None:
        self._spec = spec
        self._holder = holder
        self._control = control
        self._degraded = degraded
        self._requests = itertools.count(1)
        self._parts = Parts()
        self._running: set[int] = set()
        self._sending = anyio.Lock()
        self._preloading = anyio.Lock()
        self._preloaded = False
        self._closed = False
        self._failure: str | None = None

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
        cwd: str | None = None,
    ) -> ExecResult:
        """Runs a command; 127 means that it was not found, 126 that it cannot be executed."""
        head = {"argv": list(argv), "env": dict(env), "cwd": cwd or "."}
        result, _ = await self._run({"op": "exec"}, head, stdin, timeout)
        return result

    async def call(self, call: PythonCall, *, timeout: float | None = None) -> PythonOutcome:
        """Runs a Python tool. What its module prints while it is imported, once per box, is lost."""
        file = None if call.file is None else str(call.file.resolve())
        packet = {"op": "call", "module": call.module, "attribute": call.attribute, "file": file}
        arguments = json.dumps(dict(call.arguments)).encode()
        await self._preload()
        result, answer = await self._run(packet, {"env": dict(call.env)}, arguments, timeout)
        return tool_outcome(result, answer, self._spec.limits)

    async def read_file(self, path: str, *, max_bytes: int = 16 * MiB) -> bytes:
        head = {"op": "read", "path": _relative(path), "max_bytes": max_bytes}
        return (await self._file_request(head, limit=max_bytes)).body

    async def write_file(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Writes a file, and the folders above it, in one step: readers see the old content or the new."""
        if len(data) > self._spec.limits.file_bytes:
            raise WorkspacePathError(f"{path} would have {len(data)} bytes, more than {self._spec.limits.file_bytes}")
        await self._file_request({"op": "write", "path": _relative(path), "executable": executable}, data)

    async def list_files(self, path: str = ".") -> list[str]:
        head = (await self._file_request({"op": "list", "path": _relative(path)}, limit=MAX_LISTING)).head
        return [str(each) for each in head["paths"]]

    async def snapshot(self) -> bytes:
        """Regular files, folders and links of the workspace; sockets and FIFOs are left out."""
        limit = 4 * self._spec.limits.workspace_bytes  # tar adds up to 1.5 KiB to a file of one byte
        held = self._parts.held
        answer = (await self._file_request({"op": "snapshot"}, b"".join(held), limit=limit)).body
        return self._parts.assemble(answer, held)

    async def restore(self, snapshot: bytes) -> None:
        """Replaces the workspace. A symbolic link comes back as it was; it is never followed out of the workspace."""
        _check_members(snapshot)
        await self._file_request({"op": "restore"}, snapshot)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            self._control.close()
            with anyio.move_on_after(END_PATIENCE):
                await self._holder.wait()
            await self._holder.kill()
            await self._holder.release()

    async def _run(self, packet: Head, head: Head, body: bytes, timeout: float | None) -> tuple[ExecResult, bytes]:
        """Runs a command or a tool; gives the process's fate and what came through its result pipe."""
        limits = self._spec.limits
        timeout = limits.wall_seconds if timeout is None else timeout
        started = time.monotonic()
        kills = self._holder.oom_kills()
        alone = not self._running
        packet = packet | {"seconds": timeout}
        reply = await self._request(packet, head, body, limit=3 * limits.output_bytes, timeout=timeout + GRACE)
        alone = alone and not self._running
        parsed = None if isinstance(reply, _Ended) else parse_reply(reply)
        if parsed is None:
            result = ExecResult(
                None,
                signal.SIGKILL,
                b"",
                b"",
                timed_out=isinstance(reply, _Ended) and reply.timed_out,
                wall_seconds=time.monotonic() - started,
            )
            answer = b""
        else:
            result, answer = parsed
        killed = result.signal == signal.SIGKILL or result.exit_code == 128 + signal.SIGKILL
        # the counter is the box's: with other calls running, only a killed process shows whose shortage it was
        oom = self._holder.oom_kills() > kills and not (result.timed_out or result.idle) and (killed or alone)
        return replace(result, out_of_memory=oom, degraded=self._degraded, backend=self._holder.backend), answer

    async def _file_request(self, head: Head, body: bytes = b"", *, limit: int = 0) -> Reply:
        reply = await self._request({"op": "file"}, head, body, limit=limit, timeout=FILE_TIMEOUT)
        if isinstance(reply, _Ended):
            raise WorkspacePathError("a process of the box ended the file operation", hint="Wait for running calls.")
        if "refused" in reply.head:
            raise WorkspacePathError(str(reply.head["refused"]))
        return reply

    async def _request(self, packet: Head, head: Head, body: bytes, *, limit: int, timeout: float) -> Reply | _Ended:
        """One request and its answer. However it ends, none of its processes is left when this returns."""
        request = next(self._requests)
        ours, theirs = socket.socketpair()
        self._running.add(request)
        answered = False
        try:
            with anyio.move_on_after(timeout) as scope:
                await self._tell(packet | {"id": request}, theirs)
                try:
                    await send(ours, head, body)
                    reply = await receive(ours, limit + HEAD_SLACK)
                    answered = True
                    return reply
                except Lost:
                    pass
        finally:
            ours.close()
            self._running.discard(request)
            if not answered:
                with anyio.CancelScope(shield=True):
                    await self._end(request)
        if self._closed:
            raise self._closed_error()
        return _Ended(scope.cancelled_caught)

    async def _tell(self, packet: Head, theirs: socket.socket) -> None:
        """Sends a packet and one end of a call socket to the supervisor, and closes that end here."""
        with theirs:
            if self._closed:
                raise self._closed_error()
            message = json.dumps(packet).encode()
            async with self._sending:
                while True:
                    try:
                        socket.send_fds(self._control, [message], [theirs.fileno()])
                        return
                    except BlockingIOError:
                        await anyio.wait_writable(self._control)
                    except OSError:
                        break
        raise await self._broken()

    async def _preload(self) -> None:
        """Imports g4agent in the supervisor, before the first call's time starts."""
        async with self._preloading:
            if not self._preloaded:
                if not await self._order({"op": "preload", "id": 0}, PRELOAD_PATIENCE):
                    raise await self._broken()
                self._preloaded = True

    async def _end(self, request: int) -> None:
        """Has the supervisor kill a request's processes, or gives up the box."""
        if self._closed:
            return
        with contextlib.suppress(BoxClosedError):
            if not await self._order({"op": "end", "id": 0, "target": request}, END_PATIENCE):
                await self._broken()

    async def _order(self, packet: Head, patience: float) -> bool:
        """Has the supervisor itself do something; False if it does not within `patience` seconds."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, anyio.move_on_after(patience):
            await self._tell(packet, theirs)
            await anyio.wait_readable(ours)
            return bool(ours.recv(64))
        return False

    async def _broken(self) -> BoxClosedError:
        """Closes a box whose supervisor does not work any more."""
        words = self._holder.last_words()
        self._failure = "the box ended unexpectedly" + (f": {words}" if words else "")
        await self._holder.kill()
        await self.close()
        return self._closed_error()

    def _closed_error(self) -> BoxClosedError:
        if self._failure is None:
            return BoxClosedError("the box was closed", hint="Open a new one.")
        return BoxClosedError(self._failure, hint="Its workspace is lost; open a new box and restore a snapshot.")


def _relative(path: str) -> str:
    """A path in the workspace; an absolute one may be given as it is seen inside."""
    text = os.fspath(path)
    if text == WORKSPACE or text.startswith(f"{WORKSPACE}/"):
        text = posixpath.relpath(text, WORKSPACE)
    if text.startswith("/") or "\0" in text:
        raise WorkspacePathError(f"{path!r} is not a path in the workspace")
    return text


def _check_members(snapshot: bytes) -> None:
    """Refuses an archive as a whole before anything is replaced. Nothing is extracted here."""
    try:
        with tarfile.open(fileobj=io.BytesIO(snapshot), mode="r:") as archive:
            for member in archive:
                for name in [member.name, *([member.linkname] if member.islnk() else [])]:
                    if name.startswith("/") or ".." in name.split("/"):
                        raise WorkspacePathError(f"{name} in the snapshot leaves the workspace")
                if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                    raise WorkspacePathError(f"{member.name} in the snapshot is neither a file, a folder nor a link")
    except tarfile.TarError as error:
        raise WorkspacePathError(f"the snapshot is not a tar archive: {error}") from error
