"""The full-precision cache by itself: what it returns, what it keeps, and how far it can be cut back."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_models import WINDOW, text_config
from torch import Tensor

from g4agent_torch.attention import masks
from g4agent_torch.kv import MAX_MARKS, DenseKVCache, DenseKVStore, GrowingLayer, WindowLayer

CONFIG = text_config("31B")
LOCAL, FULL = 0, 5


def write(cache: DenseKVCache, tokens: list[int]) -> tuple[Tensor, Tensor]:
    """Feeds values that say which token they are; returns what the local and the full layer give to attention."""
    rows = torch.tensor(tokens, dtype=torch.float32)[None, None, :, None].expand(1, 2, -1, 4)
    given = [cache.layers.update(rows, rows, index)[0][0, 0, :, 0] for index in range(len(cache.layers.layers))]
    return given[LOCAL], given[FULL]


def test_any_order_of_writing_marking_and_cutting_gives_the_right_past() -> None:
    """The reference is a plain list: the full layer sees all of it, the local one the last window."""
    generator = random.Random(0)
    for _ in range(40):
        cache, past = DenseKVStore(CONFIG).new(), list[int]()
        marks: set[int] = set()
        for token in range(60):
            if past and generator.random() < 0.25:
                wanted = generator.choice([*marks, generator.randint(0, len(past))])
                restored = cache.truncate(wanted)
                assert restored <= wanted and (wanted not in marks or restored == wanted)
                assert restored == cache.length
                del past[restored:]
                marks = {mark for mark in marks if mark <= restored}
            new = [1000 * token + i for i in range(generator.choice([1, 1, 1, 5, WINDOW, 3 * WINDOW]))]
            local, full = write(cache, new)
            assert full.tolist() == past + new
            seen = past[-(WINDOW - 1) :] + new
            assert local.tolist() == seen
            past += new
            if generator.random() < 0.3 and len(marks) < MAX_MARKS:
                cache.mark(len(past))
                marks.add(len(past))


def test_the_last_token_can_always_be_taken_back() -> None:
    """A cut without new tokens behind it has to compute the last one again for its logits."""
    cache = DenseKVStore(CONFIG).new()
    for length in range(1, 5 * WINDOW):
        write(cache, [length])
        assert cache.truncate(length - 1) == length - 1
        write(cache, [length])


def test_a_marked_window_forgets_what_was_cut_after_it() -> None:
    """Two buffers overlap by a window: a cut in the newer one must reach the older one that a mark still holds."""
    cache, full = DenseKVStore(CONFIG).new(), 2 * WINDOW  # a first buffer holds two windows
    for position in range(full - 1):
        write(cache, [position])
    cache.mark(full - 1)
    write(cache, [full - 1])
    write(cache, [full])  # the second buffer begins
    assert cache.truncate(full - 1) == full - 1
    written = list(range(full - 1))
    for position in range(full - 1, 8 * WINDOW):
        write(cache, [1000 + position])
        written.append(1000 + position)
    restored = cache.truncate(full)
    local, everything = write(cache, [7])
    assert everything.tolist() == [*written[:restored], 7]
    assert local.tolist() == everything[-WINDOW:].tolist()


def test_appending_does_not_copy_the_past() -> None:
    """`torch.cat` per token makes every step dearer than the one before."""
    cache = DenseKVStore(CONFIG).new()
    buffers = set()
    for token in range(4000):
        write(cache, [token])
        layer = cache.layers.layers[FULL]
        assert isinstance(layer, GrowingLayer) and layer.keys is not None
        buffers.add(layer.keys.data_ptr())
    assert len(buffers) < 12


def test_marks_are_bounded_and_the_least_useful_goes_first() -> None:
    """A mark of the 31B holds up to 1.6 GB: they must not grow with the steps of a run."""
    cache = DenseKVStore(CONFIG).new()
    gap = 5 * WINDOW
    for index in range(3 * MAX_MARKS):
        write(cache, list(range(gap)))
        if index:
            cache.mark(cache.length)
    assert len({id(span) for span in held_spans(cache)}) <= MAX_MARKS
    newest = cache.length
    write(cache, list(range(gap)))
    assert cache.truncate(newest) == newest
    assert gap <= cache.truncate(newest // 2) <= newest // 2


def test_what_marks_hold_is_counted_once_and_let_go_of() -> None:
    """Buffers of several marks, or present ones, counted twice would have sessions put on disk for nothing."""
    cache = DenseKVStore(CONFIG).new()
    write(cache, list(range(WINDOW)))
    cache.mark(WINDOW)
    cache.mark(WINDOW - 1)
    assert cache.marked_bytes == 0, "they hold what is there anyway"
    write(cache, list(range(5 * WINDOW)))
    layers = sum(hasattr(layer, "span") for layer in cache.layers.layers)
    assert cache.marked_bytes == layers * 2 * (2 * 4 * 4) * 2 * WINDOW
    cache.mark(cache.length, kept=1)
    assert list(cache._marks) == [6 * WINDOW] and cache.marked_bytes == 0
    write(cache, list(range(5 * WINDOW)))
    assert cache.marked_bytes > 0
    cache.forget_marks()
    assert cache.marked_bytes == 0


def held_spans(cache: DenseKVCache) -> list[object]:
    return [spans[0] for spans in cache._marks.values()]


@pytest.mark.parametrize(("past", "length"), [(0, 1), (0, 5), (0, 40), (3, 4), (15, 1), (16, 9), (100, 33), (100, 1)])
def test_masks_are_causal_and_windowed(past: int, length: int) -> None:
    """One key too many or too few changes every answer, slightly."""
    made = masks(past, length, WINDOW, torch.device("cpu"))
    kept = min(past, WINDOW - 1)
    for kind, first in (("full_attention", 0), ("sliding_attention", past - kept)):
        keys = range(first, past + length)
        expected = [
            [key <= query and ((first == 0 and kind == "full_attention") or query - key < WINDOW) for key in keys]
            for query in range(past, past + length)
        ]
        mask = made[kind]
        if mask is None:  # then attention is causal by itself, or the one query sees all
            assert expected == torch.ones(length, len(keys)).tril(len(keys) - length).bool().tolist()
            assert length == 1 or past == 0
        else:
            assert mask[0, 0].tolist() == expected


def test_layers_tell_transformers_their_sizes() -> None:
    """transformers asks them where it builds masks or positions itself."""
    cache = DenseKVStore(CONFIG).new()
    write(cache, list(range(WINDOW + 4)))
    local, full = cache.layers.layers[LOCAL], cache.layers.layers[FULL]
    assert isinstance(local, WindowLayer) and isinstance(full, GrowingLayer)
    assert local.get_mask_sizes(3) == (WINDOW - 1 + 3, 5)
    assert full.get_mask_sizes(3) == (WINDOW + 4 + 3, 0)
    assert (local.get_max_length(), full.get_max_length()) == (WINDOW, -1)
