"""What this machine has: memory, processor, accelerators. Read from the system, without loading torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
MODEL_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16")
"""Instruction sets that decide how fast a model runs on a CPU."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in bytes. `available` can be used without swapping."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator as its driver reports it; memory in bytes."""

    name: str
    total: int
    available: int


def memory() -> Memory:
    """Of this machine, or of the control group that this process is confined to, where that is less."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    available = total
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    group = group_memory()
    return Memory(min(total, group.total), min(available, group.available)) if group else Memory(total, available)


def group_memory(group: Path = Path("/sys/fs/cgroup")) -> Memory | None:
    """Of a control group (version 2), None where it has no limit. Files that were read and are not in use are free."""
    file = group / "memory.max"
    text = file.read_text().strip() if file.exists() else "max"
    if text == "max":
        return None
    limit, used = int(text), int((group / "memory.current").read_text())
    numbers = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return Memory(limit, max(0, limit - used + int(numbers["inactive_file"])))


def processor() -> tuple[str, int, tuple[str, ...]]:
    """Model name, usable cores, and which of `MODEL_FLAGS` it has."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return name, cores, tuple(flag for flag in MODEL_FLAGS if flag in flags)


def gpus() -> list[Gpu]:
    """NVIDIA accelerators, as `nvidia-smi` lists them; empty where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in done.stdout.splitlines():
        name, total, free = (cell.strip() for cell in line.rsplit(",", 2))
        if total.isdigit() and free.isdigit():
            found.append(Gpu(name, int(total) << 20, int(free) << 20))
    return found


def gib(size: int) -> str:
    """`23.5 GiB`, or MiB below one."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.0f} MiB"
