"""Split-K decode attention over pages that keep values only.

A tile is decoded twice, for scores and for sums, the second time from what the first left in the L1 cache: held in
between, 512 x 64 levels take half of all registers and spill.
"""

import triton
import triton.language as tl

from .bits import levels
from .tiles import dot, key_codes, load_query, soften, store_sums


@triton.jit
def decode(
    page, block, segment: tl.constexpr, first, table, COUNT: tl.constexpr, TILE: tl.constexpr, TYPE: tl.constexpr
):
    """Levels of units first ... first + COUNT − 1, per coordinate of a code [TILE, COUNT]. Low halves come first."""
    low_codes, high_codes = key_codes(page, block, segment, first, COUNT, TILE)
    low, high = levels(low_codes, segment[2], table, TYPE), levels(high_codes, segment[2], table, TYPE)
    tiles = ()
    for axis in tl.static_range(len(low)):
        tile = tl.reshape(tl.permute(tl.join(low[axis], high[axis]), (2, 0, 1)), (TILE, COUNT))
        tiles = tiles + (tile,)  # noqa: RUF005
    return tiles


@triton.jit
def add_products(
    total, page, block, segment: tl.constexpr, table, right, columns, size, seen, COUNT: tl.constexpr,
    TILE: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """total + levels of a segment · transposed rows `columns` of a matrix with `size` slots a row."""
    for first in range(0, segment[1], COUNT):
        tile = decode(page, block, segment, first, table, COUNT, TILE, TYPE)
        for axis in tl.static_range(len(tile)):
            total = dot(tile[axis], load_query(right, segment, first, axis, COUNT, columns, size, seen), total)
    return total


@triton.jit
def add_values(
    sums, position: tl.constexpr, page, block, segment: tl.constexpr, table, weights, shrink, COUNT: tl.constexpr,
    TILE: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Sums of a segment in key order; see `separate.add_values`."""
    STEPS: tl.constexpr = (segment[1] + COUNT - 1) // COUNT
    added = ()
    for step in tl.static_range(STEPS):
        tile = decode(page, block, segment, step * COUNT, table, COUNT, TILE, TYPE)
        for axis in tl.static_range(len(tile)):
            total = sums[position + step * len(tile) + axis] * shrink[None, :]
            added = added + (dot(tl.trans(tile[axis]), weights, total),)  # noqa: RUF005
    return added


@triton.jit
def tile_tokens(block, TILE: tl.constexpr):
    """Tokens of a tile's rows within the page, [TILE]."""
    row = tl.arange(0, TILE)
    return (block + row % (TILE // 2) // 16) * 32 + row // (TILE // 2) * 16 + row % 16


@triton.jit
def turn_keys(first, second, rope, token, PAIRS: tl.constexpr, TYPE: tl.constexpr):
    """RoPE within a page: members of rotary pairs [TILE, PAIRS] at `token` [TILE]."""
    angles = rope + token[:, None] * (2 * PAIRS) + tl.arange(0, PAIRS)[None, :]
    cos, sin = tl.load(angles).to(tl.float32), tl.load(angles + PAIRS).to(tl.float32)
    return (first * cos - second * sin).to(TYPE), (second * cos + first * sin).to(TYPE)


@triton.jit
def turn_query(query, start, rows, seen, PAIRS: tl.constexpr, TYPE: tl.constexpr):
    """RoPE backwards, to the page's start: members of rotary pairs, [PAIRS, N] each."""
    pair = tl.arange(0, PAIRS)
    cos, sin = tl.load(start + pair)[:, None], tl.load(start + PAIRS + pair)[:, None]
    places = query + rows[None, :] * (2 * PAIRS) + pair[:, None]
    first, second = tl.load(places, seen[None, :], 0), tl.load(places + PAIRS, seen[None, :], 0)
    return (first * cos + second * sin).to(TYPE), (second * cos - first * sin).to(TYPE)


@triton.jit
def value_only_kernel(
    table, query, turning, main_levels, tail_levels, basis, rope, starts, out, lse, pages, rows_total,
    REST: tl.constexpr, ROTARY: tl.constexpr, REST_SCALES: tl.constexpr, ROTARY_SCALES: tl.constexpr,
    HEAD_BYTES: tl.constexpr, REST_SIZE: tl.constexpr, PAIRS: tl.constexpr, SUMS: tl.constexpr,
    ROWS: tl.constexpr, COUNT: tl.constexpr, PAGE: tl.constexpr, TILE: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """One program: some of the pages, one KV head, ROWS of its queries. With SIZE = REST_SIZE + 2 · PAIRS:

    Args:
        table: Addresses of the pages, int64 [pages].
        query: The position-free part, TYPE [KV, N, REST_SIZE], times k_norm and log2 e, rotated as the rest is.
        turning: The rotary part, float32 [KV, N, 2 · PAIRS], times log2 e, not rotated.
        main_levels: Levels of pair codes, see `pair_levels`; so `tail_levels`.
        basis: What brings rotary slots back to dimensions, times k_norm: TYPE [2 · PAIRS dimensions, 2 · PAIRS slots].
        rope: Cosines and sines within a page, TYPE [PAGE, 2, PAIRS].
        starts: Cosines and sines of the pages' first positions, float32 [pages, 2, PAIRS].
        out: Float32 [splits, KV, N, SIZE], rotated as the streams are.
        lse: Float32 [splits, KV, N], base 2.
        pages: How many.
        rows_total: N.
    """
    width: tl.constexpr = 2 * PAIRS
    SIZE: tl.constexpr = REST_SIZE + width
    split, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    rows, pair = tl.program_id(2) * ROWS + tl.arange(0, ROWS), tl.arange(0, PAIRS)
    seen, every = rows < rows_total, pair >= 0
    query += head * rows_total * REST_SIZE
    turning += head * rows_total * width
    best, total = tl.full((ROWS,), -1e30, tl.float32), tl.zeros((ROWS,), tl.float32)
    unit = tl.full((), 6e-8, tl.float32)  # largest scale so far; 6e-8 is the smallest half
    sums = ()
    for part in tl.static_range(4):
        for _ in tl.static_range(SUMS[part]):
            if part % 2 == 0:
                sums = sums + (tl.zeros((COUNT, ROWS), tl.float32),)  # noqa: RUF005
            else:
                sums = sums + (tl.zeros((16, ROWS), tl.float32),)  # noqa: RUF005
    splits = tl.num_programs(0)
    tiles: tl.constexpr = PAGE // TILE
    for number in range(pages * split // splits * tiles, pages * (split + 1) // splits * tiles):
        page = tl.load(table + number // tiles).to(tl.pointer_type(tl.uint8)) + head * HEAD_BYTES
        page = tl.multiple_of(page, 16)
        block = number % tiles * (TILE // 32)
        token = tile_tokens(block, TILE)
        first, second = tl.zeros((TILE, PAIRS), tl.float32), tl.zeros((TILE, PAIRS), tl.float32)
        first = add_products(first, page, block, ROTARY[0], main_levels, basis, pair, width, every, COUNT, TILE, TYPE)
        first = add_products(first, page, block, ROTARY[1], tail_levels, basis, pair, width, every, 16, TILE, TYPE)
        last = PAIRS + pair
        second = add_products(second, page, block, ROTARY[0], main_levels, basis, last, width, every, COUNT, TILE, TYPE)
        second = add_products(second, page, block, ROTARY[1], tail_levels, basis, last, width, every, 16, TILE, TYPE)
        first, second = turn_keys(first, second, rope, token, PAIRS, TYPE)
        query_first, query_second = turn_query(turning, starts + number // tiles * width, rows, seen, PAIRS, TYPE)
        turned = dot(second, query_second, dot(first, query_first, tl.zeros((TILE, ROWS), tl.float32)))
        free = tl.zeros((TILE, ROWS), tl.float32)
        free = add_products(free, page, block, REST[0], main_levels, query, rows, REST_SIZE, seen, COUNT, TILE, TYPE)
        free = add_products(free, page, block, REST[1], tail_levels, query, rows, REST_SIZE, seen, 16, TILE, TYPE)
        rest_scale = tl.load((page + REST_SCALES).to(tl.pointer_type(tl.float16)) + token).to(tl.float32)
        rotary_scale = tl.load((page + ROTARY_SCALES).to(tl.pointer_type(tl.float16)) + token).to(tl.float32)
        scores = free * rest_scale[:, None] + turned * rotary_scale[:, None]
        weights, best, total, shrink = soften((scores,), best, total)
        # Weights times scales stay below 1 in units of the largest scale, as halves need.
        larger = tl.maximum(unit, tl.max(tl.maximum(rest_scale, rotary_scale), 0))
        shrink *= unit / larger
        unit = larger
        for_rest = (weights[0] * (rest_scale / unit)[:, None]).to(TYPE)
        for_rotary = (weights[0] * (rotary_scale / unit)[:, None]).to(TYPE)
        at: tl.constexpr = SUMS[0] + SUMS[1]
        sums = (
            add_values(sums, 0, page, block, REST[0], main_levels, for_rest, shrink, COUNT, TILE, TYPE)
            + add_values(sums, SUMS[0], page, block, REST[1], tail_levels, for_rest, shrink, 16, TILE, TYPE)
            + add_values(sums, at, page, block, ROTARY[0], main_levels, for_rotary, shrink, COUNT, TILE, TYPE)
            + add_values(sums, at + SUMS[2], page, block, ROTARY[1], tail_levels, for_rotary, shrink, 16, TILE, TYPE)
        )
    place = (split * heads + head) * rows_total
    out += place * SIZE
    factor = unit / total
    store_sums(out, sums, REST[0], 0, COUNT, rows, SIZE, seen, factor)
    store_sums(out, sums, REST[1], SUMS[0], 16, rows, SIZE, seen, factor)
    store_sums(out + REST_SIZE, sums, ROTARY[0], SUMS[0] + SUMS[1], COUNT, rows, SIZE, seen, factor)
    store_sums(out + REST_SIZE, sums, ROTARY[1], SUMS[0] + SUMS[1] + SUMS[2], 16, rows, SIZE, seen, factor)
    tl.store(lse + place + rows, best + tl.log2(total), seen)
