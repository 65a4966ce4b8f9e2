"""The command line: `g4agent init`, `run`, `chat`, `sessions`, `models` and `doctor`, one module each.

Only what a command needs is imported, when it runs: `g4agent --help` answers at once.
"""

from __future__ import annotations

import io
import sys


def main() -> None:
    """The console script `g4agent`. Exits with the verdict's code; see `g4agent.verdict.EXIT_CODES`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from g4agent.cli.app import app

    app()
