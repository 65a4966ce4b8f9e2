"""Helpers for commands: processes that serve one command after another.

A helper is the *subreaper* of all that its children start: whatever detaches itself (double fork, setsid) becomes the
helper's own child, so it can be found and killed when the command ends, and no other call's processes are touched. It
runs no command's code, and what is left of an earlier command in its memory, the next one's `execve` removes. The next
command's child is forked already while it waits.

The supervisor knows at any time which helper serves which request, so that ending a request never meets another one.
"""

from __future__ import annotations

import contextlib
import os
import socket

from g4agent_box.inside import kernel
from g4agent_box.inside.calls import Call, CallLimits, Order, run_command
from g4agent_box.inside.protocol import READY, Head, receive_exactly, receive_head, receive_packet, send_at_once

KEPT_IDLE = 1
"""Helpers that stay after commands at the same time."""


class Helper:
    """A helper, as the supervisor holds it."""

    def __init__(self, pid: int, link: socket.socket, request: int) -> None:
        self.pid = pid
        self.link = link
        self.request: int | None = request
        """What it serves; None: it waits."""


class Pool:
    """The helpers of a box."""

    def __init__(self) -> None:
        self.helpers: list[Helper] = []
        self.processes: set[int] = set()
        """Of the helpers, and of those that were let go of and may still be sending an answer."""

    def add(self, helper: Helper) -> None:
        """Takes in a helper."""
        self.helpers.append(helper)
        self.processes.add(helper.pid)

    def give(self, request: int, packet: Head, connection: socket.socket) -> bool:
        """Hands a request to a helper that waits; False where there is none."""
        for helper in [each for each in self.helpers if each.request is None]:
            if send_at_once(helper.link, packet, connection.fileno()):
                helper.request = request
                return True
            self.drop(helper)
        return False

    def hear(self, helper: Helper) -> None:
        """A helper waits again, or is dead."""
        try:
            alive = bool(helper.link.recv(64))
        except OSError:
            alive = False
        helper.request = None
        if not alive or sum(each.request is None for each in self.helpers) > KEPT_IDLE:
            self.drop(helper)

    def drop(self, helper: Helper) -> None:
        """Forgets a helper, which ends if it is not dead already."""
        helper.link.close()
        self.helpers = [each for each in self.helpers if each is not helper]

    def bury(self, pid: int) -> bool:
        """Takes note of a process that has ended; False where it was no helper."""
        for helper in [each for each in self.helpers if each.pid == pid]:
            self.drop(helper)
        known = pid in self.processes
        self.processes.discard(pid)
        return known


def serve_commands(link: socket.socket, workspace: str) -> None:
    """In a helper: serves commands until the supervisor closes the link."""

    def target(head: Head, body: bytes, result: int) -> None:
        run_command(head["argv"], head["env"], head["cwd"])

    kernel.become_subreaper()
    while True:
        call = Call(target, link.close)
        received = receive_packet(link)
        if received is None:
            call.drop()
            return
        packet, fds = received
        with socket.socket(fileno=fds[0]) as connection, contextlib.suppress(ConnectionError):
            if not call.waits():
                call.drop()
                call = Call(target, lambda: _close(link, connection))
            head, length = receive_head(connection)
            head["env"] = dict(os.environ) | head["env"]
            head["cwd"] = os.path.join(workspace, head["cwd"])
            order = Order(head, stdin=receive_exactly(connection, length))
            answer = call.run(CallLimits(**packet["limits"]), packet["deadline"], order)
            link.send(READY)  # first: the host's next request, which the answer brings on, finds this helper free
            answer.send(connection)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        each.close()
