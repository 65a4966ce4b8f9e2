"""The host's end of a container's standard streams."""

from __future__ import annotations

import os
import socket
import struct
import threading

from g4agent_box.inside.bridge import Bridge

HEADER = struct.Struct(">BxxxI")
"""Of a part of an attached stream: which stream, and its length (Docker Engine API, ContainerAttach)."""
STDERR = 2
KEPT_WORDS = 4000
"""Bytes of the container's standard error that are kept."""


class Unwrap:
    """Takes the standard output out of an attached stream and keeps the end of the standard error."""

    def __init__(self) -> None:
        self.errors = bytearray()
        self._data = bytearray()

    def __call__(self, data: bytes) -> bytes:
        self._data += data
        output = bytearray()
        start = 0
        while len(self._data) - start >= HEADER.size:
            stream, length = HEADER.unpack_from(self._data, start)
            end = start + HEADER.size + length
            if len(self._data) < end:
                break
            part = self._data[start + HEADER.size : end]
            if stream == STDERR:
                self.errors += part
                del self.errors[:-KEPT_WORDS]
            else:
                output += part
            start = end
        del self._data[:start]
        return bytes(output)


class Link:
    """Drains the attached stream in a thread of its own for as long as the container lives.

    Killing the container is a request of its own, from another thread, so neither can wait for the other.
    """

    def __init__(self, attached: socket.socket, control: socket.socket, lease: float) -> None:
        self._attached = attached
        self._unwrap = Unwrap()
        self._bridge = Bridge(control, attached.fileno(), attached.fileno(), lease, self._unwrap)
        self._ended_read, self._ended_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="g4agent-docker-link", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> int:
        """A descriptor that is readable, at its end, once the link is down."""
        return self._ended_read

    def last_words(self) -> str:
        """The end of the container's standard error."""
        return bytes(self._unwrap.errors)[-2000:].decode(errors="replace").strip()

    def cut(self) -> None:
        """Ends the link at once."""
        try:
            self._attached.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def release(self) -> None:
        """Waits for the thread, whose link has been cut, and closes what is open."""
        self._thread.join()
        os.close(self._ended_read)

    def _run(self) -> None:
        try:
            self._bridge.run()
        finally:
            self.cut()
            self._attached.close()
            os.close(self._ended_write)
