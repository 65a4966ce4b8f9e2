"""Runtimes over tiny random models, one per official variant; built once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from native_tokenizer import write_tokenizer
from tiny_models import text_model
from transformers import PreTrainedModel

from g4agent_torch import load
from g4agent_torch.runtime import TorchRuntime

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A saved checkpoint folder of a variant."""

    @cache
    def save(variant: str) -> Path:
        folder = tmp_path_factory.mktemp(variant)
        text_model(variant).save_pretrained(folder)
        write_tokenizer(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def runtime(checkpoint: Callable[[str], Path]) -> Callable[..., TorchRuntime]:
    """A loaded runtime of a variant, with the options of `load`."""

    @cache
    def open_runtime(variant: str, **options: Any) -> TorchRuntime:
        return load(str(checkpoint(variant)), **options)

    return open_runtime


@pytest.fixture(scope="session")
def reference() -> Callable[[str], PreTrainedModel]:
    """The same weights as transformers runs them by itself."""
    return cache(text_model)
