"""Pages in huge pages: their bytes are theirs alone, as long as anything reads them, and not longer."""

from __future__ import annotations

import gc
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from g4agent_torch.turboquant import slabs
from g4agent_torch.turboquant.slabs import HUGE, SLAB, in_huge_pages

PAGE = 133_120
"""Bytes of a page of Gemma 4 31B at 4 bits."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Huge pages are Linux's")


@pytest.fixture(autouse=True)
def _own_slabs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(slabs, "_slabs", [])
    yield
    gc.collect()


def page(seed: int, size: int = PAGE) -> Tensor:
    return torch.randint(256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def living() -> int:
    return sum(ref() is not None for ref in slabs._slabs)


def test_pages_keep_their_bytes_and_share_slabs() -> None:
    pages = [in_huge_pages(page(i)) for i in range(130)]
    assert all(torch.equal(copy, page(i)) for i, copy in enumerate(pages))
    assert all(copy.data_ptr() % 64 == 0 and copy.untyped_storage().nbytes() == PAGE for copy in pages)
    assert living() == -(-130 // (SLAB // PAGE))


def test_slabs_lie_in_huge_pages() -> None:
    """The system takes the wish for shared memory, too, and gives it small pages."""
    first = in_huge_pages(page(0))
    assert first.data_ptr() % HUGE == 0
    smaps = Path("/proc/self/smaps").read_text().splitlines()
    start = next(i for i, line in enumerate(smaps) if _covers(line, first.data_ptr()))
    about = {line.split()[0]: line.split()[1:] for line in smaps[start + 1 : start + 30]}
    assert smaps[start].split()[1] == "rw-p" and "hg" in about["VmFlags:"]
    if "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        assert about["THPeligible:"] == ["1"]


def test_a_forked_child_has_pages_of_its_own() -> None:
    """Both would take the same slot next; in shared memory each would read the other's page."""
    kept = in_huge_pages(page(0))
    child = os.fork()
    if child == 0:
        kept.fill_(1)
        mine = [in_huge_pages(page(i)) for i in range(1, 4)]
        os._exit(0 if all(torch.equal(copy, page(i)) for i, copy in enumerate(mine, 1)) else 1)
    later = [in_huge_pages(page(i)) for i in range(4, 7)]
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(kept, page(0)) and all(torch.equal(copy, page(i)) for i, copy in enumerate(later, 4))


def _covers(line: str, address: int) -> bool:
    head, _, rest = line.partition(" ")
    ends = head.split("-")
    return len(ends) == 2 and " " in rest and int(ends[0], 16) <= address < int(ends[1], 16)


def test_a_dead_page_s_slot_is_used_again_but_never_while_a_view_lives() -> None:
    pages = [in_huge_pages(page(i)) for i in range(4)]
    view = pages[1][100:200]
    expected, freed = view.clone(), pages[2].data_ptr()
    del pages[1:3]
    later = [in_huge_pages(page(i)) for i in range(10, 20)]
    assert torch.equal(view, expected)
    assert freed in {copy.data_ptr() for copy in later} and living() == 1


def test_slabs_without_pages_go_back_to_the_system() -> None:
    pages = [in_huge_pages(page(i)) for i in range(130)]
    del pages
    assert living() == 0


def test_sizes_do_not_mix() -> None:
    small, large = in_huge_pages(page(0, 4096)), in_huge_pages(page(1))
    assert torch.equal(small, page(0, 4096)) and torch.equal(large, page(1)) and living() == 2


def test_without_huge_pages_pages_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(mmap.mmap):
        def madvise(self, *args: int) -> None:
            raise OSError("no huge pages")

    monkeypatch.setattr(slabs, "_has_huge_pages", True)
    monkeypatch.setattr(slabs.mmap, "mmap", Refusing)
    first, second = page(0), page(1)
    assert in_huge_pages(first) is first and in_huge_pages(second) is second
