"""One engine's pages: saved while its cache grows, found again when it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch

from g4agent_torch.kv import DenseKVCache
from g4agent_torch.pages.address import Chain, named, next_address, segments_in, start_of
from g4agent_torch.pages.page_file import Contents, PageDamaged, Stretch
from g4agent_torch.pages.page_store import PageStore, Ref
from g4agent_torch.pages.state import CacheState

KEPT_MARKS: Final = 4
"""Marks whose rows stay on disk: the first, which is the end of the system turn, and the newest."""
DROPPED_AT_ONCE: Final = 8
"""Files that go together, as finding out who else needs them costs a look at everybody's pins."""


class Keeper:
    """Saves and restores the cache of one sequence. Not safe for concurrent use.

    Nothing in here fails: what cannot be saved or read is told in the reports, and computed again where it is needed.

    Args:
        store: The folder.
        root: Address before the first segment, from `root_address`.
        new_cache: Makes an empty cache.
        device: Where caches lie.
    """

    def __init__(
        self, store: PageStore, root: str, new_cache: Callable[[], DenseKVCache], device: torch.device
    ) -> None:
        self._reports: list[str] = []
        self._store, self._new_cache, self._device = store, new_cache, device
        self._chain = Chain(root)
        self._pins = store.pins()
        self._state: CacheState | None = None
        self._pages_noted = self._segments_noted = 0
        """Pages of the present cache, and full segments, that are saved."""
        self._pages: dict[str, int] = {}
        """By name, the pages that this keeper saved: one that the disk had no room for is saved again."""
        self._held: list[Contents] = []
        """The pages, where the cache consists of them: held here, they can be shared with other sessions."""
        self._own_rows: set[Ref] = set()
        """Written by this keeper, and not dropped yet."""
        self._marks: dict[int, set[Ref]] = {}
        """By length, the rows that a mark needs."""
        self._latest: set[Ref] = set()
        """The rows that the last checkpoint needs."""
        self._present: set[Ref] = set()
        """Those that the length saved last needs."""
        self._damaged = False
        """Whether a file was found damaged. Where one is, there may be more: files are then written over others."""

    # Saving -----------------------------------------------------------------------------------------------------------

    def note(self, cache: DenseKVCache, tokens: Sequence[int], passed: int) -> None:
        """Saves the pages and segments that the last pass, of `passed` tokens, has completed, and the place where a
        pass of a prompt ended. Costs nothing where there is none of it."""
        state, length = self._state_of(cache), cache.length
        for index in range(self._pages_noted, state.pages_at(length)):
            ref, contents = self._page_ref(index, tokens), state.page(index)
            if state.shares_pages:
                contents = state.adopt(index, self._store.share(ref, contents, self._device))
                self._held.append(contents)
            self._save(ref, _on_cpu(contents))
            self._pages[ref.name], self._pages_noted = index, index + 1
        for segment in range(self._segments_noted, segments_in(length)):
            if start_of(segment + 1) > state.rows_from(length):
                self._save_rows(self._rows_ref(segment, tokens), state, start_of(segment), start_of(segment + 1))
            self._segments_noted = segment + 1
        if passed > 1 or length == start_of(segments_in(length)):
            self._drop_all_but(self._point(cache, tokens))

    def mark(self, cache: DenseKVCache, tokens: Sequence[int]) -> None:
        """Makes the present length, which `note` knows, one that can be restored for as long as it is a recent mark."""
        self._marks[cache.length] = self._point(cache, tokens)
        lengths = sorted(self._marks)
        for length in lengths[1 : 1 - KEPT_MARKS]:
            del self._marks[length]

    def checkpoint(self, cache: DenseKVCache, tokens: Sequence[int]) -> tuple[int, int]:
        """Makes the present length one that can be restored until the next checkpoint; `flush` waits for the files.

        Returns:
            See `CacheState.bytes_at`.
        """
        self._save_lost_pages(cache)
        self._latest = self._present = self._point(cache, tokens)
        self._drop_all_but(self._latest)
        return self._state_of(cache).bytes_at(cache.length)

    def save(self, cache: DenseKVCache, tokens: Sequence[int]) -> tuple[int, int]:
        """Makes the present length one that can be restored, as well as that of the last checkpoint: within a step, a
        killed process goes back to the latter. Returns what `checkpoint` does."""
        self._save_lost_pages(cache)
        self._present = self._point(cache, tokens)
        return self._state_of(cache).bytes_at(cache.length)

    def flush(self) -> bool:
        """Waits until everything is written; False where something could not be that the length saved last needs."""
        self._store.flush()
        lost = dict(self._store.lost)
        needed = self._pages.keys() | {ref.name for ref in self._present} if lost else set[str]()
        problems = [lost[name] for name in needed & lost.keys()]
        if problems:
            self._report(f"Pages of this session cannot be saved: {problems[0]}")
        return not problems

    def take_reports(self) -> list[str]:
        """What went wrong since the last call, for the user."""
        reports, self._reports = self._reports, []
        return reports

    def cut(self, length: int, cached: int) -> None:
        """Tells that the sequence was cut to `length` tokens, of which the cache holds `cached`."""
        self._chain.cut(length)
        self._marks = {at: refs for at, refs in self._marks.items() if at <= length}
        full = segments_in(cached)
        del self._held[full:]
        self._pages = {name: index for name, index in self._pages.items() if index < full}
        self._pages_noted, self._segments_noted = min(self._pages_noted, full), min(self._segments_noted, full)

    def lose(self) -> None:
        """Tells that the cache is gone."""
        self._state, self._pages_noted, self._segments_noted = None, 0, 0
        self._held.clear()
        self._pages.clear()

    def close(self) -> None:
        """Unpins the files; what was saved stays until the quota needs its place."""
        self.lose()
        self._pins.close()

    # Restoring --------------------------------------------------------------------------------------------------------

    def restore(self, tokens: Sequence[int], beyond: int) -> DenseKVCache | None:
        """A cache of the longest prefix of `tokens` that can be restored, if it is longer than `beyond`.

        The last token is left to compute, for its logits.
        """
        empty = CacheState(self._new_cache())
        for length in self._candidates(tokens, len(tokens) - 1):
            if length <= beyond:
                return None
            try:
                self._restore_at(length, tokens, empty)
            except FileNotFoundError:
                continue
            except PageDamaged as damage:
                self._damaged = True
                self._report(str(damage))
                continue
            except OSError as error:
                self._report(f"Pages of this session cannot be read: {error}")
                continue
            return empty.cache
        return None

    def _restore_at(self, length: int, tokens: Sequence[int], empty: CacheState) -> None:
        pages = [self._page_ref(index, tokens) for index in range(empty.pages_at(length))]
        rows = self._needed_rows(length, tokens, empty)
        for ref in (*rows, *pages):
            if not self._store.has(ref):
                raise FileNotFoundError(ref.name)
        self._pins.add(ref.name for ref in (*rows, *pages))
        read_rows = [self._read(ref) for ref in rows]
        read_pages = [self._read(ref) for ref in pages]
        self._store.touch((*pages, *rows))
        empty.put_back(length, read_pages, read_rows, self._device)
        self._state, self._pages_noted, self._segments_noted = empty, len(pages), segments_in(length)
        self._held = read_pages if empty.shares_pages else []
        self._latest = set(rows)

    def _candidates(self, tokens: Sequence[int], limit: int) -> Iterator[int]:
        """Lengths up to `limit` that may be restorable, longest first."""
        for segment in range(segments_in(limit), -1, -1):
            parent, start = self._chain.before(segment, tokens), start_of(segment)
            longest = min(limit, start_of(segment + 1) - 1)
            for ref in sorted(self._store.rows_behind(parent), key=lambda ref: -ref.tokens):
                end = start + ref.tokens
                if end <= longest and ref.address == next_address(parent, named(tokens, start, end)):
                    yield end

    def _read(self, ref: Ref) -> Contents:
        try:
            return self._store.read(ref, self._device)
        except PageDamaged as damage:
            raise PageDamaged(f"A {ref.kind} file of {ref.tokens} tokens was damaged ({damage}): {ref.name}") from None

    # Names ------------------------------------------------------------------------------------------------------------

    def _page_ref(self, index: int, tokens: Sequence[int]) -> Ref:
        tokens_in = start_of(index + 1) - start_of(index)
        return Ref("page", self._chain.before(index, tokens), tokens_in, self._chain.address(index, tokens))

    def _rows_ref(self, segment: int, tokens: Sequence[int]) -> Ref:
        tokens_in = start_of(segment + 1) - start_of(segment)
        return Ref("rows", self._chain.before(segment, tokens), tokens_in, self._chain.address(segment, tokens))

    def _part_ref(self, length: int, tokens: Sequence[int]) -> Ref:
        """Rows of the part of a segment that ends at `length`. There being such a file says that a pass ended there."""
        full = segments_in(length)
        parent, start = self._chain.before(full, tokens), start_of(full)
        return Ref("rows", parent, length - start, next_address(parent, named(tokens, start, length)))

    def _needed_rows(self, length: int, tokens: Sequence[int], state: CacheState) -> list[Ref]:
        """The rows that a cache of `length` tokens is restored from, in order."""
        first, full = state.rows_from(length), segments_in(length)
        refs = [self._rows_ref(segment, tokens) for segment in range(segments_in(first), full)]
        return [*refs, self._part_ref(length, tokens)]

    # Inside -----------------------------------------------------------------------------------------------------------

    def _state_of(self, cache: DenseKVCache) -> CacheState:
        if self._state is None or self._state.cache is not cache:
            self.lose()
            self._state = CacheState(cache)
        return self._state

    def _point(self, cache: DenseKVCache, tokens: Sequence[int]) -> set[Ref]:
        """Saves the rows behind the last full segment, none if it ends here; returns all that are needed here."""
        state, length, full = self._state_of(cache), cache.length, segments_in(cache.length)
        self._save_rows(self._part_ref(length, tokens), state, start_of(full), length)
        return set(self._needed_rows(length, tokens, state))

    def _save_lost_pages(self, cache: DenseKVCache) -> None:
        """Tries again what could not be written: with one page missing, all behind it are of no use."""
        state = self._state_of(cache)
        for name in dict(self._store.lost):
            if (index := self._pages.get(name)) is not None and index < state.pages_at(cache.length):
                self._save(Ref.parse(name), _on_cpu(state.page(index)))

    def _drop_all_but(self, newest: set[Ref]) -> None:
        """Drops the rows that neither the newest point needs nor a checkpoint or a mark: of a long prompt they would
        take many times what its pages take, and while they are pinned no quota can touch them."""
        outdated = self._own_rows - newest.union(self._latest, *self._marks.values())
        if len(outdated) >= DROPPED_AT_ONCE:
            self._own_rows -= outdated
            self._store.drop(outdated, self._pins)

    def _save_rows(self, ref: Ref, state: CacheState, start: int, end: int) -> None:
        if (self._damaged or not self._store.has(ref)) and (rows := state.rows(start, end)) is not None:
            self._own_rows.add(ref)
            self._save(ref, rows)

    def _save(self, ref: Ref, contents: Contents) -> None:
        try:
            self._pins.add([ref.name])
        except OSError as error:
            self._report(f"Pages of this session cannot be pinned: {error.strerror}")
        else:
            self._store.write(ref, contents, over=self._damaged)

    def _report(self, text: str) -> None:
        if text not in self._reports:
            self._reports.append(text)


def _on_cpu(contents: Contents) -> Contents:
    """The same where the files are written from; copies where it lies elsewhere."""
    return Contents({name: Stretch(s.tensor.cpu().contiguous(), s.position) for name, s in contents.stretches.items()})
