"""Rows as a model should see them: a few, with short values of JSON's types."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

MAX_CELL_CHARS = 500
MAX_CHARS = 8000
"""Of the values in one result."""


def rows_of(columns: Sequence[str], found: Iterable[Sequence[Any]], limit: int) -> dict[str, Any]:
    """The first rows of a result, and whether there are more."""
    rows: list[list[Any]] = []
    room = MAX_CHARS
    for row in found:
        if len(rows) == limit or room <= 0:
            note = (
                f"only the first {len(rows)} rows: there are more; use WHERE, LIMIT and OFFSET, or COUNT and GROUP BY"
            )
            return {"columns": columns, "rows": rows, "note": note}
        rows.append([shown(value) for value in row])
        room -= sum(len(str(value)) + 2 for value in rows[-1])
    return {"columns": columns, "rows": rows}


def shown(value: Any) -> Any:
    """A value of a database as one of JSON: what JSON has stays; the rest is text, or described."""
    match value:
        case None | bool() | int():
            return value
        case str() if len(value) > MAX_CELL_CHARS:
            return f"{value[:MAX_CELL_CHARS]}… [cut, {len(value)} characters]"
        case bytes():
            return f"[{len(value)} bytes]"
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return _number(value)
        case list():
            parts = [shown(each) for each in value[:MAX_CELL_CHARS]]
            text = str(parts)
            return parts if len(text) <= MAX_CELL_CHARS else f"{text[:MAX_CELL_CHARS]}… [cut, {len(value)} values]"
    return value if isinstance(value, str) else shown(str(value))


def _number(value: Decimal) -> int | float | str:
    """An exact number as JSON's, where that has the same value; else its digits."""
    if not value.is_finite():
        return str(value)
    if value == value.to_integral_value() and abs(value) < 2**63:
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else shown(f"{value:f}")
