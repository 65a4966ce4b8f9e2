"""Run by test_bubblewrap_conformance.py as a process of its own: an ordinary user, without control groups."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

import sandbox_suite
from sandbox_host import Host, bait

from g4agent.errors import LimitNotEnforceableError
from g4agent.ports.sandbox import BoxSpec
from g4agent_bubblewrap import BubblewrapSandbox

CASES = (
    "f01_host_files",
    "f02_system_folders",
    "f07_namespaces_and_mounts",
    "f10_path_sockets",
    "f12_quota",
    "f15_links_are_not_followed",
    "p01_fork_bomb",
    "p02_daemons",
    "p08_kill_everything",
    "p09_host_processes",
    "p10_other_processes",
    "p11_forbidden_calls",
    "n01_network",
    "n04_socket_families",
    "i01_environment",
    "o06_partial_output",
    "w01_workspace",
    "w02_snapshots_in_a_row",
)


async def main(host: Host) -> None:
    """Refusal, then the cases in a box that is degraded by name."""
    assert os.geteuid() != 0
    sandbox = BubblewrapSandbox()
    found = sandbox.capabilities()
    assert found.available, found.reason
    missing = {"memory", "processes", "cpu"} - found.enforced
    assert all(any(name in note for note in found.notes) for name in missing)
    if missing:
        try:
            await sandbox.open(BoxSpec())
        except LimitNotEnforceableError as error:
            assert set(error.limits) == missing
        else:
            raise AssertionError("a box without its limits was opened")
    for name in CASES:
        case = sandbox_suite.CASES[name]
        if case.needs in missing:
            continue
        box = await sandbox.open(BoxSpec(limits=sandbox_suite.LIMITS, allow_degraded=frozenset(missing)))
        try:
            await case.run(box, host)
            assert set((await box.exec(["true"])).degraded) == missing
        except BaseException:
            print("failed:", name)
            raise
        finally:
            await box.close()


with tempfile.TemporaryDirectory() as folder, bait(Path(folder)) as host:
    anyio.run(main, host)
print("all held")
