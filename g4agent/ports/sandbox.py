"""Where tools run: a backend (`Sandbox`) opens one closed box per session; the box runs commands and Python tools.

A box is closed until opened: no network, read-only root, private workspace, limits on everything, a clean environment.
Timeouts and memory kills are data in the result, with the partial output; only a broken box raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

from g4agent.image import Image
from g4agent.messages import JsonValue, ToolError

MiB = 1024 * 1024

LimitName = Literal["memory", "processes", "cpu", "wall", "output", "file_size", "open_files", "workspace"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one box may use. Each is enforced, or the box does not open (`BoxSpec.allow_degraded`)."""

    memory_bytes: int = 1024 * MiB
    """Anonymous memory, page cache and tmpfs of all processes of the box together."""
    processes: int = 64
    """Processes and threads at a time."""
    cpus: float = 1.0
    wall_seconds: float = 60.0
    """Per call, unless the call has its own."""
    idle_seconds: float | None = None
    """A call that prints nothing for so long is ended; None: it may be silent to the end of its time."""
    output_bytes: int = 1 * MiB
    """Kept per stream and call: the head and the tail; what is left out is counted."""
    file_bytes: int = 64 * MiB
    """Largest single file."""
    open_files: int = 256
    workspace_bytes: int = 256 * MiB

    def __post_init__(self) -> None:
        assert min(self.memory_bytes, self.processes, self.output_bytes, self.file_bytes, self.open_files) > 0
        assert self.cpus > 0 and self.wall_seconds > 0 and self.workspace_bytes > 0
        assert self.idle_seconds is None or self.idle_seconds > 0


@dataclass(frozen=True, slots=True)
class BoxSpec:
    """What a session's box is made of."""

    limits: Limits = field(default_factory=Limits)
    python_paths: tuple[Path, ...] = ()
    """Host folders with the tools' modules; shown read-only at the same place and put on `sys.path` of the worker."""
    sockets: Mapping[str, Path] = field(default_factory=dict)
    """Path in the box → unix socket on the host: the named services that the box may talk to."""
    ports: Mapping[int, str] = field(default_factory=dict)
    """Port of the box's own 127.0.0.1 → path in the box of one of `sockets`, for programs that only speak TCP."""
    env: Mapping[str, str] = field(default_factory=dict)
    allow_degraded: frozenset[LimitName] = frozenset()
    """Limits that may stay unenforced on a host that lacks the means, each by name. They stand in every result."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do on this host."""

    backend: str
    available: bool
    reason: str | None
    """Why it is not available, and how to mend that."""
    enforced: frozenset[LimitName]
    notes: tuple[str, ...] = ()
    """One sentence each about what is missing and how to get it; shown by `g4agent doctor`."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """Outcome of one command or Python call. `exit_code` is None if a signal ended it."""

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    omitted_stdout: int = 0
    """Bytes cut out between the kept head and tail."""
    omitted_stderr: int = 0
    timed_out: bool = False
    idle: bool = False
    """Ended because it printed nothing for `Limits.idle_seconds`."""
    out_of_memory: bool = False
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    degraded: tuple[LimitName, ...] = ()
    backend: str = ""


@dataclass(frozen=True, slots=True)
class PythonCall:
    """A call of a Python tool inside the box."""

    module: str
    """Importable module that defines the tool, or `__main__`."""
    attribute: str
    """Name of the `Tool` (or function) in the module."""
    arguments: Mapping[str, JsonValue]
    file: Path | None = None
    """Source file, where `module` is `__main__` (a script)."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables of this call alone."""


@dataclass(frozen=True, slots=True)
class PythonOutcome:
    """What a Python tool returned or raised, and how the process behind it fared."""

    value: JsonValue
    error: ToolError | None
    process: ExecResult
    images: tuple[Image, ...] = ()
    """Those that the value describes."""


@runtime_checkable
class Box(Protocol):
    """One session's closed box. Calls may run concurrently; state between calls lives in the workspace."""

    workspace: PurePosixPath
    """The working directory of every call, as seen inside."""

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
        cwd: str | None = None,
    ) -> ExecResult:
        """Runs a command. Cancelling kills it and everything it started."""
        ...

    async def call(self, call: PythonCall, *, timeout: float | None = None) -> PythonOutcome:
        """Runs a Python tool in a fresh fork of the warm worker."""
        ...

    async def read_file(self, path: str, *, max_bytes: int = 16 * MiB) -> bytes:
        """A regular file of the workspace. Follows no link out of it and never hangs. Raises WorkspacePathError."""
        ...

    async def write_file(self, path: str, data: bytes, *, executable: bool = False) -> None: ...

    async def list_files(self, path: str = ".") -> list[str]:
        """Relative paths of all regular files below `path`, sorted."""
        ...

    async def snapshot(self) -> bytes:
        """The workspace as an uncompressed tar archive."""
        ...

    async def restore(self, snapshot: bytes) -> None:
        """Replaces the workspace by a snapshot. Members that would leave the workspace are refused."""
        ...

    async def close(self) -> None:
        """Ends every process of the box and removes all that it used."""
        ...


@runtime_checkable
class Sandbox(Protocol):
    """A backend: opens boxes."""

    name: str

    def capabilities(self) -> Capabilities:
        """Probes the host by running something harmless in a real box. Cached."""
        ...

    async def open(self, spec: BoxSpec) -> Box:
        """Raises SandboxUnavailableError or LimitNotEnforceableError; never opens a weaker box than asked for."""
        ...
