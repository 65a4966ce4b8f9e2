"""Control groups of both versions, over folders that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent.ports.sandbox import Limits, MiB
from g4agent_bubblewrap.cgroup import HOST_LEAF, BoxCgroup, Cgroups, Mount, find_cgroups, read_counter

LIMITS = Limits(memory_bytes=64 * MiB, processes=10, cpus=0.5)


def group(directory: Path, *, controllers: str = "", shared_out: str = "", processes: str = "") -> Path:
    """A folder like a version 2 group."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.controllers").write_text(controllers)
    (directory / "cgroup.subtree_control").write_text(shared_out)
    (directory / "cgroup.procs").write_text(processes)
    return directory


def mountinfo(*mounts: tuple[str, Path, str]) -> str:
    lines = [f"3{i} 25 0:2{i} / {path} rw - {kind} {kind} {options}" for i, (kind, path, options) in enumerate(mounts)]
    return "\n".join(["25 1 8:1 / / rw shared:1 - ext4 /dev/sda rw", *lines])


def test_version_1(tmp_path: Path) -> None:
    """Controllers mounted together or apart are not found, or a group's limits are wrong."""
    memory, joined = group(tmp_path / "memory"), group(tmp_path / "cpu,cpuacct,pids")
    mounts = mountinfo(("cgroup", memory, "rw,memory"), ("cgroup", joined, "rw,cpu,cpuacct,pids"))
    found = find_cgroups(mounts, "4:memory:/x\n1:cpu:/\n")
    assert found.mounts == {"memory": Mount(1, memory), "pids": Mount(1, joined), "cpu": Mount(1, joined)}
    assert found.enforced == {"memory", "processes", "cpu"}
    made = found.create("g4agent-1-2-3-4", LIMITS)
    assert made.directories == (joined / made.label, memory / made.label)
    values = {file.name: file.read_text() for directory in made.directories for file in directory.iterdir()}
    assert values == {
        "memory.limit_in_bytes": str(64 * MiB),
        "pids.max": "74",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
    }
    (memory / made.label / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert made.oom_kills() == 2


def test_version_2(tmp_path: Path) -> None:
    """A delegated group whose parent shares out controllers is not found, or a group's limits are wrong."""
    group(tmp_path, controllers="cpu memory pids", shared_out="").chmod(0o555)
    scope = group(tmp_path / "user.scope", controllers="cpu memory pids io", shared_out="cpu memory pids")
    own = group(scope / HOST_LEAF, processes="1\n")
    found = find_cgroups(mountinfo(("cgroup2", tmp_path, "rw")), f"0::/{own.relative_to(tmp_path)}\n")
    assert found.mounts == {name: Mount(2, scope) for name in ("memory", "pids", "cpu")}
    made = found.create("g4agent-1-2-3-4", LIMITS)
    values = {file.name: file.read_text() for file in made.directories[0].iterdir()}
    assert values == {"memory.max": str(64 * MiB), "pids.max": "74", "cpu.max": "50000 100000"}
    (made.directories[0] / "memory.events").write_text("low 0\noom 3\noom_kill 3\n")
    assert made.oom_kills() == 3


def test_version_2_shares_out(tmp_path: Path) -> None:
    """In a group of its own the process does not make room, so that no controller can be enabled."""
    scope = group(tmp_path / "user.scope", controllers="cpu memory pids", processes="71\n72\n")
    find_cgroups(mountinfo(("cgroup2", tmp_path, "rw")), "0::/user.scope\n")
    assert (scope / HOST_LEAF / "cgroup.procs").read_text() == "72", "each process is written by itself"
    assert (scope / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_nothing_to_use(tmp_path: Path) -> None:
    """A host without groups, or with a hybrid that lacks the controllers, is taken for one with limits."""
    unified = group(tmp_path / "unified", controllers="hugetlb")
    assert find_cgroups(mountinfo(("cgroup2", unified, "rw")), "0::/\n") == Cgroups({})
    assert find_cgroups(mountinfo(), "") == Cgroups({})


def test_failed_group_leaves_nothing(tmp_path: Path) -> None:
    """A group whose limits the kernel refuses stays behind."""
    groups = Cgroups({"memory": Mount(1, tmp_path), "pids": Mount(1, tmp_path / "missing")})
    with pytest.raises(OSError):
        groups.create("g4agent-1-2-3-4", LIMITS)
    assert not (tmp_path / "g4agent-1-2-3-4").exists()


def test_counters(tmp_path: Path) -> None:
    """A missing or foreign file ends a call with an exception."""
    assert read_counter(tmp_path / "missing", "oom_kill") == 0
    assert BoxCgroup((), None, "label").oom_kills() == 0
