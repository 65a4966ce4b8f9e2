"""How far a batch has come: a bar on a terminal, a line per task elsewhere. On standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from g4agent.cli.console import one_line, stderr
from g4agent.verdict import Verdict


class Progress:
    """Counts tasks.

    Args:
        total: How many there are.
        done: How many were done before.
    """

    def __init__(self, total: int, *, done: int = 0) -> None:
        self._total = total
        self._done = done
        self._console = stderr()
        columns = (TextColumn("tasks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, console=self._console, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("tasks", total=total, completed=done)

    def step(self, name: str, verdict: Verdict) -> None:
        """One more is done; says which, and how it ended."""
        self._done += 1
        reason = f" ({one_line(verdict.reason, 100)})" if verdict.reason else ""
        text = f"[{self._done}/{self._total}] {one_line(name)}: {verdict.outcome}{reason}"
        self._console.print(Text(text, "green" if verdict.ok else "red"), soft_wrap=True)
        self._bar.advance(self._task)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()
