"""What a sandbox costs in time: opening a box until its first command is done, and a call in an open one.

    python benchmarks/sandbox_latency.py [--rounds 15] [--calls 60] [--docker URL] [--smolagents] [--json] [--check]

Beside ours, in the same rounds: `subprocess.run`, which isolates nothing. Its "call" is a fresh interpreter that
imports pydantic and runs the same function, as there is no warm one. Medians over the rounds, in milliseconds; and, as
the machine may be busy, the fastest. Docker is measured where an engine with the boxes' image is named by `--docker` or
DOCKER_HOST. `--smolagents` adds smolagents' Docker executor on the same engine: its image is made here, with the
packages of its Dockerfile, and its calls run their code in one Jupyter kernel, which keeps what earlier code left. It
publishes port 8888, so the engine must have a bridge.
"""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
from _report import Report, Rows, Target, arguments, publish

from g4agent.ports.sandbox import BoxSpec, PythonCall, Sandbox
from g4agent.tools import tool

COLD_MS, WARM_MS = 60.0, 5.0
DEGRADED = frozenset({"memory", "processes", "cpu"})
FRESH = "import json, pydantic; print(sum(json.loads('[1, 2, 3]')))"

Times = dict[str, list[float]]
"""By column, in ms."""


@tool(effect="pure")
def total(numbers: list[int]) -> int:
    """Adds numbers up.

    Args:
        numbers: What to add.
    """
    return sum(numbers)


class Figures:
    """Times by column, in ms."""

    def __init__(self) -> None:
        self._times: Times = {}

    async def take(self, column: str, action: Callable[[], Awaitable[object]]) -> None:
        """Times one action."""
        started = time.perf_counter()
        await action()
        self._times.setdefault(column, []).append(1000 * (time.perf_counter() - started))

    def add(self, times: Times) -> None:
        """Takes in times that were measured elsewhere."""
        for column, more in times.items():
            self._times.setdefault(column, []).extend(more)

    def row(self) -> dict[str, float | None]:
        """The median and the fastest of each column."""
        row: dict[str, float | None] = {}
        for column, times in self._times.items():
            row |= {column: statistics.median(times), f"{column}, min": min(times)}
        return row


async def measure_sandbox(sandbox: Sandbox, figures: Figures, calls: int) -> None:
    """One round: a box is opened, used and closed."""
    spec = BoxSpec(python_paths=(Path(__file__).parent,), allow_degraded=DEGRADED)  # type: ignore[arg-type]
    call = PythonCall("sandbox_latency", "total", {"numbers": [1, 2, 3]})
    opened = []

    async def open_and_run() -> None:
        opened.append(await sandbox.open(spec))
        result = await opened[0].exec(["true"])
        assert result.exit_code == 0, result

    async def run_python() -> None:
        outcome = await opened[0].call(call)
        assert outcome.value == 6, outcome

    await figures.take("cold", open_and_run)
    await figures.take("first call", run_python)
    for _ in range(calls):
        await figures.take("command", lambda: opened[0].exec(["true"]))
        await figures.take("call", run_python)
    await opened[0].close()


async def measure_subprocess(figures: Figures, calls: int) -> None:
    """The same work without a sandbox."""

    async def run(*argv: str) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)  # noqa: ASYNC221 - the time of this is the figure

    for _ in range(calls):
        await figures.take("command", lambda: run("true"))
    await figures.take("call", lambda: run(sys.executable, "-c", FRESH))


async def measure(rounds: int, calls: int, docker: str | None, executor: Callable[[int], Times] | None) -> Rows:
    """All contenders, one after another in each round."""
    from g4agent_bubblewrap import BubblewrapSandbox  # here: a box, which imports this module, has it not

    sandboxes: dict[str, Sandbox] = {"bubblewrap": BubblewrapSandbox()}
    if docker is not None:
        from g4agent_docker import DockerSandbox

        sandboxes["docker"] = DockerSandbox(base_url=docker)
    table = {name: Figures() for name in (*sandboxes, "subprocess.run")}
    for sandbox in sandboxes.values():
        await measure_sandbox(sandbox, Figures(), 2)
    for _ in range(rounds):
        for name, sandbox in sandboxes.items():
            await measure_sandbox(sandbox, table[name], calls // rounds)
        await measure_subprocess(table["subprocess.run"], calls // rounds)
        if executor is not None:
            table.setdefault("smolagents docker", Figures()).add(executor(calls // rounds))
    rows = {name: figures.row() for name, figures in table.items()}
    plain = rows["subprocess.run"]
    for name in sandboxes:
        rows[f"{name} / subprocess"] = {
            column: figure / other
            for column in ("command", "call")
            if (figure := rows[name][column]) is not None and (other := plain[column]) is not None
        }
    return rows


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="boxes opened per backend (default: 15)")
    parser.add_argument("--calls", type=int, default=60, help="warm calls per backend (default: 60)")
    parser.add_argument("--docker", default=os.environ.get("DOCKER_HOST"), help="an engine's socket, unix://…")
    parser.add_argument("--smolagents", action="store_true", help="measure its Docker executor, too")
    options = parser.parse_args()
    calls = max(options.calls, options.rounds)
    packages = ("g4agent",)
    with contextlib.ExitStack() as stack:
        executor = None
        if options.smolagents:
            if not options.docker:
                parser.error("--smolagents needs an engine: --docker")
            from _kernel_gateway import kernel_image, measure_executor  # here: a box has no use for it, and forks it

            packages += ("smolagents",)
            stack.enter_context(kernel_image(options.docker))
            executor = functools.partial(measure_executor, options.docker)
        rows = anyio.run(measure, options.rounds, calls, options.docker, executor)
    ours = rows["bubblewrap"]
    targets = [("cold", COLD_MS), ("call", WARM_MS)]
    checked = tuple(Target(f"bubblewrap {name}, median ms", float(ours[name] or 0), limit) for name, limit in targets)
    return publish(Report("Latency of a sandbox", "ms", rows, checked, packages), options)


if __name__ == "__main__":
    sys.exit(main())
