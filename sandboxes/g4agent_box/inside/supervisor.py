"""Process 1 of a box: takes requests from the host, forks a helper for each, and ends whatever is left over.

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
from typing import TYPE_CHECKING

from g4agent_box.inside import kernel
from g4agent_box.inside.calls import Call, CallLimits, Order, fork_and_run, run_command
from g4agent_box.inside.forward import forward, listen
from g4agent_box.inside.protocol import READY, Head, receive_exactly, receive_head, receive_packet, send_packet

if TYPE_CHECKING:
    from g4agent_box.inside.python_tools import ToolName


FORK_SERVER_PLACES = 32
"""Of the 64 places that the control group keeps for the box's own processes, those that a module's import can take."""


SERVER_PLACES = 3
"""Processes of a fork server: itself, and the two that wait for the next call."""


class Server:
    """A running fork server."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self.link = link
        self.helpers: dict[int, int] = {}
        """Request → helper's process, 0 until it is known."""


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
        self._helpers: dict[int, int] = {}
        """Request → process, for the helpers forked here."""
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
            for fd in (self._control.fileno(), self._wake_read, *servers):
                poll.register(fd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            for fd in ready & servers.keys():
                self._hear(servers[fd])
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    while os.read(self._wake_read, 4096):
                        pass
                self._reap()
                self._end_orphans()
            if self._control.fileno() in ready and not self._serve_request():
                return

    def _start_forwarder(self) -> None:
        """Forks the process that serves the listeners, at the start and whenever a tool has killed it."""

        def work() -> None:
            listeners, self._listeners = self._listeners, []
            self._close_all()
            forward(listeners)

        self._forwarder = 0
        if self._listeners:
            with contextlib.suppress(BlockingIOError):  # no room for a fork: at the next end of a process
                self._forwarder = fork_and_run(work)

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
                _preload()
                connection.send(READY)
            elif packet["op"] == "call":
                self._call(packet, connection)
            elif packet["op"] == "exec":
                self._helpers[packet["id"]] = fork_and_run(lambda: self._exec(connection, _deadline(packet)))
            else:
                self._helpers[packet["id"]] = self._file_work(connection)
        return True

    def _exec(self, connection: socket.socket, deadline: float) -> None:
        """In the helper: runs a command."""
        limits = self._call_limits()
        self._close_all()
        head, body_length = receive_head(connection)
        stdin = receive_exactly(connection, body_length)
        head["env"] = dict(os.environ) | head["env"]
        head["cwd"] = os.path.join(self._workspace, head["cwd"])
        call = Call(lambda head, body, result: run_command(head["argv"], head["env"], head["cwd"]), connection.close)
        call.run(connection, limits, deadline, Order(head, stdin=stdin))

    def _file_work(self, connection: socket.socket) -> int:
        """Forks a helper that reads or writes files of the workspace."""
        from g4agent_box.inside.files import Workspace

        def work() -> None:
            self._close_all()
            kernel.become_user(self._limits["user"])
            Workspace(connection, self._workspace).serve()

        return fork_and_run(work)

    def _call(self, packet: Head, connection: socket.socket) -> None:
        """Hands a call to its tool's fork server, which is started at the first call."""
        from g4agent_box.inside.python_tools import ToolName

        key = (packet["module"], packet["file"])
        server = self._servers.get(key)
        if server is None:
            server = self._servers[key] = self._start_server(ToolName(key[0], packet["attribute"], key[1]), connection)
        server.helpers = {request: pid for request, pid in server.helpers.items() if not pid or kernel.exists(pid)}
        server.helpers[packet["id"]] = 0
        limits = self._call_limits()
        request = {
            "id": packet["id"],
            "attribute": packet["attribute"],
            "limits": limits._asdict(),
            "deadline": _deadline(packet),
        }
        with contextlib.suppress(OSError):  # the server has just died: the closed connection tells the host
            send_packet(server.link, request, connection.fileno())

    def _start_server(self, name: ToolName, connection: socket.socket) -> Server:
        from g4agent_box.inside.python_tools import ForkServer

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def serve() -> None:
            self._close_all()
            ours.close()
            connection.close()
            os.chdir(self._workspace)
            ForkServer(theirs, name, self._python_paths, self._limits_with(FORK_SERVER_PLACES)).serve()

        pid = fork_and_run(serve)
        theirs.close()
        return Server(pid, ours)

    def _hear(self, server: Server) -> None:
        """A fork server tells a helper's process, that its tool cannot be loaded, or, by its end, that it is dead."""
        try:
            received = receive_packet(server.link)
        except OSError:
            received = None
        if received is not None and "pid" in received[0]:
            server.helpers[received[0]["id"]] = received[0]["pid"]
            return
        self._forget(server)
        if received is not None:
            server.link.shutdown(socket.SHUT_WR)
            self._retired.append(server)
        else:
            server.link.close()

    def _forget(self, server: Server) -> None:
        self._servers = {key: each for key, each in self._servers.items() if each is not server}
        self._retired = [each for each in self._retired if each is not server]

    def _end(self, request: int) -> None:
        """Kills one request's processes; on return they are gone."""
        targets = {pid for pid in (self._helpers.pop(request, 0),) if pid}
        for server in self._all_servers():
            if request in server.helpers:
                helper = server.helpers.pop(request)
                targets.add(helper or server.pid)
                if not helper:  # not yet known: the module is still being imported, and the import is what must end
                    self._forget(server)
        kernel.kill_descendants({pid for pid in targets if kernel.exists(pid)}, including_roots=True)
        self._reap()
        self._end_orphans()

    def _end_orphans(self) -> None:
        """Kills children that were not forked here: their helper or fork server died without clearing up."""
        own = {self._forwarder, *self._helpers.values(), *(each.pid for each in self._all_servers())}
        while orphans := kernel.children(os.getpid()) - own:
            kernel.kill_descendants(orphans, including_roots=True)
            self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._helpers = {request: helper for request, helper in self._helpers.items() if helper != pid}
                if pid == self._forwarder:
                    self._forwarder = 0
        if not self._forwarder:
            self._start_forwarder()

    def _all_servers(self) -> list[Server]:
        return [*self._servers.values(), *self._retired]

    def _call_limits(self) -> CallLimits:
        """The limits of the next call; the box's own processes come on top of the process limit."""
        servers = self._all_servers()
        own = SERVER_PLACES * len(servers) + sum(len(each.helpers) for each in servers)
        if self._limits["user"] is None:  # else the kernel counts the supervisor and its helpers with their own user
            own += 3 + len(self._helpers) + bool(self._forwarder)
        return self._limits_with(own)

    def _limits_with(self, own_processes: int) -> CallLimits:
        processes = self._limits["processes"]
        return CallLimits(**self._limits | {"processes": None if processes is None else processes + own_processes})

    def _close_all(self) -> None:
        """In a fork: lets go of what only the supervisor may hold."""
        self._control.close()
        for server in self._all_servers():
            server.link.close()
        for listener, _ in self._listeners:
            listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)


def _deadline(packet: Head) -> float:
    """When a call must have ended, on the monotonic clock in here; the host's may be another."""
    seconds: float = packet["seconds"]
    return time.monotonic() + seconds


def _preload() -> None:
    # imported late, as in _file_work: a box that only runs commands starts in half the time
    from g4agent_box.inside.python_tools import preload

    preload()


def main(control_fd: int) -> None:
    """Runs a box's process 1 on the inherited control socket."""
    os.closerange(3, control_fd)
    os.closerange(control_fd + 1, 4096)
    os.set_inheritable(control_fd, False)
    kernel.set_dumpable(False)
    kernel.become_subreaper()  # for where process 1 is another one
    control = socket.socket(fileno=control_fd)
    Supervisor(control).run()
