"""Windows in 8 bits: what a byte loses, what a model says with them, and what they are counted as."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from tiny_models import randomise, text_config
from transformers import AutoModelForCausalLM

from g4agent.errors import ConfigError
from g4agent_torch import load
from g4agent_torch.byte_windows import ByteWindowLayer, from_bytes, to_bytes
from g4agent_torch.decoder import Decoder
from g4agent_torch.kv import DenseKVStore
from g4agent_torch.pages.state import WindowState

IDS = [random.Random(0).randrange(3, 400) for _ in range(120)]


def test_a_coordinate_is_off_by_half_a_step() -> None:
    """Of the largest over 127; also in vectors of zeros, and of very large and very small numbers."""
    x = torch.randn(4, 64, 32, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 5, 64)[:, None]
    x[0, 0] = 0
    rows = to_bytes(x)
    assert rows.dtype == torch.uint8 and rows.shape == (4, 64, 34)
    step = x.abs().amax(-1, keepdim=True) / 127
    assert ((from_bytes(rows, torch.float32) - x).abs() <= 0.6 * step).all()
    assert torch.equal(from_bytes(rows, torch.float32)[0, 0], torch.zeros(32))


def test_a_model_says_nearly_the_same() -> None:
    """Within 5 % of its logits (its weights are random), however the prompt was cut; to the bit again after a cut."""
    torch.manual_seed(0)
    config = text_config("E2B")
    model = randomise(AutoModelForCausalLM.from_config(config, dtype=torch.float32))
    decoder = Decoder(model, DenseKVStore.attention, torch.device("cpu"))
    exact = DenseKVStore(config)
    coded = DenseKVStore(config, partial(ByteWindowLayer, dtype=torch.float32))
    assert exact.described != coded.described, "their pages would be taken for each other's"
    with torch.inference_mode():
        expected = decoder.forward(IDS, exact.new(), want_logits=True)
        bulk, steps = coded.new(), coded.new()
        logits = decoder.forward(IDS, bulk, want_logits=True)
        for start in range(0, len(IDS), 40):
            stepped = decoder.forward(IDS[start : start + 40], steps, want_logits=True)
            steps.mark(steps.length)
        assert expected is not None and logits is not None and stepped is not None
        assert 0 < (logits - expected).norm() < 0.05 * expected.norm()
        torch.testing.assert_close(stepped, logits, atol=1e-3, rtol=1e-3)
        assert steps.truncate(80) == 80
        assert torch.equal(decoder.forward(IDS[80:], steps, want_logits=True), stepped)


def test_a_session_counts_them_as_they_are_stored() -> None:
    """A byte a coordinate and two a scale, and what they would be in the model's precision."""
    layer = ByteWindowLayer(16, torch.bfloat16)
    states = torch.randn(1, 2, 20, 32, dtype=torch.bfloat16)
    layer.update(states, states)
    assert WindowState(layer).bytes_at(20) == (16 * 2 * 2 * 34, 16 * 2 * 2 * 32 * 2)


@pytest.mark.parametrize("bits", ["4", 8])
def test_other_bits_are_refused(bits: str) -> None:
    """Before anything is loaded; and a number is told from the text that it looks like."""
    with pytest.raises(ConfigError, match=rf"kv_sliding_bits={bits!r} .*\n.*'16' or '8'"):
        load("nano", kv_sliding_bits=bits)
