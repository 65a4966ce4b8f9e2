"""Split-K decode attention over pages with separate keys and values. Each code is decoded once for all heads.

Tokens come in two halves of a tile, as codes are packed; keys and values have the same halves.
"""

import triton
import triton.language as tl

from .bits import levels, load_codes
from .tiles import dot, key_codes, load_query, soften, store_sums


@triton.jit
def add_scores(
    scores, page, block, segment: tl.constexpr, table, query, rows, size, seen, COUNT: tl.constexpr,
    TILE: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Adds q · levels over a segment in key order to the scores of both halves, [TILE / 2, N] each."""
    low, high = scores
    for first in range(0, segment[1], COUNT):
        low_codes, high_codes = key_codes(page, block, segment, first, COUNT, TILE)
        low_levels = levels(low_codes, segment[2], table, TYPE)
        high_levels = levels(high_codes, segment[2], table, TYPE)
        for axis in tl.static_range(len(low_levels)):
            part = load_query(query, segment, first, axis, COUNT, rows, size, seen)
            low, high = dot(low_levels[axis], part, low), dot(high_levels[axis], part, high)
    return low, high


@triton.jit
def load_scales(page, block, offset: tl.constexpr, TILE: tl.constexpr):
    """A tile's scales in two halves, float32 [TILE / 2] each."""
    token = tl.arange(0, TILE // 2)
    scales = (page + offset).to(tl.pointer_type(tl.float16)) + (block + token // 16) * 32 + token % 16
    return tl.load(scales).to(tl.float32), tl.load(scales + 16).to(tl.float32)


@triton.jit
def value_codes(page, block, segment: tl.constexpr, first, COUNT: tl.constexpr, PAGE: tl.constexpr, TILE: tl.constexpr):
    """Codes of units first ... first + COUNT − 1 of a segment in value order: two halves [COUNT, TILE / 2]."""
    unit, blocks = first + tl.arange(0, COUNT)[:, None], block + tl.arange(0, TILE // 32)[None, :]
    seen = (unit < segment[1]) & (blocks >= 0)
    words = (page + segment[0]).to(tl.pointer_type(tl.uint32))
    return load_codes(words, unit % 16, unit // 16 * (PAGE // 32) + blocks, seen, segment[2][0], False)


@triton.jit
def add_values(
    sums, position: tl.constexpr, page, block, segment: tl.constexpr, table, weights, shrink, COUNT: tl.constexpr,
    PAGE: tl.constexpr, TILE: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """A segment's sums, [COUNT, N] per chunk and coordinate: sums[position + i] · shrink + levels · weights."""
    STEPS: tl.constexpr = (segment[1] + COUNT - 1) // COUNT
    added = ()
    for step in tl.static_range(STEPS):
        low_codes, high_codes = value_codes(page, block, segment, step * COUNT, COUNT, PAGE, TILE)
        low_levels = levels(low_codes, segment[2], table, TYPE)
        high_levels = levels(high_codes, segment[2], table, TYPE)
        for axis in tl.static_range(len(low_levels)):
            total = sums[position + step * len(low_levels) + axis] * shrink[None, :]
            total = dot(high_levels[axis], weights[1], dot(low_levels[axis], weights[0], total))
            added = added + (total,)  # noqa: RUF005
    return added


@triton.jit
def separate_kernel(
    table, query, main_key_levels, tail_key_levels, main_value_levels, tail_value_levels, out, lse, pages, rows_total,
    KEYS: tl.constexpr, VALUES: tl.constexpr, KEY_SCALES: tl.constexpr, VALUE_SCALES: tl.constexpr,
    HEAD_BYTES: tl.constexpr, SIZE: tl.constexpr, SUMS: tl.constexpr,
    ROWS: tl.constexpr, COUNT: tl.constexpr, PAGE: tl.constexpr, TILE: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """One program: some of the pages, one KV head, ROWS of its queries.

    Args:
        table: Addresses of the pages, int64 [pages].
        query: TYPE [KV, N, SIZE], rotated as keys are, times log2 e.
        main_key_levels: Levels of pair codes, see `pair_levels`; not read for scalar ones. So the three that follow.
        out: Float32 [splits, KV, N, SIZE], rotated as values are.
        lse: Float32 [splits, KV, N], base 2.
        pages: How many.
        rows_total: N.
    """
    split, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    rows = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    seen = rows < rows_total
    query += head * rows_total * SIZE
    best, total = tl.full((ROWS,), -1e30, tl.float32), tl.zeros((ROWS,), tl.float32)
    unit = tl.full((), 6e-8, tl.float32)  # largest scale of a value so far; 6e-8 is the smallest half
    sums = ()
    for _ in tl.static_range(SUMS[0]):
        sums = sums + (tl.zeros((COUNT, ROWS), tl.float32),)  # noqa: RUF005
    for _ in tl.static_range(SUMS[1]):
        sums = sums + (tl.zeros((16, ROWS), tl.float32),)  # noqa: RUF005
    splits = tl.num_programs(0)
    tiles: tl.constexpr = PAGE // TILE
    for number in range(pages * split // splits * tiles, pages * (split + 1) // splits * tiles):
        page = tl.load(table + number // tiles).to(tl.pointer_type(tl.uint8)) + head * HEAD_BYTES
        page = tl.multiple_of(page, 16)
        block = number % tiles * (TILE // 32)
        scores = tl.zeros((TILE // 2, ROWS), tl.float32), tl.zeros((TILE // 2, ROWS), tl.float32)
        scores = add_scores(scores, page, block, KEYS[0], main_key_levels, query, rows, SIZE, seen, COUNT, TILE, TYPE)
        scores = add_scores(scores, page, block, KEYS[1], tail_key_levels, query, rows, SIZE, seen, 16, TILE, TYPE)
        low_scale, high_scale = load_scales(page, block, KEY_SCALES, TILE)
        scores = scores[0] * low_scale[:, None], scores[1] * high_scale[:, None]
        weights, best, total, shrink = soften(scores, best, total)
        low_scale, high_scale = load_scales(page, block, VALUE_SCALES, TILE)
        larger = tl.maximum(unit, tl.maximum(tl.max(low_scale, 0), tl.max(high_scale, 0)))
        shrink *= unit / larger
        unit = larger
        low = (weights[0] * (low_scale / unit)[:, None]).to(TYPE)
        high = (weights[1] * (high_scale / unit)[:, None]).to(TYPE)
        both = low, high
        main = add_values(sums, 0, page, block, VALUES[0], main_value_levels, both, shrink, COUNT, PAGE, TILE, TYPE)
        tail = add_values(sums, SUMS[0], page, block, VALUES[1], tail_value_levels, both, shrink, 16, PAGE, TILE, TYPE)
        sums = main + tail
    place = (split * heads + head) * rows_total
    factor = unit / total
    store_sums(out + place * SIZE, sums, VALUES[0], 0, COUNT, rows, SIZE, seen, factor)
    store_sums(out + place * SIZE, sums, VALUES[1], SUMS[0], 16, rows, SIZE, seen, factor)
    tl.store(lse + place + rows, best + tl.log2(total), seen)
