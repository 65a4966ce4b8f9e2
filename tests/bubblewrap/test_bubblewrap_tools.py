"""Python tools in a box: values, errors, output, and what a tool cannot do to its sandbox."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from g4agent.ports.sandbox import Box, BoxSpec, Limits, MiB, PythonCall, PythonOutcome
from g4agent_bubblewrap import BubblewrapSandbox

pytestmark = pytest.mark.anyio

TOOLS = Path(__file__).parents[1] / "conformance/tools_in_box"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def box(sandbox: BubblewrapSandbox) -> AsyncIterator[Box]:
    limits = Limits(memory_bytes=256 * MiB, processes=32, wall_seconds=20, output_bytes=64 * 1024)
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    box = await sandbox.open(BoxSpec(limits=limits, python_paths=(TOOLS,), allow_degraded=degraded))
    yield box
    await box.close()


async def call(
    box: Box, attribute: str, *, module: str = "box_tools", timeout: float | None = None, **arguments: Any
) -> PythonOutcome:
    return await box.call(PythonCall(module, attribute, arguments), timeout=timeout)


async def test_values(box: Box) -> None:
    """Arguments are not turned into the tool's types, or the value does not come back as JSON."""
    outcome = await call(box, "total", items=[{"sku": "a", "count": 2}, {"sku": "b"}])
    assert (outcome.value, outcome.error) == (3, None)
    assert outcome.process.exit_code == 0 and outcome.process.cpu_seconds > 0
    assert (await call(box, "later", text="ünï")).value == "ünï"


async def test_invalid_arguments(box: Box) -> None:
    """Arguments that do not fit reach the function, or look like its own failure."""
    outcome = await call(box, "total", items=[{"count": "many"}])
    assert outcome.error is not None and outcome.error.kind == "invalid_arguments"


async def test_printing_cannot_forge_a_result(box: Box) -> None:
    """What a tool prints is taken for its result, or corrupts the channel."""
    outcome = await call(box, "noisy", text="true")
    assert (outcome.value, outcome.error) == ("true", None)
    assert outcome.process.stdout.startswith(b'{"value": "forged"}\n')
    assert outcome.process.stderr == b"warning\n"


async def test_exception(box: Box) -> None:
    """An exception loses its type, message or place, or shows the sandbox's own frames."""
    outcome = await call(box, "fails", text="stock")
    assert outcome.error is not None and outcome.error.kind == "exception"
    assert outcome.error.message == "LookupError: no stock"
    assert outcome.error.detail is not None and "_deeper" in outcome.error.detail
    assert "g4agent_bubblewrap" not in outcome.error.detail


@pytest.mark.parametrize(
    ("attribute", "arguments", "message"),
    [
        ("unfit", {}, "JSON cannot express"),
        ("huge", {}, "more than the limit of 65536"),
        ("ends", {"code": 3}, "exit code 3"),
        ("crashes", {}, "SIGSEGV"),
        ("missing", {}, "cannot be loaded"),
    ],
)
async def test_no_result(box: Box, attribute: str, arguments: dict[str, Any], message: str) -> None:
    """A tool without a usable result hangs, or fails without a reason."""
    outcome = await call(box, attribute, **arguments)
    assert outcome.value is None and outcome.error is not None
    assert outcome.error.kind == "exception" and message in outcome.error.message


async def test_module_that_cannot_be_imported(box: Box) -> None:
    """A failed import is hidden, or breaks the box for other tools."""
    for _ in range(2):
        outcome = await call(box, "anything", module="broken")
        assert outcome.error is not None and outcome.error.message == "RuntimeError: no license"
    assert (await call(box, "later", text="x")).value == "x"


async def test_planted_modules(box: Box) -> None:
    """A file of the workspace, written by an earlier call, is imported in the place of a tool's module or a library."""
    for name in ("box_tools.py", "json.py", "pydantic.py", "g4agent.py", "sitecustomize.py"):
        await box.write_file(name, b"raise SystemExit('planted')\n")
    assert (await call(box, "total", items=[{"sku": "a", "count": 2}])).value == 2
    assert (await call(box, "later", text="x")).value == "x"


async def test_script(box: Box) -> None:
    """A tool of the main script cannot be called, or the script runs."""
    outcome = await box.call(PythonCall("__main__", "double", {"number": 4}, TOOLS / "script.py"))
    assert (outcome.value, outcome.error) == (8, None)


async def test_timeout_keeps_output(box: Box) -> None:
    """A tool that hangs is not ended at its deadline, or what it printed is lost."""
    started = time.monotonic()
    outcome = await call(box, "hangs", timeout=1.5)
    assert time.monotonic() - started < 4
    assert outcome.error is not None and outcome.error.kind == "timeout"
    assert outcome.process.timed_out and outcome.process.stdout == b"partial\n"


async def test_import_that_hangs(box: Box) -> None:
    """A hanging import hangs the host, or spoils the next call of the tool or the calls of others."""
    outcome = await call(box, "quick", module="slow_import", timeout=0.5)
    assert outcome.error is not None and outcome.error.kind == "timeout"
    assert (await call(box, "quick", module="slow_import")).value == 1


async def test_out_of_memory(box: Box, sandbox: BubblewrapSandbox) -> None:
    """A tool that takes all memory is not told from one that crashed, or takes the box with it."""
    outcome = await call(box, "eats", timeout=15)
    assert outcome.error is not None
    expected = "out_of_memory" if "memory" in sandbox.capabilities().enforced else "exception"
    assert outcome.error.kind == expected
    assert (await call(box, "later", text="x")).value == "x"


async def test_killing_the_helpers(box: Box) -> None:
    """A tool that kills the sandbox's helpers escapes its end, or breaks the box."""
    outcome = await call(box, "kills_helper")
    assert outcome.value is None and outcome.error is not None
    await anyio.sleep(0.8)
    assert "mark" not in await box.list_files()
    assert (await call(box, "later", text="x")).value == "x"


async def test_what_waits_for_the_next_call(box: Box) -> None:
    """A tool writes into the processes that are ready for the next call, or that call is lost with them."""
    await call(box, "later", text="x")
    for _ in range(3):
        outcome = await call(box, "harms_the_next")
        assert (outcome.value, outcome.error) == ([], None)
        assert (await call(box, "later", text="x")).value == "x"


async def test_what_does_not_take_the_next_call(box: Box) -> None:
    """A call goes to a process that takes in what is sent and never reads it, as one that was just killed does."""
    await call(box, "later", text="x")
    assert (await call(box, "stops_the_next")).value == 1
    assert (await call(box, "later", text="x")).value == "x"


async def test_flood_at_import(box: Box) -> None:
    """What a module starts while it is imported takes the supervisor's places, or stays for ever."""
    outcome = await call(box, "never", module="bomb_at_import", timeout=3)
    assert outcome.value is None and outcome.error is not None
    assert (await call(box, "later", text="x")).value == "x"
    count = await box.exec(["sh", "-c", "ls -d /proc/[0-9]* | wc -l"])
    assert int(count.stdout) < 20


@pytest.mark.parametrize("text", ["no JSON", '{"value": NaN}', "[" * 60_000, '{"error": 1}', "[]", '{"value": 7}'])
async def test_forged_result(box: Box, text: str) -> None:
    """What a tool writes in place of its result harms the host; at best it is the tool's own result."""
    outcome = await call(box, "forges", text=text)
    assert (outcome.value == 7) if "7" in text else (outcome.error is not None and "garbled" in outcome.error.message)


async def test_module_is_imported_once(box: Box) -> None:
    """Each call imports its module again, or calls share a process."""
    first, second = (await call(box, "importer")).value, (await call(box, "importer")).value
    assert isinstance(first, list) and isinstance(second, list)
    assert first[0] == second[0] and first[1] != second[1]


async def test_parallel_calls(box: Box) -> None:
    """Calls at the same time get each other's values or output."""
    outcomes: dict[int, PythonOutcome] = {}

    async def one(index: int) -> None:
        outcomes[index] = await call(box, "noisy", text=str(index))

    async with anyio.create_task_group() as group:
        for index in range(8):
            group.start_soon(one, index)
    assert {index: outcome.value for index, outcome in outcomes.items()} == {index: str(index) for index in range(8)}


async def test_cancelled_call(box: Box) -> None:
    """A cancelled call lives on, or its cancellation breaks the box."""
    with anyio.move_on_after(0.3):
        await box.exec(["sh", "-c", "(setsid sh -c 'sleep 1; echo survived > mark' &); sleep 30"])
    with anyio.move_on_after(0.8):
        await call(box, "hangs")
    script = "sleep 1.2; ls; for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; done | grep -c 'sleep 3[0]'"
    assert (await box.exec(["sh", "-c", script])).stdout.split()[-1] == b"0"
    assert "mark" not in await box.list_files()


async def test_a_silent_call_is_ended(sandbox: BubblewrapSandbox) -> None:
    """A command that hangs holds its session up to the end of its time; one that reports progress must not be ended."""
    degraded = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    spec = BoxSpec(limits=Limits(idle_seconds=1.0), python_paths=(TOOLS,), allow_degraded=degraded)
    box = await sandbox.open(spec)
    try:
        silent = await box.exec(["sh", "-c", "echo begun; sleep 30"], timeout=40)
        assert silent.idle and not silent.timed_out and silent.stdout == b"begun\n" and silent.wall_seconds < 10
        busy = await box.exec(["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"], timeout=40)
        assert not busy.idle and busy.exit_code == 0
        outcome = await box.call(PythonCall("box_tools", "hangs", {}), timeout=40)
        assert outcome.error is not None and outcome.error.message == "ended after 1 s without output"
    finally:
        await box.close()


async def test_parallel_commands(box: Box) -> None:
    """Helpers that are let go of after commands at the same time take their answers with them."""
    done = []

    async def one() -> None:
        done.append((await box.exec(["sh", "-c", "(setsid sleep 9 &); echo done"])).stdout)

    for _ in range(8):
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
    assert done == [b"done\n"] * 64
