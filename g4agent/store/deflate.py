"""Compresses a session's snapshots, each of which is much like the one before it."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator

LEVEL = 1
SPREAD = 16
"""A section ends after one member of so many, on average."""
HELD_BYTES = 16 * 1024 * 1024
BLOCK = 512
"""Of a tar archive."""
_HEADER, _LAST_BLOCK = b"\x78\x01", b"\x03\x00"
_KIND = 156
_DESCRIBE_THE_NEXT = b"xgLK"


class Deflater:
    """Makes zlib streams of tar archives from sections, and compresses a section that it knows only once.

    A section ends where its last member's name says so, and is compressed by itself: the same members come to the same
    bytes, whatever stands before and after them. Any other data is one section. Format: RFC 1950 and 1951.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def compress(self, data: bytes) -> bytes:
        """What `zlib.decompress` makes `data` of."""
        view = memoryview(data)
        parts = [self._section(view[start:end]) for start, end in _sections(data)]
        return b"".join([_HEADER, *parts, _LAST_BLOCK, zlib.adler32(data).to_bytes(4, "big")])

    def _section(self, data: memoryview) -> bytes:
        name = hashlib.blake2b(data, digest_size=16).digest()
        with self._lock:
            if (known := self._known.get(name)) is not None:
                self._known.move_to_end(name)
                return known
        deflating = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        part = deflating.compress(data) + deflating.flush(zlib.Z_FULL_FLUSH)
        with self._lock:
            if name not in self._known:
                self._known[name] = part
                self._size += len(part)
            while self._size > HELD_BYTES:
                self._size -= len(self._known.popitem(last=False)[1])
        return part


def _sections(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the sections begin and end."""
    start = position = 0
    while position + BLOCK <= len(data) and data[position]:
        try:
            size = int(data[position + 124 : position + 136].rstrip(b" \0"), 8)
        except ValueError:  # a size that takes other digits, or no archive
            break
        name = data[position : position + 100]
        described = data[position + _KIND] in _DESCRIBE_THE_NEXT
        position += BLOCK + size + -size % BLOCK
        if not described and zlib.crc32(name) % SPREAD == 0 and position <= len(data):
            yield start, position
            start = position
    if start < len(data):
        yield start, len(data)
