"""From packed bytes to levels, in registers: the mirror of `layout.py` and `codebooks.py`.

Codes are read as 32-bit words. A bundle of b bits is b rows of 16 words, one per lane; a word holds four neighbouring
codes of its lane. Unpacking works on whole words, so four codes at a time.
"""

import triton
import triton.language as tl


@triton.jit
def codevec(rows, n: tl.constexpr, BITS: tl.constexpr):
    """Codevec n of a bundle: words of four codes, a byte each. `rows` are the bundle's b rows, all of one shape."""
    if BITS == 4:
        codes = (rows[n // 2] >> 4 * (n % 2)) & 0x0F0F0F0F
    elif BITS == 3:
        codes = (rows[n // 4] >> 2 * (n % 4)) & 0x03030303 | ((rows[2] >> n) & 0x01010101) << 2
    elif n < BITS:
        codes = rows[n] & (0x01010101 * ((1 << BITS) - 1))
    else:
        codes = (rows[0] >> n) & 0x01010101
        for i in tl.static_range(1, BITS):
            codes |= ((rows[i] >> n) & 0x01010101) << i
    return codes


@triton.jit
def row_of_four(a, b, c, d):
    """Tiles [R, B] side by side: [R, 4 · B], where a thread keeps its four neighbours."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (a.shape[0], a.shape[1] * 4))


@triton.jit
def spread(w0, w1, w2, w3):
    """Words [R, B] of four codevecs in a row → codes, uint16 [R, 16 · B], bundle after bundle."""
    words = row_of_four(w0, w1, w2, w3)
    codes = words.to(tl.uint16), (words >> 16).to(tl.uint16)
    return row_of_four(codes[0] & 0xFF, codes[0] >> 8, codes[1] & 0xFF, codes[1] >> 8)


@triton.jit
def load_codes(segment, lanes, bundles, seen, BITS: tl.constexpr, KEY: tl.constexpr):
    """The codes of some bundles, in two halves of their tokens.

    Args:
        segment: Pointer to a segment's first word.
        lanes: Lane of each row, [R, 1].
        bundles: Number of each bundle, [R, B].
        seen: Which bundles exist, [R, B]; the others give code 0.
        BITS: Of a code.
        KEY: Key order, else value order.

    Returns:
        Two tiles of codes [R, 16 · B], of token & 16 = 0 and of token & 16 = 16. In key order rows are tokens and
        columns units; in value order rows are units and columns tokens.
    """
    words = segment + bundles * (16 * BITS) + lanes
    rows = (tl.load(words, seen, 0),)
    for i in tl.static_range(1, BITS):
        rows = rows + (tl.load(words + 16 * i, seen, 0),)  # noqa: RUF005
    if KEY:
        low = spread(codevec(rows, 0, BITS), codevec(rows, 2, BITS), codevec(rows, 4, BITS), codevec(rows, 6, BITS))
        high = spread(codevec(rows, 1, BITS), codevec(rows, 3, BITS), codevec(rows, 5, BITS), codevec(rows, 7, BITS))
    else:
        low = spread(codevec(rows, 0, BITS), codevec(rows, 1, BITS), codevec(rows, 2, BITS), codevec(rows, 3, BITS))
        high = spread(codevec(rows, 4, BITS), codevec(rows, 5, BITS), codevec(rows, 6, BITS), codevec(rows, 7, BITS))
    return low, high


@triton.jit
def polynomial_levels(codes, BITS: tl.constexpr, TERMS: tl.constexpr, TYPE: tl.constexpr):
    """Levels of scalar codes: an odd polynomial of how far the code is from the middle, x in (−1, 1).

    The code becomes the upper bits of a half's mantissa (1 ≤ half < 2), which needs no conversion of integers.
    """
    one = (codes << (10 - BITS)) | 0x3C00
    x = (one.to(tl.float16, bitcast=True) - (1.5 - 0.5 / (1 << BITS))).to(TYPE)
    x = x + x
    square = x * x
    level = tl.full(x.shape, TERMS[len(TERMS) - 1], TYPE)
    for i in tl.static_range(1, len(TERMS)):
        level = level * square + tl.full(x.shape, TERMS[len(TERMS) - 1 - i], TYPE)
    return level * x


@triton.jit
def pair_levels(codes, table, TYPE: tl.constexpr):
    """Levels of pair codes, both coordinates. A table entry is the two, side by side in one word."""
    both = tl.load(table + codes)
    if TYPE == tl.float32:  # noqa: SIM300
        first = (both & 0xFFFFFFFF).to(tl.uint32).to(tl.float32, bitcast=True)
        second = (both >> 32).to(tl.uint32).to(tl.float32, bitcast=True)
    else:
        first = (both & 0xFFFF).to(tl.uint16).to(TYPE, bitcast=True)
        second = (both >> 16).to(tl.uint16).to(TYPE, bitcast=True)
    return first, second


@triton.jit
def levels(codes, book: tl.constexpr, table, TYPE: tl.constexpr):
    """Codes → one tile of levels per coordinate of a code. `book` is (bits, terms): no terms mean pair codes."""
    if len(book[1]) == 0:
        return pair_levels(codes, table, TYPE)
    else:  # noqa: RET505
        return (polynomial_levels(codes, book[0], book[1], TYPE),)
