"""The container's seccomp profile, from the same table as bubblewrap's filter (`g4agent_box.syscalls`).

One architecture only: a profile that lists the 32-bit one too is passed by through `int 0x80` and its `socketcall`.
Names that the engine's libseccomp does not know are left out by the engine.

Source: https://github.com/opencontainers/runtime-spec, config-linux.md, section seccomp.
"""

from __future__ import annotations

import errno
import json
import platform
from typing import Any

from g4agent.errors import SandboxUnavailableError
from g4agent_box.syscalls import CLONE_NEW_ANY, DENIED, SOCKET_FAMILIES, TERMINAL_INJECTION

ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def seccomp_profile(machine: str | None = None) -> str:
    """The profile as JSON text.

    Args:
        machine: As `platform.machine()` names it; this machine's by default.

    Raises:
        SandboxUnavailableError: The architecture has no table here.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise SandboxUnavailableError(f"the box has no system call filter for {machine}", hint="Use another machine.")
    families = sorted(SOCKET_FAMILIES)
    # a call matches one rule's conditions together: with an open upper end, every family but the allowed ones
    gaps = [_argument(0, "SCMP_CMP_GT", families[-1]), _argument(0, "SCMP_CMP_EQ", 0)]
    between = set(range(families[0], families[-1])) - set(families)
    gaps += [_argument(0, "SCMP_CMP_EQ", family) for family in sorted(between)]
    rules = [_deny(sorted(DENIED), errno.EPERM), _deny(["clone3"], errno.ENOSYS)]
    rules += [
        _deny(["clone"], errno.EPERM, _argument(0, "SCMP_CMP_MASKED_EQ", flag, flag)) for flag in _bits(CLONE_NEW_ANY)
    ]
    rules += [_deny(["socket", "socketpair"], errno.EAFNOSUPPORT, gap) for gap in gaps]
    rules += [
        _deny(["ioctl"], errno.EPERM, _argument(1, "SCMP_CMP_MASKED_EQ", 0xFFFFFFFF, value))
        for value in TERMINAL_INJECTION
    ]
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [ARCHITECTURES[machine]], "syscalls": rules})


def _deny(names: list[str], number: int, *arguments: dict[str, Any]) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": list(arguments)}


def _argument(index: int, operation: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": operation, "value": value, "valueTwo": second}


def _bits(mask: int) -> list[int]:
    return [1 << position for position in range(64) if mask >> position & 1]
