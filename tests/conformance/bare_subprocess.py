"""The control of the conformance suite: a "sandbox" that is none. Attacks must work here, or they prove nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import anyio.to_thread

from g4agent.ports.sandbox import ExecResult


class BareBox:
    """Runs commands in a folder of the host, with a deadline and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.workspace = PurePosixPath(folder)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
        cwd: str | None = None,
    ) -> ExecResult:
        """Runs a command as this process would."""

        def run() -> ExecResult:
            started = time.monotonic()
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            done = subprocess.run(
                argv,
                input=stdin,
                timeout=timeout,
                env=os.environ | {"PATH": path},
                cwd=self.workspace,
                capture_output=True,
            )
            return ExecResult(done.returncode, None, done.stdout, done.stderr, wall_seconds=time.monotonic() - started)

        return await anyio.to_thread.run_sync(run)
