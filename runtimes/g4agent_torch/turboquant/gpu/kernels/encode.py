"""Encoding a page: rotate, quantise, pack. The arithmetic of `rotation.py`, `codec.py` and `layout.py`, in their order.

Additions come in the order of the PyTorch code, and products and sums are not fused, so pages come out the same.
"""

import triton
import triton.language as tl


@triton.jit
def butterflies(x, LOG: tl.constexpr):
    """Sylvester's Hadamard transform of [B, 2^LOG], at distance 1, 2, 4, ..."""
    B: tl.constexpr = x.shape[0]
    for stage in tl.static_range(LOG):
        pairs = tl.reshape(x, (B, 1 << (LOG - 1 - stage), 2, 1 << stage))
        low, high = tl.split(tl.permute(pairs, (0, 1, 3, 2)))
        x = tl.reshape(tl.permute(tl.join(low + high, low - high), (0, 1, 3, 2)), (B, 1 << LOG))
    return x


@triton.jit
def rotate_kernel(
    x, signs, out, vectors, norm, SIZE: tl.constexpr, PALEY: tl.constexpr, LOG: tl.constexpr, BLOCK: tl.constexpr
):
    """`Rotation.forward` of float32 [vectors, SIZE]; PALEY is the matrix of order 12, or () for a power of two."""
    POWER: tl.constexpr = 1 << LOG
    vector, column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None], tl.arange(0, POWER)[None, :]
    places, seen = vector * SIZE + column, (vector < vectors) & (column >= 0)
    rows = ()
    for i in tl.static_range(SIZE // POWER):
        signed = tl.load(x + places + i * POWER, seen, 0) * tl.load(signs + i * POWER + column)
        rows = rows + (butterflies(signed, LOG),)  # noqa: RUF005
    if len(PALEY) == 0:
        tl.store(out + places, rows[0] * norm, seen)
    else:
        for i in tl.static_range(len(PALEY)):
            total = rows[0] if PALEY[i][0] > 0 else -rows[0]
            for j in tl.static_range(1, len(PALEY)):
                total = total + rows[j] if PALEY[i][j] > 0 else total - rows[j]
            tl.store(out + places + i * POWER, total * norm, seen)


@triton.jit
def tree_sum(x, LOG: tl.constexpr):
    """Sums [B, 2^LOG] over the columns by halving: [B]."""
    B: tl.constexpr = x.shape[0]
    for stage in tl.static_range(LOG):
        low, high = tl.split(tl.permute(tl.reshape(x, (B, 2, 1 << (LOG - 1 - stage))), (0, 2, 1)))
        x = low + high
    return tl.reshape(x, (B,))


@triton.jit
def cell(u):
    """The cell of `Codebook`'s grid that a coordinate lies in."""
    return tl.minimum(tl.maximum(tl.floor(u * 64), -256), 255).to(tl.int32) + 256


@triton.jit
def quantise(first, second, side, cells, midpoints, levels, DIMS: tl.constexpr):
    """Coordinates (of pairs: both, and which of them is meant) → codes and levels."""
    if DIMS == 2:
        codes = tl.load(cells + cell(first) * 512 + cell(second)).to(tl.int32)
    else:
        below = tl.load(cells + cell(first)).to(tl.int32)
        codes = below + (first > tl.load(midpoints + below)).to(tl.int32)
    return codes, tl.load(levels + codes * DIMS + side)


@triton.jit
def quantise_kernel(
    y, main_cells, main_midpoints, main_levels, tail_cells, tail_midpoints, tail_levels, main_codes, tail_codes, out,
    vectors, SIZE: tl.constexpr, HEAD: tl.constexpr, DIMS: tl.constexpr, UNBIASED: tl.constexpr,
    PAGE: tl.constexpr, HEAD_BYTES: tl.constexpr, SCALES: tl.constexpr, LOG: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Codes and scales of rotated vectors, float32 [vectors, SIZE]; vectors are tokens of one head after the other.

    SIZE is POWER = 2^LOG or 3 · POWER: coordinate 3m + r is column m of tile r, so that sums halve as in `codec.py`.

    Args:
        y: The vectors.
        main_cells: The main codebook's tables; so the five that follow.
        main_codes: Uint8 [vectors, units]: codes of coordinates before HEAD; so `tail_codes` of those behind.
        out: The page; scales of a head begin at byte SCALES of its HEAD_BYTES.
        vectors: How many.
    """
    POWER: tl.constexpr = 1 << LOG
    vector = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    seen = vector < vectors
    PARTS: tl.constexpr = SIZE // POWER
    power = tl.zeros((BLOCK,), tl.float32)
    for r in tl.static_range(PARTS):
        column = PARTS * tl.arange(0, POWER)[None, :] + r
        part = tl.load(y + vector[:, None] * SIZE + column, seen[:, None], 0)
        power += tree_sum(part * part, LOG)
    factor = tl.where(power > 0, tl.sqrt_rn(tl.div_rn(1.0, power) * SIZE), 0.0)
    products = tl.zeros((BLOCK,), tl.float32)
    for r in tl.static_range(PARTS):
        column = PARTS * tl.arange(0, POWER)[None, :] + r
        rows = y + vector[:, None] * SIZE
        first = tl.load(rows + column // DIMS * DIMS, seen[:, None], 0) * factor[:, None]
        second = tl.load(rows + column // DIMS * DIMS + DIMS - 1, seen[:, None], 0) * factor[:, None]
        side = column % DIMS
        main, main_level = quantise(first, second, side, main_cells, main_midpoints, main_levels, DIMS)
        tail, tail_level = quantise(first, second, side, tail_cells, tail_midpoints, tail_levels, DIMS)
        once, unit = seen[:, None] & (side == 0), column // DIMS
        places = main_codes + vector[:, None] * (HEAD // DIMS) + unit
        tl.store(places, main.to(tl.uint8), once & (column < HEAD))
        places = tail_codes + vector[:, None] * ((SIZE - HEAD) // DIMS) + unit - HEAD // DIMS
        tl.store(places, tail.to(tl.uint8), once & (column >= HEAD))
        level = tl.where(column < HEAD, main_level, tail_level)
        other = tl.load(rows + column, seen[:, None], 0) if UNBIASED else level
        products += tree_sum(other * level, LOG)
    scale = tl.div_rn(power, products)
    if not UNBIASED:
        scale = tl.sqrt_rn(scale)
    scale = tl.minimum(tl.where(power > 0, scale, 0.0), 65504.0)
    places = (out + vector // PAGE * HEAD_BYTES + SCALES).to(tl.pointer_type(tl.float16)) + vector % PAGE
    tl.store(places, scale.to(tl.float16), seen)


@triton.jit
def pack_kernel(
    codes, out, UNITS: tl.constexpr, BITS: tl.constexpr, KEY: tl.constexpr, PAGE: tl.constexpr,
    HEAD_BYTES: tl.constexpr, START: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Codes of a segment, uint8 [KV, PAGE, UNITS] → its bundles, from byte START of each head on."""
    COUNT: tl.constexpr = PAGE // 32 * (UNITS // 16)
    bundle, byte = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None], tl.arange(0, 64)[None, :]
    seen = (bundle < COUNT) & (byte >= 0)
    codes += tl.program_id(1) * PAGE * UNITS
    vectors = ()
    for n in tl.static_range(8):
        if KEY:
            token = bundle // (UNITS // 16) * 32 + n % 2 * 16 + byte // 4
            unit = bundle % (UNITS // 16) * 16 + n // 2 * 4 + byte % 4
        else:
            token = bundle % (PAGE // 32) * 32 + n * 4 + byte % 4
            unit = bundle // (PAGE // 32) * 16 + byte // 4
        vectors = vectors + (tl.load(codes + token * UNITS + unit, seen, 0).to(tl.int32),)  # noqa: RUF005
    places = out + tl.program_id(1) * HEAD_BYTES + START + bundle * (64 * BITS) + byte
    for i in tl.static_range(BITS):
        if BITS == 4:
            row = vectors[2 * i] | vectors[2 * i + 1] << 4
        elif BITS == 3:
            row = tl.zeros((BLOCK, 64), tl.int32)
            for n in tl.static_range(4 if i < 2 else 8):
                row |= (vectors[4 * i + n] & 3) << 2 * n if i < 2 else vectors[n] >> 2 << n
        else:
            row = vectors[i]
            for n in tl.static_range(BITS, 8):
                row |= (vectors[n] >> i & 1) << n
        tl.store(places + 64 * i, row.to(tl.uint8), seen)
