"""The folder: who may use which file, and what goes when it is full."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from page_samples import ROOT, contents, ref, same

from g4agent_torch.pages.page_file import PageDamaged
from g4agent_torch.pages.page_store import PageStore, Ref, opened
from g4agent_torch.pages.quota import clean_up, files

CPU = torch.device("cpu")
SIZE = 10_000


def chain(store: PageStore, length: int, seed: int, age: float) -> list[Ref]:
    """Pages of one sequence, last used `age` seconds ago."""
    refs: list[Ref] = []
    for index in range(length):
        refs.append(ref(1000 * seed + index, refs[-1].address if refs else ROOT))
        store.write(refs[-1], contents(index, SIZE))
    store.flush()
    for made in refs:
        os.utime(store.path(made), (time.time() - age,) * 2)
    return refs


def there(store: PageStore, refs: list[Ref]) -> list[bool]:
    return [store.has(ref) for ref in refs]


def test_what_was_written_is_read_and_shared(tmp_path: Path) -> None:
    store = opened(tmp_path / "pages")
    assert opened(tmp_path / "pages") is store
    store.write(ref(), contents())
    store.flush()
    first, second = store.read(ref(), CPU), store.read(ref(), CPU)
    assert same(first, contents()) and first is second, "equal pages are in memory once"
    with pytest.raises(FileNotFoundError):
        store.read(ref(1), CPU)
    assert (tmp_path / "pages").stat().st_mode & 0o077 == 0


def test_an_equal_page_is_written_once(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for _ in range(3):
        store.write(ref(), contents())
    store.flush()
    (found,) = files(tmp_path)
    inode = found.path.stat().st_ino
    store.write(ref(), contents())
    store.flush()
    assert found.path.stat().st_ino == inode


def test_a_damaged_file_is_removed_and_can_be_written_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write(ref(), contents())
    store.flush()
    path = store.path(ref())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PageDamaged, match="checksum"):
        store.read(ref(), CPU)
    assert not path.exists()
    store.write(ref(), contents())
    store.flush()
    assert same(store.read(ref(), CPU), contents())


def test_a_full_disk_is_told_and_no_error(tmp_path: Path) -> None:
    """A run must not die because its memory cannot be kept."""
    store = opened(tmp_path)
    store.flush()
    for name in (ref().parent[:2],):
        (tmp_path / name).write_text("a file where a folder should be")
    store.write(ref(), contents())
    store.flush()
    assert store.problem is not None
    (tmp_path / ref().parent[:2]).unlink()
    store.write(ref(), contents())
    store.flush()
    assert store.problem is None and store.has(ref())


def test_the_longest_unused_goes_first_and_ends_before_starts(tmp_path: Path) -> None:
    store = opened(tmp_path)
    old, young = chain(store, 4, 1, age=1000), chain(store, 4, 2, age=10)
    total = sum(file.size for file in files(tmp_path))
    freed = clean_up(tmp_path, int(total * 0.85))
    assert freed == pytest.approx(total / 4, rel=0.05)
    assert there(store, old) == [True, True, False, False]
    assert there(store, young) == [True] * 4


def test_a_start_that_a_younger_end_needs_is_young_itself(tmp_path: Path) -> None:
    """The system turn of every session of an agent is its oldest file, and the most useful one."""
    store = opened(tmp_path)
    trunk = chain(store, 2, 1, age=5000)
    other = chain(store, 3, 3, age=100)
    branch = ref(9, trunk[-1].address)
    store.write(branch, contents(9, SIZE))
    store.flush()
    total = sum(file.size for file in files(tmp_path))
    clean_up(tmp_path, int(total * 0.62))
    assert there(store, [*trunk, branch]) == [True] * 3
    assert not all(there(store, other))


def test_what_a_live_process_uses_is_never_touched(tmp_path: Path) -> None:
    """Not even where the quota is far too small; and what a dead one used is free at once."""
    store = opened(tmp_path)
    mine, theirs, free = (chain(store, 2, seed, age=100) for seed in (1, 2, 3))
    pins = store.pins()
    pins.add(ref.name for ref in mine)
    code = (
        "import sys; from pathlib import Path; from g4agent_torch.pages.pins import Pins\n"
        "pins = Pins(Path(sys.argv[1])); pins.add(sys.argv[2:]); print('pinned', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), *(ref.name for ref in theirs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"pinned\n"
        clean_up(tmp_path, 0)
        assert there(store, [*mine, *theirs, *free]) == [True] * 4 + [False] * 2
        store.drop([*mine[:1], *theirs[:1]], pins)
        store.flush()
        assert there(store, [*mine, *theirs]) == [False, True, True, True]
        process.kill()
    clean_up(tmp_path, 0)
    assert there(store, [*mine, *theirs]) == [False, True, False, False]
    pins.close()
    clean_up(tmp_path, 0)
    assert not list(files(tmp_path)) and not list((tmp_path / "pins").iterdir())


def test_the_quota_holds_while_pages_are_written(tmp_path: Path) -> None:
    quota = 30 * SIZE
    store = opened(tmp_path, quota)
    for seed in range(30):
        chain(store, 4, seed, age=1000 - seed)
    assert sum(file.size for file in files(tmp_path)) < quota * 1.1


def test_half_written_files_are_swept_when_they_are_old(tmp_path: Path) -> None:
    store = opened(tmp_path)
    chain(store, 1, 0, age=0)
    (made,) = files(tmp_path)
    fresh, abandoned = (made.path.with_name(f"{made.path.name}.{pid}.part") for pid in (1, 2))
    for part in (fresh, abandoned):
        part.write_bytes(b"half")
    os.utime(abandoned, (time.time() - 4000,) * 2)
    clean_up(tmp_path, 1 << 30)
    assert fresh.exists() and not abandoned.exists() and made.path.exists()
