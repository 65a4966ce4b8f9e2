"""A cache that is taken apart and put together again goes on as if nothing had happened, to the bit."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from tiny_models import WINDOW, text_config

from g4agent_torch.kv import DenseKVCache, DenseKVStore, WindowLayer
from g4agent_torch.pages.address import segments_in, start_of
from g4agent_torch.pages.page_file import Contents
from g4agent_torch.pages.state import CacheState
from g4agent_torch.turboquant.cache import PagedLayer
from g4agent_torch.turboquant.formats import LayerFormat

CPU = torch.device("cpu")
SIZE = 32
WIDE = 300


class PagedStore:
    """A compressed full layer between two windows, a narrow and a wide one."""

    def new(self) -> DenseKVCache:
        return DenseKVCache([WindowLayer(WINDOW), PagedLayer(LayerFormat(2, SIZE, "4")), WindowLayer(WIDE)])


STORES = {"full precision": DenseKVStore(text_config("31B")), "compressed": PagedStore()}


def feed(cache: DenseKVCache, count: int, generator: torch.Generator) -> list[torch.Tensor]:
    """New tokens into every layer; returns all that attention would read."""
    seen: list[torch.Tensor] = []
    for index, layer in enumerate(cache.layers.layers):
        keys, values = torch.randn(2, 1, 2, count, SIZE, generator=generator)
        given = cache.layers.update(keys, values, index)
        seen += [layer.attend(torch.ones(2, count, SIZE))] if isinstance(layer, PagedLayer) else given
    return seen


class Saved:
    """What is saved of a cache while it grows: a page as soon as there is one, and the rows of every full segment."""

    def __init__(self, cache: DenseKVCache) -> None:
        self.state = CacheState(cache)
        self.pages: list[Contents] = []
        self.rows: list[Contents | None] = []

    def note(self) -> None:
        length = self.state.cache.length
        for index in range(len(self.pages), self.state.pages_at(length)):
            self.pages.append(self.state.page(index))
        for segment in range(len(self.rows), segments_in(length)):
            self.rows.append(self.state.rows(start_of(segment), start_of(segment + 1)))

    def again(self, empty: DenseKVCache, length: int, point: Contents | None) -> DenseKVCache:
        state, full = CacheState(empty), segments_in(length)
        first = next(i for i in range(full, -1, -1) if start_of(i) <= self.state.rows_from(length))
        rows = [rows for rows in [*self.rows[first:full], *([point] if point else [])] if rows is not None]
        state.put_back(length, self.pages[: state.pages_at(length)], rows, CPU)
        return empty


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("seed", range(4))
def test_a_cache_put_back_anywhere_goes_on_the_same(kind: str, seed: int) -> None:
    """At full segments, at points between them, short of a window and beyond, and in portions of any size."""
    store, chance, generator = STORES[kind], random.Random(seed), torch.Generator().manual_seed(seed)
    cache = store.new()
    saved = Saved(cache)
    checked = 0
    while cache.length < 1100:
        feed(cache, chance.choice([1, 1, 2, 30, 144, 256, 400]), generator)
        saved.note()
        if chance.random() < 0.3:  # to the end of a segment
            feed(cache, start_of(segments_in(cache.length) + 1) - cache.length, generator)
        saved.note()
        at, whole = cache.length, start_of(segments_in(cache.length))
        point = saved.state.rows(whole, at) if at > whole else None
        again = saved.again(store.new(), at, point)
        assert again.length == at
        twin = saved.again(store.new(), at, point)  # the original must stay as it is
        for count in (1, 3, 200):
            numbers = generator.get_state()
            expected = feed(twin, count, generator)
            generator.set_state(numbers)
            for a, b in zip(feed(again, count, generator), expected, strict=True):
                assert torch.equal(a, b)
        numbers = generator.get_state()
        other = saved.again(store.new(), at, point)
        a = feed(other, 5, generator)
        generator.set_state(numbers)
        b = feed(cache, 5, generator)
        assert all(itertools.starmap(torch.equal, zip(a, b, strict=True)))
        saved.note()
        checked += 1
    assert checked > 3


@pytest.mark.parametrize("kind", STORES)
def test_what_was_saved_does_not_change_with_the_cache(kind: str) -> None:
    """Files are written later: a cut and other tokens in the meantime must not reach them."""
    store, generator = STORES[kind], torch.Generator().manual_seed(0)
    cache = store.new()
    feed(cache, 330, generator)
    cache.mark(330)
    saved = Saved(cache)
    saved.note()
    point = saved.state.rows(start_of(segments_in(330)), 330)
    assert point is not None
    before = [s.tensor.clone() for c in [*saved.pages, point] for s in c.stretches.values()]
    feed(cache, 100, generator)
    assert cache.truncate(330) == 330
    cache.truncate(320)
    feed(cache, 400, generator)
    after = [s.tensor for c in [*saved.pages, point] for s in c.stretches.values()]
    assert all(itertools.starmap(torch.equal, zip(before, after, strict=True)))


def test_rows_that_are_gone_are_not_made_up() -> None:
    """A cut back as far as a window reaches leaves one row too few: there is no point there."""
    cache, generator = STORES["compressed"].new(), torch.Generator().manual_seed(0)
    for _ in range(4):
        feed(cache, 50, generator)
    state = CacheState(cache)
    assert state.rows(0, 200) is not None
    floor = max(layer.span.floor for layer in cache.layers.layers)
    assert cache.truncate(floor) == floor
    assert state.rows(0, floor) is None
