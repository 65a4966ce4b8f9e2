"""`g4agent fit` counts what is really allocated."""

from __future__ import annotations

import itertools
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import VARIANTS, multimodal_model, text_config, text_model
from transformers import Gemma4ForCausalLM, Gemma4TextConfig, Gemma4UnifiedForCausalLM, Gemma4UnifiedTextConfig
from typer.testing import CliRunner

from g4agent.cli.app import app
from g4agent.errors import ConfigError
from g4agent_torch import catalog, load, memory
from g4agent_torch.byte_windows import ByteWindowLayer
from g4agent_torch.decoder import Decoder
from g4agent_torch.kv import DenseKVStore
from g4agent_torch.memory import OFFICIAL, RATES, SLIDING_BITS, Shape, read_kv_bits, shape_of
from g4agent_torch.turboquant.store import TurboQuantKVStore

WIDE = {"head_dim": 32, "global_head_dim": 128}
"""Head sizes that can be compressed."""


def saved(config: Any) -> dict[str, Any]:
    """As it stands in a checkpoint's config.json."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return values


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_those_of_the_decoder(variant: str) -> None:
    """For every official structure, from the configuration of a text model and of a multimodal one."""
    for model in (text_model(variant), multimodal_model(variant)):
        decoder = Decoder(model, DenseKVStore.attention, torch.device("cpu"))
        assert shape_of(saved(model.config)).parameters == decoder.parameters


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_models_have_the_parameters_of_the_catalog(name: str) -> None:
    """And those of transformers' own classes, built without memory."""
    shape = OFFICIAL[name]
    (row,) = [model for model in catalog.MODELS if model.name == name]
    assert shape.parameters == pytest.approx(row.parameters, rel=0.001)
    assert shape.token_bytes("16") == row.kv_bytes_per_token and shape.context_length == row.context_length
    unified = "12B" in name
    values = {"hidden_size_per_layer_input": 0, **shape.config}
    if unified:
        del values["hidden_size_per_layer_input"]
    kind: Any = Gemma4UnifiedTextConfig if unified else Gemma4TextConfig
    config = kind(num_hidden_layers=len(shape.layers), **values)
    with torch.device("meta"):
        model: Any = (Gemma4UnifiedForCausalLM if unified else Gemma4ForCausalLM)(config)
    model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.parameters


def allocated(cache: Any) -> int:
    """Bytes of all storages of a cache's layers."""
    tensors: list[torch.Tensor] = []
    for layer in cache.layers.layers:
        span = getattr(layer, "span", None)
        tensors += [t for t in (layer.keys, layer.values) if t is not None] if hasattr(layer, "keys") else []
        tensors += [span.keys, span.values] if span is not None else []
        tensors += [*getattr(layer, "pages", ()), *(getattr(layer, "sinks", None) or ())]
        tensors += [layer.centre] if getattr(layer, "centre", None) is not None else []
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def filled(store: Any, shape: Shape, tokens: int, chunk: int) -> int:
    """Bytes of a bfloat16 cache after a prompt of so many tokens."""
    cache = store.new()
    for start in range(0, tokens, chunk):
        for layer, kept in zip(shape.layers, cache.layers.layers, strict=True):
            if not layer.shared:
                size = (1, layer.heads, min(chunk, tokens - start), layer.head_dim)
                kept.update(torch.randn(size, dtype=torch.bfloat16), torch.randn(size, dtype=torch.bfloat16))
    return allocated(cache)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_caches_bytes_are_those_that_are_allocated(variant: str) -> None:
    """At every rate and length, whatever the passes: pages, scales, first tokens, tails and windows, to the byte."""
    config = text_config(variant, **WIDE)
    kind = Gemma4UnifiedForCausalLM if variant == "12B" else Gemma4ForCausalLM
    text: Any = kind(config).get_decoder()
    shape = shape_of(saved(config))
    coded = partial(ByteWindowLayer, dtype=torch.bfloat16)
    for rate, sliding in itertools.product(RATES, SLIDING_BITS):
        windows = None if sliding == "16" else coded
        store = DenseKVStore(config, windows) if rate == "16" else TurboQuantKVStore(text, rate, windows)
        for tokens, chunk in ((1, 256), (100, 7), (300, 256), (1000, 64)):
            counted = shape.kv_bytes(tokens, rate, chunk, sliding)
            assert filled(store, shape, tokens, chunk) == counted, (rate, sliding, tokens, chunk)


def test_nanos_cache_is_counted_too() -> None:
    """Its configuration is written as transformers writes it today, layer by layer."""
    runtime = load("nano", kv_bits="4")
    shape = shape_of(json.loads((Path(memory.__file__).parent / "nano/config.json").read_text()))
    assert shape.parameters == runtime.info.parameters and shape.token_bytes("4") == runtime.info.token_bytes == 64 + 64
    assert load("nano").info.token_bytes == shape.token_bytes("16", 4) == 1024
    store: Any = runtime._store
    assert filled(store, shape, 1200, 256) == shape.kv_bytes(1200, "4", 256)


def test_31b_needs_what_the_benchmark_prints() -> None:
    """`benchmarks/kv_memory.py`: 2.72 GB of global layers at 256K tokens and 4 bits, values only."""
    shape = OFFICIAL["google/gemma-4-31B-it"]
    growing = Shape(shape.config, tuple(layer for layer in shape.layers if not layer.sliding))
    assert round((growing.kv_bytes(262_144, "4", 256) or 0) / 1e9, 2) == 2.72


@pytest.mark.parametrize("kv_bits", ["4,{last}=2.5", "2.5, {first} = 4,{last}=3.5", "3.5,0-{last}=4"])
def test_layers_with_bits_of_their_own(kv_bits: str) -> None:
    """What the ledger and `kv_memory` count is what the store allocates, layer by layer."""
    config = text_config("E4B", **WIDE)
    text, shape = Gemma4ForCausalLM(config).get_decoder(), shape_of(saved(config))
    growing = [i for i, layer in enumerate(shape.layers) if not layer.sliding and not layer.shared]
    kv_bits = kv_bits.format(first=growing[0], last=growing[-1])
    shape.check_kv_bits(kv_bits)
    store = TurboQuantKVStore(text, kv_bits)
    assert {i: layer.rate for i, layer in store.formats.items()} == {i: read_kv_bits(kv_bits).of(i) for i in growing}
    assert store.described != TurboQuantKVStore(text, kv_bits[: kv_bits.index(",")]).described
    assert filled(store, shape, 1000, 64) == shape.kv_bytes(1000, kv_bits, 64)
    per_token = (filled(store, shape, 1000 + 128, 64) - filled(store, shape, 1000, 64)) / 128
    assert shape.token_bytes(kv_bits) == pytest.approx(per_token)


@pytest.mark.parametrize(
    ("kv_bits", "complaint"),
    [
        ("", "'' bits"), ("3", "'3' bits"), ("4,5", "'5' says no"), ("4,x=2.5", "says no"), ("4,1-=2.5", "says no"),
        ("4,11=3", "'3' bits"), ("4,", "says no"), ("4,11=16", "or none"), ("16,11=4", "or none"),
        ("4,0=2.5", "Layer 0 keeps no"), ("4,99=2.5", "Layer 99 keeps no"), ("4,6-10=2.5", "No layer from 6 to 10"),
        ("4,9-6=2.5", "ends before"), ("4,5=2.5,5=3.5", "twice"), ("4,0-99=3.5,11=2.5", "twice"),
        ("4,0-99999999999=5", "'5' bits"), (4, "kv_bits=4 is no text"), (None, "is no text"), (["4"], "no text"),
    ],
)  # fmt: skip
def test_bits_that_are_none_are_refused(kv_bits: Any, complaint: str) -> None:
    """Before the weights are read: a typing error must not cost minutes."""
    with pytest.raises(ConfigError, match=complaint):
        OFFICIAL["google/gemma-4-31B-it"].check_kv_bits(kv_bits)


def test_bits_of_neighbours_are_those_of_the_full_layers_among_them() -> None:
    """As the help says; every sixth layer of 31B is full."""
    shape = OFFICIAL["google/gemma-4-31B-it"]
    shape.check_kv_bits("3.5,11=4,17-29=2.5")
    single = "3.5,11=4,17=2.5,23=2.5,29=2.5"
    assert shape.token_bytes("3.5,11=4,17-29=2.5") == shape.token_bytes(single) < shape.token_bytes("3.5")


def test_a_model_s_store_refuses_them_too() -> None:
    text = Gemma4ForCausalLM(text_config("E4B", **WIDE)).get_decoder()
    for kv_bits in ("4,0=2.5", "16"):
        with pytest.raises(ConfigError):
            TurboQuantKVStore(text, kv_bits)


def test_heads_that_cannot_be_compressed_have_no_rate() -> None:
    """As `load` refuses them."""
    assert shape_of(saved(text_config("31B"))).kv_bytes(1000, "4", 256) is None


def test_the_arithmetic_needs_no_torch() -> None:
    """`g4agent fit` must answer at once, also without the extra."""
    for module in ("memory", "fit"):
        source = (Path(memory.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert not re.search(r"^\s*(from|import) (torch|transformers)", source, re.MULTILINE)


def test_fit_tells_what_fits_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By place, weights and rate; for people, for programs, and for a folder of one's own."""
    from g4agent_torch import fit

    large = fit.Place("memory", 64 << 30, 20 << 30, fit.CPU_CHUNK)
    monkeypatch.setattr(fit, "places", lambda: [large, fit.Place("card", 80 << 30, 80 << 30, fit.GPU_CHUNK)])
    told = CliRunner().invoke(app, ["fit", "31b"], env={"COLUMNS": "200"})
    assert told.exit_code == 0 and "30.7 B parameters" in told.output
    (line,) = [line for line in told.output.splitlines() if re.match(r"\s+256K\s+4 ", line)]
    assert line.split() == ["256K", "4", "4.1", "GiB", "card", "memory,", "card"]
    report = json.loads(CliRunner().invoke(app, ["fit", "google/gemma-4-E4B-it", "--json"]).output)
    smaller = json.loads(CliRunner().invoke(app, ["fit", "e4b", "--kv-sliding-bits", "8", "--json"]).output)
    assert all(a["kv_bytes"] < b["kv_bytes"] for a, b in zip(smaller["rows"], report["rows"], strict=True))
    assert CliRunner().invoke(app, ["fit", "e4b", "--kv-sliding-bits", "4"]).exit_code == 1
    assert report["per_layer_embedding_parameters"] == 262_144 * 42 * 256
    assert {row["context"] for row in report["rows"]} == {8192, 32768, 131072}
    assert [row["kv_bits"] for row in report["rows"][:4]] == list(RATES)
    (tmp_path / "config.json").write_text(json.dumps(saved(text_config("31B", **WIDE))))
    report = json.loads(CliRunner().invoke(app, ["fit", str(tmp_path), "--json"]).output)
    assert report["rows"][0]["context"] == 4096 and report["rows"][0]["fits"]["16"] == {"memory": True, "card": True}
    small = saved(text_config("31B", **(WIDE | {"max_position_embeddings": 700})))
    (tmp_path / "config.json").write_text(json.dumps(small))
    assert re.search(r"^ +700 +16 ", CliRunner().invoke(app, ["fit", str(tmp_path)]).output, re.MULTILINE)


@pytest.mark.parametrize("config", ["", "[]", '{"model_type": "llama"}', '{"text_config": [1]}', "no window"])
def test_fit_says_in_words_what_it_cannot_read(tmp_path: Path, config: str) -> None:
    """Somebody's folder is not what they think: they see no traceback."""
    text = json.dumps(saved(text_config("31B")) | {"sliding_window": 0}) if config == "no window" else config
    (tmp_path / "config.json").write_text(text)
    for wrong in (str(tmp_path), "nope", str(tmp_path / "nope"), "~nobody-of-this-name/model"):
        told = CliRunner().invoke(app, ["fit", wrong])
        assert told.exit_code == 1 and told.output.startswith("error: "), told.output
