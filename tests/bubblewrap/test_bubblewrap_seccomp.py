"""The system call filter: its programs for both architectures, and what needs machine code to try."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from g4agent.errors import SandboxUnavailableError
from g4agent.ports.sandbox import BoxSpec
from g4agent_bubblewrap import BubblewrapSandbox
from g4agent_bubblewrap.seccomp import ALLOW, ARCHITECTURES, ERRNO, KILL_PROCESS, build_filter

EPERM, ENOSYS, EAFNOSUPPORT = (ERRNO | number for number in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))


def decide(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Runs a filter as the kernel does, on one call (linux/seccomp.h, `struct seccomp_data`)."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, audit, 0, *padded)
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, 8 * position)
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            position += if_true if holds else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_decisions(machine: str) -> None:
    """A forbidden call is open, or a needed one closed, on an architecture that the tests do not run on."""
    program = build_filter(machine)
    architecture = ARCHITECTURES[machine]
    numbers, audit = architecture.numbers, architecture.audit
    allowed = {"clone", "ioctl", "socket", "socketpair"}
    for name, number in numbers.items():
        expected = ENOSYS if name == "clone3" else EAFNOSUPPORT if name.startswith("socket") else EPERM
        first = 0x10000000 if name == "clone" else 40
        assert decide(program, audit, number, first, 0x5412) == expected, name
        if name in allowed:
            assert decide(program, audit, number, 1, 0x5401) == ALLOW, name
    assert len(set(numbers.values())) == len(numbers)
    for family, verdict in ((1, ALLOW), (2, ALLOW), (10, ALLOW), (16, EAFNOSUPPORT), (17, EAFNOSUPPORT)):
        assert decide(program, audit, numbers["socket"], family) == verdict
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(program, audit, numbers["clone"], flag | 17) == EPERM
    threads_flags = 0x003D0F00
    assert decide(program, audit, numbers["clone"], threads_flags) == ALLOW
    read, futex = {"x86_64": (0, 202), "aarch64": (63, 98)}[machine]
    assert decide(program, audit, read) == decide(program, audit, futex) == ALLOW


def test_other_architectures() -> None:
    """Calls of a second architecture, or x32 numbers, pass the filter by."""
    program = build_filter("x86_64")
    for audit in (0x40000003, 0xC00000B7, 0):
        assert decide(program, audit, 102) == KILL_PROCESS
    assert decide(program, ARCHITECTURES["x86_64"].audit, 0x40000000 + 41, 40) == ENOSYS
    with pytest.raises(SandboxUnavailableError, match="riscv64"):
        build_filter("riscv64")


INT_80 = """
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex("53b814000000cd805bc3"))  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
print("PWNED", function())
"""


@pytest.mark.anyio
async def test_32_bit_calls(sandbox: BubblewrapSandbox) -> None:
    """`int 0x80` reaches the 32-bit call table, whose socketcall opens any family of sockets."""
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    box = await sandbox.open(BoxSpec(allow_degraded=degraded))
    result = await box.exec(["python3", "-c", INT_80])
    await box.close()
    assert b"PWNED" not in result.stdout
    assert result.signal == {"x86_64": 31, "aarch64": 4}[platform.machine()], "SIGSYS, or an illegal instruction"
