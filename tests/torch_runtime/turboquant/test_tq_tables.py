"""Attention in PyTorch alone, by tables over pages in TOKEN order, against that over the decoded vectors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_tq_native import SHAPES, compute, data, error, value_only
from tiny_models import randomise, text_config
from transformers import AutoModelForCausalLM

from g4agent_torch.decoder import Decoder
from g4agent_torch.turboquant import lookup, table_attention
from g4agent_torch.turboquant.attention import as_read_here
from g4agent_torch.turboquant.cache import PAGED
from g4agent_torch.turboquant.codec import RATES
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.layout import Order, pack
from g4agent_torch.turboquant.native import VARIABLE
from g4agent_torch.turboquant.store import TurboQuantKVStore

CPU = torch.device("cpu")
LIMIT = 0.02
"""What levels in bytes may add to the error, relative L2; a kernel may add half as much again."""


def test_a_token_s_codes_lie_side_by_side() -> None:
    """Where the tables look: of 4 bits two neighbours in a byte, of more one, and the last eighth in the upper bits."""
    codes = torch.randint(0, 16, (32, 16), dtype=torch.uint8)
    assert torch.equal(pack(codes, 4, Order.TOKEN), (codes[:, 0::2] | codes[:, 1::2] << 4).flatten())
    wide = torch.randint(0, 128, (32, 16), dtype=torch.uint8)
    packed = pack(wide, 7, Order.TOKEN)
    assert torch.equal(packed & 127, wide.flatten()[: len(packed)])
    last = sum((packed.view(7, -1)[i] >> 7) << i for i in range(7))
    assert torch.equal(last, wide.flatten()[len(packed) :])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [1, 4])
def test_bytes_cost_little(shape: str, rate: str, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong codes, scales, positions or units give errors near 1. Blocks end within the pages."""
    monkeypatch.setattr(table_attention, "BLOCK_PAGES", 4)
    inputs = data(shape, rate, pages=9, spread=spread, token_order=True)
    expected, got = (compute(path, monkeypatch, *inputs) for path in ("reference", "torch"))
    assert error(got.out, expected.out) < (LIMIT if spread == 1 else 0.03)
    assert (got.lse - expected.lse).abs().max() < (0.005 if spread == 1 else 0.08)


@pytest.mark.parametrize("shape", ["Gemma 4 31B", "SmolLM2", "smallest"])
@pytest.mark.parametrize("rate", RATES)
def test_floats_are_exact(shape: str, rate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What bytes hide, and what runs where products of bytes are slow."""
    monkeypatch.setattr(table_attention, "precision", lambda: torch.float32)
    monkeypatch.setattr(table_attention, "BLOCK_PAGES", 4)
    inputs = data(shape, rate, pages=9, token_order=True)
    expected, got = (compute(path, monkeypatch, *inputs) for path in ("reference", "torch"))
    assert error(got.out, expected.out) < 1e-5
    assert (got.lse - expected.lse).abs().max() < 1e-5


@pytest.mark.parametrize("shape", ["Gemma 4 E4B", "Gemma 4 31B"])
def test_small_weights_beside_a_large_one_count(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """511 keys of weight 1/700 are two fifths together; a weight in one byte would make them nothing."""
    heads, size, rows, pairs = SHAPES[shape]
    shared = value_only(size, pairs) if pairs else None
    keys, query = torch.zeros(heads, 512, size), torch.zeros(heads, rows, size)
    values = 1 + 0.2 * torch.randn(heads, 512, size, generator=torch.Generator().manual_seed(0))
    free = 0 if shared is None else int(shared.rest[0])
    query[..., free] = 1
    keys[:, 77, free] = math.log(700)
    if shared is not None:
        values[..., free] = 0
        values[:, 77, free] = math.log(700) / shared.key_norm[free]
    layer = LayerFormat(heads, size, "4", shared, token_order=True)
    pages = [layer.encode(keys[:, i : i + 128], values[:, i : i + 128]) for i in range(0, 512, 128)]
    expected, got = (compute(path, monkeypatch, query, pages, layer) for path in ("reference", "torch"))
    assert error(got.out, expected.out) < LIMIT


@pytest.mark.parametrize("pages", [8, 23, 64])
def test_values_that_have_much_in_common_add_up(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat weights and a mean make sums grow with the tokens: integers of 32 bits must not run over."""
    values = 1 + 0.1 * torch.randn(1, pages * 128, 256, generator=torch.Generator().manual_seed(0))
    layer = LayerFormat(1, 256, "4", token_order=True)
    coded = [layer.encode(torch.zeros(1, 128, 256), values[:, i : i + 128]) for i in range(0, pages * 128, 128)]
    inputs = torch.zeros(1, 4, 256), coded, layer
    expected, got = (compute(path, monkeypatch, *inputs) for path in ("reference", "torch"))
    assert error(got.out, expected.out) < LIMIT


@pytest.mark.parametrize("gap", [9, 10, 10.6, 11])
def test_thousands_of_small_weights_beside_a_large_one_count(gap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of 1, and e^-gap for each of 8,191 others: up to half of all together."""
    tokens = 64 * 128
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.zeros(1, tokens, 64), 1 + torch.randn(1, tokens, 64, generator=generator)
    query = torch.zeros(1, 2, 64)
    query[..., 0] = 1
    keys[:, 77, 0] = gap
    layer = LayerFormat(1, 64, "4", token_order=True)
    coded = [layer.encode(keys[:, i : i + 128], values[:, i : i + 128]) for i in range(0, tokens, 128)]
    expected, got = (compute(path, monkeypatch, query, coded, layer) for path in ("reference", "torch"))
    assert error(got.out, expected.out) < LIMIT


def test_many_queries_take_fewer_pages_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of a prompt must not hold the scores of all its queries over 8,192 tokens."""
    query, pages, layer = data("Gemma 3 270M", "4", pages=40, token_order=True)
    many = query.repeat(1, 1024, 1)
    sizes: list[int] = []
    buffer = lookup.buffer

    def watched(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        made = buffer(name, shape, dtype)
        sizes.append(made.nbytes)
        return made

    monkeypatch.setattr(lookup, "buffer", watched)
    held: list[int] = []
    merged = table_attention.merged
    monkeypatch.setattr(table_attention, "merged", lambda parts: held.append(len(parts)) or merged(parts))
    got = compute("torch", monkeypatch, many, pages, layer)
    assert max(sizes) <= 16 << 20 and max(held) <= table_attention.MERGED
    few = compute("torch", monkeypatch, query, pages, layer)
    assert error(got.out[:, :4], few.out) < 1e-3  # weights are rounded beside the largest of their block


def test_memory_of_a_thread_serves_any_mode() -> None:
    """What is made in inference mode is read-only outside."""
    lookup._held.__dict__.clear()
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            lookup.buffer("some", (4,), torch.float32).copy_(torch.ones(4))


def test_pages_are_in_the_order_of_who_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kernel, its own; without, tokens'. What another has written has another name, and is made again."""
    config = text_config("31B", global_head_dim=128)
    model = Decoder(randomise(AutoModelForCausalLM.from_config(config)), PAGED, CPU).text_model
    described = {}
    for choice, expected in (("auto", False), ("torch", True), ("reference", False)):
        monkeypatch.setenv(VARIABLE, choice)
        store = TurboQuantKVStore(model, "4")
        assert {layer.token_order for layer in store.formats.values()} == {expected}
        described[choice] = str(store.described)
    assert described["auto"] == described["reference"] != described["torch"]


def test_a_layer_that_no_kernel_reads_goes_by_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "auto")
    odd = LayerFormat(1, 1024, "4")
    assert as_read_here(odd, CPU).token_order
    assert not as_read_here(replace(odd, head_dim=512), CPU).token_order
    assert not as_read_here(replace(odd, head_dim=2048), CPU).token_order  # nor do tables: sums could run over
