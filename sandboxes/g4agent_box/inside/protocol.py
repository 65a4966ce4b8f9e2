"""What host and box say to each other.

Two kinds of unix sockets, both made by the host:

- one *control* socket per box (SOCK_SEQPACKET). The host sends one JSON packet per request, together with one end
  of a fresh *call* socket; the supervisor answers once, `READY`, at the start. At its end of file the supervisor exits
  and the kernel ends every process of the box.
- one *call* socket per request (SOCK_STREAM). The host sends one frame, the process that serves it answers with
  one frame and closes it. End of file without a frame means that this process was killed.

A frame is a JSON head and raw bytes, both with their length in front. The processes that run a tool's own code hold
neither socket.
"""

from __future__ import annotations

import array
import json
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FRAME = struct.Struct(">IQ")
"""Length of the JSON head and of the raw bytes, big-endian."""
TO_THE_END = (1 << 64) - 1
"""As the length of the raw bytes: whatever comes until the end of the connection."""
MAX_HEAD = 64 * 1024 * 1024
READY = b"ready"
TAKEN = b"taken"
"""What a helper says when it has a request, before it does anything for it: until then, another may serve it."""
MAX_PACKET = 128 * 1024
CHUNK = 256 * 1024

Head = dict[str, "Any"]


def pack_head(head: Head, body_length: int) -> bytes:
    """The start of a frame, up to the raw bytes."""
    encoded = json.dumps(head).encode()
    return FRAME.pack(len(encoded), body_length) + encoded


def send_frame(connection: socket.socket, head: Head, *parts: bytes | bytearray) -> None:
    """Sends a whole frame, blocking."""
    connection.sendall(b"".join((pack_head(head, sum(map(len, parts))), *parts)))


def receive_head(connection: socket.socket) -> tuple[Head, int]:
    """The head of a frame and the number of raw bytes that follow, blocking."""
    head_length, body_length = FRAME.unpack(receive_exactly(connection, FRAME.size))
    if head_length > MAX_HEAD:
        raise ConnectionError(f"the head of a frame has {head_length} bytes")
    return json.loads(receive_exactly(connection, head_length)), body_length


def receive_exactly(connection: socket.socket, length: int) -> bytes:
    """Exactly `length` bytes, blocking. Raises ConnectionError at an early end."""
    buffer = bytearray()
    while len(buffer) < length:
        chunk = connection.recv(min(CHUNK, length - len(buffer)))
        if not chunk:
            raise ConnectionError(f"the connection ended after {len(buffer)} of {length} bytes")
        buffer += chunk
    return bytes(buffer)


def send_packet(control: socket.socket, packet: Head, *fds: int) -> None:
    """One JSON packet with file descriptors, as a single message."""
    socket.send_fds(control, [json.dumps(packet).encode()], fds)


def send_at_once(link: socket.socket, packet: Head, *fds: int) -> bool:
    """The same, without waiting: False where the other end is dead, or reads nothing more."""
    rights = array.array("i", fds)
    try:
        link.sendmsg(
            [json.dumps(packet).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT
        )
    except OSError:
        return False
    return True


def receive_packet(control: socket.socket) -> tuple[Head, list[int]] | None:
    """The next packet and its file descriptors, or None at the end."""
    data, fds, _, _ = socket.recv_fds(control, MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    return (json.loads(data), list(fds)) if data else None
