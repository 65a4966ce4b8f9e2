"""The box's seccomp filter, written as classic BPF without libseccomp.

A deny list for one architecture: calls of any other architecture (`int 0x80` on x86-64) kill the process, x32 numbers
do not exist. Denied are the doors that namespaces leave open: new namespaces and mounts, io_uring, sockets other than
unix and IP (AF_VSOCK reaches a virtual machine's host even without a network), tracing, kernel modules, key rings,
clocks.

Sources: linux/seccomp.h, linux/audit.h, `asm/unistd_64.h` (x86-64) and `asm-generic/unistd.h` (arm64).
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

from g4agent.errors import SandboxUnavailableError

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
CLONE_NEW_ANY = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
SOCKET_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6."""
TERMINAL_INJECTION = (0x5412, 0x541C)
"""The ioctls TIOCSTI and TIOCLINUX."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one machine architecture numbers its calls. `numbers` leaves out what the architecture lacks."""

    audit: int
    """AUDIT_ARCH_* value in `seccomp_data.arch`."""
    has_x32: bool
    numbers: dict[str, int]


# name: (x86-64, arm64); None where the architecture has no such call
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "listmount": (458, 458),
    "lookup_dcookie": (212, 18),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "statmount": (457, 457),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "uselib": (134, None),
    "vhangup": (153, 58),
}

_FILTERED: dict[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "socketpair": (53, 199),
}


def _architecture(column: int, audit: int, has_x32: bool) -> Architecture:
    rows = [*_DENIED.items(), *_FILTERED.items()]
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
    for name in _DENIED.keys() & numbers.keys():
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
