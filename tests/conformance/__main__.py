"""Runs the conformance cases over every backend of this machine and prints a Markdown table.

    python -m tests.conformance [--backend NAME ...] [--case NAME ...] [--json]

Backends: `bubblewrap` as this user, `bubblewrap-user` as an ordinary user without control groups (where this user is
root), `docker` and `podman` with an engine of their own, and `control`, a bare subprocess, in which the attacks must
work: cases that would harm the host are not run there. Any other name is that of an installed sandbox, which is only
run where it is named. Exits with 1 where a backend fails a case or the control withstands one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from bare_subprocess import BareBox
from cases_network import NETWORK_CASES, box_with_network
from docker_engine import ENGINES, running_engine
from network_upstream import Upstream, upstream
from sandbox_host import Host, bait
from sandbox_suite import CASES, LIMITS

from g4agent.errors import LimitNotEnforceableError
from g4agent.ports.sandbox import BoxSpec, Sandbox
from g4agent.registry import load_sandbox, names
from g4agent_bubblewrap import BubblewrapSandbox
from g4agent_bubblewrap.process import launch_command
from g4agent_docker import DockerSandbox

TESTS = Path(__file__).resolve().parents[1]
NOBODY = 65534
HELD, REFUSED, OPEN, NOT_RUN = "holds", "refused", "open", "–"

Outcomes = dict[str, str]
"""Case → `holds`, `refused` (the box did not open without a limit that it needs), `open` (the control), or why not."""


async def run_cases(sandbox: Sandbox, host: Host, servers: Upstream) -> Outcomes:
    """All cases, each in a box of its own."""
    missing = frozenset({"memory", "processes", "cpu"}) - sandbox.capabilities().enforced
    spec = BoxSpec(limits=LIMITS, allow_degraded=missing)  # type: ignore[arg-type]
    outcomes: Outcomes = {}
    for name, case in CASES.items():
        async with _judged(outcomes, name):
            needed = BoxSpec(limits=LIMITS) if case.needs in missing else spec
            box = await sandbox.open(needed)
            try:
                await case.run(box, host)
            finally:
                await box.close()
    for name, network_case in NETWORK_CASES.items():
        async with _judged(outcomes, name), box_with_network(sandbox, spec, servers) as (box, egress):
            await network_case(box, servers, egress)
    return outcomes


@contextlib.asynccontextmanager
async def _judged(outcomes: Outcomes, name: str) -> AsyncIterator[None]:
    try:
        yield
        outcomes[name] = HELD
    except LimitNotEnforceableError:
        outcomes[name] = REFUSED
    except Exception as problem:
        words = (str(problem) or "no message").splitlines()[0]
        outcomes[name] = f"FAILS: {type(problem).__name__}: {words}"[:120]


async def run_control(host: Host, folder: Path) -> Outcomes:
    """The starred cases, without any sandbox."""
    outcomes: Outcomes = {}
    for name in (name for name, case in CASES.items() if case.starred):
        try:
            await CASES[name].run(BareBox(folder), host)  # type: ignore[arg-type]
            outcomes[name] = "FAILS: the attack does not work without a sandbox either"
        except AssertionError:
            outcomes[name] = OPEN
    return outcomes


def run_backend(name: str) -> Outcomes:
    """One column of the table."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if name == "bubblewrap-user" and os.geteuid() == 0:
            return _as_ordinary_user()
        host, servers = stack.enter_context(bait(folder)), stack.enter_context(upstream(folder))
        if name == "control":
            return anyio.run(run_control, host, folder)
        if name in ENGINES:
            engine = stack.enter_context(running_engine(name))
            return anyio.run(run_cases, DockerSandbox(base_url=engine.url), host, servers)
        sandbox = BubblewrapSandbox() if name.startswith("bubblewrap") else load_sandbox(name)
        return anyio.run(run_cases, sandbox, host, servers)


def _as_ordinary_user() -> Outcomes:
    shown = [str(Path(path).resolve()) for path in sys.path if Path(path).is_dir()]
    folders = sorted({sys.prefix, sys.base_prefix, *shown, str(TESTS)})
    command = [*launch_command(NOBODY, folders), sys.executable, str(Path(__file__).resolve())]
    environment = {"PYTHONPATH": os.pathsep.join(shown), "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    options = ["--backend", "bubblewrap-user", "--json", *(f"--case={name}" for name in (*CASES, *NETWORK_CASES))]
    done = subprocess.run(
        [*command, *options], env=environment, cwd="/", stdout=subprocess.PIPE, text=True, check=False
    )
    columns: dict[str, Outcomes] = json.loads(done.stdout)
    return columns["bubblewrap-user"]


def table(columns: dict[str, Outcomes]) -> Iterator[str]:
    """The lines of a Markdown table, a case a line, with what a failing sandbox would let through."""
    yield f"| case | what a failing sandbox lets through | {' | '.join(columns)} |"
    yield "|---" * (2 + len(columns)) + "|"
    for name, run in [*((name, case.run) for name, case in CASES.items()), *NETWORK_CASES.items()]:
        words = " ".join((run.__doc__ or "").split())
        yield f"| {name} | {words} | {' | '.join(column.get(name, NOT_RUN) for column in columns.values())} |"
    held = (f"{sum(each in (HELD, REFUSED, OPEN) for each in c.values())}/{len(c)}" for c in columns.values())
    yield f"| **as it must be** | | {' | '.join(held)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["bubblewrap", "bubblewrap-user", "docker", "podman", "control"]
    known = list(dict.fromkeys([*every, *names("sandboxes")]))
    parser.add_argument("--backend", action="append", choices=known, help="run this one only; may be repeated")
    cases = [*CASES, *NETWORK_CASES]
    parser.add_argument("--case", action="append", choices=cases, help="run this one only; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    for left_out in set(cases) - set(options.case or cases):
        CASES.pop(left_out, None) or NETWORK_CASES.pop(left_out)
    columns = {name: run_backend(name) for name in options.backend or every}
    print(json.dumps(columns) if options.json else "\n".join(table(columns)))
    return 1 if any(each.startswith("FAILS") for column in columns.values() for each in column.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
