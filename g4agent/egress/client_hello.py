"""The server name in the first message of a TLS connection, which is not yet encrypted.

Sources: RFC 8446, 4.1.2 and 5.1; RFC 6066, 3.
"""

from __future__ import annotations

HANDSHAKE, CLIENT_HELLO, SERVER_NAME, HOST_NAME = 22, 1, 0, 0
MAX_RECORD = 1 << 14
MAX_MESSAGE = 1 << 16


class Unclear(Exception):
    """What came is no whole and well-formed greeting; the text says why."""


def server_name(data: bytes) -> str | None:
    """The name in a greeting, "" where it has none; None where more bytes are needed to tell.

    Raises:
        Unclear: These bytes begin no TLS connection, or one whose name cannot be told for sure.
    """
    message = _message(data)
    return None if message is None else _name(_Reader(message))


def _message(data: bytes) -> bytes | None:
    """The client's greeting without the headers of the records that it comes in, which may be several."""
    message, start = b"", 0
    while len(data) - start >= 5:
        length = int.from_bytes(data[start + 3 : start + 5])
        if data[start] != HANDSHAKE or data[start + 1] != 3 or not 0 < length <= MAX_RECORD:
            raise Unclear("it does not begin with a TLS greeting")
        message += data[start + 5 : start + 5 + length]
        start += 5 + length
        if len(message) >= 4:
            wanted = 4 + int.from_bytes(message[1:4])
            if message[0] != CLIENT_HELLO or wanted > MAX_MESSAGE:
                raise Unclear("it does not begin with a TLS greeting")
            if len(message) >= wanted:
                return message[:wanted]
    return None


def _name(reader: _Reader) -> str:
    reader.take(4 + 2 + 32)  # message header, version, random
    reader.vector(1)  # session
    reader.vector(2)  # ciphers
    reader.vector(1)  # compressions
    names: list[str] = []
    extensions = _Reader(reader.vector(2)) if reader.left else _Reader(b"")
    while extensions.left:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind == SERVER_NAME:
            entries = _Reader(_Reader(body).vector(2))
            while entries.left:
                if entries.number(1) != HOST_NAME:
                    raise Unclear("its TLS greeting names a server in an unknown way")
                names.append(entries.vector(2).decode("ascii", errors="replace").lower())
    if len(names) > 1:
        raise Unclear("its TLS greeting names several servers")
    return names[0] if names else ""


class _Reader:
    """Takes a message apart; Unclear where it is shorter than it says."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise Unclear("its TLS greeting is malformed")
        self._at += length
        return self._data[self._at - length : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        """Bytes with their length, a number of `size` bytes, in front."""
        return self.take(self.number(size))
