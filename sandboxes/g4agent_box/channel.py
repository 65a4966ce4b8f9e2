"""Frames over a call socket, from an event loop (asyncio or trio). The format is that of `inside/protocol.py`."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

import anyio

from g4agent_box.inside.protocol import CHUNK, FRAME, TO_THE_END, Head, pack_head


class Lost(Exception):
    """The process at the other end is gone, or sent something that is no answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's head and raw bytes."""

    head: Head
    body: bytes


async def send(connection: socket.socket, head: Head, body: bytes) -> None:
    """Sends a frame, the only one, and its end. Raises Lost."""
    connection.setblocking(False)
    for part in (pack_head(head, len(body)), body):
        view = memoryview(part)
        while view:
            try:
                view = view[connection.send(view[:CHUNK]) :]
            except BlockingIOError:
                await anyio.wait_writable(connection)
            except OSError as error:
                raise Lost from error
    connection.shutdown(socket.SHUT_WR)


async def receive(connection: socket.socket, limit: int) -> Reply:
    """The one frame of a connection, if it has at most `limit` bytes. Raises Lost."""
    data = bytearray()
    wanted: int | None = None
    while wanted is None or len(data) < wanted:
        try:
            chunk = connection.recv(CHUNK)
        except BlockingIOError:
            await anyio.wait_readable(connection)
            continue
        except OSError as error:
            raise Lost from error
        if not chunk:
            break
        data += chunk
        if len(data) > limit:
            raise Lost
        if wanted is None and len(data) >= FRAME.size:
            wanted = FRAME.size + sum(FRAME.unpack_from(data))
    head_length, body_length = FRAME.unpack_from(data) if wanted is not None else (0, 0)
    start = FRAME.size + head_length
    if wanted is None or len(data) < start or (body_length != TO_THE_END and len(data) != wanted):
        raise Lost
    try:
        head = json.loads(data[FRAME.size : start])
    except (ValueError, RecursionError) as error:
        raise Lost from error
    if not isinstance(head, dict):
        raise Lost
    return Reply(head, bytes(data[start:]))
