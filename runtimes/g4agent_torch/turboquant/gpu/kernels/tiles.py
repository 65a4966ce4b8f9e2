"""What both attention kernels do with tiles of a page.

Query heads are the N side of every product: the decoded tile is the left operand, straight from registers, so one
decoded code serves all heads that share it.

A segment is a constexpr (first byte, units, (bits, terms), first slot); slots are rotated coordinates in stream order.
"""

import triton
import triton.language as tl

from .bits import load_codes


@triton.jit
def dot(a, b, total):
    return tl.dot(a, b, total, input_precision="ieee", out_dtype=tl.float32)


@triton.jit
def key_codes(page, block, segment: tl.constexpr, first, COUNT: tl.constexpr, TILE: tl.constexpr):
    """Codes of units first ... first + COUNT − 1 of a segment in key order: two halves [TILE / 2, COUNT].

    The tile begins with the page's token 32 · block.
    """
    token, bundle = tl.arange(0, TILE // 2)[:, None], first // 16 + tl.arange(0, COUNT // 16)[None, :]
    seen = (bundle < segment[1] // 16) & (token >= 0)
    bundles = (block + token // 16) * (segment[1] // 16) + bundle
    words = (page + segment[0]).to(tl.pointer_type(tl.uint32))
    return load_codes(words, token % 16, bundles, seen, segment[2][0], True)


@triton.jit
def load_query(query, segment: tl.constexpr, first, axis: tl.constexpr, COUNT: tl.constexpr, rows, size, seen):
    """One coordinate (`axis`) of some units of the queries, [COUNT, N]; zero beyond the segment."""
    DIMS: tl.constexpr = 1 if len(segment[2][1]) > 0 else 2
    unit = first + tl.arange(0, COUNT)[:, None]
    slots = segment[3] + unit * DIMS + axis
    return tl.load(query + rows[None, :] * size + slots, (unit < segment[1]) & seen[None, :], 0)


@triton.jit
def soften(scores, best, total):
    """One step of streaming softmax, base 2.

    Args:
        scores: Tuple of tiles [tokens, N].
        best: Highest scores so far, [N].
        total: Sums of weights so far, [N].

    Returns:
        Weights, new best and total, and what earlier sums are to be multiplied with.
    """
    higher = best
    for i in tl.static_range(len(scores)):
        higher = tl.maximum(higher, tl.max(scores[i], 0))
    shrink = tl.exp2(best - higher)
    total *= shrink
    weights = ()
    for i in tl.static_range(len(scores)):
        weights = weights + (tl.exp2(scores[i] - higher[None, :]),)  # noqa: RUF005
        total += tl.sum(weights[i], 0)
    return weights, higher, total, shrink


@triton.jit
def store_sums(out, sums, segment: tl.constexpr, position: tl.constexpr, COUNT: tl.constexpr, rows, size, seen, factor):
    """Writes a segment's sums, from sums[position] on, to out [rows, size]; returns the next position."""
    DIMS: tl.constexpr = 1 if len(segment[2][1]) > 0 else 2
    STEPS: tl.constexpr = (segment[1] + COUNT - 1) // COUNT
    for step in tl.static_range(STEPS):
        unit = step * COUNT + tl.arange(0, COUNT)[:, None]
        for axis in tl.static_range(DIMS):
            slots = segment[3] + unit * DIMS + axis
            tl.store(
                out + rows[None, :] * size + slots,
                sums[position + step * DIMS + axis] * factor[None, :],
                (unit < segment[1]) & seen[None, :],
            )
