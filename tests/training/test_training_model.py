"""The architecture that is trained: faster attention must not be another model, and nano's folder must be it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, Gemma4ForCausalLM

from training import export
from training.model import BLOCK_ATTENTION, Shape, build, config
from training.train import DECAY, WARM_UP, orthogonal, rate

SMALL = Shape(vocab=300, hidden=32, ffn=48, window=16)


def test_block_attention_equals_the_stock_one() -> None:
    model = build(SMALL, seed=0).eval()
    ids = torch.randint(0, 300, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        stock = model(input_ids=ids, use_cache=False).logits
        model.set_attn_implementation(BLOCK_ATTENTION)
        ours = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)


def test_the_shipped_model_has_the_shape_that_is_trained() -> None:
    shipped, trained = AutoConfig.from_pretrained(export.NANO), config(Shape())
    for name in ("hidden_size", "num_hidden_layers", "layer_types", "sliding_window", "num_kv_shared_layers"):
        assert getattr(shipped, name) == getattr(trained, name), name
    assert (export.NANO / "model.safetensors").stat().st_size < 16_000_000


def test_an_export_is_read_back_as_it_was(tmp_path: Path) -> None:
    model = build(SMALL, seed=0)
    export.export(SMALL, model.state_dict(), export.NANO, tmp_path)
    back = Gemma4ForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for name, value in model.to(torch.bfloat16).state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_updates_are_nearly_orthogonal() -> None:
    update = orthogonal(torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(0)))
    singular = torch.linalg.svdvals(update)
    assert singular.min() > 0.6 and singular.max() < 1.3


def test_the_learning_rate_warms_up_and_falls_to_nearly_nothing() -> None:
    assert rate(0, 0.0) == 1 / WARM_UP
    assert rate(WARM_UP, 1 - DECAY - 0.01) == 1.0
    assert rate(10_000, 1 - DECAY / 2) == pytest.approx(0.5)
    assert rate(10_000, 1.0) == 0.01
