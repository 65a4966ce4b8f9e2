"""A pseudo terminal for the command."""

from __future__ import annotations

import os
import pty
import subprocess

from command_line import COMMAND, heed_ctrl_c


class Terminal:
    """A command on a pseudo terminal."""

    def __init__(self, environment: dict[str, str], *args: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )
        os.close(slave)
        self.seen = ""

    def read_until(self, text: str) -> None:
        """Reads on until `text` was seen; fails if the command ends before."""
        while text not in self.seen:
            piece = self._read()
            assert piece, f"{text!r} did not come, but: {self.seen}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def finish(self) -> int:
        """Reads to the end; gives the exit code."""
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(30)

    def _read(self) -> str:
        try:
            piece = os.read(self._master, 4096).decode()
        except OSError:  # Linux's way to say that the other side is closed
            return ""
        self.seen += piece
        return piece
