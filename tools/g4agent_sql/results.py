"""Rows as a model should see them: a few, with short values of JSON's types."""

from __future__ import annotations

import math
import sqlite3
from typing import Any

MAX_CELL_CHARS = 500
MAX_CHARS = 8000
"""Of the values in one result."""


def rows_of(cursor: sqlite3.Cursor, limit: int) -> dict[str, Any]:
    """The first rows of a result, and whether there are more."""
    columns = [column[0] for column in cursor.description]
    rows: list[list[Any]] = []
    room = MAX_CHARS
    for row in cursor:
        if len(rows) == limit or room <= 0:
            note = (
                f"only the first {len(rows)} rows: there are more; use WHERE, LIMIT and OFFSET, or COUNT and GROUP BY"
            )
            return {"columns": columns, "rows": rows, "note": note}
        rows.append([shown(value) for value in row])
        room -= sum(len(str(value)) + 2 for value in rows[-1])
    return {"columns": columns, "rows": rows}


def shown(value: Any) -> Any:
    """A value of SQLite as one of JSON: integers, finite numbers, text and null stay; the rest is described."""
    match value:
        case str() if len(value) > MAX_CELL_CHARS:
            return f"{value[:MAX_CELL_CHARS]}… [cut, {len(value)} characters]"
        case bytes():
            return f"[{len(value)} bytes]"
        case float() if not math.isfinite(value):
            return str(value)
    return value
