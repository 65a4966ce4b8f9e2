"""Compiling the kernels without a GPU, as far as machine code: what the interpreter does not see.

Types, layouts and tensor-core shapes are checked on the way, and the assembler says which registers and how much shared
memory a program takes, and whether registers spill.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from g4agent_torch.turboquant.codec import Codec, Scale
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.gpu import encode
from g4agent_torch.turboquant.gpu.decode_attention import REDUCED
from g4agent_torch.turboquant.gpu.plan import plan
from g4agent_torch.turboquant.layout import Order
from g4agent_torch.turboquant.rotation import PALEY_ORDER, paley

HOPPER: Final = 90
WORDS: Final = {"table": "*i64", "pages": "i32", "rows_total": "i32", "vectors": "i32", "splits": "i32", "norm": "fp32"}
HALVES: Final = ("query", "basis", "rope")
BYTES: Final = ("main_cells", "tail_cells", "main_codes", "tail_codes", "codes")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one program of a kernel takes."""

    kernel: str
    registers: int
    """Per thread; at most 255."""
    spilled: int
    """Bytes per thread that found no register."""
    shared: int
    """Bytes of shared memory."""
    ptx: str
    """Its assembly text."""


def attention(layer: LayerFormat, rows: int, capability: int = HOPPER) -> Resources:
    """The attention kernel of a layer, for `rows` queries per KV head."""
    from g4agent_torch.turboquant.gpu.kernels.separate import separate_kernel
    from g4agent_torch.turboquant.gpu.kernels.value_only import value_only_kernel

    made = plan(layer, rows, torch.float16)
    kernel = separate_kernel if layer.value_only is None else value_only_kernel
    types = {name: "*i32" for name in kernel.arg_names if name.endswith("_levels")} | dict.fromkeys(HALVES, "*fp16")
    return _compile(kernel, types, made.constants, made.options, capability)


def reducing(size: int, splits: int, capability: int = HOPPER) -> Resources:
    """The kernel that puts `splits` parts together."""
    from g4agent_torch.turboquant.gpu.kernels.reduce import reduce_kernel

    constants = {"SPLITS": 1 << (splits - 1).bit_length(), "SIZE": size, "COUNT": REDUCED}
    return _compile(reduce_kernel, {}, constants, {"enable_fp_fusion": True}, capability)


def encoding(layer: LayerFormat, capability: int = HOPPER) -> list[Resources]:
    """The kernels that encode a layer's streams, of each the main segment."""
    return [resources for stream in layer.streams for resources in _encoding(stream, layer, capability)]


def _encoding(stream: Codec, layer: LayerFormat, capability: int) -> list[Resources]:
    from g4agent_torch.turboquant.gpu.kernels import encode as kernels

    block = {"BLOCK": encode.BLOCK}
    size, page = stream.size, {"PAGE": layer.tokens, "HEAD_BYTES": layer.head_bytes}
    single = size & (size - 1) == 0
    main, tail = stream.segments[0], stream.segments[-1]
    rotating = {"SIZE": size, "PALEY": () if single else paley(), "LOG": _log(size if single else size // PALEY_ORDER)}
    quantising = {
        "SIZE": size, "HEAD": main.size if main is not tail else 0, "DIMS": main.codebook.dims,
        "UNBIASED": stream.scale is Scale.UNBIASED, "SCALES": sum(stream.part_bytes(layer.tokens)[:-1]),
        "LOG": _log(size if single else size // 3), **page,
    }  # fmt: skip
    packing = {"UNITS": main.units, "BITS": main.codebook.bits, "KEY": stream.order is Order.KEY, "START": 0, **page}
    types = dict.fromkeys(BYTES, "*u8")
    return [
        _compile(kernels.rotate_kernel, {}, rotating | block, encode.OPTIONS, capability),
        _compile(kernels.quantise_kernel, types | {"out": "*u8"}, quantising | block, encode.OPTIONS, capability),
        _compile(kernels.pack_kernel, types | {"out": "*u8"}, packing | block, encode.OPTIONS, capability),
    ]


def _log(power: int) -> int:
    return power.bit_length() - 1


def _compile(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], options: dict[str, Any], capability: int
) -> Resources:
    """Compiles a kernel whose arguments are as in `types`, `WORDS`, or else float32 pointers."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: "constexpr" if name in constants else "*fp32" for name in kernel.arg_names}
    signature |= {name: kind for name, kind in (WORDS | types).items() if signature.get(name) == "*fp32"}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(signature) if signature[name][0] == "*"}
    source = ASTSource(kernel, signature, constants, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with TemporaryDirectory() as folder:
        binary = Path(folder, "kernel.cubin")
        binary.write_bytes(compiled.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        command = [str(tool), "--dump-resource-usage", str(binary)]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    registers, spilled = map(int, found.groups())
    return Resources(kernel.__name__, registers, spilled, compiled.metadata.shared, compiled.asm["ptx"])
