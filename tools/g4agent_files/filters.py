"""Filters of rows as a model writes them: a column, a comparison, a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from g4agent.workspace_files import Refusal

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": lambda cell, value: cell == value,
    "!=": lambda cell, value: cell != value,
    "<=": lambda cell, value: cell <= value,
    ">=": lambda cell, value: cell >= value,
    "=": lambda cell, value: cell == value,
    "<": lambda cell, value: cell < value,
    ">": lambda cell, value: cell > value,
}
"""Longer signs first, since a shorter one is the beginning of some."""
CONTAINS = "contains"


@dataclass(frozen=True, slots=True)
class Filter:
    """One comparison: of numbers where both sides are numbers, else of texts; `contains` ignores case."""

    place: int
    """Of the column."""
    sign: str
    value: str

    def fits(self, row: Sequence[str]) -> bool:
        """Whether the row passes."""
        cell = row[self.place].strip()
        if self.sign == CONTAINS:
            return self.value.casefold() in cell.casefold()
        compare = COMPARISONS[self.sign]
        left, right = _number(cell), _number(self.value)
        return compare(cell, self.value) if left is None or right is None else compare(left, right)


def parse_filter(text: str, columns: Sequence[str]) -> Filter:
    """Reads `COLUMN SIGN VALUE`; the value may stand in quotes. The longest column name that fits is meant.

    Raises:
        Refusal: It begins with no column's name, or no sign follows.
    """
    for name in sorted(columns, key=len, reverse=True):
        if name and text.lstrip().casefold().startswith(name.casefold()):
            rest = text.lstrip()[len(name) :].lstrip()
            for sign in (*COMPARISONS, CONTAINS):
                if rest.startswith(sign):
                    return Filter(columns.index(name), sign, _unquote(rest[len(sign) :].strip()))
    signs = " ".join((*COMPARISONS, CONTAINS))
    raise Refusal(
        f"cannot read the filter {text!r}: write COLUMN SIGN VALUE; columns: {names(columns)}; signs: {signs}"
    )


def names(columns: Sequence[str]) -> str:
    """The columns for a message, not more of them than fit."""
    listed = ", ".join(name[:60] for name in columns[:40])
    return f"{listed} and {len(columns) - 40} more" if len(columns) > 40 else listed


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) or "_" in text else value


def _unquote(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
