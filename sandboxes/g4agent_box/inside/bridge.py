"""Carries a box's control socket, and the call sockets that are passed over it, over one stream of bytes.

Where host and box share no sockets (a container, reached through its engine), each side runs a `Bridge`: a packet with
a socket that arrives at one side leaves the other side with a new socket, and what is written to the one comes out of
the other. Both sides use the same code.

A frame is its kind, a stream's number, a length, and that many bytes:

- `OPEN` a control packet with a new stream; `PACKET` one without; `DATA` bytes of a stream; `END` no more of them
- `CREDIT` the receiver has passed on `length` bytes (and none follow): the sender never has more than `WINDOW` bytes
  of a stream on their way, so a reader that stalls holds up its own stream and neither memory nor the others
- `PING` the sender lives. A side that hears nothing for `lease` seconds takes the other for dead and ends; in the box
  that ends every process, whatever became of the host and the engine.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable

from g4agent_box.inside.protocol import CHUNK, MAX_PACKET

OPEN, PACKET, DATA, END, CREDIT, PING = range(6)
FRAME = struct.Struct(">BII")
WINDOW = 1 << 20
"""Bytes of one stream on their way."""
BACKLOG = 4 << 20
"""Bytes waiting for the link, above which nothing more is read."""
PINGS_PER_LEASE = 5


class Stream:
    """One passed socket and what is on its way to it."""

    def __init__(self, local: socket.socket) -> None:
        local.setblocking(False)
        self.local = local
        self.incoming = bytearray()
        self.credit = WINDOW
        self.taken = 0
        """Bytes passed on since the last credit was given."""
        self.sent_end = self.got_end = self.deaf = False
        """`deaf`: nobody reads the local socket any more; what comes for it is dropped."""


class Bridge:
    """One side. `control` is the end of a SOCK_SEQPACKET pair whose other end sends or takes the packets."""

    def __init__(
        self,
        control: socket.socket,
        read_fd: int,
        write_fd: int,
        lease: float,
        unwrap: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._control = control
        self._read_fd, self._write_fd = read_fd, write_fd
        self._lease = lease
        self._unwrap = unwrap
        """Takes an engine's own framing off what was read."""
        self._streams: dict[int, Stream] = {}
        self._by_fd: dict[int, int] = {}
        self._next = 1
        self._out = bytearray()
        self._in = bytearray()
        self._ended = False
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    def run(self) -> None:
        """Carries until the control socket or the link ends, or the lease runs out; then closes every stream."""
        heard = pinged = time.monotonic()
        try:
            while not self._ended:
                now = time.monotonic()
                if now - heard > self._lease:
                    return
                if now - pinged >= self._lease / PINGS_PER_LEASE:
                    pinged = now
                    self._send(PING, 0)
                for fd, events in self._poll().poll(1000 * self._lease / PINGS_PER_LEASE / 2):
                    if fd == self._write_fd and events & (select.POLLOUT | select.POLLERR):
                        self._flush()
                    if fd == self._read_fd and events & ~select.POLLOUT:
                        heard = time.monotonic()
                        self._hear()
                    elif fd == self._control.fileno():
                        self._take_packet()
                    elif fd in self._by_fd:
                        self._serve(self._by_fd[fd], events)
        finally:
            for stream in self._streams.values():
                stream.local.close()
            self._control.close()

    def _poll(self) -> select.poll:
        poll = select.poll()
        room = len(self._out) < BACKLOG
        poll.register(self._read_fd, select.POLLIN)
        if self._out:
            wanted = select.POLLOUT | (select.POLLIN if self._write_fd == self._read_fd else 0)
            poll.register(self._write_fd, wanted)
        if room:
            poll.register(self._control, select.POLLIN)
        for stream in self._streams.values():
            events = select.POLLIN if room and not stream.sent_end and stream.credit > 0 else 0
            events |= select.POLLOUT if stream.incoming else 0
            if events:
                poll.register(stream.local, events)
        return poll

    def _send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self._out += FRAME.pack(kind, number, len(payload)) + payload

    def _flush(self) -> None:
        try:
            del self._out[: os.write(self._write_fd, memoryview(self._out)[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self._ended = True

    def _take_packet(self) -> None:
        """A packet of this side: it goes out, with a stream for the socket that came with it."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            data, fds = b"", []
        if not data:
            self._ended = True
        elif fds:
            self._add(self._next, socket.socket(fileno=fds[0]))
            self._send(OPEN, self._next, data)
            self._next += 1
        else:
            self._send(PACKET, 0, data)

    def _hear(self) -> None:
        try:
            data = os.read(self._read_fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended = True
            return
        self._in += self._unwrap(data)
        start = 0
        while len(self._in) - start >= FRAME.size:
            kind, number, length = FRAME.unpack_from(self._in, start)
            end = start + FRAME.size + (0 if kind == CREDIT else length)
            if len(self._in) < end:
                break
            self._handle(kind, number, length, bytes(self._in[start + FRAME.size : end]))
            start = end
        del self._in[:start]

    def _handle(self, kind: int, number: int, length: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if kind == OPEN:
            ours, theirs = socket.socketpair()
            with theirs:
                self._add(number, ours)
                socket.send_fds(self._control, [payload], [theirs.fileno()])
        elif kind == PACKET:
            self._control.send(payload)
        elif stream is None:
            return
        elif kind == DATA:
            stream.incoming += payload
            self._serve(number, select.POLLOUT)
        elif kind == END:
            stream.got_end = True
            self._serve(number, select.POLLOUT)
        elif kind == CREDIT:
            stream.credit += length

    def _add(self, number: int, local: socket.socket) -> None:
        stream = self._streams[number] = Stream(local)
        self._by_fd[stream.local.fileno()] = number

    def _serve(self, number: int, events: int) -> None:
        stream = self._streams[number]
        if events & ~select.POLLOUT and not stream.sent_end and stream.credit > 0:
            self._read_from(number, stream)
        if events & ~select.POLLIN:
            self._write_to(number, stream)
        if stream.sent_end and stream.got_end and not stream.incoming:
            del self._by_fd[stream.local.fileno()], self._streams[number]
            stream.local.close()

    def _read_from(self, number: int, stream: Stream) -> None:
        try:
            data = stream.local.recv(min(CHUNK, stream.credit))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            stream.credit -= len(data)
            self._send(DATA, number, data)
        else:
            stream.sent_end = True
            self._send(END, number)

    def _write_to(self, number: int, stream: Stream) -> None:
        try:
            while stream.incoming:
                sent = len(stream.incoming) if stream.deaf else stream.local.send(memoryview(stream.incoming)[:CHUNK])
                del stream.incoming[:sent]
                stream.taken += sent
        except BlockingIOError:
            pass
        except OSError:
            stream.deaf = True
            self._write_to(number, stream)
            return
        if stream.taken >= WINDOW // 4:
            self._out += FRAME.pack(CREDIT, number, stream.taken)
            stream.taken = 0
        if stream.got_end and not stream.incoming:
            with contextlib.suppress(OSError):
                stream.local.shutdown(socket.SHUT_WR)
