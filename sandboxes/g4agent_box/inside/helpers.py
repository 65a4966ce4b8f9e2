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
from g4agent_box.inside.calls import Call, CallLimits, Order, close_all, run_call, run_command
from g4agent_box.inside.protocol import (
    READY,
    TAKEN,
    Head,
    receive_exactly,
    receive_head,
    receive_packet,
    send_at_once,
)

KEPT_IDLE = 1
"""Helpers that stay after commands at the same time."""


class Request:
    """A command on its way to a helper."""

    def __init__(self, number: int, packet: Head, connection: socket.socket) -> None:
        self.number = number
        self.packet = packet
        self.connection = connection
        """A copy, closed when a helper has taken the request, or never will."""


class Helper:
    """A helper, as the supervisor holds it."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self.link = link
        self.request: int | None = None
        """What it serves; None: it waits."""
        self.untaken: Request | None = None
        """What was sent to it, until it has it: a process that was killed takes in what is sent until it is gone."""

    def give(self, request: Request) -> bool:
        """Hands it a request; False where it is dead."""
        if not send_at_once(self.link, request.packet, request.connection.fileno()):
            return False
        self.request, self.untaken = request.number, request
        return True


class Pool:
    """The helpers of a box."""

    def __init__(self) -> None:
        self.helpers: list[Helper] = []

    def add(self, helper: Helper) -> None:
        """Takes in a helper."""
        self.helpers.append(helper)

    def give(self, request: Request) -> bool:
        """Hands a request to a helper that waits; False where there is none."""
        for helper in [each for each in self.helpers if each.request is None]:
            if helper.give(request):
                return True
            self.drop(helper)
        return False

    def hear(self, helper: Helper) -> Request | None:
        """A helper has taken its request, waits again, or is dead; gives a request that it died without having."""
        try:
            word = helper.link.recv(64)
        except OSError:
            word = b""
        untaken, helper.untaken = helper.untaken, None
        if word == TAKEN:
            if untaken is not None:
                untaken.connection.close()
            return None
        helper.request = None
        if not word or sum(each.request is None for each in self.helpers) > KEPT_IDLE:
            self.drop(helper)
        return untaken

    def drop(self, helper: Helper) -> None:
        """Forgets a helper, which ends if it is not dead already."""
        helper.link.close()
        if helper.untaken is not None:
            helper.untaken.connection.close()
        self.helpers = [each for each in self.helpers if each is not helper]


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
        link.send(TAKEN)
        packet, fds = received
        with socket.socket(fileno=fds[0]) as connection, contextlib.suppress(ConnectionError):
            head, length = receive_head(connection)
            head["env"] = dict(os.environ) | head["env"]
            head["cwd"] = os.path.join(workspace, head["cwd"])
            order = Order(head, stdin=receive_exactly(connection, length))
            answer = run_call(
                call,
                lambda: Call(target, lambda: close_all(link, connection)),
                CallLimits(**packet["limits"]),
                packet["deadline"],
                order,
            )
            link.send(READY)  # first: the host's next request, which the answer brings on, finds this helper free
            answer.send(connection)
