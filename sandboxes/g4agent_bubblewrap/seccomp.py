"""The box's seccomp filter, written as classic BPF without libseccomp.

The policy of `g4agent_box.syscalls` for one architecture: calls of any other architecture (`int 0x80` on x86-64) kill
the process, x32 numbers do not exist.

Sources: linux/seccomp.h, linux/audit.h.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

from g4agent.errors import SandboxUnavailableError
from g4agent_box.syscalls import CLONE_NEW_ANY, DENIED, SOCKET_FAMILIES, TERMINAL_INJECTION

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000

LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K

NUMBER, ARCHITECTURE = 0, 4
"""Offsets in `struct seccomp_data`."""
X32_BIT = 0x40000000


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one machine architecture numbers its calls. `numbers` leaves out what the architecture lacks."""

    audit: int
    """AUDIT_ARCH_* value in `seccomp_data.arch`."""
    has_x32: bool
    numbers: dict[str, int]


_FILTERED: dict[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "socketpair": (53, 199),
}


def _architecture(column: int, audit: int, has_x32: bool) -> Architecture:
    rows = [*DENIED.items(), *_FILTERED.items()]
    return Architecture(audit, has_x32, {name: row[column] for name, row in rows if row[column] is not None})  # type: ignore[misc]


ARCHITECTURES = {
    "x86_64": _architecture(0, 0xC000003E, True),
    "aarch64": _architecture(1, 0xC00000B7, False),
}


def build_filter(machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`, as bwrap's `--seccomp` reads it.

    Args:
        machine: As `platform.machine()` names it; this machine's by default.

    Raises:
        SandboxUnavailableError: The architecture has no table here.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise SandboxUnavailableError(
            f"the box has no system call filter for {machine}",
            hint=f"It runs on {' and '.join(ARCHITECTURES)}; use another sandbox backend here.",
        )
    target = ARCHITECTURES[machine]
    numbers = target.numbers
    program = [
        _load(ARCHITECTURE),
        _instruction(JUMP_EQUAL, target.audit, skip_if_true=1),
        _return(KILL_PROCESS),
        _load(NUMBER),
    ]
    if target.has_x32:
        program += [_instruction(JUMP_AT_LEAST, X32_BIT, skip_if_false=1), _return(ERRNO | errno.ENOSYS)]
    for name in DENIED.keys() & numbers.keys():
        program += _when(numbers[name], [_return(ERRNO | errno.EPERM)])
    # glibc falls back from clone3, whose flags a filter cannot see, to clone
    program += _when(numbers["clone3"], [_return(ERRNO | errno.ENOSYS)])
    program += _when(
        numbers["clone"],
        [
            _load(_argument(0)),
            _instruction(JUMP_ANY_BIT, CLONE_NEW_ANY, skip_if_false=1),
            _return(ERRNO | errno.EPERM),
            _return(ALLOW),
        ],
    )
    for name in ("socket", "socketpair"):
        program += _when(numbers[name], _allow_values(0, SOCKET_FAMILIES, ERRNO | errno.EAFNOSUPPORT))
    program += _when(numbers["ioctl"], _deny_values(1, TERMINAL_INJECTION))
    program.append(_return(ALLOW))
    return b"".join(program)


def _instruction(code: int, value: int, *, skip_if_true: int = 0, skip_if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skip_if_true, skip_if_false, value)


def _load(offset: int) -> bytes:
    return _instruction(LOAD_WORD, offset)


def _return(action: int) -> bytes:
    return _instruction(RETURN, action)


def _argument(index: int) -> int:
    """Offset of the low half of a 64-bit argument; both architectures are little-endian."""
    return 16 + 8 * index


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """`body`, which must end in a return, for one call number; the accumulator holds the number."""
    return [_instruction(JUMP_EQUAL, number, skip_if_false=len(body)), *body]


def _allow_values(argument: int, values: tuple[int, ...], otherwise: int) -> list[bytes]:
    checks = [_instruction(JUMP_EQUAL, value, skip_if_true=len(values) - i) for i, value in enumerate(values)]
    return [_load(_argument(argument)), *checks, _return(otherwise), _return(ALLOW)]


def _deny_values(argument: int, values: tuple[int, ...]) -> list[bytes]:
    checks = [_instruction(JUMP_EQUAL, value, skip_if_true=len(values) - i) for i, value in enumerate(values)]
    return [_load(_argument(argument)), *checks, _return(ALLOW), _return(ERRNO | errno.EPERM)]
