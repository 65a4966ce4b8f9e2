"""The native kernel of decode attention: where it comes from, and which of its bodies runs here.

`cpp/` holds the kernel, without torch and behind a C interface. A wheel built where there was a compiler holds it as a
library; otherwise it is compiled at first use, once, into the user's cache folder; and where there is no compiler
either, attention runs in plain PyTorch. `G4AGENT_KV_KERNEL` chooses: `auto`, `avx512`, `avx2`, `portable` or `torch`.

This module imports no torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from g4agent.errors import ConfigError

if TYPE_CHECKING:
    from g4agent.cli.doctor import Finding

BODIES: Final = ("portable", "avx2", "avx512")
"""Bodies of the kernel, slowest first, as it numbers them."""
VARIABLE: Final = "G4AGENT_KV_KERNEL"
SOURCES: Final = Path(__file__).parent / "cpp"
LIBRARY: Final = "libg4agent_kv.so"
FLAGS: Final = (
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-Wno-psabi"),
    *("-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-fno-trapping-math"),
)
COMPILE_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Kernel:
    """A loaded kernel and the body that runs."""

    library: ctypes.CDLL
    file: Path
    body: str


class Call(ctypes.Structure):
    """The arguments of `g4_decode_attention`, as in `cpp/kernel.cpp`."""

    _fields_ = [  # noqa: RUF012
        *((name, ctypes.c_int32) for name in ("body", "rate", "threads", "heads", "rows", "first_size", "second_size")),
        ("value_only", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("pages", "head_bytes", "first_position")),
        *((name, ctypes.c_void_p) for name in ("page", "query", "turned", "main_levels", "tail_levels", "rope")),
        *((name, ctypes.c_void_p) for name in ("frequencies", "out", "lse")),
        *((name, ctypes.c_float) for name in ("unit", "rope_unit")),
    ]


@cache
def kernel(asked: str | None = None) -> Kernel | None:
    """The kernel that attention uses; None: plain PyTorch. Compiles it if there is none yet.

    Args:
        asked: As `G4AGENT_KV_KERNEL`, which is the default.

    Raises:
        ConfigError: A body was asked for by name that cannot run here, or that is none.
    """
    asked = asked or _asked()
    if asked == "torch":
        return None
    file = _found() or _compiled()
    if file is None:
        if asked == "auto":
            return None
        raise ConfigError(f"The kernel {asked!r} is neither installed nor can it be compiled: there is no C++ compiler.")
    library = ctypes.CDLL(str(file))
    library.g4_decode_attention.argtypes = [ctypes.POINTER(Call)]
    library.g4_decode_attention.restype = None
    best = library.g4_best_body()
    if asked != "auto" and BODIES.index(asked) > best:
        raise ConfigError(f"This processor does not run the kernel {asked!r}.", hint=f"Use {VARIABLE}=auto.")
    return Kernel(library, file, BODIES[best] if asked == "auto" else asked)


def finding() -> Finding:
    """The line of `g4agent doctor`: which path attention over compressed keys and values takes. Compiles nothing."""
    from g4agent.cli.doctor import Finding

    subject = "compressed attention"
    if _asked() == "torch":
        return Finding(subject, "ok", f"plain PyTorch, as {VARIABLE} says")
    if (file := _found()) is not None:
        try:
            loaded = kernel()
        except (ConfigError, OSError) as error:
            return Finding(subject, "warning", str(error), f"Plain PyTorch runs with {VARIABLE}=torch.")
        return Finding(subject, "ok", f"{loaded.body if loaded else 'torch'} kernel, {file}")
    if (compiler := _compiler()) is not None:
        return Finding(subject, "ok", f"native kernel, compiled by {compiler} at first use")
    return Finding(subject, "warning", "plain PyTorch, no native kernel", "Install a C++ compiler, such as g++.")


def _asked() -> str:
    asked = os.environ.get(VARIABLE) or "auto"
    if asked not in ("auto", "torch", *BODIES):
        raise ConfigError(f"{VARIABLE}={asked} is no kernel.", hint=f"Use auto, torch, {', '.join(BODIES)}.")
    return asked


def _found() -> Path | None:
    """The library of the wheel, or one compiled before."""
    return next((file for file in (SOURCES.parent / LIBRARY, cached_file()) if file.is_file()), None)


def cached_file() -> Path:
    """Where a library compiled from these sources lies."""
    key = hashlib.sha256("\0".join(FLAGS).encode())
    for source in sorted(SOURCES.iterdir()):
        if source.is_file():
            key.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "g4agent", "kernels", f"{os.uname().machine}-{key.hexdigest()[:24]}.so")


def _compiler() -> str | None:
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _compiled() -> Path | None:
    """Compiles into the cache; None where there is no compiler or it fails."""
    file = cached_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return file if compile_to(file) else None
    except OSError:
        return None


def compile_to(file: Path) -> bool:
    """Compiles the kernel to a file that appears whole or not at all. False: no compiler, or it failed."""
    compiler = _compiler()
    if compiler is None:
        return False
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder, LIBRARY)
        command = [compiler, *FLAGS, str(SOURCES / "kernel.cpp"), "-o", str(made), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)
        except (subprocess.SubprocessError, OSError):
            return False
        made.replace(file)
    return True
