"""Gemma 4 in this process, on torch and transformers: the `torch` entry of `g4agent.runtimes`.

Importing this package loads neither torch nor transformers; `load` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from g4agent.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from g4agent_torch.runtime import TorchRuntime

__all__ = ["load"]

_INSTALL = "Install it with: pip install 'g4agent[torch]'"
_NEEDED = frozenset({"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub"})


def load(
    model: str = "nano",
    *,
    dtype: str = "auto",
    device: str = "auto",
    context_length: int | None = None,
    offline: bool = False,
    prefill_chunk: int | None = None,
    kv_bits: str = "16",
    kv_sliding_bits: str = "16",
    head_bits: str = "16",
    kv_memory: int | None = None,
    kv_disk: int = 20_000_000_000,
    progress: Callable[[str], None] | None = None,
) -> TorchRuntime:
    """Loads a Gemma 4 checkpoint.

    Args:
        model: `nano` (the packaged demonstration model), a checkpoint folder, or a Hugging Face id such as
            `google/gemma-4-E4B-it`, which is downloaded once.
        dtype: `auto`, `float32` or `bfloat16`. `auto` is bfloat16 on an accelerator; on a CPU it is float32 for weights
            under 1 GB on disk, and bfloat16 above, where reading the weights is what takes the time.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`. `auto` takes the first accelerator there is.
        context_length: Tokens per session. Default: what the model was built for, at most 131,072.
        offline: Never ask the hub, as if HF_HUB_OFFLINE=1 were set; a hub id must then be in the local cache.
        prefill_chunk: Tokens per forward pass of a prompt. Cancelling waits for one pass, so the default is 256 on a
            CPU and 2048 elsewhere.
        kv_bits: Bits per number that full-attention layers keep of old keys and values, everything counted: `4`, `3.5`,
            `2.5`, or `16` for the precision of the weights. Single layers may have another: `3.5,11=4,17-29=2.5`.
        kv_sliding_bits: The same for the windows of sliding layers: `16`, or `8`, a byte each and a scale per vector.
        head_bits: Bits per weight from which the output head finds the likely tokens: `16`, or on a CPU with AVX-512
            `4`, which is quicker; the 1,024 likeliest are then scored from the weights themselves, all others from
            their 4 bits, also where a grammar allows no likely one.
        kv_memory: Bytes that the keys and values of all sessions may take. A context that would not fit is cut to one
            that does; and where several sessions don't fit together, those that wait are put on disk.
        kv_disk: Bytes that the pages of stored sessions may take on disk; the longest unused go first. 0 keeps none.
        progress: Called with one line per stage. Default: transformers' bars where stderr is a terminal, plain lines
            on stderr where it is not.

    Raises:
        ModelLoadError: The checkpoint is missing, incomplete, or not a Gemma 4.
        RuntimeUnavailableError: torch or transformers is missing or too old, or the device does not exist.
        ConfigError: An option has no such value.
    """
    try:
        from g4agent_torch.loading import load_runtime
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in _NEEDED:
            raise
        package = error.name.partition(".")[0]
        raise RuntimeUnavailableError(
            f"The torch runtime needs the package {package}, which is missing or too old ({error}).", hint=_INSTALL
        ) from error
    return load_runtime(
        model,
        dtype=dtype,
        device=device,
        context_length=context_length,
        offline=offline,
        prefill_chunk=prefill_chunk,
        kv_bits=kv_bits,
        kv_sliding_bits=kv_sliding_bits,
        head_bits=head_bits,
        kv_memory=kv_memory,
        kv_disk=kv_disk,
        progress=progress,
    )
