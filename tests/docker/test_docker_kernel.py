"""A container's kernel may be another one than the host's: gVisor's lacks calls that a box needs, in older versions."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from g4agent_box.inside import kernel


def test_a_kernel_that_lacks_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box opens on a kernel on which no command can run, and every call in it is killed without a word."""
    kernel.check()

    def missing(pid: int, flags: int = 0) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", missing)
    with pytest.raises(SystemExit, match="openat2"):
        kernel.check()


def test_a_capability_is_given_up_for_good() -> None:
    """Process 1 of a Podman box could still give files to another user."""
    pid = os.fork()
    if pid == 0:
        kernel.give_up_capability(kernel.CAP_CHOWN)
        lines = Path("/proc/self/status").read_text().splitlines()
        held = [line.split()[1] for line in lines if line.startswith(("CapPrm", "CapEff"))]
        os._exit(any(int(each, 16) & 1 for each in held))
    assert os.waitpid(pid, 0)[1] == 0
