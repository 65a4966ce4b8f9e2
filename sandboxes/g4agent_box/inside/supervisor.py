"""Process 1 of a box: takes requests from the host, hands each to a helper, and ends whatever is left over.

It runs no tool code and cannot be signalled from inside (the kernel spares a namespace's process 1), so the workspace
and the calls of others survive whatever one call does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

from g4agent_box.inside import kernel
from g4agent_box.inside.calls import CallLimits, fork_and_run
from g4agent_box.inside.forward import forward, listen
from g4agent_box.inside.helpers import Helper, Pool, Request, serve_commands
from g4agent_box.inside.protocol import READY, Head, receive_packet, send_at_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FORK_SERVER_PLACES = 32
"""Of the 64 places that the control group keeps for the box's own processes, those that a module's import can take."""


SERVER_PLACES = 3
"""Processes of a fork server: itself, and the two that wait for the next call."""
MAX_DESCRIPTORS = 4096
LOADER_IDLE = 0.1
"""Seconds without a request after which the loader starts before it is asked for, in a box with tools' folders."""


class Server:
    """A running fork server."""

    def __init__(self, link: socket.socket) -> None:
        self.pid = 0
        """0 until it is known."""
        self.link = link
        self.helpers: dict[int, int] = {}
        """Request → helper's process, 0 until it is known."""


class Loading:
    """The process that starts the fork servers."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self.link = link
        self.ready = False
        self.waiting: list[socket.socket] = []
        """Of the host, to be told when it is ready."""


class Supervisor:
    """The box's main loop."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        received = receive_packet(control)
        if received is None:
            raise SystemExit("the host closed the box before it started")
        config = received[0]
        self._workspace: str = config["workspace"]
        self._python_paths: list[str] = config["python_paths"]
        self._limits: Head = config["limits"]
        sys.path[len(sys.path) :] = config["sys_path"]
        self._children: set[int] = set()
        """Of this process's forks, those that it has not waited for: one that is dying has closed its link already."""
        self._file_helpers: dict[int, int] = {}
        """Request → process."""
        self._commands = Pool()
        self._loading: Loading | None = None
        self._servers: dict[tuple[str, str | None], Server] = {}
        self._retired: list[Server] = []
        self._listeners = listen(config["ports"])
        self._forwarder = 0
        """Process that serves the listeners, 0 where there is none."""
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Serves until the host closes the control socket; then the kernel ends every process of the box."""
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a handler, process 1 ignores its children's signals
        self._start_forwarder()
        self._control.send(READY)
        while True:
            poll = select.poll()
            servers = {each.link.fileno(): each for each in self._all_servers()}
            helpers = {each.link.fileno(): each for each in self._commands.helpers}
            loading = -1 if self._loading is None else self._loading.link.fileno()
            for fd in (self._control.fileno(), self._wake_read, *servers, *helpers, loading):
                if fd >= 0:
                    poll.register(fd, select.POLLIN)
            eager = self._python_paths and self._loading is None
            ready = {fd for fd, _ in poll.poll(1000 * LOADER_IDLE if eager else None)}
            if not ready:
                with contextlib.suppress(BlockingIOError):
                    self._load()
            for fd in ready & servers.keys():
                self._hear(servers[fd])
            for fd in ready & helpers.keys():
                untaken = self._commands.hear(helpers[fd])
                if untaken is not None:
                    with untaken.connection, contextlib.suppress(BlockingIOError):
                        self._give(untaken)
            if loading in ready:
                self._hear_loading()
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    while os.read(self._wake_read, 4096):
                        pass
                self._reap()
            if self._control.fileno() in ready and not self._serve_request():
                return

    def _start_forwarder(self) -> None:
        """Forks the process that serves the listeners, at the start and whenever a tool has killed it."""

        def work() -> None:
            _close_all_but(*(listener for listener, _ in self._listeners))
            forward(self._listeners)

        self._forwarder = 0
        if self._listeners:
            with contextlib.suppress(BlockingIOError):  # no room for a fork: at the next end of a process
                self._forwarder = self._fork(work)

    def _fork(self, work: Callable[[], None]) -> int:
        pid = fork_and_run(work)
        self._children.add(pid)
        return pid

    def _serve_request(self) -> bool:
        received = receive_packet(self._control)
        if received is None:
            return False
        packet, fds = received
        # if there is no room for a fork, the closed connection tells the host
        with socket.socket(fileno=fds[0]) as connection, contextlib.suppress(BlockingIOError):
            if packet["op"] == "end":
                self._end(packet["target"])
                connection.send(READY)
            elif packet["op"] == "preload":
                self._preload(connection)
            elif packet["op"] == "call":
                self._call(packet, connection)
            elif packet["op"] == "exec":
                self._exec(packet, connection)
            else:
                self._file_helpers[packet["id"]] = self._file_work(connection)
        return True

    def _exec(self, packet: Head, connection: socket.socket) -> None:
        """Hands a command to a helper, which is forked where none waits."""
        order = {"limits": self._call_limits().as_dict(), "deadline": _deadline(packet)}
        self._give(Request(packet["id"], order, connection))

    def _give(self, request: Request) -> None:
        request = Request(request.number, request.packet, request.connection.dup())
        if self._commands.give(request):
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def work() -> None:
            _close_all_but(theirs)
            serve_commands(theirs, self._workspace)

        with theirs:
            try:
                pid = self._fork(work)
            except BlockingIOError:
                ours.close()
                raise
        helper = Helper(pid, ours)
        helper.give(request)
        self._commands.add(helper)

    def _file_work(self, connection: socket.socket) -> int:
        """Forks a helper that reads or writes files of the workspace."""
        from g4agent_box.inside.files import Workspace

        def work() -> None:
            _close_all_but(connection)
            kernel.become_user(self._limits["user"])
            Workspace(connection, self._workspace).serve()

        return self._fork(work)

    def _load(self) -> Loading:
        """The loader, started where it does not run."""
        if self._loading is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

            def work() -> None:
                from g4agent_box.inside.python_tools import Loader

                _close_all_but(theirs)
                Loader(theirs, self._workspace, self._python_paths).serve()

            with theirs:
                try:
                    pid = self._fork(work)
                except BlockingIOError:
                    ours.close()
                    raise
            self._loading = Loading(pid, ours)
        return self._loading

    def _preload(self, connection: socket.socket) -> None:
        """Answers as soon as the loader is ready."""
        loading = self._load()
        if loading.ready:
            connection.send(READY)
        else:
            loading.waiting.append(connection.dup())

    def _hear_loading(self) -> None:
        """The loader is ready, or dead."""
        loading = self._loading
        assert loading is not None
        try:
            loading.ready = bool(loading.link.recv(64))
        except OSError:
            loading.ready = False
        waiting, loading.waiting = loading.waiting, []
        if not loading.ready:
            loading.link.close()
            self._loading = None
        for connection in waiting:
            with connection, contextlib.suppress(OSError):
                if loading.ready:
                    connection.send(READY)
                else:
                    self._preload(connection)

    def _call(self, packet: Head, connection: socket.socket) -> None:
        """Hands a call to its tool's fork server, which is started at the first call."""
        key = (packet["module"], packet["file"])
        server = self._servers.get(key)
        if server is None:
            server = self._servers[key] = self._start_server(packet)
        server.helpers = {request: pid for request, pid in server.helpers.items() if not pid or kernel.exists(pid)}
        server.helpers[packet["id"]] = 0
        limits = self._call_limits()
        request = {
            "id": packet["id"],
            "attribute": packet["attribute"],
            "limits": limits.as_dict(),
            "deadline": _deadline(packet),
        }
        # where the server has just died, the closed connection tells the host
        send_at_once(server.link, request, connection.fileno())

    def _start_server(self, packet: Head) -> Server:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = {name: packet[name] for name in ("module", "attribute", "file")}
        order["limits"] = self._limits_with(FORK_SERVER_PLACES).as_dict()
        with theirs:
            send_at_once(self._load().link, order, theirs.fileno())
        return Server(ours)

    def _hear(self, server: Server) -> None:
        """A fork server tells its or a helper's process, that its tool cannot be loaded, or, by its end, that it is
        dead."""
        try:
            received = receive_packet(server.link)
            packet = {} if received is None else received[0]
            if "server" in packet and not server.pid:
                server.pid = int(packet["server"])
                return
            if "pid" in packet:
                server.helpers[packet["id"]] = int(packet["pid"])
                return
        except (OSError, ValueError, KeyError, TypeError):
            packet = {}
        self._forget(server)
        if packet:
            server.link.shutdown(socket.SHUT_WR)
            self._retired.append(server)
        else:
            server.link.close()
            if server.pid:  # it may not be all gone, and what it leaves behind is not yet an orphan then
                kernel.kill_descendants({server.pid}, including_roots=True)
            self._end_orphans()

    def _forget(self, server: Server) -> None:
        self._servers = {key: each for key, each in self._servers.items() if each is not server}
        self._retired = [each for each in self._retired if each is not server]

    def _end(self, request: int) -> None:
        """Kills one request's processes; on return they are gone."""
        targets = {pid for pid in (self._file_helpers.pop(request, 0),) if pid}
        for command in [each for each in self._commands.helpers if each.request == request]:
            targets.add(command.pid)
            self._commands.drop(command)
        for server in self._all_servers():
            if request in server.helpers:
                helper = server.helpers.pop(request)
                # not yet known: the module is still being imported, and the import, or the start, is what must end
                targets.add(helper or server.pid or (self._loading.pid if self._loading else 0))
                if not helper:
                    self._forget(server)
        kernel.kill_descendants({pid for pid in targets if pid and kernel.exists(pid)}, including_roots=True)
        self._reap()
        self._end_orphans()

    def _end_orphans(self) -> None:
        """Kills children that were not forked here: their helper or fork server died without clearing up. A dying child
        of its own is left alone, as it may still be the parent of what goes on, such as the fork servers."""
        own = self._children | {each.pid for each in self._all_servers()}
        while orphans := kernel.children(os.getpid()) - own:
            kernel.kill_descendants(orphans, including_roots=True)
            self._reap()

    def _reap(self) -> None:
        """Waits for what has ended. Where that did not end well, it may have left processes behind."""
        orphans = False
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                orphans |= bool(status) or pid not in self._children
                self._children.discard(pid)
                self._file_helpers = {id: helper for id, helper in self._file_helpers.items() if helper != pid}
                if pid == self._forwarder:
                    self._forwarder = 0
        if not self._forwarder:
            self._start_forwarder()
        if orphans:
            self._end_orphans()

    def _all_servers(self) -> list[Server]:
        return [*self._servers.values(), *self._retired]

    def _call_limits(self) -> CallLimits:
        """The limits of the next call; the box's own processes come on top of the process limit."""
        servers = self._all_servers()
        own = SERVER_PLACES * len(servers) + sum(len(each.helpers) for each in servers)
        if self._limits["user"] is None:  # else the kernel counts the supervisor and its helpers with their own user
            idle = sum(each.request is None for each in self._commands.helpers)
            own += 3 + len(self._file_helpers) + len(self._commands.helpers) + idle
            own += bool(self._forwarder) + (self._loading is not None)
        return self._limits_with(own)

    def _limits_with(self, own_processes: int) -> CallLimits:
        processes = self._limits["processes"]
        return CallLimits(**self._limits | {"processes": None if processes is None else processes + own_processes})


def _close_all_but(*kept: socket.socket) -> None:
    """In a fork: lets go of what only the supervisor may hold. Its sockets' objects must not be used any more."""
    start = 3
    for number in sorted(each.fileno() for each in kept):
        os.closerange(start, number)
        start = number + 1
    os.closerange(start, MAX_DESCRIPTORS)


def _deadline(packet: Head) -> float:
    """When a call must have ended, on the monotonic clock in here; the host's may be another."""
    seconds: float = packet["seconds"]
    return time.monotonic() + seconds


def main(control_fd: int) -> None:
    """Runs a box's process 1 on the inherited control socket."""
    control = socket.socket(fileno=control_fd)
    _close_all_but(control)
    os.set_inheritable(control_fd, False)
    kernel.set_dumpable(False)
    kernel.become_subreaper()  # for where process 1 is another one
    Supervisor(control).run()
