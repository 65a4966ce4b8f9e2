"""Where pages lie in memory: side by side in the system's huge pages, which spare the processor page-table walks.

A page of codes is a tenth of a huge page. Each keeps a storage of its own: when it dies, its slot is for the next page
of its size. Memory goes back to the system when a whole slab has no pages.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from collections import deque
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

HUGE: Final = 2 << 20
"""Bytes of a huge page on x86-64, and on Arm with 4 KB pages."""
SLAB: Final = 4 * HUGE
"""What is not touched yet takes no memory."""


class Pages(tuple[Tensor, ...]):
    """Pages that are read together, in order."""

    @cached_property
    def addresses(self) -> ctypes.Array[ctypes.c_void_p]:
        """Where each begins, for a kernel. Asking all tensors takes as long as reading some of the pages."""
        return (ctypes.c_void_p * len(self))(*map(Tensor.data_ptr, self))


class Slab:
    """Slots of one size.

    Raises:
        OSError: The system has no huge pages.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory has no huge pages
        self._memory = mmap.mmap(-1, SLAB + HUGE, flags=private)
        self._memory.madvise(mmap.MADV_HUGEPAGE)
        start = -ctypes.addressof(ctypes.c_byte.from_buffer(self._memory)) % HUGE
        self.free = deque(range(start, start + SLAB - size + 1, size))
        """Offsets, the next one first."""

    def page(self, offset: int) -> Tensor:
        """A slot as a tensor, which gives it back when its storage dies; until then the slab lives."""
        slot = (ctypes.c_uint8 * self.size).from_buffer(self._memory, offset)
        weakref.finalize(slot, _give_back, self, offset).atexit = False
        return torch.frombuffer(slot, dtype=torch.uint8)


def _give_back(slab: Slab, offset: int) -> None:
    slab.free.appendleft(offset)


_slabs: list[weakref.ref[Slab]] = []
_lock = threading.Lock()
_has_huge_pages = hasattr(mmap, "MADV_HUGEPAGE")


def in_huge_pages(page: Tensor) -> Tensor:
    """A page, uint8 [page_bytes], moved into huge pages; itself where there are none, or on another device."""
    global _has_huge_pages
    size = page.nbytes
    if not _has_huge_pages or page.device.type != "cpu" or not 0 < size <= HUGE:
        return page
    with _lock:
        try:
            slab, offset = _slot(size)
        except OSError:
            _has_huge_pages = False
            return page
    return slab.page(offset).copy_(page)


def _after_fork() -> None:
    """A child's copy of the lock may be held by a thread that it does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _slot(size: int) -> tuple[Slab, int]:
    for ref in reversed(_slabs):
        slab = ref()
        if slab is not None and slab.size == size and slab.free:
            return slab, slab.free.popleft()
    _slabs[:] = [ref for ref in _slabs if ref() is not None]
    slab = Slab(size)
    _slabs.append(weakref.ref(slab))
    return slab, slab.free.popleft()
