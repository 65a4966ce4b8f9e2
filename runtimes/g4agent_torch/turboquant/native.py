"""The native kernel of decode attention and encoding: where it comes from, and which of its bodies runs here.

`cpp/` holds the kernel, without torch and behind a C interface. A wheel built where there was a compiler holds it as a
library; otherwise it is compiled at first use, once, into the user's cache folder; and where there is no compiler
either, all runs in plain PyTorch. `G4AGENT_KV_KERNEL` chooses: `auto`, `avx512`, `avx2`, `portable`, `torch`,
`reference` (PyTorch in float32, exact and slow), or `triton` (`gpu/`).

This module imports no torch.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from g4agent.errors import ConfigError
from g4agent_torch.turboquant import compiling

if TYPE_CHECKING:
    from g4agent.cli.doctor import Finding

BODIES: Final = ("portable", "avx2", "avx512")
"""Bodies of the kernel, slowest first, as it numbers them. `avx512` needs VNNI and VBMI (Ice Lake, Zen 4)."""
CHOICES: Final = ("auto", *BODIES, "torch", "reference", "triton")
VARIABLE: Final = "G4AGENT_KV_KERNEL"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A loaded kernel and the body that runs."""

    library: ctypes.CDLL
    file: Path
    body: str


class Rotation(ctypes.Structure):
    """A `rotation.Rotation`, as in `cpp/kernel.cpp`."""

    _fields_ = (("signs", ctypes.c_void_p), ("paley", ctypes.c_void_p), ("norm", ctypes.c_float))


class StreamLevels(ctypes.Structure):
    """A stream's codebooks, as in `cpp/kernel.cpp`."""

    _fields_ = (("segment", ctypes.c_void_p * 2), ("unit", ctypes.c_float), ("exact", ctypes.c_void_p * 2))


class Call(ctypes.Structure):
    """The arguments of `g4_decode_attention`, as in `cpp/kernel.cpp`."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("body", "rates", "threads", "heads", "rows")),
        *((name, ctypes.c_int32) for name in ("head_size", "first_size", "second_size", "value_only")),
        *((name, ctypes.c_int64) for name in ("pages", "head_bytes", "first_position")),
        *((name, ctypes.c_void_p) for name in ("page", "query")),
        ("rotation", Rotation * 2),
        ("place", ctypes.c_void_p * 2),
        ("key_norm", ctypes.c_void_p),
        ("levels", StreamLevels * 2),
        *((name, ctypes.c_void_p) for name in ("rope", "frequencies", "bias", "out", "lse")),
        ("rope_unit", ctypes.c_float),
    )


class Segment(ctypes.Structure):
    """A part of a vector, as in `cpp/kernel.cpp`."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("bits", "dims", "units")),
        *((name, ctypes.c_void_p) for name in ("table", "midpoints", "levels")),
    )


class EncodeCall(ctypes.Structure):
    """The arguments of `g4_encode`, as in `cpp/kernel.cpp`."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("body", "streams", "tokens", "size", "segments")),
        *((name, ctypes.c_int32) for name in ("value_order", "unbiased")),
        ("rotation", Rotation),
        *((name, ctypes.c_void_p) for name in ("x", "out")),
        ("stream_bytes", ctypes.c_int64),
        ("segment", Segment * 2),
    )


def kernel() -> Kernel | None:
    """The kernel that attention and encoding use; None: plain PyTorch. Compiles it if there is none yet.

    Raises:
        ConfigError: `G4AGENT_KV_KERNEL` names a body that cannot run here, or none at all.
    """
    body = asked()
    return _load(body) if body in ("auto", *BODIES) else None


@cache
def _load(asked: str) -> Kernel | None:
    file = _found() or compiling.compiled()
    if file is None:
        if asked == "auto":
            return None
        raise ConfigError(
            f"The kernel {asked!r} is not installed and cannot be compiled.",
            hint="Install a C++ compiler, such as g++.",
        )
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:  # another machine's in a shared home, or a folder that must not hold programs
        if asked == "auto":
            return None
        raise ConfigError(f"The kernel cannot be loaded: {error}.", hint=f"Remove {file}.") from error
    library.g4_decode_attention.argtypes = [ctypes.POINTER(Call)]
    library.g4_decode_attention.restype = None
    library.g4_encode.argtypes = [ctypes.POINTER(EncodeCall)]
    library.g4_encode.restype = None
    best = library.g4_best_body()
    if asked != "auto" and BODIES.index(asked) > best:
        raise ConfigError(f"This processor cannot run the kernel {asked!r}.", hint=f"Use {VARIABLE}=auto.")
    return Kernel(library, file, BODIES[best] if asked == "auto" else asked)


def examine() -> Finding:
    """The line of `g4agent doctor`: which path attention over compressed keys and values takes. Compiles nothing."""
    from g4agent.cli.doctor import Finding

    subject = "compressed KV"
    try:
        if asked() not in ("auto", *BODIES):
            return Finding(subject, "ok", f"attention in plain PyTorch, as {VARIABLE} says")
        if (file := _found()) is not None:
            if (loaded := kernel()) is None:
                return Finding(subject, "warning", f"attention in plain PyTorch: {file} cannot be loaded", "Remove it.")
            return Finding(subject, "ok", f"attention by the {loaded.body} kernel, {loaded.file}")
    except ConfigError as error:
        return Finding(subject, "warning", str(error), f"{VARIABLE}=torch runs without a kernel.")
    if (compiler := compiling.compiler()) is not None:
        return Finding(subject, "ok", f"attention by a native kernel, which {compiler} compiles at first use")
    return Finding(subject, "warning", "attention in plain PyTorch", "A C++ compiler, such as g++, makes it fast.")


def asked() -> str:
    """What `G4AGENT_KV_KERNEL` says.

    Raises:
        ConfigError: It names no kernel.
    """
    name = os.environ.get(VARIABLE) or "auto"
    if name not in CHOICES:
        raise ConfigError(f"{VARIABLE}={name} is no kernel.", hint=f"Use {', '.join(CHOICES)}.")
    return name


def _found() -> Path | None:
    """The library of the wheel, or one compiled before."""
    files = (Path(__file__).parent / compiling.LIBRARY, compiling.cached_file())
    return next((file for file in files if file.is_file()), None)
