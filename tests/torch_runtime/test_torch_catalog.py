"""The catalog's figures follow from the official configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from g4agent_torch import catalog, load

# layers that cache, of each kind, and their KV heads x head size: local, global, window (gemma4 model cards)
OFFICIAL = {
    "google/gemma-4-E2B-it": (12, 1 * 256, 3, 1 * 512, 512),
    "google/gemma-4-E4B-it": (20, 2 * 256, 4, 2 * 512, 512),
    "google/gemma-4-12B-it": (40, 8 * 256, 8, 1 * 512, 1024),
    "google/gemma-4-26B-A4B-it": (25, 8 * 256, 5, 2 * 512, 1024),
    "google/gemma-4-31B-it": (50, 16 * 256, 10, 4 * 512, 1024),
    "nano": (2, 2 * 32, 2, 1 * 64, 128),
}


@pytest.mark.parametrize("model", catalog.MODELS, ids=lambda m: m.name)
def test_cache_sizes_follow_from_the_architecture(model: catalog.KnownModel) -> None:
    """Users size their machine by these figures."""
    local_layers, local_width, full_layers, full_width, window = OFFICIAL[model.name]
    assert model.kv_bytes_per_token == full_layers * full_width * 2 * 2
    assert model.window_bytes == pytest.approx(local_layers * local_width * window * 2 * 2, rel=0.002)
    assert model.kv_bytes(1000) == model.window_bytes + 1000 * model.kv_bytes_per_token
    assert model.weight_bytes(16) == 2 * model.parameters == 4 * model.weight_bytes(4)


def test_the_catalog_needs_no_torch() -> None:
    """`g4agent models` must answer at once, also without the extra."""
    source = Path(catalog.__file__).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(from|import) (torch|transformers)", source, re.MULTILINE)


def test_nano_is_what_the_catalog_says() -> None:
    """The package must hold the model that it describes, and `load` must find it."""
    info = load("nano").info
    row = catalog.MODELS[0]
    assert (info.name, info.variant) == (row.name, "small")
    assert (info.parameters, info.context_length) == (row.parameters, row.context_length)
