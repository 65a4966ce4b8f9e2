"""Split-K decode attention over pages that keep values only: each tile is decoded once, for scores and for sums."""

import triton
import triton.language as tl

from .bits import levels
from .tiles import dot, key_codes, load_query, load_scales, soften, store_sums


@triton.jit
def decode(page, block, segment: tl.constexpr, table, COUNT: tl.constexpr, TILE: tl.constexpr, TYPE: tl.constexpr):
    """All levels of a segment: two tuples (halves of the tokens) of tiles [TILE / 2, COUNT]."""
    STEPS: tl.constexpr = (segment[1] + COUNT - 1) // COUNT
    low, high = (), ()
    for step in tl.static_range(STEPS):
        low_codes, high_codes = key_codes(page, block, segment, step * COUNT, COUNT, TILE)
        low = low + levels(low_codes, segment[2], table, TYPE)
        high = high + levels(high_codes, segment[2], table, TYPE)
    return low, high


@triton.jit
def multiply(tiles, totals, right, segment: tl.constexpr, columns, size, seen, COUNT: tl.constexpr):
    """totals + tiles @ right for both halves; `right` is a pointer to rows of `size` slots, taken transposed."""
    DIMS: tl.constexpr = 1 if len(segment[2][1]) > 0 else 2
    low, high = totals
    for i in tl.static_range(len(tiles[0])):
        part = load_query(right, segment, i // DIMS * COUNT, i % DIMS, COUNT, columns, size, seen)
        low, high = dot(tiles[0][i], part, low), dot(tiles[1][i], part, high)
    return low, high


@triton.jit
def accumulate(sums, position: tl.constexpr, tiles, weights, shrink):
    """Sums of a segment, see `separate.add_values`, from tiles that are there already."""
    added = ()
    for i in tl.static_range(len(tiles[0])):
        total = sums[position + i] * shrink[None, :]
        total = dot(tl.trans(tiles[1][i]), weights[1], dot(tl.trans(tiles[0][i]), weights[0], total))
        added = added + (total,)  # noqa: RUF005
    return added


@triton.jit
def turn_keys(first, second, rope, token, PAIRS: tl.constexpr, TYPE: tl.constexpr):
    """RoPE within a page: members of rotary pairs [TILE / 2, PAIRS] at `token` [TILE / 2]."""
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
    SIZE: tl.constexpr = REST_SIZE + 2 * PAIRS
    split, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    rows, pair = tl.program_id(2) * ROWS + tl.arange(0, ROWS), tl.arange(0, PAIRS)
    seen, every = rows < rows_total, pair >= 0
    query += head * rows_total * REST_SIZE
    turning += head * rows_total * 2 * PAIRS
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
        zeros = tl.zeros((TILE // 2, PAIRS), tl.float32)
        rotary_main = decode(page, block, ROTARY[0], main_levels, COUNT, TILE, TYPE)
        rotary_tail = decode(page, block, ROTARY[1], tail_levels, 16, TILE, TYPE)
        first = multiply(rotary_main, (zeros, zeros), basis, ROTARY[0], pair, 2 * PAIRS, every, COUNT)
        first = multiply(rotary_tail, first, basis, ROTARY[1], pair, 2 * PAIRS, every, 16)
        second = multiply(rotary_main, (zeros, zeros), basis, ROTARY[0], PAIRS + pair, 2 * PAIRS, every, COUNT)
        second = multiply(rotary_tail, second, basis, ROTARY[1], PAIRS + pair, 2 * PAIRS, every, 16)
        first_query, second_query = turn_query(turning, starts + number // tiles * 2 * PAIRS, rows, seen, PAIRS, TYPE)
        token = tl.arange(0, TILE // 2)
        token = (block + token // 16) * 32 + token % 16
        low_first, low_second = turn_keys(first[0], second[0], rope, token, PAIRS, TYPE)
        high_first, high_second = turn_keys(first[1], second[1], rope, token + 16, PAIRS, TYPE)
        zeros = tl.zeros((TILE // 2, ROWS), tl.float32)
        low_turned = dot(low_second, second_query, dot(low_first, first_query, zeros))
        high_turned = dot(high_second, second_query, dot(high_first, first_query, zeros))
        rest_main = decode(page, block, REST[0], main_levels, COUNT, TILE, TYPE)
        rest_tail = decode(page, block, REST[1], tail_levels, 16, TILE, TYPE)
        free = multiply(rest_main, (zeros, zeros), query, REST[0], rows, REST_SIZE, seen, COUNT)
        free = multiply(rest_tail, free, query, REST[1], rows, REST_SIZE, seen, 16)
        low_rest, high_rest = load_scales(page, block, REST_SCALES, TILE)
        low_rotary, high_rotary = load_scales(page, block, ROTARY_SCALES, TILE)
        scores = (
            free[0] * low_rest[:, None] + low_turned * low_rotary[:, None],
            free[1] * high_rest[:, None] + high_turned * high_rotary[:, None],
        )
        weights, best, total, shrink = soften(scores, best, total)
        # Weights times scales stay below 1 in units of the largest scale, as halves need.
        larger = tl.maximum(tl.max(tl.maximum(low_rest, high_rest), 0), tl.max(tl.maximum(low_rotary, high_rotary), 0))
        larger = tl.maximum(unit, larger)
        shrink *= unit / larger
        unit = larger
        for_rest = (
            (weights[0] * (low_rest / unit)[:, None]).to(TYPE), (weights[1] * (high_rest / unit)[:, None]).to(TYPE)
        )  # fmt: skip
        for_rotary = (
            (weights[0] * (low_rotary / unit)[:, None]).to(TYPE), (weights[1] * (high_rotary / unit)[:, None]).to(TYPE)
        )  # fmt: skip
        sums = (
            accumulate(sums, 0, rest_main, for_rest, shrink)
            + accumulate(sums, SUMS[0], rest_tail, for_rest, shrink)
            + accumulate(sums, SUMS[0] + SUMS[1], rotary_main, for_rotary, shrink)
            + accumulate(sums, SUMS[0] + SUMS[1] + SUMS[2], rotary_tail, for_rotary, shrink)
        )
    place = (split * heads + head) * rows_total
    out += place * SIZE
    factor = unit / total
    store_sums(out, sums, REST[0], 0, COUNT, rows, SIZE, seen, factor)
    store_sums(out, sums, REST[1], SUMS[0], 16, rows, SIZE, seen, factor)
    store_sums(out + REST_SIZE, sums, ROTARY[0], SUMS[0] + SUMS[1], COUNT, rows, SIZE, seen, factor)
    store_sums(out + REST_SIZE, sums, ROTARY[1], SUMS[0] + SUMS[1] + SUMS[2], 16, rows, SIZE, seen, factor)
    tl.store(lse + place + rows, best + tl.log2(total), seen)
