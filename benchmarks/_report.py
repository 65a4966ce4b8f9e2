"""What every benchmark prints: a table, one JSON object (`--json`), or an exit code by its targets (`--check`)."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TypeAlias

Rows: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""Row → column → figure; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must not exceed."""

    what: str
    figure: float
    limit: float

    @property
    def met(self) -> bool:
        return self.figure <= self.limit


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one benchmark."""

    title: str
    unit: str
    rows: Rows
    targets: tuple[Target, ...]
    packages: tuple[str, ...] = field(default=("g4agent",))
    """Distributions that were measured; their versions stand in the report."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    return parser


def publish(report: Report, options: argparse.Namespace) -> int:
    """Prints the report as asked for; gives the exit code."""
    print(_as_json(report) if options.json else _as_text(report))
    missed = [target for target in report.targets if not target.met]
    for target in missed if options.check else ():
        print(f"target missed: {target.what}: {target.figure:.3g} > {target.limit:g}", file=sys.stderr)
    return 1 if options.check and missed else 0


def _machine() -> dict[str, str | int | None]:
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}


def _as_json(report: Report) -> str:
    targets = [{"what": t.what, "figure": t.figure, "limit": t.limit, "met": t.met} for t in report.targets]
    packages = {name: version(name) for name in report.packages}
    return json.dumps(
        {
            "title": report.title,
            "unit": report.unit,
            "rows": report.rows,
            "targets": targets,
            "packages": packages,
            **_machine(),
        }
    )


def _as_text(report: Report) -> str:
    columns = list(dict.fromkeys(column for row in report.rows.values() for column in row))
    width = max(map(len, report.rows))
    lines = [
        f"{report.title} [{report.unit}]",
        " " * width + "".join(f"{column:>{_wide(column)}}" for column in columns),
    ]
    for name, row in report.rows.items():
        cells = {column: "-" if (figure := row.get(column)) is None else f"{figure:.2f}" for column in columns}
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>{_wide(column)}}" for column, cell in cells.items()))
    lines += [f"{'ok ' if t.met else 'MISSED'} {t.what}: {t.figure:.3g} (at most {t.limit:g})" for t in report.targets]
    where = ", ".join(f"{name} {value}" for name, value in _machine().items())
    return "\n".join([*lines, f"{where}; " + ", ".join(f"{name} {version(name)}" for name in report.packages)])


def _wide(column: str) -> int:
    return max(12, len(column) + 2)
