"""Compiling the native kernel. Needs the standard library only, so the wheel's build can use it too."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "cpp"
LIBRARY: Final = "libg4agent_kv.so"
FLAGS: Final = (
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-Wno-psabi"),
    *("-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-fno-trapping-math"),
    "-ffp-contract=off",  # encoding gives the bytes of PyTorch
)
COMPILE_SECONDS: Final = 600


def compiler() -> str | None:
    """The C++ compiler: `$CXX`, or the first of the usual names."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def cached_file() -> Path:
    """Where a library compiled from these sources lies, in the XDG cache folder of the user."""
    key = hashlib.sha256("\0".join(FLAGS).encode())
    for source in sorted(SOURCES.iterdir()):
        key.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "g4agent", "kernels", f"{os.uname().machine}-{key.hexdigest()[:24]}.so")


def compiled() -> Path | None:
    """The library in the cache, compiled now if it is not there; None where there is no compiler or it fails."""
    file = cached_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return file if file.is_file() or compile_to(file) else None
    except OSError:
        return None


def compile_to(file: Path) -> bool:
    """Compiles the kernel to a file that appears whole or not at all. False: no compiler, or it failed."""
    program = compiler()
    if program is None:
        return False
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder, LIBRARY)
        command = [program, *FLAGS, str(SOURCES / "kernel.cpp"), "-o", str(made), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)
        except (subprocess.SubprocessError, OSError):
            return False
        made.replace(file)
    return True
