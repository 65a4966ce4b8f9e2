"""The codec against exact figures: distortion, bias, bytes, odd inputs, and one vector at a time."""

from __future__ import annotations

import pytest
import torch

from g4agent_torch.turboquant import codebooks
from g4agent_torch.turboquant.codec import RATES, Codec, Scale, codec
from g4agent_torch.turboquant.layout import Order
from g4agent_torch.turboquant.prod import ProdCodec

torch.set_num_threads(1)
SIZES = (64, 128, 256, 512)
EXACT = {1: 0.36338, 2: 0.11748, 3: 0.03455, 4: 0.009501, 5: 0.002505}
PAIRS = {4: 0.1076, 5: 0.0570, 6: 0.0296, 7: 0.0153}
SEGMENTS = {"4": (EXACT[4], EXACT[3], 16), "3.5": (PAIRS[7], PAIRS[6], 32), "2.5": (PAIRS[5], PAIRS[4], 32)}


def normal(vectors: int, size: int) -> torch.Tensor:
    return torch.randn(vectors, size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("size", (*SIZES, 32, 96, 384))
def test_a_rate_counts_everything_and_packing_loses_nothing(size: int, rate: str, order: Order) -> None:
    made = codec(size, rate, Scale.NORM, order)
    codes = made.quantise(normal(128, size))
    stream = made.pack(codes)
    assert stream.untyped_storage().nbytes() == 128 * size * float(rate) / 8
    back = made.unpack(stream, 128)
    assert torch.equal(back.scales, codes.scales)
    assert all(torch.equal(a, b) for a, b in zip(back.segments, codes.segments, strict=True))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("size", SIZES)
def test_distortion_and_slope(size: int, rate: str) -> None:
    """At a finite size coordinates are a little better than normal (Beta): the table is an upper bound."""
    x = normal(12_800, size).view(-1, 128, size)
    main, tail, width = SEGMENTS[rate]
    expected = (main * (size - width) + tail * width) / size
    biased, unbiased = (codec(size, rate, scale, Order.KEY) for scale in (Scale.NORM, Scale.UNBIASED))
    error = (biased.decode(biased.encode(x), 128) - x).square().sum() / x.square().sum()
    assert expected * 0.91 < error < expected * 1.02
    decoded = unbiased.decode(unbiased.encode(x), 128)
    assert (decoded * x).sum() / x.square().sum() == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize("bits", EXACT)
def test_scalar_codebooks_are_lloyd_max(bits: int) -> None:
    u = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0))
    book = codebooks.scalar(bits)
    codes = book.quantise(u)
    assert (book.lookup(codes) - u).square().mean() == pytest.approx(EXACT[bits], rel=0.02)
    midpoints = (book.levels[1:, 0] + book.levels[:-1, 0]) / 2
    assert torch.equal(codes, torch.bucketize(u, midpoints).to(torch.uint8))


@pytest.mark.parametrize("rate", RATES)
def test_a_vector_alone_has_the_bits_it_has_in_a_batch(rate: str) -> None:
    made = codec(256, rate, Scale.UNBIASED, Order.VALUE)
    y = made.rotation.forward(normal(64, 256))
    whole = made.quantise(y)
    for i in range(64):
        alone = made.quantise(made.rotation.forward(normal(64, 256)[i : i + 1]))
        assert torch.equal(alone.scales[0], whole.scales[i])
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone.segments, whole.segments, strict=True))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("scale", Scale)
def test_odd_vectors(rate: str, scale: Scale) -> None:
    """One-hot, two-sparse, an outlier channel, a large mean: no worse than normal ones. Zero stays zero."""
    size = 128
    one = torch.eye(size)
    two = one + 0.7 * one.roll(5, 1)
    outlier = normal(128, size) * torch.where(torch.arange(size) == 5, 30.0, 1.0)
    mean = normal(128, size) + 4 * normal(1, size)
    made = codec(size, rate, scale, Order.KEY)
    limit = 1.5 * SEGMENTS[rate][1]
    for x in (one, two, outlier, mean):
        assert (made.decode(made.encode(x), 128) - x).square().sum() / x.square().sum() < limit
    assert not made.decode(made.encode(torch.zeros(128, size)), 128).any()


def test_an_unbiased_scale_beats_the_two_stage_form_at_equal_bits() -> None:
    """Inner products: variance of TurboQuant's algorithm 2 at 4 bits against plain codes at 3 and a scale."""
    x, y = normal(4096, 128), normal(8192, 128)[4096:]
    prod, plain = ProdCodec(128, 4), Codec.plain(128, 3, Scale.UNBIASED)
    exact = (x * y).sum(1)
    variances = {}
    for name, decoded in (("prod", prod.decode(prod.encode(x))), ("plain", plain.decode(plain.encode(x), 4096))):
        assert (decoded * x).sum() / x.square().sum() == pytest.approx(1, abs=0.005)
        variances[name] = ((decoded * y).sum(1) - exact).square().mean().item() / 128
    assert variances["prod"] == pytest.approx(0.0543, rel=0.08)
    assert variances["plain"] == pytest.approx(0.0358, rel=0.08)
