"""What a conformance case is, the limits it runs under, and how it runs a probe in a box."""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sandbox_host import Host

from g4agent.ports.sandbox import Box, ExecResult, LimitName, Limits, MiB

LIMITS = Limits(
    memory_bytes=192 * MiB,
    processes=24,
    cpus=0.5,
    wall_seconds=20,
    output_bytes=64 * 1024,
    file_bytes=24 * MiB,
    open_files=64,
    workspace_bytes=32 * MiB,
)
GONE_AFTER = 0.5
"""Seconds after which a process that survived its call would have left its mark."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `starred` means that the control must fail it, `needs` is a limit without which it says nothing."""

    run: Callable[[Box, Host], Awaitable[None]]
    starred: bool
    needs: LimitName | None


CASES: dict[str, Case] = {}


def case(
    *, starred: bool = False, needs: LimitName | None = None
) -> Callable[[Callable[[Box, Host], Awaitable[None]]], Callable[[Box, Host], Awaitable[None]]]:
    """Registers a case under its function's name."""

    def register(run: Callable[[Box, Host], Awaitable[None]]) -> Callable[[Box, Host], Awaitable[None]]:
        CASES[run.__name__] = Case(run, starred, needs)
        return run

    return register


async def shell(box: Box, host: Host, script: str, timeout: float = 15) -> ExecResult:
    """Runs a shell script and checks that neither the canary nor a success of an attack comes out."""
    return _checked(host, await box.exec(["sh", "-c", host.fill_in(script)], timeout=timeout))


async def python(box: Box, host: Host, script: str, timeout: float = 15) -> ExecResult:
    """As `shell`, for a Python script, which has `syscall(number, *arguments)` → errno, 0 for success."""
    return _checked(host, await box.exec(["python3", "-c", _PRELUDE + host.fill_in(script)], timeout=timeout))


def _checked(host: Host, result: ExecResult) -> ExecResult:
    text = (result.stdout + result.stderr).decode(errors="replace")
    assert "PWNED" not in text, text
    assert host.canary not in text, text
    return result


_PRELUDE = """
import ctypes, errno, os, signal, socket, subprocess, sys, time
_libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *arguments):
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return ctypes.get_errno() if result == -1 else 0
def attempt(what, action):
    try:
        action()
    except (OSError, ValueError):
        return
    print("PWNED", what)
"""
X86 = platform.machine() == "x86_64"


def number(x86: int, arm: int) -> int:
    """A system call's number on this machine."""
    return x86 if X86 else arm
