"""CSV files: some of the rows and columns, and counts, whatever the file's size. The first row names the columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals
from g4agent_files.csv_reading import Table, open_table
from g4agent_files.filters import parse_filter
from g4agent_files.shaping import MAX_CHARS, clean, cut

MAX_ROWS = 200
MAX_CELL_CHARS = 200
MAX_COUNTS = 50
MAX_DIFFERENT = 100_000
"""Different values that are counted; there is no room in memory for any number of them."""


@tool(effect="pure", untrusted=True)
@answers_refusals
def read_csv(
    path: str,
    columns: list[str] | None = None,
    where: list[str] | None = None,
    start: Annotated[int, Field(ge=1)] = 1,
    count: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 20,
) -> dict[str, Any]:
    """Read rows of a CSV file.

    Args:
        path: File.
        columns: Only these.
        where: Only rows that fit all of these, such as "age >= 30", "city = Rome", "name contains ann".
        start: First of the fitting rows, from 1.
        count: How many rows.
    """
    with open_table(path) as table:
        places = [table.place(name) for name in columns] if columns else list(range(len(table.columns)))
        fits = _all_of(table, where or [])
        rows: list[list[str]] = []
        room = MAX_CHARS
        fitting = 0
        for row in table:
            if not fits(row):
                continue
            fitting += 1
            if fitting != start + len(rows) or len(rows) == count or room <= 0:
                continue
            shown = [cut(clean(row[place]), MAX_CELL_CHARS) for place in places]
            room -= sum(map(len, shown)) + 4 * len(shown)
            rows.append(shown)
    read: dict[str, Any] = {"columns": [clean(table.columns[place]) for place in places], "rows": rows}
    read["of"] = fitting
    notes = table.notes()
    if start > max(1, fitting):
        notes.append(f"only {fitting} rows fit")
    elif (end := start + len(rows) - 1) < fitting:
        notes.append(f"read on with start={end + 1}")
    return read | {"note": "; ".join(notes)} if notes else read


@tool(effect="pure", untrusted=True)
@answers_refusals
def count_csv(path: str, by: str = "", where: list[str] | None = None) -> dict[str, Any]:
    """Count rows of a CSV file.

    Args:
        path: File.
        by: Column: how many rows there are for each of its values.
        where: Only rows that fit all of these, such as "age >= 30", "city = Rome", "name contains ann".
    """
    with open_table(path) as table:
        place = table.place(by) if by else None
        fits = _all_of(table, where or [])
        counts: Counter[str] = Counter()
        rows = 0
        for row in table:
            if not fits(row):
                continue
            rows += 1
            if place is not None:
                counts[cut(clean(row[place]), MAX_CELL_CHARS)] += 1
                if len(counts) > MAX_DIFFERENT:
                    raise Refusal(f"{by} has more than {MAX_DIFFERENT} different values: narrow it with `where`")
    counted: dict[str, Any] = {"rows": rows}
    notes = table.notes()
    if place is not None:
        shown = counts.most_common(MAX_COUNTS)
        counted["counts"] = dict(shown)
        if len(counts) > len(shown):
            rest = rows - sum(number for _, number in shown)
            notes.append(f"{len(counts) - len(shown)} rarer values are left out, in {rest} rows")
    return counted | {"note": "; ".join(notes)} if notes else counted


def _all_of(table: Table, where: Sequence[str]) -> Callable[[Sequence[str]], bool]:
    """Tells whether a row fits all of the filters."""
    filters = [parse_filter(text, table.columns) for text in where]
    return lambda row: all(each.fits(row) for each in filters)
