"""The life of containers: typed refusals, Python tools, and what is left when host or engine are killed in mid-call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import docker
import pytest
from docker_engine import Engine, running_engine

from g4agent.errors import BoxClosedError, SandboxUnavailableError
from g4agent.ports.sandbox import BoxSpec, Limits, PythonCall
from g4agent_docker import DockerSandbox

pytestmark = pytest.mark.anyio

TOOLS = Path(__file__).parents[1] / "conformance/tools_in_box"


def containers(engine: Engine) -> list[str]:
    client = docker.DockerClient(base_url=engine.url)
    try:
        return [str(each.name) for each in client.containers.list(all=True)]
    finally:
        client.close()


async def test_python_tools(sandbox: DockerSandbox) -> None:
    """A tool's module cannot be imported, its value or error is lost, or a missing package is not named."""
    box = await sandbox.open(BoxSpec(python_paths=(TOOLS,)))
    try:
        outcome = await box.call(PythonCall("box_tools", "total", {"items": [{"sku": "a", "count": 2}]}))
        assert (outcome.value, outcome.error) == (2, None)
        outcome = await box.call(PythonCall("box_tools", "fails", {"text": "stock"}))
        assert outcome.error is not None and outcome.error.message == "LookupError: no stock"
        outcome = await box.call(PythonCall("no_such_package", "f", {}))
        assert outcome.error is not None and "no_such_package" in outcome.error.message
    finally:
        await box.close()


async def test_nothing_is_left(sandbox: DockerSandbox, engine: Engine) -> None:
    """Calls or boxes leave containers or descriptors behind."""

    async def use() -> int:
        box = await sandbox.open(BoxSpec())
        async with anyio.create_task_group() as group:
            for _ in range(16):
                group.start_soon(box.exec, ["sh", "-c", "sleep 9 & echo x"])
        await box.close()
        with anyio.fail_after(10):
            while containers(engine):
                await anyio.sleep(0.05)
        return len(os.listdir("/proc/self/fd"))

    *_, before = [await use() for _ in range(6)]  # the SDK keeps connections to the engine, but not ever more
    assert await use() <= before


async def test_refusals(engine: Engine) -> None:
    """A missing engine, image or runtime hangs, pulls, or ends in an error of the SDK."""
    started = time.monotonic()
    with pytest.raises(SandboxUnavailableError, match="no engine answers"):
        await DockerSandbox(base_url="unix:///no/such.sock").open(BoxSpec())
    with pytest.raises(SandboxUnavailableError, match="no image"):
        await DockerSandbox("no-such-image:1", base_url=engine.url).open(BoxSpec())
    with pytest.raises(SandboxUnavailableError, match="runtime"):
        await DockerSandbox(base_url=engine.url, runtime="no-such-runtime").open(BoxSpec())
    assert time.monotonic() - started < 10


OWNER = """
import anyio, sys
from g4agent.ports.sandbox import BoxSpec
from g4agent_docker import DockerSandbox

async def main():
    box = await DockerSandbox(base_url=sys.argv[1]).open(BoxSpec())
    print("ready", flush=True)
    await box.exec(["sleep", "7777"], timeout=600)

anyio.run(main)
"""


async def test_killed_host(engine: Engine) -> None:
    """The container of a process that was killed in mid-call lives on."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    owner = subprocess.Popen([sys.executable, "-c", OWNER, engine.url], env=environment, stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdout.readline() == b"ready\n"
    assert any(f"-{owner.pid}-" in name for name in containers(engine))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    with anyio.fail_after(10):
        while any(f"-{owner.pid}-" in name for name in containers(engine)):
            await anyio.sleep(0.05)


@pytest.mark.slow
async def test_killed_engine(engine_kind: str) -> None:
    """A call hangs when the engine is killed in its middle, or the orphaned container lives for ever."""
    with running_engine(engine_kind) as engine:
        box = await DockerSandbox(base_url=engine.url, lease=3).open(BoxSpec())
        with anyio.fail_after(25):
            async with anyio.create_task_group() as group:

                async def running() -> None:
                    with pytest.raises(BoxClosedError):
                        await box.exec(["sleep", "7777"], timeout=600)

                group.start_soon(running)
                await anyio.sleep(0.5)
                engine.kill()
        with anyio.fail_after(10):
            while b"sleep\x007777" in b"".join(_command_lines()):
                await anyio.sleep(0.1)
        engine.start()


def _command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    return lines


async def test_a_silent_call_is_ended(sandbox: DockerSandbox) -> None:
    """A command that hangs holds its session up to the end of its time; one that reports progress must not be ended."""
    box = await sandbox.open(BoxSpec(limits=Limits(idle_seconds=1.0)))
    try:
        silent = await box.exec(["sh", "-c", "echo begun; sleep 30"], timeout=40)
        assert silent.idle and not silent.timed_out and silent.stdout == b"begun\n" and silent.wall_seconds < 10
        busy = await box.exec(["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"], timeout=40)
        assert not busy.idle and busy.exit_code == 0
    finally:
        await box.close()
