"""What keys share before positions turn them: taken off, and put back into scores."""

from __future__ import annotations

import pytest
import torch
from test_tq_native import LIMIT, available, error

from g4agent_torch.turboquant import attention
from g4agent_torch.turboquant.cache import SINKS, PagedLayer
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.layout import PAGE_TOKENS
from g4agent_torch.turboquant.native import VARIABLE
from g4agent_torch.turboquant.rotary import WAVE_TOKENS, Rotary

SIZE = 64
ROTARY = Rotary(10000.0 ** -(torch.arange(0, SIZE, 2).double() / SIZE))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_way_back() -> None:
    """Positions far out would not come out again, as angles of 10^5 have few digits left in float32."""
    keys, positions = random(2, 5, SIZE), torch.tensor([0, 1, 4097, 131_071, 262_143])
    assert torch.allclose(ROTARY.at(ROTARY.at(keys, positions), -positions), keys, atol=1e-5)
    assert torch.equal(ROTARY.at(keys, positions)[:, 0], keys[:, 0])


@pytest.mark.parametrize(("first", "count"), [(0, 1), (16, 128), (4112, WAVE_TOKENS), (258_000, 100)])
def test_scores_of_a_vector_at_every_position(first: int, count: int) -> None:
    """Scores that differ from those of the turned vector itself would shift attention from page to page."""
    query, vector = random(2, 3, SIZE), random(2, 1, SIZE, seed=1)
    direct = query @ ROTARY.at(vector, torch.arange(first, first + count)).transpose(1, 2)
    assert torch.allclose(ROTARY.scores(query, vector, first, count), direct, atol=1e-4)


@pytest.mark.parametrize("rate", ["4", "3.5", "2.5"])
def test_a_shared_part_costs_nothing(rate: str) -> None:
    """Keys of one large mean before positions would be coded with its error, not with that of what differs."""
    pages = 10
    length = SINKS + (pages + 1) * PAGE_TOKENS
    plain = random(2, length, SIZE) + 4 * random(2, 1, SIZE, seed=1)
    keys, values = ROTARY.at(plain, torch.arange(length)), random(2, length, SIZE, seed=2)
    positions = torch.arange(SINKS, SINKS + pages * PAGE_TOKENS)
    errors = []
    for rotary in (ROTARY, None):
        layer = PagedLayer(LayerFormat(2, SIZE, rate, fine_keys=True, rotary=rotary))
        layer.update(keys[None], values[None])
        assert len(layer.pages) == pages and layer.centre is not None
        decoded, _ = layer.format.decode(layer.pages, SINKS)
        decoded += layer.centre if rotary is None else rotary.at(layer.centre, positions)
        errors.append((decoded - keys[:, positions]).norm())
    assert errors[0] < 0.4 * errors[1]


@pytest.mark.parametrize("kernel", ["reference", "torch", *available()])
def test_coded_scores_are_those_of_the_decoded_keys(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention over codes and a turning centre is attention over what they stand for, also a few pages at a time."""
    monkeypatch.setenv(VARIABLE, kernel)
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 2 * 35 * PAGE_TOKENS)
    layer = LayerFormat(2, SIZE, "4", fine_keys=True, rotary=ROTARY, token_order=kernel == "torch")
    cache, length = PagedLayer(layer), SINKS + 36 * PAGE_TOKENS
    cache.update(random(1, 2, length, SIZE), random(1, 2, length, SIZE, seed=1))
    assert cache.centre is not None and len(cache.pages) == 35
    keys, values = layer.decode(cache.pages, SINKS)
    keys = keys + ROTARY.at(cache.centre, torch.arange(SINKS, SINKS + keys.shape[1]))
    query = random(2, 3, SIZE, seed=2) / 8
    coded = attention.decode_attention(query, cache.pages, layer, SINKS, cache.centre)
    dense = attention.dense_attention(query, keys, values)
    limit, lse_limit = (1e-4, 1e-4) if kernel == "reference" else (LIMIT, 0.01)
    assert error(coded.out, dense.out) < limit
    assert (coded.lse - dense.lse).abs().max() < lse_limit
