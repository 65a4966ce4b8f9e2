"""A paged layer by itself: what it reads, and that chunks make no difference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from g4agent.errors import ConfigError, ModelLoadError
from g4agent_torch.turboquant.cache import SINKS, PagedLayer, paged_attention
from g4agent_torch.turboquant.codec import RATES
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly

torch.set_num_threads(1)
LENGTH = 600


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain PyTorch, which has no rounding of its own; `test_tq_native.py` compares the kernels with it."""
    monkeypatch.setenv("G4AGENT_KV_KERNEL", "reference")


def inputs(shared: ValueOnly | None) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(8, LENGTH, 128, generator=generator) / 8
    keys, values = torch.randn(2, 1, 2, LENGTH, 128, generator=generator)
    if shared is not None:
        keys = values * shared.key_norm
        keys[..., shared.rotary] = shared.keys(values[..., shared.rotary], torch.arange(LENGTH))
    return query, keys, values


def value_only() -> ValueOnly:
    rotary = torch.cat([torch.arange(16), torch.arange(64, 80)])
    rest = torch.cat([torch.arange(16, 64), torch.arange(80, 128)])
    return ValueOnly(torch.linspace(0.5, 1.5, 128), 0.1 ** torch.arange(16).float(), rotary, rest)


def run(layer: PagedLayer, data: tuple[Tensor, Tensor, Tensor], chunk: int) -> Tensor:
    query, keys, values = data
    outs = []
    for start in range(0, LENGTH, chunk):
        part = slice(start, start + chunk)
        layer.update(keys[:, :, part], values[:, :, part])
        outs.append(layer.attend(query[:, part]))
    return torch.cat(outs, 1)


@pytest.mark.parametrize(
    ("shared", "balance", "fine_keys"),
    [(None, None, False), (None, None, True), (None, torch.linspace(0.2, 5, 128), False), (value_only(), None, False)],
    ids=["separate", "fine keys", "balanced", "value only"],
)
@pytest.mark.parametrize("rate", RATES)
def test_attention_is_that_over_decoded_vectors_however_the_prompt_is_cut(
    rate: str, shared: ValueOnly | None, balance: Tensor | None, fine_keys: bool
) -> None:
    data = inputs(shared)
    made = LayerFormat(2, 128, rate, shared, balance=balance, fine_keys=fine_keys)
    assert made.page_bytes == 2 * 128 * 128 * float(rate) / 8 * (2 if shared is None else 1)
    layer = PagedLayer(made)
    bulk = run(layer, data, LENGTH)
    query, keys, values = data
    decoded = layer.format.decode(layer.pages, SINKS)
    for position in (0, 100, 271, 272, 399, 400, LENGTH - 1):
        coded = slice(SINKS, layer.start_of(layer.coded_pages(position)))
        seen_keys, seen_values = keys[0, :, : position + 1].clone(), values[0, :, : position + 1].clone()
        if coded.stop > SINKS:
            seen_keys[:, coded] = decoded[0][:, : coded.stop - SINKS] + (0 if layer.centre is None else layer.centre)
            seen_values[:, coded] = decoded[1][:, : coded.stop - SINKS]
        heads = query[:, position].view(2, 4, 128)
        expected = torch.softmax(heads @ seen_keys.transpose(1, 2), -1) @ seen_values
        torch.testing.assert_close(bulk[:, position].view(2, 4, 128), expected, atol=1e-4, rtol=1e-4)
    for chunk in (1, 50):
        other = PagedLayer(made)
        torch.testing.assert_close(run(other, data, chunk), bulk, atol=1e-5, rtol=1e-4)
        assert len(other.pages) == len(layer.pages) == 3
        assert all(torch.equal(a, b) for a, b in zip(other.pages, layer.pages, strict=True))


@pytest.mark.parametrize("kernel", ["auto", "torch", "reference"])
def test_a_page_that_another_takes_the_place_of_is_not_read_again(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pages lie is remembered from token to token; a session that adopts or cuts pages must not read old ones."""
    monkeypatch.setenv("G4AGENT_KV_KERNEL", kernel)
    query, keys, values = inputs(None)
    layer = PagedLayer(LayerFormat(2, 128, "4", token_order=kernel == "torch"))
    layer.update(keys, values)
    before = layer.attend(query[:, -1:])
    assert torch.equal(layer.attend(query[:, -1:]), before)
    page, layer.pages[1] = layer.pages[1], layer.pages[2]
    assert not torch.allclose(layer.attend(query[:, -1:]), before, atol=1e-3)
    layer.pages[1] = page
    assert torch.equal(layer.attend(query[:, -1:]), before)


@pytest.mark.parametrize("first", [15, 16, 143, 144, 271])
def test_a_buffer_that_is_full_when_a_page_is_due_keeps_its_rows(first: int) -> None:
    """After a prompt of 143 tokens, the 129th new one makes both the buffer move on and the first page encode."""
    layer = PagedLayer(LayerFormat(1, 64, "4"))
    keys, values = torch.randn(2, 1, 1, first + 300, 64)
    layer.update(keys[:, :, :first], values[:, :, :first])
    for at in range(first, first + 300):
        layer.update(keys[:, :, at : at + 1], values[:, :, at : at + 1])
    assert len(layer.pages) == layer.coded_pages(first + 299) > 0
    for index, page in enumerate(layer.pages):
        rows = slice(layer.start_of(index), layer.start_of(index + 1))
        assert torch.equal(page, layer.format.encode(keys[0, :, rows] - layer.centre, values[0, :, rows]))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("part", [0, 1])
def test_what_is_no_number_is_refused(part: int, wrong: float) -> None:
    """There is no code for it, and answers that look like answers would follow."""
    data = torch.randn(2, 1, 2, 300, 64)
    data[part, 0, 1, 20, 5] = wrong
    with pytest.raises(ModelLoadError, match="from position 16 on are not all numbers"):
        PagedLayer(LayerFormat(2, 64, "3.5")).update(*data)


def test_a_batch_is_refused() -> None:
    """Only the first sequence would be kept."""
    with pytest.raises(ConfigError, match="one sequence, not 2"):
        PagedLayer(LayerFormat(2, 64, "4")).update(*torch.randn(2, 2, 2, 3, 64))


@pytest.mark.parametrize("asked", [{"softcap": 50.0}, {"s_aux": torch.zeros(4)}])
def test_what_attention_over_pages_has_not_is_refused(asked: dict[str, Any]) -> None:
    """Gemma 2 caps its scores, and others have sinks: left out, the answer would be another."""
    layer = PagedLayer(LayerFormat(2, 64, "4"))
    layer.update(*torch.randn(2, 1, 2, 3, 64))
    assert paged_attention(nn.Module(), torch.randn(1, 4, 3, 64), layer, layer, None, softcap=None)[0].isfinite().all()
    with pytest.raises(ConfigError, match="cannot read a compressed cache"):
        paged_attention(nn.Module(), torch.randn(1, 4, 3, 64), layer, layer, None, **asked)


@pytest.mark.parametrize("rate", RATES)
def test_what_all_keys_share_costs_nothing(rate: str) -> None:
    """Keys of models have a large common part: without it, the same bits attend as they do over keys that have none."""
    query, keys, values = inputs(None)
    shared = 5 * torch.randn(2, 1, 128, generator=torch.Generator().manual_seed(1))
    error = {}
    for name, moved in (("plain", keys), ("shifted", keys + shared)):
        out = run(PagedLayer(LayerFormat(2, 128, rate)), (query, moved, values), LENGTH)[:, -100:]
        heads = query[:, -1].view(2, 4, 128)
        exact = torch.softmax(heads @ keys[0].transpose(1, 2), -1) @ values[0]
        error[name] = (out[:, -1].view(2, 4, 128) - exact).norm() / exact.norm()
    assert error["shifted"] < 1.05 * error["plain"]


def test_values_alone_at_4_bits_beat_keys_and_values_at_3_5() -> None:
    """In fewer bytes than keys and values at 2.5 bits: a key that is rebuilt has the error of its value."""
    shared = value_only()
    data = inputs(shared)
    heads = data[0][:, -1].view(2, 4, 128)
    exact = torch.softmax(heads @ data[1][0].transpose(1, 2), -1) @ data[2][0]
    errors, sizes = {}, {}
    for name, layer in (
        ("values alone", LayerFormat(2, 128, "4", shared)),
        ("keys and values", LayerFormat(2, 128, "3.5")),
        ("as many bytes", LayerFormat(2, 128, "2.5")),
    ):
        out = run(PagedLayer(layer), data, LENGTH)[:, -1].view(2, 4, 128)
        errors[name], sizes[name] = (out - exact).norm() / exact.norm(), layer.page_bytes
    assert sizes["values alone"] < sizes["as many bytes"] < sizes["keys and values"]
    assert errors["values alone"] < 0.85 * errors["keys and values"], errors
    assert errors["values alone"] < 0.5 * errors["as many bytes"], errors
