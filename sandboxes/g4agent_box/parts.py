"""Puts snapshots together from what came from the box and what is here since the last one.

The format is that of `inside/snapshot.py`. A box may lie about what it holds: what comes out is as hostile as the
workspace is.
"""

from __future__ import annotations

import struct
import tarfile

from g4agent.errors import WorkspacePathError
from g4agent.ports.sandbox import MiB
from g4agent_box.inside.snapshot import END, LENGTH, NAME_BYTES, NO_NAME

HELD_BYTES = 64 * MiB
"""Of the last snapshot that are kept in memory; what is beyond comes again with the next one."""


class Parts:
    """The parts of a box's last snapshot, by name."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}

    def assemble(self, answer: bytes, held: dict[bytes, bytes]) -> bytes:
        """The archive of an answer to a request that told the names in `held`.

        Raises:
            WorkspacePathError: It is not complete.
        """
        archive: list[bytes] = []
        kept: dict[bytes, bytes] = {}
        room, start = HELD_BYTES, 0
        try:
            while (length := LENGTH.unpack_from(answer, start)[0]) != END:
                start += LENGTH.size + length + NAME_BYTES
                name = answer[start - NAME_BYTES : start]
                part = answer[start - NAME_BYTES - length : start - NAME_BYTES] if length else held[name]
                if len(name) != NAME_BYTES:
                    raise EOFError
                archive.append(part)
                room -= len(part)
                if room >= 0 and name != NO_NAME:
                    kept[name] = part
        except (struct.error, EOFError, KeyError):
            raise WorkspacePathError(
                "the workspace changed while it was archived", hint="Wait for running calls."
            ) from None
        self.held = kept
        return b"".join(archive) + bytes(2 * tarfile.BLOCKSIZE)
