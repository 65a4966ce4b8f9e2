"""The compressed cache inside models: chunks make no difference, and a cut comes back to what was there."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch
from tiny_models import VARIANTS, randomise, text_config
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig

from g4agent.errors import ConfigError
from g4agent_torch import load
from g4agent_torch.decoder import Decoder
from g4agent_torch.turboquant.cache import PAGED
from g4agent_torch.turboquant.formats import layer_formats
from g4agent_torch.turboquant.store import TurboQuantKVStore

CPU = torch.device("cpu")
IDS = [random.Random(0).randrange(3, 400) for _ in range(450)]


def tiny(variant: str) -> tuple[Decoder, TurboQuantKVStore]:
    torch.manual_seed(0)
    config = text_config(variant, global_head_dim=128)
    model = randomise(AutoModelForCausalLM.from_config(config, dtype=torch.float32))
    decoder = Decoder(model, PAGED, CPU)
    return decoder, TurboQuantKVStore(decoder.text_model, "4")


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_patterns(variant: str) -> None:
    """Logits are those of any other chunking, and of the first run after a cut to a mark."""
    decoder, store = tiny(variant)
    shared = variant in ("12B", "26B-A4B", "31B")
    assert all((layer.value_only is not None) == shared for layer in store.formats.values())
    assert all((layer.balance is None) == shared and not layer.fine_keys for layer in store.formats.values())
    with torch.inference_mode():
        bulk, steps = store.new(), store.new()
        expected = decoder.forward(IDS, bulk, want_logits=True)
        for start in range(0, len(IDS), 90):
            logits = decoder.forward(IDS[start : start + 90], steps, want_logits=True)
            steps.mark(steps.length)
        assert expected is not None and logits is not None
        torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
        assert steps.truncate(360) == 360
        again = decoder.forward(IDS[360:], steps, want_logits=True)
        assert torch.equal(again, logits)


@pytest.mark.parametrize(
    "config",
    [
        Gemma3TextConfig(
            vocab_size=420, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=1, head_dim=64, sliding_window=16,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        ),
        LlamaConfig(
            vocab_size=420, hidden_size=192, intermediate_size=64, num_hidden_layers=2, num_attention_heads=3,
            num_key_value_heads=3,
        ),
    ],
    ids=["gemma3", "llama"],
)  # fmt: skip
def test_other_shapes(config: object) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        dense = model(ids, use_cache=True).logits[0, -1]
        model.set_attn_implementation(PAGED)
        store = TurboQuantKVStore(model.get_decoder(), "4")
        assert all(layer.fine_keys == (layer.balance is None) for layer in store.formats.values())
        bulk, steps = store.new(), store.new()
        expected = model(ids, past_key_values=bulk.layers).logits[0, -1]
        for start in range(0, len(IDS), 90):
            logits = model(ids[:, start : start + 90], past_key_values=steps.layers).logits[0, -1]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-3)
    # a random model attends to all values alike, so that finer keys, with coarser values, lose here
    limit = 0.15 if isinstance(config, LlamaConfig) else 0.1
    assert (expected - dense).norm() < limit * dense.norm()


@pytest.mark.parametrize("outlier", [1.0, 20.0])
def test_dimensions_that_only_keys_have_large_cost_nothing(outlier: float) -> None:
    """Norms of Gemma give some dimensions of keys ten times the size of others, where queries are small. Balanced, the
    scores' errors are those of even keys; as they are, they'd be four times as large here."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=16, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=64, layer_types=["full_attention"],
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config)
    attention = model.get_decoder().layers[0].self_attn
    with torch.no_grad():  # the norm's factor is 1 + weight
        for norm, factor in ((attention.k_norm, outlier), (attention.q_norm, 1 / outlier)):
            norm.weight[[3, 35]] = factor - 1
        query, keys = attention.q_norm(torch.randn(128, 64)), attention.k_norm(torch.randn(1, 128, 64))
    (made,) = layer_formats(model.get_decoder(), "4").values()
    assert not made.fine_keys
    decoded, _ = made.decode([made.encode(keys, keys)], 0)
    exact = query @ keys[0].T
    assert (query @ decoded[0].T - exact).norm() < 0.13 * exact.norm()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prompt_s_last_logits_are_the_same_alone(variant: str) -> None:
    """transformers' `generate` asks for them only: layers that share keys then have one query, and still a window."""
    torch.manual_seed(0)
    model = randomise(AutoModelForCausalLM.from_config(text_config(variant, global_head_dim=128), dtype=torch.float32))
    store = TurboQuantKVStore(model.get_decoder(), "4")
    model.set_attn_implementation(PAGED)
    with torch.inference_mode():
        ids = torch.tensor([IDS])
        every = model(input_ids=ids, past_key_values=store.new().layers, use_cache=True).logits
        last = model(input_ids=ids, past_key_values=store.new().layers, use_cache=True, logits_to_keep=1).logits
    torch.testing.assert_close(last[0, -1], every[0, -1], atol=1e-3, rtol=1e-3)


def test_keys_that_positions_also_stretch_are_stored() -> None:
    """Rebuilt keys are values that were only turned; YaRN makes them longer as well."""
    text_model = tiny("31B")[0].text_model
    text_model.rotary_emb.full_attention_attention_scaling = 1.1
    assert all(layer.value_only is None for layer in TurboQuantKVStore(text_model, "4").formats.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_is_refused(variant: str) -> None:
    """Pages are read whole, so what a mask hides would be read."""
    model = randomise(AutoModelForCausalLM.from_config(text_config(variant, global_head_dim=128), dtype=torch.float32))
    store = TurboQuantKVStore(model.get_decoder(), "4")
    model.set_attn_implementation(PAGED)
    ids, mask = torch.tensor([IDS[:20]]), torch.ones(1, 20, dtype=torch.long)
    generate = partial(model.generate, ids, max_new_tokens=2, do_sample=False, pad_token_id=0)
    generate(attention_mask=mask, past_key_values=store.new().layers)
    mask[0, :3] = 0
    with pytest.raises(ConfigError, match="no padding"):
        generate(attention_mask=mask, past_key_values=store.new().layers)


def test_a_rate_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'5' bits"):
        load("nano", kv_bits="5")
