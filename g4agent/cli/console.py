"""Consoles, and text that is safe to print.

What a model says and what a tool returns is untrusted: printed as it is, an escape sequence could move the cursor over
what was printed before, change the window's title or write to the clipboard. `plain` makes every such character
visible; Rich's markup is never read in it, because it only reaches Rich inside a `Text`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from g4agent.messages import JsonValue

if TYPE_CHECKING:
    from rich.table import Table

_PIPE_WIDTH = 100_000  # on a pipe nothing is cut off or wrapped

_BIDI_CONTROLS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE: dict[int, str] = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: "\u2421"}
    | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
    | {code: f"\\u{code:04x}" for code in _BIDI_CONTROLS}
)
"""Control characters of ASCII as their Unicode pictures; C1 controls and text direction overrides as escapes."""


def plain(text: str) -> str:
    """The text with every control character made visible, except line feed and tab."""
    return text.translate(_VISIBLE)


def one_line(text: str, limit: int | None = None) -> str:
    """`plain` on one line, with at most `limit` characters."""
    line = plain(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def compact(value: JsonValue, limit: int | None = None) -> str:
    """A value as JSON on one line, with at most `limit` characters."""
    return one_line(json.dumps(value, ensure_ascii=False), limit)


def counted(count: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def arguments(values: Mapping[str, JsonValue], limit: int | None = None) -> str:
    """A call's arguments as `name="value", other=2`; each value with at most `limit` characters."""
    return ", ".join(f"{one_line(name)}={compact(value, limit)}" for name, value in values.items())


def stdout() -> Console:
    """Colour and the terminal's width on a terminal; plain lines, however long, on a pipe."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def stderr() -> Console:
    """Like `stdout`, for progress, questions and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH, highlight=False)


def table(*columns: str, rows: Iterable[Iterable[str]], right: frozenset[str] = frozenset()) -> Table:
    """A table without lines. Its cells may be untrusted; columns in `right` are aligned there."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        grid.add_row(*(Text(plain(cell)) for cell in row))
    return grid
