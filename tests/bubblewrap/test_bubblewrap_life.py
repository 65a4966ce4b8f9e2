"""The life of boxes: what the host must provide, what opening one shows, and what is left after it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from g4agent.errors import BoxClosedError, ConfigError, WorkspacePathError
from g4agent.ports.sandbox import Box, BoxSpec, Limits, MiB, PythonCall
from g4agent_box.inside.supervisor import LOADER_IDLE
from g4agent_box.owner import PREFIX
from g4agent_bubblewrap import BubblewrapSandbox
from g4agent_bubblewrap.cgroup import find_cgroups
from g4agent_bubblewrap.sweep import new_label, sweep

pytestmark = pytest.mark.anyio

TOOLS = Path(__file__).parents[1] / "conformance/tools_in_box"


def specification(sandbox: BubblewrapSandbox, **parts: object) -> BoxSpec:
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    return BoxSpec(python_paths=(TOOLS,), allow_degraded=degraded, **parts)  # type: ignore[arg-type]


def leftovers() -> dict[str, object]:
    """What boxes may leave in the system, as far as this process can see."""
    cgroups = find_cgroups(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    own = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "children": own,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "groups": [path for parent in cgroups.parents() for path in parent.glob(f"{PREFIX}*-{os.getpid()}-*")],
        "mounts": Path("/proc/self/mountinfo").read_text(),
    }


@contextlib.asynccontextmanager
async def opened(sandbox: BubblewrapSandbox, **parts: object) -> AsyncIterator[Box]:
    """A box that is closed at the end."""
    box = await sandbox.open(specification(sandbox, **parts))
    try:
        yield box
    finally:
        await box.close()


async def count_processes(box: Box) -> int:
    """Processes in a box; the helper of the call before this one may still be on its way out, so counted twice."""
    counts = []
    for _ in range(2):
        counts.append(int((await box.exec(["sh", "-c", "sleep 0.1; set -- /proc/[0-9]*; echo $#"])).stdout))
    return min(counts)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_nothing_is_left(sandbox: BubblewrapSandbox) -> None:
    """Calls or boxes leave processes, descriptors, control groups or mounts behind, on either event loop."""
    async with opened(sandbox) as box:
        await box.exec(["true"])
    before = leftovers()
    boxes = [await sandbox.open(specification(sandbox)) for _ in range(3)]
    await anyio.sleep(5 * LOADER_IDLE)  # an idle box starts its loader
    inside = await count_processes(boxes[0])
    for index in range(100):
        assert (await boxes[0].exec(["sh", "-c", "sleep 9 & echo x"])).exit_code == 0
        if index % 4 == 0:
            assert (await boxes[1].call(PythonCall("box_tools", "later", {"text": "x"}))).value == "x"
    during = leftovers()
    assert await count_processes(boxes[0]) == inside
    for box in boxes:
        await box.close()
    assert leftovers() == before
    assert during["mounts"] == before["mounts"], "mounts must be the box's own"


async def test_boxes_are_separate(sandbox: BubblewrapSandbox) -> None:
    """A box sees another one's files or processes, or its own are gone at the next call."""
    async with opened(sandbox) as first, opened(sandbox) as second:
        await first.exec(["sh", "-c", "echo 1 > mine; echo 1 > /tmp/mine"])
        assert (await first.exec(["cat", "mine", "/tmp/mine"])).stdout == b"1\n1\n"
        mounted = {b"tools_in_box", Path(__file__).resolve().parts[2].encode()}  # the second: of a checkout below /tmp
        assert set((await second.exec(["sh", "-c", "ls; ls /tmp"])).stdout.split()) <= mounted
        assert (await first.exec(["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"])).stdout.count(b"main") <= 2


async def test_snapshot_of_what_a_tool_has_locked(sandbox: BubblewrapSandbox) -> None:
    """A tool that takes its own rights away makes the workspace impossible to save, to clear or to put back."""
    async with opened(sandbox) as box:
        locked = "mkdir -p d/deep e; echo 1 > a; echo 2 > d/deep/b; echo 3 > e/c; chmod 000 a d/deep d; chmod 555 e"
        await box.exec(["sh", "-c", locked])
        saved = await box.snapshot()
        await box.exec(["sh", "-c", "rm -rf a d; chmod 000 e"])
        await box.restore(saved)
        assert (await box.exec(["cat", "a", "d/deep/b", "e/c"])).stdout == b"1\n2\n3\n"


async def test_closed_box(sandbox: BubblewrapSandbox) -> None:
    """A closed box hangs or crashes its callers, or cannot be closed twice."""
    async with opened(sandbox) as box:
        await box.close()
        await box.close()
        with pytest.raises(BoxClosedError):
            await box.exec(["true"])
        with pytest.raises(BoxClosedError):
            await box.snapshot()


async def test_box_that_dies(sandbox: BubblewrapSandbox) -> None:
    """A box that was killed from outside hangs its callers."""
    async with opened(sandbox) as box:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:

                async def running() -> None:
                    with pytest.raises(BoxClosedError, match="ended unexpectedly"):
                        await box.exec(["sleep", "30"])

                group.start_soon(running)
                await anyio.sleep(0.3)
                box._holder.popen.kill()  # type: ignore[attr-defined]
            with pytest.raises(BoxClosedError):
                await box.exec(["true"])


async def test_named_socket(sandbox: BubblewrapSandbox, tmp_path: Path) -> None:
    """A service that was named cannot be reached, or one that was not can."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    listeners = []
    for name in ("named", "other"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / name))
        (folder / name).chmod(0o666)
        listener.listen(1)
        listeners.append(listener)

    def serve() -> None:
        connection, _ = listeners[0].accept()
        with connection:
            connection.sendall(connection.recv(100).upper())

    thread = threading.Thread(target=serve)
    thread.start()
    async with opened(sandbox, sockets={"/run/service/shop.sock": folder / "named"}) as box:
        outcome = await box.call(PythonCall("box_tools", "ask", {"path": "/run/service/shop.sock"}))
        assert outcome.value == "HELLO", outcome.error
        outcome = await box.call(PythonCall("box_tools", "ask", {"path": str(folder / "other")}))
        assert outcome.error is not None and "FileNotFoundError" in outcome.error.message
        assert (await box.exec(["ls", "-A", "/run/service"])).stdout == b"shop.sock\n"
    thread.join(5)
    for listener in listeners:
        listener.close()


async def test_what_cannot_be_shown(sandbox: BubblewrapSandbox, tmp_path: Path) -> None:
    """A folder or socket that is not there, or a socket that the box's user may not use, fails inside the box."""
    degraded = specification(sandbox).allow_degraded
    with pytest.raises(ConfigError, match="not a folder"):
        await sandbox.open(BoxSpec(python_paths=(tmp_path / "missing",), allow_degraded=degraded))
    with pytest.raises(ConfigError, match="not a unix socket"):
        await sandbox.open(BoxSpec(sockets={"/run/x": tmp_path}, allow_degraded=degraded))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "closed"))
        (tmp_path / "closed").chmod(0o600)
        if os.geteuid() == 0:
            with pytest.raises(ConfigError, match="0666"):
                await sandbox.open(BoxSpec(sockets={"/run/x": tmp_path / "closed"}, allow_degraded=degraded))


async def test_files_of_all_sizes(sandbox: BubblewrapSandbox) -> None:
    """A file's bytes change on their way, or one above its limit passes."""
    limits = Limits(file_bytes=4 * MiB, workspace_bytes=6 * MiB)
    async with opened(sandbox, limits=limits) as box:
        for size in (0, 1, 1 << 18, (1 << 18) + 1, 4 * MiB):
            data = os.urandom(size)
            await box.write_file("folder/file", data, executable=size == 1)
            assert await box.read_file("/workspace/folder/file") == data
        with pytest.raises(WorkspacePathError, match="more than"):
            await box.write_file("big", bytes(4 * MiB + 1))
        with pytest.raises(WorkspacePathError, match="No space left"):
            await box.write_file("second", bytes(4 * MiB))
        assert await box.list_files("folder") == ["file"]


OWNER = """
import anyio, sys
from g4agent.ports.sandbox import BoxSpec
from g4agent_bubblewrap import BubblewrapSandbox

async def main():
    box = await BubblewrapSandbox().open(BoxSpec(allow_degraded=frozenset({"memory", "processes", "cpu"})))
    print("ready", flush=True)
    await box.exec(["sh", "-c", "exec sleep 7777"], timeout=600)

anyio.run(main)
"""


async def test_killed_owner(sandbox: BubblewrapSandbox) -> None:
    """The box of a killed process lives on, what it leaves is never removed, or a living owner's box is removed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    owner = subprocess.Popen([sys.executable, "-c", OWNER], env=environment, stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdout.readline() == b"ready\n"
    children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children")
    (bwrap,) = children.read_text().split()
    cgroups = find_cgroups(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    theirs = [path for parent in cgroups.parents() for path in parent.glob(f"{PREFIX}*-{owner.pid}-*")]
    assert bool(theirs) == bool(cgroups.mounts)
    async with opened(sandbox) as box:
        assert not set(theirs) & set(sweep(cgroups))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
        with anyio.fail_after(5):
            while Path(f"/proc/{bwrap}").exists():
                await anyio.sleep(0.01)
        with anyio.fail_after(5):  # the kernel lets go of the last processes a little after bwrap
            while any(path.exists() for path in theirs):
                sweep(cgroups)
                await anyio.sleep(0.01)
        assert (await box.exec(["true"])).exit_code == 0


def test_label_names_its_owner() -> None:
    """Two boxes share a name, or the owner cannot be told from a later process with the same id."""
    first, second = new_label(), new_label()
    assert first != second and f"-{os.getpid()}-" in first


async def test_cold_start_and_warm_calls(sandbox: BubblewrapSandbox) -> None:
    """A box takes seconds to open, or a warm call much longer than a fork. (Loose: the machine may be busy.)"""
    async with opened(sandbox):
        pass
    started = time.monotonic()
    async with opened(sandbox) as box:
        assert time.monotonic() - started < 2
        call = PythonCall("box_tools", "later", {"text": "x"})
        await box.call(call)
        started = time.monotonic()
        for _ in range(5):
            await box.call(call)
        assert time.monotonic() - started < 2
