"""Passes of many tokens in bfloat16 on a CPU without products of it: in float32, the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from g4agent_torch import load, many_tokens
from g4agent_torch.decoder import Decoder
from g4agent_torch.kv import DenseKVStore
from g4agent_torch.many_tokens import FEW, multiplies_slowly, widened

PROMPT = [2, 105, *range(700, 740)]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the processors where it is needed, wherever the tests run."""
    monkeypatch.setattr(many_tokens, "_has_bfloat16", lambda: False)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("shape", [(FEW, 33), (2, 3, 64), (1, 5, 7, 192)])
@pytest.mark.parametrize("count", [1, 1000, 1 + many_tokens.BLOCK_NUMBERS // 16])
@torch.no_grad()
def test_products_are_rounded_once_from_exact_sums(count: int, shape: tuple[int, ...], with_bias: bool) -> None:
    """Lossless: no further from the exact product than bfloat16 rounding, over all blocks of a weight."""
    torch.manual_seed(0)
    x, weight = torch.randn(shape).bfloat16(), torch.randn(count, shape[-1]).bfloat16()
    bias = torch.randn(count).bfloat16() if with_bias else None
    exact = functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    with widened(True):
        found = functional.linear(x, weight, bias)
    slack = 1e-5 * functional.linear(x.double().abs(), weight.double().abs()) + 1e-6  # of sums in float32
    assert found.dtype == torch.bfloat16 and found.shape == exact.shape
    assert ((found.double() - exact).abs() <= exact.abs() * 2**-8 + slack).all()


def test_memory_of_a_pass_serves_passes_of_any_mode() -> None:
    """What is made in inference mode is read-only outside."""
    many_tokens._held.__dict__.clear()
    x, weight = torch.ones(FEW, 16).bfloat16(), torch.ones(8, 16).bfloat16()
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode(), widened(True):
            assert (functional.linear(x, weight) == 16).all()


@torch.no_grad()
def test_what_is_not_slow_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows, other types, and where it is not wanted."""
    calls: list[int] = []
    plain = many_tokens._linear

    def counted(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(len(x))
        return plain(x, *rest)

    monkeypatch.setattr(many_tokens, "_linear", counted)
    layer, double = torch.nn.Linear(16, 8).bfloat16(), torch.nn.Linear(16, 8)
    with widened(True):
        layer(torch.ones(FEW - 1, 16).bfloat16())
        double(torch.ones(FEW, 16))
        functional.linear(torch.ones(FEW, 16).bfloat16(), layer.weight[0])
        assert not calls
        layer(torch.ones(FEW, 16).bfloat16())
    with widened(False):
        layer(torch.ones(FEW, 16).bfloat16())
    assert calls == [FEW]
    assert multiplies_slowly(CPU, torch.bfloat16)
    assert not multiplies_slowly(CPU, torch.float32) and not multiplies_slowly(torch.device("cuda"), torch.bfloat16)


def decoder_of(dtype: str) -> Decoder:
    decoder = load("nano", dtype=dtype, device="cpu", offline=True)._decoder
    assert decoder is not None
    return decoder


@torch.no_grad()
def test_a_model_answers_as_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all layers: the difference is that of two orders of adding up."""
    decoder = decoder_of("bfloat16")

    def logits(model: Decoder) -> torch.Tensor:
        found = model.forward(PROMPT, DenseKVStore(model.config).new(), want_logits=True)
        assert found is not None
        return found

    blocks: list[int] = []
    block = many_tokens._block
    monkeypatch.setattr(many_tokens, "_block", lambda numbers: blocks.append(numbers) or block(numbers))
    decoder._one_token_kernel, decoder._widens = False, True
    quick = logits(decoder)
    assert len(blocks) >= 5 * decoder.config.num_hidden_layers
    decoder._widens = False
    plain, exact = logits(decoder), logits(decoder_of("float32"))
    assert (quick - exact).norm() <= 1.5 * (plain - exact).norm()
    assert functional.kl_div(quick.log_softmax(-1), plain.softmax(-1), reduction="sum") < 0.01
