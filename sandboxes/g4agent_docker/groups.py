"""A container's control groups as this host's kernel shows them: which limits hold, and how often memory ran out.

An engine's word is not enough: Podman without root, on version 1, takes limits and does not set them; so does a runtime
that was told to leave control groups alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from g4agent.ports.sandbox import LimitName, Limits

ROUNDING = 1.02
"""By how much an engine may round a share of the processors up."""
ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Groups:
    """The control groups of one process, version 1, 2 or both. Where this process cannot see them, they are empty."""

    paths: dict[str, str]
    """Controller → its group; '' stands for version 2, whose group has all."""
    root: Path = ROOT

    @classmethod
    def of(cls, pid: int) -> Groups:
        """The groups of a process of this host."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return cls({})
        paths: dict[str, str] = {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            paths |= dict.fromkeys(controllers.split(","), path)
        return cls(paths)

    def unenforced(self, limits: Limits) -> frozenset[LimitName]:
        """The limits that no group sets. None of them where nothing can be seen: then the engine's word has to do."""
        memory = [*self._values("memory", "memory.limit_in_bytes"), *self._values("", "memory.max")]
        processes = [*self._values("pids", "pids.max"), *self._values("", "pids.max")]
        quotas = zip(self._values("cpu", "cpu.cfs_quota_us"), self._values("cpu", "cpu.cfs_period_us"), strict=False)
        cpu = [*(" ".join(each) for each in quotas), *self._values("", "cpu.max")]
        if not memory + processes + cpu:
            return frozenset()
        held: dict[LimitName, bool] = {
            "memory": min(map(_number, memory), default=math.inf) <= limits.memory_bytes,
            "processes": min(map(_number, processes), default=math.inf) < math.inf,
            "cpu": min(map(_share, cpu), default=math.inf) <= limits.cpus * ROUNDING,
        }
        return frozenset(name for name, holds in held.items() if not holds)

    def oom_counter(self) -> Path | None:
        """The file that counts the memory kills; None where it cannot be seen."""
        candidates = [self._folder("memory") / "memory.oom_control", self._folder("") / "memory.events"]
        return next((path for path in candidates if path.is_file()), None)

    def _folder(self, controller: str) -> Path:
        return self.root / controller / self.paths.get(controller, "no-such-group").lstrip("/")

    def _values(self, controller: str, name: str) -> Iterator[str]:
        """What the file `name` says in the process's group and in those above it."""
        folder = self._folder(controller)
        while folder != self.root.parent:
            if (file := folder / name).is_file():
                yield file.read_text().strip()
            folder = folder.parent


def _number(text: str) -> float:
    return math.inf if text == "max" else float(text)


def _share(text: str) -> float:
    """Processors, from a quota and its period in microseconds."""
    quota, period = text.split()
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


def read_oom_kills(file: Path) -> int:
    """The counter `oom_kill`, 0 once the group is gone."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
