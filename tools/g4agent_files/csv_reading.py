"""Reading a CSV file row by row, with its delimiter found out and every row as long as the header."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TextIO

from g4agent.workspace_files import Refusal
from g4agent_files.filters import names
from g4agent_files.text import open_text

DELIMITERS = ",;\t|"
MAX_FIELD_CHARS = 1024 * 1024
"""A quote that is never closed makes the rest of the file one field; reading ends there."""
MAX_LINE_CHARS = 4 * 1024 * 1024
MAX_COLUMNS = 1000
SAMPLE_CHARS = 64 * 1024
SAMPLE_ROWS = 20


@dataclass(slots=True)
class Table:
    """An open file: its columns, and its rows by iteration, once."""

    path: str
    columns: list[str]
    _rows: Iterator[list[str]]
    _uneven: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[list[str]]:
        """The rows, filled up or cut to the number of columns; empty lines are skipped.

        Raises:
            Refusal: A field is too long, or the csv module gives up.
        """
        width = len(self.columns)
        for row in _checked(self._rows, self.path):
            if row:
                self._uneven += len(row) != width
                yield [*row, *[""] * (width - len(row))][:width]

    def place(self, name: str) -> int:
        """The index of a column, by its exact name or else without regard to case. Raises Refusal."""
        if name in self.columns:
            return self.columns.index(name)
        lowered = [column.strip().casefold() for column in self.columns]
        if lowered.count(name.strip().casefold()) == 1:
            return lowered.index(name.strip().casefold())
        raise Refusal(f"no column {name}; columns: {names(self.columns)}")

    def notes(self) -> list[str]:
        """What was wrong with the rows so far."""
        if not self._uneven:
            return []
        return [f"{self._uneven} rows had more or fewer cells than the header: filled up or cut"]


@contextmanager
def open_table(path: str) -> Iterator[Table]:
    """Opens a CSV file of the workspace.

    Raises:
        Refusal: It cannot be read, is empty, or its header has too many columns.
    """
    csv.field_size_limit(MAX_FIELD_CHARS)
    with open_text(path) as stream:
        delimiter = _delimiter(stream.read(SAMPLE_CHARS))
        stream.seek(0)
        rows = csv.reader(_lines(stream, path), delimiter=delimiter)
        header = next((row for row in _checked(rows, path) if row), None)
        if header is None:
            raise Refusal(f"{path} is empty")
        if len(header) > MAX_COLUMNS:
            raise Refusal(f"{path} has {len(header)} columns, the limit is {MAX_COLUMNS}")
        yield Table(path, _named(header), rows)


def _lines(stream: TextIO, path: str) -> Iterator[str]:
    while line := stream.readline(MAX_LINE_CHARS + 1):
        if len(line) > MAX_LINE_CHARS:
            raise Refusal(f"{path} has a line of more than {MAX_LINE_CHARS} characters")
        yield line


def _checked(rows: Iterator[list[str]], path: str) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise Refusal(f"{path} cannot be read as CSV: {error}") from error


def _delimiter(sample: str) -> str:
    """The one that cuts most of the first rows as it cuts the header; a comma that a space follows is likely prose."""

    def score(delimiter: str) -> tuple[int, int, int]:
        try:
            rows = list(islice(csv.reader(sample.splitlines(keepends=True), delimiter=delimiter), SAMPLE_ROWS))
        except csv.Error:
            return 0, 0, 0
        width = len(rows[0]) if rows else 1
        if width == 1:
            return 0, 0, 0
        spaces = sum(cell.startswith(" ") for row in rows for cell in row)
        return sum(len(row) == width for row in rows), -spaces, width

    return max(DELIMITERS, key=score)


def _named(header: list[str]) -> list[str]:
    """The header with a name for each nameless column and different names for equal ones."""
    seen: Counter[str] = Counter()
    columns = []
    for number, cell in enumerate(header, 1):
        name = cell.strip() or f"column {number}"
        seen[name] += 1
        columns.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return columns
