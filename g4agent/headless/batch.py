"""Many tasks with one agent: a file of tasks in, a folder of results out, taken up again where it was stopped.

tasks.jsonl            {"id": "lamp", "prompt": "…", "expect": ["file:out.md"], "seed": 3}
DIR/results.jsonl      what came of each task; of several lines for one, the last counts
DIR/sessions.jsonl     the session of each task that was begun
DIR/junit.xml, DIR/summary.md
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from g4agent.errors import ConfigError, G4AgentError
from g4agent.headless.checks import Check, parse_check, run_checks
from g4agent.headless.junit import junit_xml
from g4agent.headless.report import RunReport
from g4agent.headless.summary import summary_markdown
from g4agent.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from g4agent.agent import Agent
    from g4agent.session import Session

ID = re.compile(r"[\w.@:/-]{1,200}")


class _Line(BaseModel):
    """One line of the file of tasks."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(pattern=f"^{ID.pattern}$")]
    prompt: Annotated[str, Field(min_length=1)]
    expect: list[str] = Field(default_factory=list)
    seed: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a batch."""

    id: str
    prompt: str
    checks: tuple[Check, ...] = ()
    seed: int | None = None


def read_tasks(file: Path) -> list[Task]:
    """The tasks in a file of JSON lines; blank lines are passed over. Raises ConfigError with the line's number."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the tasks in {file} cannot be read: {error}") from error
    tasks: dict[str, Task] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        place = f"{file}, line {number}"
        try:
            line = _Line.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "the line"
            raise ConfigError(f"{place}: {name}: {first['msg']}", hint='Write {"id": "…", "prompt": "…"}.') from error
        if line.id in tasks:
            raise ConfigError(f"{place}: there is a task {line.id!r} already", hint="Give every task its own id.")
        tasks[line.id] = Task(line.id, line.prompt, tuple(parse_check(check) for check in line.expect), line.seed)
    if not tasks:
        raise ConfigError(f"there is no task in {file}", hint='Write a line {"id": "…", "prompt": "…"} for each.')
    return list(tasks.values())


class Batch:
    """A folder of results, and the tasks that it still lacks.

    Args:
        tasks: All tasks.
        folder: Made if it is not there. What an earlier run left there is kept, and not done again.
    """

    def __init__(self, tasks: Sequence[Task], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.tasks = tasks
        self.reports = {
            line["id"]: RunReport.from_json(line) for line in _read_lines(folder / "results.jsonl") if "outcome" in line
        }
        """By task, what came of it last."""
        self._sessions = {line["id"]: line["session"] for line in _read_lines(folder / "sessions.jsonl")}

    @property
    def left(self) -> list[Task]:
        """Tasks that have not come to their end; one that waited for a person may go on now."""
        waiting = (Outcome.AWAITING_APPROVAL, Outcome.INTERRUPTED)
        ended = {id for id, report in self.reports.items() if report.verdict.outcome not in waiting}
        return [task for task in self.tasks if task.id not in ended]

    async def run(self, agent: Agent, jobs: int, done: Callable[[RunReport], None]) -> None:
        """Runs what is left, some at a time, and writes each result as it comes."""
        await agent.load()
        store = await agent.open_store()
        shared = agent.replace(store=False if store is None else store)
        limiter = anyio.CapacityLimiter(jobs)

        async def one(task: Task) -> None:
            async with limiter:
                report = await self._run_task(shared, task)
            self.reports[task.id] = report
            _append(self._folder / "results.jsonl", report.to_json())
            done(report)

        async with anyio.create_task_group() as group:
            for task in self.left:
                group.start_soon(one, task)

    def write_reports(self) -> None:
        """Writes the JUnit file and the summary of what there is so far."""
        reports = [self.reports[task.id] for task in self.tasks if task.id in self.reports]
        (self._folder / "junit.xml").write_text(junit_xml(reports), encoding="utf-8")
        (self._folder / "summary.md").write_text(summary_markdown(reports), encoding="utf-8")

    async def _run_task(self, agent: Agent, task: Task) -> RunReport:
        if task.seed is not None:
            agent = agent.replace(sampling=replace(agent.sampling, seed=task.seed))
        report = RunReport(task.id, task.prompt, {tool.name: tool.effect for tool in agent.tools})
        try:
            async with agent.session(self._sessions.get(task.id)) as session:
                _append(self._folder / "sessions.jsonl", {"id": task.id, "session": session.id})
                await self._drive(session, task, report)
        except G4AgentError as error:
            report.verdict = Verdict(Outcome.INFRASTRUCTURE, error.message)
        except ExceptionGroup as group:
            report.verdict = Verdict(Outcome.INFRASTRUCTURE, f"{group.exceptions[0]}")
        return report

    async def _drive(self, session: Session, task: Task, report: RunReport) -> None:
        begun = session.next_step > 0
        async with aclosing(session.stream(None if begun and session.interrupted else task.prompt)) as events:
            async for event in events:
                report.see(event)
        checks = await run_checks(list(task.checks), session, report) if report.verdict.ok else []
        report.finish(checks)


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """The file's JSON lines; one that a crash cut off is left out."""
    found = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


def _append(file: Path, line: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        if stream.tell() and not file.read_bytes().endswith(b"\n"):
            stream.write("\n")
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
