"""What a headless run is expected to have brought about: `--expect CHECK`.

command:pytest -q      a command in the run's sandbox exits with 0
file:out/report.md     a file that is not empty stands in the workspace
changes                the workspace is not as it was
schema:answer.json     the answer is JSON of a JSON Schema on the host
python:checks.py:name  a function on the host says so; see `PythonCheck`
"""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio.to_thread

from g4agent.errors import ConfigError, G4AgentError
from g4agent.headless.report import CheckResult, RunReport
from g4agent.project.entries import regular_files

if TYPE_CHECKING:
    from g4agent.session import Session

KINDS = ("command", "file", "changes", "schema", "python")


class Check(Protocol):
    """Something that must be so after a run."""

    @property
    def name(self) -> str: ...

    async def run(self, session: Session, report: RunReport) -> str | None:
        """None where it is so, else why not. What it raises says that nobody can tell."""
        ...


PythonCheck = Callable[[RunReport, Mapping[str, bytes]], object]
"""Given the report and the workspace's files, returns None or True where all is well, a text or False where not, or
raises AssertionError."""


async def run_checks(checks: list[Check], session: Session, report: RunReport) -> list[CheckResult]:
    """Runs every check, in order; one that cannot be run is a result, too."""
    results = []
    for check in checks:
        try:
            problem = await check.run(session, report)
        except Exception as error:
            said = error.message if isinstance(error, G4AgentError) else f"{type(error).__name__}: {error}"
            results.append(CheckResult(check.name, False, session.secrets.mask(said), ran=False))
        else:
            results.append(CheckResult(check.name, problem is None, session.secrets.mask(problem or "")))
    return results


def parse_check(text: str) -> Check:
    """The check that a text stands for. Raises ConfigError."""
    kind, _, value = text.partition(":")
    if kind not in KINDS or bool(value.strip()) == (kind == "changes"):
        raise ConfigError(
            f"{text!r} is no check",
            hint="Write command:…, file:PATH, changes, schema:FILE or python:FILE:FUNCTION.",
        )
    match kind:
        case "command":
            return Command(tuple(shlex.split(value)), text)
        case "file":
            return FileThere(value, text)
        case "changes":
            return Changes(text)
        case "schema":
            return _schema(Path(value), text)
        case _:
            return _python(value, text)


@dataclass(frozen=True, slots=True)
class Command:
    """A command in the sandbox."""

    argv: tuple[str, ...]
    name: str

    async def run(self, session: Session, report: RunReport) -> str | None:
        box = await session.open_box()
        done = await box.exec(self.argv)
        if done.exit_code == 0:
            return None
        why = "ran out of time" if done.timed_out else f"exit code {done.exit_code}"
        said = session.secrets.mask((done.stdout + done.stderr).decode(errors="replace")).strip()
        return f"{why}: {said[-2000:]}" if said else why


@dataclass(frozen=True, slots=True)
class FileThere:
    """A file of the workspace."""

    path: str
    name: str

    async def run(self, session: Session, report: RunReport) -> str | None:
        data = (await workspace_files(session)).get(self.path)
        if data is None:
            return "there is no such file"
        return None if data else "the file is empty"


@dataclass(frozen=True, slots=True)
class Changes:
    """Any change of the workspace."""

    name: str

    async def run(self, session: Session, report: RunReport) -> str | None:
        changed = await session.initial_files() != await workspace_files(session)
        return None if changed else "nothing in the workspace has changed"


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The answer's shape."""

    schema: Mapping[str, object]
    name: str

    async def run(self, session: Session, report: RunReport) -> str | None:
        from jsonschema import Draft202012Validator

        try:
            answer = json.loads(report.answer)
        except ValueError as error:
            return f"the answer is no JSON: {error}"
        problem = next(Draft202012Validator(dict(self.schema)).iter_errors(answer), None)
        return None if problem is None else f"{problem.json_path}: {problem.message}"


@dataclass(frozen=True, slots=True)
class Function:
    """A check written in Python."""

    function: PythonCheck
    name: str

    async def run(self, session: Session, report: RunReport) -> str | None:
        files = await workspace_files(session)

        def call() -> str | None:
            try:
                said = self.function(report, files)
            except AssertionError as error:
                return str(error) or "an assertion does not hold"
            if said is None or said is True:
                return None
            return "it said no" if said is False else str(said)

        return await anyio.to_thread.run_sync(call)


async def workspace_files(session: Session) -> dict[str, bytes]:
    """The regular files of the workspace as they are now, by relative path."""
    box = await session.open_box()
    return regular_files(await box.snapshot())


def _schema(file: Path, name: str) -> AnswerSchema:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
    except (OSError, ValueError, SchemaError) as error:
        raise ConfigError(
            f"{name}: {file} is no JSON Schema: {error}", hint="Give a file of JSON Schema 2020-12."
        ) from error
    return AnswerSchema(schema, name)


def _python(value: str, name: str) -> Function:
    path, _, attribute = value.rpartition(":")
    file = Path(path)
    if not path or not file.is_file():
        raise ConfigError(f"{name}: there is no file {path!r}", hint="Write python:checks.py:function.")
    spec = importlib.util.spec_from_file_location(f"_g4agent_check_{file.stem}", file)
    assert spec is not None and spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        function = getattr(module, attribute)
    except Exception as error:
        raise ConfigError(f"{name}: {type(error).__name__}: {error}", hint="The check's own file must run.") from error
    if not callable(function):
        raise ConfigError(f"{name}: {attribute} is not a function", hint="Write def check(report, files): ...")
    return Function(function, name)
