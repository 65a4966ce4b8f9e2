"""What one run did, gathered from its events, and whether that counts as a success."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from g4agent.events import Event, RunFinished, RunStarted, StepFinished, ToolFinished, Usage
from g4agent.messages import JsonValue, ToolErrorKind
from g4agent.tools import Effect
from g4agent.verdict import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class CallLine:
    """One tool call. `error` names what went wrong, None where nothing did."""

    name: str
    error: ToolErrorKind | None
    message: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What an expectation came to. `ran` is False where nobody can say, which is no success."""

    name: str
    passed: bool
    detail: str = ""
    ran: bool = True


@dataclass(slots=True)
class RunReport:
    """One run, as a CI server wants to know it. Feed it every event with `see`, then `finish` it."""

    id: str
    """Names the task."""
    prompt: str
    effects: Mapping[str, Effect]
    """Of the agent's tools, by name."""
    session_id: str = ""
    model: str = ""
    verdict: Verdict = field(default_factory=lambda: Verdict(Outcome.INTERRUPTED, "the run did not come to its end"))
    answer: str = ""
    usage: Usage = field(default_factory=Usage)
    steps: int = 0
    seconds: float = 0.0
    calls: list[CallLine] = field(default_factory=list)
    checks: list[CheckResult] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def see(self, event: Event) -> None:
        """Takes note of what happened."""
        match event:
            case RunStarted():
                self.session_id, self.model = event.session_id, event.model
            case ToolFinished(result, seconds):
                kind, message = (None, "") if result.error is None else (result.error.kind, result.error.message)
                self.calls.append(CallLine(result.name, kind, message, seconds))
            case StepFinished(usage=usage):
                self.usage += usage
                self.steps += 1
            case RunFinished():
                self.verdict, self.answer = event.verdict, event.answer
                self.usage, self.steps = event.usage, event.steps
        self.seconds = time.monotonic() - self.started

    def finish(self, checks: list[CheckResult]) -> Verdict:
        """The verdict that counts, checks included: a run that only says that it is done is not believed."""
        self.checks = checks
        self.seconds = time.monotonic() - self.started
        self.verdict = honest(self)
        return self.verdict

    def to_json(self) -> dict[str, JsonValue]:
        """For a line of a batch's results."""
        return {
            "id": self.id,
            "prompt": self.prompt,
            "outcome": self.verdict.outcome.value,
            "reason": self.verdict.reason,
            "exit_code": self.verdict.exit_code,
            "answer": self.answer,
            "session": self.session_id,
            "model": self.model,
            "steps": self.steps,
            "prompt_tokens": self.usage.prompt_tokens,
            "generated_tokens": self.usage.generated_tokens,
            "seconds": round(self.seconds, 3),
            "calls": [
                {"name": c.name, "error": c.error, "message": c.message, "seconds": round(c.seconds, 3)}
                for c in self.calls
            ],
            "checks": [{"name": c.name, "passed": c.passed, "ran": c.ran, "detail": c.detail} for c in self.checks],
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> RunReport:
        """The report that `to_json` wrote."""
        usage = Usage(line["prompt_tokens"], line["generated_tokens"])
        report = cls(line["id"], line["prompt"], {}, line["session"], line["model"], usage=usage)
        report.verdict = Verdict(Outcome(line["outcome"]), line["reason"])
        report.answer, report.steps, report.seconds = line["answer"], line["steps"], line["seconds"]
        report.calls = [CallLine(**call) for call in line["calls"]]
        report.checks = [CheckResult(**check) for check in line["checks"]]
        return report


def honest(report: RunReport) -> Verdict:
    """Done only where something was done and every check ran and passed."""
    if not report.verdict.ok:
        return report.verdict
    broken = [check for check in report.checks if not check.ran]
    failed = [check for check in report.checks if check.ran and not check.passed]
    if broken:
        return Verdict(Outcome.CHECK_FAILED, f"the check {broken[0].name} could not be run: {broken[0].detail}")
    if failed:
        return Verdict(Outcome.CHECK_FAILED, f"{failed[0].name}: {failed[0].detail}")
    if report.calls and all(call.error == "denied" for call in report.calls):
        return Verdict(Outcome.DENIED, f"every call was denied: {report.calls[0].message}")
    changing = [call for call in report.calls if report.effects.get(call.name, "pure") != "pure"]
    if changing and not report.checks and all(call.error == "denied" for call in changing):
        return Verdict(Outcome.DENIED, f"every call that changes something was denied: {changing[0].message}")
    if report.effects and not report.checks and all(call.error is not None for call in report.calls):
        did = "no call succeeded" if report.calls else "no tool was called"
        return Verdict(Outcome.NOTHING_DONE, f"the model says that it is done, but {did}")
    return report.verdict
