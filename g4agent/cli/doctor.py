"""`g4agent doctor`: whether agents can run here, and how to mend what is missing."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points, version
from typing import Annotated, Literal, get_args

import typer

from g4agent.ports.sandbox import LimitName

PYTHONS = ((3, 11), (3, 13))
COLLECTIONS = ("all", "dev")
"""Extras that only gather others, or are for developers."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `failed` means that agents cannot run; `warning` that something is weaker or missing."""

    subject: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    hint: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Check this machine: packages, runtimes, sandboxes, store, memory. Exit code 1 if agents cannot run here."""
    findings = list(examine())
    possible = all(finding.status != "failed" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": possible, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings, possible)
    raise typer.Exit(0 if possible else 1)


def examine() -> Iterator[Finding]:
    """All findings, in the order in which they are shown."""
    yield _python()
    yield from _extras()
    yield from _group("runtimes", _runtime)
    yield from _group("sandboxes", _sandbox)
    yield _store()
    yield from _hardware()
    for entry in sorted(entry_points(group="g4agent.checks"), key=lambda entry: entry.name):
        yield entry.load()()


def _python() -> Finding:
    lowest, highest = PYTHONS
    wanted = f"{lowest[0]}.{lowest[1]} to {highest[0]}.{highest[1]}"
    fits = lowest <= sys.version_info[:2] <= highest
    detail = f"{platform.python_version()} on {platform.system()} {platform.release()}, g4agent {version('g4agent')}"
    return Finding("python", "ok" if fits else "failed", detail, "" if fits else f"g4agent is made for {wanted}.")


def _extras() -> Iterator[Finding]:
    for extra, packages in extras("g4agent").items():
        if extra in COLLECTIONS:
            continue
        missing = [name for name, installed in packages.items() if installed is None]
        listed = ", ".join(f"{name} {installed or 'missing'}" for name, installed in packages.items())
        hint = f"Install it with: pip install 'g4agent[{extra}]'" if missing else ""
        yield Finding(f"extra {extra}", "warning" if missing else "ok", listed, hint)


def extras(package: str) -> dict[str, dict[str, str | None]]:
    """For each extra of an installed distribution that needs other packages: their versions, None where missing."""
    found: dict[str, dict[str, str | None]] = {}
    for requirement in distribution(package).requires or ():
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if name and extra and name[0] != package:
            found.setdefault(extra[1], {})[name[0]] = _version(name[0])
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _group(kind: str, check: Callable[[EntryPoint], Finding]) -> list[Finding]:
    """One finding per installed plug-in. One that works is enough: the others' failures become warnings."""
    findings = [check(entry) for entry in sorted(entry_points(group=f"g4agent.{kind}"), key=lambda e: e.name)]
    if not findings:
        return [Finding(kind, "failed", "none installed", "Install them with: pip install 'g4agent[all]'")]
    if any(finding.status != "failed" for finding in findings):
        return [replace(f, status="warning") if f.status == "failed" else f for f in findings]
    return findings


def _runtime(entry: EntryPoint) -> Finding:
    subject = f"runtime {entry.name}"
    try:
        entry.load()
    except (ImportError, AttributeError) as error:
        return Finding(subject, "failed", f"{entry.value} does not load: {error}")
    package = entry.dist.name if entry.dist is not None else "g4agent"
    needed = extras(package).get(entry.name, {})
    if missing := [name for name, installed in needed.items() if installed is None]:
        hint = f"Install it with: pip install '{package}[{entry.name}]'"
        return Finding(subject, "failed", f"missing: {', '.join(missing)}", hint)
    return Finding(subject, "ok", entry.value)


def _sandbox(entry: EntryPoint) -> Finding:
    subject = f"sandbox {entry.name}"
    try:
        capabilities = entry.load()().capabilities()
    except (ImportError, AttributeError) as error:
        return Finding(subject, "failed", f"{entry.value} does not load: {error}")
    if not capabilities.available:
        return Finding(subject, "failed", capabilities.reason or "not available")
    missing = sorted(set(get_args(LimitName)) - capabilities.enforced)
    detail = f"enforces {', '.join(sorted(capabilities.enforced))}"
    if not missing:
        return Finding(subject, "ok", detail, " ".join(capabilities.notes))
    options = " ".join(f"--allow-degraded {name}" for name in missing)
    notes = " ".join(capabilities.notes) or f"Not enforced: {', '.join(missing)}."
    return Finding(subject, "warning", detail, f"{notes} To run without: {options}")


def _store() -> Finding:
    from g4agent.errors import StoreError
    from g4agent.store import Store
    from g4agent.store.database import default_path

    path = default_path()
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.exists())
        if os.access(folder, os.W_OK):
            return Finding("store", "ok", f"{path}, created by the first run")
        return Finding("store", "failed", f"{folder} is not writable", "Choose another folder with G4AGENT_HOME.")
    try:
        with Store.open() as store:
            return Finding("store", "ok", f"{path}, {len(store.list_sessions())} sessions")
    except StoreError as error:
        return Finding("store", "failed", error.message, error.hint or "")


def _hardware() -> Iterator[Finding]:
    from g4agent.cli.machine import gib, gpus, memory, processor

    ram = memory()
    hint = "What fits in it, model by model and context by context: g4agent fit MODEL"
    yield Finding("memory", "ok", f"{gib(ram.available)} free of {gib(ram.total)}", hint)
    name, cores, flags = processor()
    yield Finding("processor", "ok", f"{name}, {cores} cores, {' '.join(flags) or 'no vector extensions known here'}")
    for gpu in gpus():
        yield Finding("gpu", "ok", f"{gpu.name}, {gib(gpu.available)} free of {gib(gpu.total)}")


def _print(findings: list[Finding], possible: bool) -> None:
    from rich.text import Text

    from g4agent.cli.console import plain, stdout

    console, marks = stdout(), {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red")}
    for finding in findings:
        mark, style = marks[finding.status]
        line = Text.assemble((f"{mark} ", style), (f"{finding.subject:<20} ", "bold"), plain(finding.detail))
        console.print(line, soft_wrap=True)
        if finding.hint:
            console.print(Text(f"  {plain(finding.hint)}", "dim"), soft_wrap=True)
    verdict = "Agents can run here." if possible else "Agents cannot run here yet."
    console.print(Text(verdict, "green" if possible else "bold red"))
