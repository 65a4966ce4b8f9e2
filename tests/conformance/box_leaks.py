"""Many calls in one box, and what they must not leave: used by each backend's tests."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio

from g4agent.egress.destinations import parse_destinations
from g4agent.egress.service import Egress
from g4agent.ports.sandbox import Box, BoxSpec, PythonCall, Sandbox

TOOLS = Path(__file__).with_name("tools_in_box")
IN_A_ROW, PARALLEL = 500, 16


async def check(sandbox: Sandbox, spec: BoxSpec, leftovers: Callable[[], object]) -> None:
    """500 calls in a row, 16 at a time ten times over, and tunnels through the forwarder; then the box is closed.

    Nothing may have grown inside while the box was open, nor be left on the host after it.
    """
    spec = replace(spec, python_paths=(TOOLS,))
    with tempfile.TemporaryDirectory() as folder, _temporary_files_in(folder):
        await _use(sandbox, spec, 4)  # what a process opens once: threads, imports, caches
        before = leftovers()
        await _use(sandbox, spec, IN_A_ROW)
        with anyio.move_on_after(10):
            while leftovers() != before:
                await anyio.sleep(0.05)
        assert leftovers() == before, (leftovers(), before)
        assert list(Path(folder).iterdir()) == []


async def _use(sandbox: Sandbox, spec: BoxSpec, number: int) -> None:
    egress = Egress(parse_destinations(["shop.example:443"]))
    with egress.served() as sockets:
        box = await sandbox.open(replace(spec, sockets=sockets, ports=egress.ports, env=egress.environment))
        try:
            await _call(box)
            inside = await _inside(box)
            for index in range(number):
                await _call(box) if index % 2 else await _exec(box)
            for _ in range(min(number, 10)):
                async with anyio.create_task_group() as group:
                    for index in range(PARALLEL):
                        group.start_soon(_call if index % 2 else _exec, box)
            now = await _inside(box)
            assert now == inside, (now, inside)
        finally:
            await box.close()
    assert sum(attempt.count for attempt in egress.take_attempts()) > number // 2


async def _call(box: Box) -> None:
    outcome = await box.call(PythonCall("box_tools", "later", {"text": "x"}))
    assert outcome.value == "x", outcome


async def _exec(box: Box) -> None:
    """A command that leaves a process behind, and asks the proxy for what it may not have."""
    ask = "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT no.example:1 HTTP/1.1\\r\\n\\r\\n' >&3; head -1 <&3"
    result = await box.exec(["bash", "-c", f"(setsid sleep 9 &); {ask}"])
    assert b" 403 " in result.stdout, result


async def _inside(box: Box) -> list[int]:
    """How many processes and files the box has; the least of several looks, as the helper of an earlier call may still
    be on its way out."""
    script = "set -- /proc/[0-9]*; echo $#; set -- /tmp/* /tmp/.* /workspace/* /workspace/.*; echo $#"
    looks = []
    for _ in range(5):
        await anyio.sleep(0.1)
        looks.append([int(word) for word in (await box.exec(["sh", "-c", script])).stdout.split()])
    return min(looks)


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """A place of this test's own: others may use /tmp at the same time."""
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before
