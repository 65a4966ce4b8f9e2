"""The folder of pages: written in the background, read checked, held once in memory by all sessions of the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from weakref import WeakValueDictionary

import torch

from g4agent_torch.pages.page_file import Contents, PageDamaged, Stretch, read_page, write_page
from g4agent_torch.pages.pins import Pins, guard, pinned_names
from g4agent_torch.pages.quota import NAME, clean_up

DEFAULT_QUOTA: Final = 20_000_000_000
"""Bytes that the folder may take."""
QUEUE_BYTES: Final = 256 << 20
"""What may wait to be written. Computing waits beyond it."""
SWEEPS_PER_QUOTA: Final = 16
"""A clean-up is due each time that a sixteenth of the quota was written."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Names a file."""

    kind: Literal["page", "rows"]
    parent: str
    """Address of what comes before."""
    tokens: int
    address: str
    """Of the tokens behind `parent`."""

    @property
    def name(self) -> str:
        return f"{self.parent}-{self.tokens}-{self.address}.{self.kind}"

    @classmethod
    def parse(cls, name: str) -> Ref:
        stem, _, kind = name.partition(".")
        parent, tokens, address = stem.split("-")
        assert kind in ("page", "rows"), name
        return cls("page" if kind == "page" else "rows", parent, int(tokens), address)


class PageStore:
    """One folder. Made by `opened`; safe to use from any thread.

    Args:
        folder: Where the files lie; private to the user. Created if need be.
        quota: Bytes that it may take.
    """

    def __init__(self, folder: Path, quota: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.quota = folder, quota
        self.problem: str | None = None
        """Why the last file could not be written; None where it could."""
        self.lost: dict[str, str] = {}
        """Names of the files that could not be written, and why; those that could be since are no longer here."""
        self._known: WeakValueDictionary[str, Contents] = WeakValueDictionary()
        self._waiting = 0
        self._room = threading.Condition()
        self._unswept = 0
        _writer.submit(self._clean_up)

    def pins(self) -> Pins:
        """A new list of files that must stay."""
        return Pins(self.folder)

    def path(self, ref: Ref) -> Path:
        return self.folder / ref.parent[:2] / ref.name

    def has(self, ref: Ref) -> bool:
        """Whether the file is there; it may still turn out damaged."""
        return self.path(ref).exists()

    def rows_behind(self, parent: str) -> list[Ref]:
        """The rows that begin where `parent` ends, of whatever tokens."""
        found = self.folder.joinpath(parent[:2]).glob(f"{parent}-*.rows")
        return [Ref.parse(path.name) for path in found if NAME.fullmatch(path.name)]

    def read(self, ref: Ref, device: torch.device) -> Contents:
        """What a file holds, on the device. What the process holds already is not read again.

        Raises:
            FileNotFoundError: There is none.
            PageDamaged: It is not what its name says. It is removed, to be written again.
        """
        key = f"{ref.name} on {device}"
        if (held := self._known.get(key)) is not None:
            return held
        try:
            contents = read_page(self.path(ref))
        except PageDamaged:
            self.path(ref).unlink(missing_ok=True)
            raise
        if device.type != "cpu":
            moved = {name: Stretch(s.tensor.to(device), s.position) for name, s in contents.stretches.items()}
            contents = Contents(moved)
        return self._known.setdefault(key, contents) if ref.kind == "page" else contents

    def share(self, ref: Ref, contents: Contents, device: torch.device) -> Contents:
        """Has `read` give what this process computed on the device; returns what it gives, which may be another's."""
        return self._known.setdefault(f"{ref.name} on {device}", contents)

    def touch(self, refs: Iterable[Ref]) -> None:
        """Marks files as used now."""
        for ref in refs:
            with suppress(OSError):
                os.utime(self.path(ref))

    def write(self, ref: Ref, contents: Contents, *, over: bool = False) -> None:
        """Writes a file in the background, unless it is there, or `over` it. The tensors must not change any more.

        Failing is no error: `problem` tells, and the next file is tried again.
        """
        size = contents.bytes
        with self._room:
            self._room.wait_for(lambda: self._waiting == 0 or self._waiting + size <= QUEUE_BYTES)
            self._waiting += size
        _writer.submit(self._write, ref, contents, size, over)

    def drop(self, refs: Iterable[Ref], pins: Pins) -> None:
        """Removes files in the background that nobody but the holder of `pins` has pinned."""
        _writer.submit(self._drop, list(refs), pins.path)

    def flush(self) -> None:
        """Waits until all that was given to `write` before is in its place, or has failed."""
        _writer.submit(lambda: None).result()

    def _write(self, ref: Ref, contents: Contents, size: int, over: bool) -> None:
        path = self.path(ref)
        try:
            if over or not path.exists():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                self._unswept += write_page(path, contents)
            self.problem = None
            self.lost.pop(ref.name, None)
        except OSError as error:
            self.lost[ref.name] = self.problem = f"{error.strerror or error}: {self.folder}"
        finally:
            with self._room:
                self._waiting -= size
                self._room.notify_all()
        if self._unswept > self.quota // SWEEPS_PER_QUOTA:
            self._clean_up()

    def _drop(self, refs: list[Ref], pins: Path) -> None:
        with suppress(OSError), guard(self.folder, alone=True):
            needed = pinned_names(self.folder, but=pins)
            for ref in refs:
                self.lost.pop(ref.name, None)
                if ref.name not in needed:
                    self.path(ref).unlink(missing_ok=True)

    def _clean_up(self) -> None:
        self._unswept = 0
        with suppress(OSError):  # the folder is gone, or not ours to change: nothing can be freed
            clean_up(self.folder, self.quota)


_writer: Final = ThreadPoolExecutor(1, "g4agent-kv-pages")
"""Writes for all folders; ends with the process, after its last file."""
_opened: WeakValueDictionary[Path, PageStore] = WeakValueDictionary()
_opening: Final = threading.Lock()


def opened(folder: Path, quota: int = DEFAULT_QUOTA) -> PageStore:
    """The process's store at a folder. Raises OSError where the folder cannot be made."""
    with _opening:
        place = folder.resolve()
        store = _opened.get(place)
        if store is None:
            store = _opened[place] = PageStore(place, quota)
        store.quota = quota
        return store
