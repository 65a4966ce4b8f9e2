"""Ports of the box's own loopback that lead to unix sockets, for programs that only speak TCP.

The supervisor listens, so that a port stays its own; a process forked from it carries the bytes, and is forked anew
should a tool kill it.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Mapping

MAX_PAIRS = 64
"""Connections at a time; more of them wait until one ends."""
WINDOW = 256 * 1024
"""Bytes that wait for a slow reader, above which the sender is not read."""
CHUNK = 64 * 1024


def listen(ports: Mapping[str, str]) -> list[tuple[socket.socket, str]]:
    """Listening sockets, each with the path of the unix socket that it leads to. Raises OSError."""
    listeners = []
    for port, path in ports.items():
        listener = socket.socket(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(port)))
        listener.listen(MAX_PAIRS)
        listener.setblocking(False)
        listeners.append((listener, path))
    return listeners


class End:
    """One of a pair of connected sockets."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.peer = self
        self.waiting = bytearray()
        """Bytes on their way to this end."""
        self.ended = False
        """Nothing more comes from this end."""

    @property
    def events(self) -> int:
        """What to poll for."""
        read = select.POLLIN if not self.ended and len(self.peer.waiting) < WINDOW else 0
        return read | (select.POLLOUT if self.waiting else 0)

    def serve(self, events: int) -> None:
        """Reads and writes what is possible. Raises OSError where the connection is broken."""
        if events & select.POLLERR:
            raise ConnectionError
        if events & (select.POLLIN | select.POLLHUP) and not self.ended and len(self.peer.waiting) < WINDOW:
            data = self.socket.recv(CHUNK)
            self.ended = not data
            self.peer.waiting += data
            self.peer.flush()
        elif events & select.POLLHUP and self.waiting:
            raise ConnectionError  # nobody reads any more
        if events & select.POLLOUT:
            self.flush()

    def flush(self) -> None:
        """Writes as much as there is room for; passes the other end's end on after its last byte."""
        with contextlib.suppress(BlockingIOError):
            while self.waiting:
                del self.waiting[: self.socket.send(self.waiting)]
        if self.peer.ended and not self.waiting:
            self.socket.shutdown(socket.SHUT_WR)

    @property
    def finished(self) -> bool:
        """Whether both directions have ended and all bytes are delivered."""
        return self.ended and self.peer.ended and not self.waiting and not self.peer.waiting


def forward(listeners: list[tuple[socket.socket, str]]) -> None:
    """Carries connections until the process is killed."""
    ends: dict[int, End] = {}
    paths = {listener.fileno(): (listener, path) for listener, path in listeners}
    while True:
        poll = select.poll()
        if len(ends) < 2 * MAX_PAIRS:
            for fd in paths:
                poll.register(fd, select.POLLIN)
        for fd, end in ends.items():
            if end.events:
                poll.register(fd, end.events)
        for fd, events in poll.poll():
            if fd in paths:
                _accept(*paths[fd], ends)
            elif fd in ends:
                _serve(ends[fd], events, ends)


def _accept(listener: socket.socket, path: str, ends: dict[int, End]) -> None:
    there = socket.socket(socket.AF_UNIX)
    try:
        here = End(listener.accept()[0])
    except OSError:  # it has gone again
        there.close()
        return
    there.settimeout(1)
    try:
        there.connect(path)
    except OSError:
        there.close()
        here.socket.close()
        return
    other = End(there)
    here.peer, other.peer = other, here
    for end in (here, other):
        ends[end.socket.fileno()] = end


def _serve(end: End, events: int, ends: dict[int, End]) -> None:
    try:
        end.serve(events)
        broken = False
    except BlockingIOError:
        return
    except OSError:
        broken = True
    if broken or end.finished:
        for each in (end, end.peer):
            del ends[each.socket.fileno()]
            each.socket.close()
