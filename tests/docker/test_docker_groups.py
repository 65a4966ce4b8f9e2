"""Limits as the kernel has them: what an engine took and did not set is not taken for enforced."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent.errors import LimitNotEnforceableError
from g4agent.ports.sandbox import BoxSpec, Limits, MiB
from g4agent_docker import DockerSandbox
from g4agent_docker.groups import Groups

LIMITS = Limits(memory_bytes=256 * MiB, processes=32, cpus=0.5)
HELD = {"memory": str(256 * MiB), "pids": "96", "quota": "50000"}


def first_version(root: Path, values: dict[str, str]) -> Groups:
    """Groups of version 1, with what the box's own say."""
    contents = {
        "memory/memory.limit_in_bytes": values["memory"],
        "pids/pids.max": values["pids"],
        "cpu/cpu.cfs_quota_us": values["quota"],
        "cpu/cpu.cfs_period_us": "100000",
    }
    for name, content in contents.items():
        file = root / name.replace("/", "/engine/box/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    (root / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    return Groups({"memory": "/engine/box", "pids": "/engine/box", "cpu": "/engine/box"}, root)


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, set()),
        ({"memory": "9223372036854771712"}, {"memory"}),
        ({"pids": "max"}, {"processes"}),
        ({"quota": "-1"}, {"cpu"}),
        ({"quota": "100000"}, {"cpu"}),
    ],
)
def test_version_1(tmp_path: Path, values: dict[str, str], missing: set[str]) -> None:
    """A limit that no group sets passes for enforced."""
    assert first_version(tmp_path, HELD | values).unenforced(LIMITS) == missing


def test_version_2_and_the_groups_above(tmp_path: Path) -> None:
    """A limit of the group above is not seen, or a controller that is not delegated is not missed."""
    (tmp_path / "user/box/container").mkdir(parents=True)
    (tmp_path / "user/box/memory.max").write_text(f"{256 * MiB}\n")
    (tmp_path / "user/box/container/memory.max").write_text("max\n")
    (tmp_path / "user/box/container/pids.max").write_text("96\n")
    assert Groups({"": "/user/box/container"}, tmp_path).unenforced(LIMITS) == {"cpu"}
    (tmp_path / "user/box/cpu.max").write_text("50000 100000\n")
    assert Groups({"": "/user/box/container"}, tmp_path).unenforced(LIMITS) == set()


def test_nothing_to_see(tmp_path: Path) -> None:
    """Where a process's groups can't be seen, an engine that enforces its limits could not be used."""
    assert Groups({}, tmp_path).unenforced(LIMITS) == set() and Groups({}, tmp_path).oom_counter() is None


@pytest.mark.anyio
async def test_real_groups(sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real groups are not found, or a box with a limit that was not set opens all the same."""
    box = await sandbox.open(BoxSpec(limits=LIMITS))
    await box.close()
    monkeypatch.setattr("g4agent_docker.groups.ROUNDING", 0.5)
    engine = DockerSandbox(base_url=sandbox._base_url)
    with pytest.raises(LimitNotEnforceableError, match="cpu"):
        await engine.open(BoxSpec(limits=LIMITS))
    box = await engine.open(BoxSpec(limits=LIMITS, allow_degraded=frozenset({"cpu"})))
    try:
        assert (await box.exec(["true"])).degraded == ("cpu",)
    finally:
        await box.close()
