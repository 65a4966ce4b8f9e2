"""Programs that the tools start: their output together, a time limit, and nothing left running behind them."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

from g4agent.workspace_files import Refusal

KEPT_BYTES = 2 * 1024 * 1024
"""Of a program's output: half from its beginning, half from its end."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    exit_code: int | None
    """None where the time limit ended it."""
    output: str
    """Standard output and standard error as they came, mixed."""


def run(
    argv: Sequence[str],
    seconds: float,
    *,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    folder: Path | None = None,
) -> Ended:
    """Runs a program and kills what it started.

    Args:
        argv: The program and its arguments; no shell reads them.
        seconds: Time limit.
        env: Variables on top of this process's own.
        stdin: What the program reads.
        folder: Where; the current one by default.

    Raises:
        Refusal: There is no such program.
    """
    with tempfile.TemporaryFile() as text:
        text.write(stdin.encode())
        text.seek(0)
        try:
            process = subprocess.Popen(
                argv,
                stdin=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=folder,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise Refusal(f"cannot run {argv[0]}: there is no such program in this sandbox") from error
        except OSError as error:
            raise Refusal(f"cannot run {argv[0]}: {error.strerror}") from error
    assert process.stdout is not None
    output = _Output(process.stdout)
    exit_code = None
    try:
        exit_code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return Ended(exit_code, output.text())


class _Output:
    """Reads a pipe to its end and keeps the head and the tail of what came: a flood must not fill the memory."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._head = bytearray()
        self._tail = bytearray()
        self._omitted = 0
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def text(self) -> str:
        """What came. Does not wait for a process that left the group and still holds the pipe."""
        self._reader.join(1.0)
        note = f"\n[{self._omitted} bytes left out]\n".encode() if self._omitted else b""
        return bytes(self._head + note + self._tail).decode(errors="replace")

    def _read(self) -> None:
        half = KEPT_BYTES // 2
        with self._pipe:
            while data := os.read(self._pipe.fileno(), 65536):
                room = half - len(self._head)
                self._head += data[:room]
                self._tail += data[room:]
                if len(self._tail) > 2 * half:
                    self._omitted += len(self._tail) - half
                    del self._tail[:-half]
