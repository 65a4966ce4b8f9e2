"""What a snapshot of the workspace costs: the first one of a box, and one after a step that changed a single file.

    python benchmarks/snapshot_cost.py [--files 2000] [--rounds 10] [--docker URL] [--json] [--check]

Milliseconds, medians over the rounds and, as the machine may be busy, the fastest: the box's archive, its compression
as the store does it, and its restoring into an empty box. `whole` is the same without what is known from the snapshot
before: a box that was just opened, and zlib over all of the archive. The files are source files, of 6 kB on average.
"""

from __future__ import annotations

import os
import random
import sys
import zlib

import anyio
from _report import Report, Rows, Target, arguments, publish
from sandbox_latency import DEGRADED, Figures

from g4agent.ports.sandbox import Box, BoxSpec, Sandbox
from g4agent.store.deflate import Deflater

WORDS = b"return self None import class if else for in def value result error session ( ) [ ] : , = == + \n    ".split(
    b" "
)
SHARE = 2
"""How many times less than a whole snapshot, with its compression, one after a change must cost."""


def contents(files: int) -> dict[str, bytes]:
    """Made-up source files, always the same ones."""
    dice = random.Random(1)
    return {f"d{i % 50}/f{i}.py": b" ".join(dice.choices(WORDS, k=dice.randrange(100, 3000))) for i in range(files)}


async def fill(box: Box, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        await box.write_file(path, data)


async def measure_sandbox(sandbox: Sandbox, figures: dict[str, Figures], files: dict[str, bytes], rounds: int) -> None:
    """One box with the files, and a fresh one in each round that takes them over."""
    spec = BoxSpec(allow_degraded=DEGRADED)  # type: ignore[arg-type]
    kept = await sandbox.open(spec)
    await fill(kept, files)
    archive = await kept.snapshot()
    deflater = Deflater()
    deflater.compress(archive)
    taken: list[bytes] = []

    async def take() -> None:
        taken.append(await kept.snapshot())

    async def compress() -> None:
        deflater.compress(taken[-1])

    for number in range(rounds):
        await kept.write_file("d0/f0.py", str(number).encode())
        await figures["one file changed"].take("archive", take)
        await figures["one file changed"].take("compression", compress)
        await _measure_whole(await sandbox.open(spec), figures["whole"], archive)
    await kept.close()


async def _measure_whole(box: Box, figures: Figures, archive: bytes) -> None:
    async def compress() -> None:
        zlib.compress(archive, 1)

    await figures.take("restore", lambda: box.restore(archive))
    await figures.take("archive", box.snapshot)
    await figures.take("compression", compress)
    await box.close()


async def measure(files: int, rounds: int, docker: str | None) -> Rows:
    """A pair of rows per backend."""
    from g4agent_bubblewrap import BubblewrapSandbox

    sandboxes: dict[str, Sandbox] = {"bubblewrap": BubblewrapSandbox()}
    if docker is not None:
        from g4agent_docker import DockerSandbox

        sandboxes["docker"] = DockerSandbox(base_url=docker)
    rows: Rows = {}
    for name, sandbox in sandboxes.items():
        figures = {"one file changed": Figures(), "whole": Figures()}
        await measure_sandbox(sandbox, figures, contents(files), rounds)
        rows |= {f"{name}, {kind}": each.row() for kind, each in figures.items()}
    return rows


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=2000, help="files in the workspace (default: 2000)")
    parser.add_argument("--rounds", type=int, default=10, help="snapshots taken per backend (default: 10)")
    parser.add_argument("--docker", default=os.environ.get("DOCKER_HOST"), help="an engine's socket, unix://…")
    options = parser.parse_args()
    rows = anyio.run(measure, options.files, options.rounds, options.docker)
    changed, whole = (
        sum(float(rows[f"bubblewrap, {kind}"][name] or 0) for name in ("archive, min", "compression, min"))
        for kind in ("one file changed", "whole")
    )
    checked = (Target("one file changed / whole, bubblewrap", changed / whole, 1 / SHARE),)
    return publish(Report("Cost of a snapshot", "ms", rows, checked), options)


if __name__ == "__main__":
    sys.exit(main())
