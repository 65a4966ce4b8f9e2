"""From a checkpoint to a runtime: device, precision, weights."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import torch
import transformers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from g4agent.errors import ConfigError, ModelLoadError, RuntimeUnavailableError
from g4agent.ports.runtime import ModelInfo
from g4agent_torch import output_head
from g4agent_torch.byte_windows import ByteWindowLayer
from g4agent_torch.checkpoint import Checkpoint, Progress, open_checkpoint
from g4agent_torch.decoder import Decoder
from g4agent_torch.kv import DenseKVStore, KVStore
from g4agent_torch.masking import GrammarCompiler
from g4agent_torch.memory import SLIDING_BITS, read_kv_bits, shape_of
from g4agent_torch.residents import Residents
from g4agent_torch.runtime import TorchRuntime
from g4agent_torch.tokenizer import TorchTokenizer
from g4agent_torch.turboquant.cache import PAGED
from g4agent_torch.turboquant.store import TurboQuantKVStore
from g4agent_torch.vision import Vision

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Not float16: activations of Gemma models leave its range."""
DEFAULT_CONTEXT: Final = 131_072
SMALLEST_CONTEXT: Final = 512
"""Tokens below which a limit on memory is a mistake."""
SMALL_BYTES: Final = 1_000_000_000
"""Weights below this are kept in float32 on a CPU, and load too fast to talk about."""


def load_runtime(
    model: str,
    *,
    dtype: str,
    device: str,
    context_length: int | None,
    offline: bool,
    prefill_chunk: int | None,
    kv_bits: str,
    kv_sliding_bits: str,
    head_bits: str,
    kv_memory: int | None,
    kv_disk: int,
    progress: Progress | None,
) -> TorchRuntime:
    """See `g4agent_torch.load`."""
    where, compressed = _device(device), read_kv_bits(kv_bits).rate != "16"
    if kv_sliding_bits not in SLIDING_BITS:
        raise ConfigError(
            f"kv_sliding_bits={kv_sliding_bits!r} is no rate of the sliding windows.",
            hint=f"Use {' or '.join(map(repr, SLIDING_BITS))}.",
        )
    _check_bytes("kv_memory", 1 if kv_memory is None else kv_memory, least=1)
    _check_bytes("kv_disk", kv_disk, least=0)
    bars = progress is None and sys.stderr.isatty()
    say = progress or _line_on_stderr
    with _progress_bars(bars):
        checkpoint = open_checkpoint(model, offline=offline, progress=say)
        shape = shape_of(checkpoint.config)
        shape.check_kv_bits(kv_bits)
        output_head.check(head_bits, where, shape)
        precision = _precision(dtype, where, checkpoint.weight_bytes)
        started = time.monotonic()
        large = checkpoint.weight_bytes >= SMALL_BYTES
        if large:
            say(f"{checkpoint.name}: loading {checkpoint.weight_bytes / 1e9:.1f} GB of weights")
        with _progress_bars(bars and large):
            weights = _load_weights(checkpoint, precision)
    attention = PAGED if compressed else DenseKVStore.attention
    decoder, vision = _on_device(weights, where, checkpoint, attention, head_bits)
    if large:
        say(f"{checkpoint.name}: ready on {where} after {time.monotonic() - started:.0f} s")
    config = decoder.config
    windows = None if kv_sliding_bits == "16" else partial(ByteWindowLayer, dtype=precision)
    store: KVStore = (
        TurboQuantKVStore(decoder.text_model, kv_bits, windows) if compressed else DenseKVStore(config, windows)
    )
    context = _context_length(context_length, config.max_position_embeddings)
    if kv_memory is not None:
        fits = shape.fitting_tokens(kv_memory, kv_bits, precision.itemsize, kv_sliding_bits)
        context = _fitting(context, fits, kv_memory)
        if context_length is not None and context < context_length:
            say(f"{checkpoint.name}: {kv_memory / 1e9:g} GB of keys and values have room for {context} tokens")
    info = ModelInfo(
        name=checkpoint.name,
        fingerprint=checkpoint.fingerprint(),
        variant="small" if getattr(config, "hidden_size_per_layer_input", 0) else "large",
        context_length=context,
        parameters=decoder.parameters,
        dtype=str(precision).removeprefix("torch."),
        device=str(where),
        token_bytes=shape.token_bytes(kv_bits, precision.itemsize),
        sees_images=vision is not None,
    )
    file = checkpoint.folder / "tokenizer.json"
    tokenizer, grammars = TorchTokenizer(file, decoder.vocab_size), GrammarCompiler(file, decoder.vocab_size)
    chunk = prefill_chunk or (256 if where.type == "cpu" else 2048)
    residents = Residents(kv_memory)
    return TorchRuntime(
        info, tokenizer, decoder, store, grammars, residents, prefill_chunk=chunk, page_bytes=kv_disk, vision=vision
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is not a device.", hint="Use auto, cpu, cuda, cuda:1 or mps.") from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise RuntimeUnavailableError(
            f"This machine has no device {name!r} that torch {torch.__version__} can use.",
            hint="Use device=auto, or install the torch build for it: https://pytorch.org/get-started",
        )
    return device


def _precision(name: str, device: torch.device, weight_bytes: int) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" and weight_bytes < SMALL_BYTES else torch.bfloat16
    if name not in DTYPES:
        raise ConfigError(f"{name!r} is not a precision.", hint=f"Use auto, {' or '.join(DTYPES)}.")
    return DTYPES[name]


def _context_length(asked: int | None, longest: int) -> int:
    if asked is None:
        return min(longest, DEFAULT_CONTEXT)
    if not 0 < asked <= longest:
        raise ConfigError(f"A context of {asked} tokens is not possible: the model was built for {longest}.")
    return asked


def _check_bytes(name: str, value: int, *, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}={value!r} is no number of bytes.", hint=f"Write {name}={20 * 10**9} for 20 GB.")


def _fitting(context: int, fits: int, kv_memory: int) -> int:
    if fits < SMALLEST_CONTEXT:
        raise ConfigError(
            f"A session of {max(fits, 0)} tokens is all that fits into {kv_memory / 1e9:g} GB of keys and values.",
            hint="Allow more (kv_memory), or compress them (kv_bits=4).",
        )
    return min(context, fits)


def _load_weights(checkpoint: Checkpoint, dtype: torch.dtype) -> PreTrainedModel:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises whatever its parts raise: config, weights, memory
        raise ModelLoadError(
            f"transformers {transformers.__version__} cannot load {checkpoint.folder}: {error}",
            hint="Download the checkpoint again, or update: pip install -U 'g4agent[torch]'",
        ) from error
    model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        raise ModelLoadError(
            f"{checkpoint.folder} lacks {len(missing)} weights, {missing[0]} among them.",
            hint="The checkpoint is incomplete, or was written for another configuration: download it again.",
        )
    return model


def _on_device(
    model: PreTrainedModel, device: torch.device, checkpoint: Checkpoint, attention: str, head_bits: str
) -> tuple[Decoder, Vision | None]:
    """The language model, and the vision part where there is one."""
    try:
        return Decoder(model, attention, device, head_bits), Vision.of(model, device)
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(
            f"The weights of {checkpoint.name} do not fit in the memory of {device}.",
            hint="Take a smaller model (`g4agent models` lists what each needs), or device=cpu.",
        ) from error


def _line_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """Switches the progress bars of transformers and the hub client on or off, and back afterwards."""
    before = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    _switch_bars(shown and before[0], shown and before[1])
    try:
        yield
    finally:
        _switch_bars(*before)


def _switch_bars(weights: bool, downloads: bool) -> None:
    if weights:
        transformers_logging.enable_progress_bar()
    else:
        transformers_logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    else:
        disable_progress_bars()
