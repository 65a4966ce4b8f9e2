"""One file of keys and values: written whole or not at all, mapped, and believed only if its checksum is right.

    8 bytes    magic
    4 bytes    length of the header, little endian
    header     JSON: the file's full name (what it is of), and of each tensor: name, type, shape, position, offset
    payload    the tensors, each at a multiple of 64 bytes
    32 bytes   SHA-256 of everything before

Numbers are in the machine's byte order, little endian wherever torch runs. A file is written beside its place and
renamed; it is not synced, as the checksum tells of what a loss of power left undone.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

MAGIC: Final = b"g4kvpage"
ALIGNMENT: Final = 64
CHECKSUM_BYTES: Final = 32
PART: Final = ".part"
"""Suffix of files that are being written."""
_TYPES: Final = {str(kind).removeprefix("torch."): kind for kind in (torch.uint8, torch.float32, torch.bfloat16)}


class PageDamaged(Exception):
    """A file is not what its name says. The message says why."""


class Stretch(NamedTuple):
    """A tensor of a file."""

    tensor: Tensor
    position: int
    """Of its first token in the sequence."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Contents:
    """What a file holds. Tensors that were read are views of the mapped file: they must not be written to."""

    stretches: Mapping[str, Stretch]

    @property
    def bytes(self) -> int:
        return sum(stretch.tensor.nbytes for stretch in self.stretches.values())


def write_page(path: Path, contents: Contents) -> int:
    """Writes a file that others see whole or not at all; returns its size. Tensors are contiguous and on the CPU.

    Raises:
        OSError: No space, or the folder is gone. Nothing is left behind.
    """
    entries, offset = [], 0
    for name, (tensor, position) in contents.stretches.items():
        assert tensor.is_contiguous() and tensor.device.type == "cpu", name
        entries.append([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), position, offset])
        offset += _aligned(tensor.nbytes)
    header = json.dumps({"of": path.name, "tensors": entries}).encode()
    start = len(MAGIC) + 4 + len(header)
    opening = MAGIC + struct.pack("<I", len(header)) + header + bytes(_aligned(start) - start)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    digest = hashlib.sha256(opening)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb", buffering=0) as file:
            _write(file, opening)
            for tensor, _ in contents.stretches.values():
                data: memoryview = tensor.view(-1).view(torch.uint8).numpy().data
                padding = bytes(_aligned(tensor.nbytes) - tensor.nbytes)
                for piece in (data, padding):
                    digest.update(piece)
                    _write(file, piece)
            _write(file, digest.digest())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return len(opening) + offset + CHECKSUM_BYTES


def read_page(path: Path) -> Contents:
    """Maps a file and checks all of it.

    Raises:
        FileNotFoundError: There is none.
        PageDamaged: It is cut short, changed, or not the one that its name promises.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(MAGIC) + 4 + CHECKSUM_BYTES:
            raise PageDamaged(f"{size} bytes are no page")
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)  # shared until written to, which nobody does
    view = memoryview(mapped)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise PageDamaged("it is no page")
    if hashlib.sha256(view[:-CHECKSUM_BYTES]).digest() != view[-CHECKSUM_BYTES:]:
        raise PageDamaged("its checksum is wrong")
    (length,) = struct.unpack_from("<I", view, len(MAGIC))
    start = len(MAGIC) + 4 + length
    header: dict[str, Any] = json.loads(view[len(MAGIC) + 4 : start].tobytes())
    if header["of"] != path.name:
        raise PageDamaged(f"it is of {header['of'][:12]}…")
    stretches = {}
    for name, dtype, shape, position, offset in header["tensors"]:
        kind = _TYPES[dtype]
        count = torch.Size(shape).numel()
        tensor = (
            torch.frombuffer(mapped, dtype=kind, count=count, offset=_aligned(start) + offset)
            if count
            else torch.empty(0, dtype=kind)
        )
        stretches[name] = Stretch(tensor.view(shape), position)
    return Contents(stretches)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _write(file: Any, data: bytes | memoryview) -> None:
    """All of it: an unbuffered file may take less at a time."""
    view = memoryview(data)
    while len(view):
        view = view[file.write(view) :]
