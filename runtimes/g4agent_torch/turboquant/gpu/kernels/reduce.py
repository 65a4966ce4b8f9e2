"""Puts the splits of decode attention together."""

import triton
import triton.language as tl


@triton.jit
def reduce_kernel(
    parts, lses, out, lse, splits, rows_total, SPLITS: tl.constexpr, SIZE: tl.constexpr, COUNT: tl.constexpr
):
    """One program: COUNT coordinates of one row.

    Args:
        parts: Float32 [splits, rows, SIZE].
        lses: Float32 [splits, rows], base 2.
        out: Float32 [rows, SIZE].
        lse: Float32 [rows], base e.
        splits: At most SPLITS, a power of two.
        rows_total: Rows.
    """
    row, part = tl.program_id(0), tl.arange(0, SPLITS)
    slots = tl.program_id(1) * COUNT + tl.arange(0, COUNT)
    scores = tl.load(lses + part * rows_total + row, part < splits, -float("inf"))
    best = tl.max(scores, 0)
    weights = tl.exp2(scores - best)
    total = tl.sum(weights, 0)
    places = (part[:, None] * rows_total + row) * SIZE + slots[None, :]
    values = tl.load(parts + places, (part[:, None] < splits) & (slots[None, :] < SIZE), 0)
    tl.store(out + row * SIZE + slots, tl.sum(values * weights[:, None], 0) / total, slots < SIZE)
    if tl.program_id(1) == 0:
        tl.store(lse + row, (best + tl.log2(total)) * 0.6931471805599453)
