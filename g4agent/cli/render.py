"""What a person or a program sees of a run. Both renderers read the same events."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Literal, Protocol

from rich.console import Console
from rich.text import Text

from g4agent.cli.console import arguments, compact, counted, one_line, plain
from g4agent.context.ladder import Rung
from g4agent.events import (
    ApprovalAsked,
    CallMalformed,
    CallReady,
    CallSignals,
    ChangesSettled,
    CheckFinished,
    ContextReduced,
    Event,
    NetworkAttempt,
    PagesLost,
    RunContinued,
    RunFinished,
    RunJudged,
    RunPaused,
    RunStarted,
    StepFinished,
    TextDelta,
    ThoughtDelta,
    ToolFinished,
    ToolStarted,
    UserSpoke,
    WorkspaceChanged,
    to_json,
)
from g4agent.messages import ToolCall, ToolResult

ARGUMENT_CHARS = 80
RESULT_CHARS = 200
DIFF_STYLES = {"diff ": "bold", "--- ": "bold", "+++ ": "bold", "@@": "cyan", "-": "red", "+": "green"}
PLACES = {"sandbox": "in the sandbox", "box": "in a box of its own", "host": "on the host"}
SETTLED = {
    "apply": "applied to {where}",
    "branch": "committed to the branch {where}",
    "patch": "not applied; the patch is {where}",
    "discard": "discarded",
}

REDUCED: dict[Rung, str] = {
    "trim_results": "{count} older results are shown in part",
    "drop_thoughts": "older thoughts are dropped",
    "summarise": "older turns are summed up",
}


class Renderer(Protocol):
    """Shows the events of one run after another."""

    def show(self, event: Event) -> None: ...


class JsonLines:
    """Each event as one line of JSON on standard output."""

    def show(self, event: Event) -> None:
        sys.stdout.write(json.dumps(to_json(event)) + "\n")
        sys.stdout.flush()


class Story:
    """A run as a person reads it: thought, text, call, result, and a line on how it ended.

    Args:
        console: Where to print.
        verbose: Show arguments and results in full, what tools printed, repairs, tracebacks and each step's usage.
    """

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console = console
        self._verbose = verbose
        self._streaming: Literal["thought", "text"] | None = None
        self._line_open = False
        self._degraded: frozenset[str] = frozenset()

    def show(self, event: Event) -> None:
        """Prints what is worth knowing of the event."""
        match event:
            case ThoughtDelta(text):
                self._stream("thought", text)
            case TextDelta(text):
                self._stream("text", text)
            case CallReady(call, repairs, signals):
                self.call(call)
                if signals is not None and self._verbose:
                    self.line(_sureness(signals), "dim")
                if repairs and self._verbose:
                    self.line(f"  mended: {', '.join(repairs)}", "yellow")
            case CallMalformed(raw=raw):
                self.line(f"→ malformed call: {one_line(raw, self._limit(RESULT_CHARS))}", "yellow")
            case ToolStarted(call, where) if where != "sandbox" and self._verbose:
                self.line(f"  {call.name} runs {PLACES[where]}", "dim")
            case NetworkAttempt():
                self._network(event)
            case PagesLost(problem):
                self.line(f"  memory: {one_line(problem)}", "yellow")
            case ToolFinished(result, output=output, degraded=degraded):
                self.result(result, output)
                self._note_degraded(frozenset(degraded))
            case ApprovalAsked(question, call, reason):
                self.line(f"? {one_line(call.name)} waits for a person: {reason}", "bold yellow")
                self.line(f"  answer with: g4agent approve {question} [--deny]", "dim")
            case ContextReduced():
                self.reduced(event.rung, event.trimmed, event.summary, f"{event.before:,} → {event.after:,} tokens")
            case RunPaused():
                self.line("paused", "yellow")
            case RunContinued():
                self.line("going on", "yellow")
            case UserSpoke(text):
                self.line(f"> {text}", "bold")
            case WorkspaceChanged(files, diff, left_out):
                self._changes(files, diff, left_out)
            case ChangesSettled(action, where):
                self.line(SETTLED[action].format(where=where), "bold")
            case CheckFinished(name, passed, ran, detail):
                mark = "✓" if passed else "✗" if ran else "! not run:"
                self.line(f"{mark} {name}{f': {detail}' if detail else ''}", "green" if passed else "red")
            case RunJudged(verdict, code):
                reason = f" ({verdict.reason})" if verdict.reason else ""
                self.line(f"{verdict.outcome}{reason} · exit code {code}", "green" if verdict.ok else "bold red")
            case RunStarted() if self._verbose:
                self.line(f"session {event.session_id} · {event.model} · seed {event.seed}", "dim")
            case StepFinished(step, usage) if self._verbose:
                used = f"{usage.prompt_tokens} + {usage.generated_tokens} tokens · {usage.seconds:.1f} s"
                self.line(f"step {step} · {used}", "dim")
            case RunFinished():
                self._finish(event)

    def _changes(self, files: tuple[str, ...], diff: str, left_out: tuple[str, ...]) -> None:
        for line in diff.splitlines():
            kind = next((kind for kind in DIFF_STYLES if line.startswith(kind)), "")
            self.line(line, DIFF_STYLES.get(kind, ""))
        for reason in left_out:
            self.line(f"left out: {reason}", "yellow")
        if not files:
            self.line("no file was changed", "dim")

    def call(self, call: ToolCall) -> None:
        """`→ name(argument=value)`."""
        self.line(f"→ {one_line(call.name)}({arguments(call.arguments, self._limit(ARGUMENT_CHARS))})", "cyan")

    def result(self, result: ToolResult, output: str = "") -> None:
        """`← value`, or `✗ error` in red; with the tool's name, as several calls may be under way."""
        name, limit = one_line(result.name), self._limit(RESULT_CHARS)
        if result.error is None:
            self.line(f"← {name}: {compact(result.value, limit)}", "dim")
        else:
            self.line(f"✗ {name}: {one_line(result.error.message, limit)}", "red")
        if self._verbose:
            for extra in (output, (result.error and result.error.detail) or ""):
                for line in extra.splitlines():
                    self.line(f"  │ {line}", "dim")

    def reduced(self, rung: Rung, trimmed: Sequence[str], summary: str, figures: str) -> None:
        """What was taken out of the context, and with `verbose` the summary in full."""
        what = REDUCED[rung].format(count=len(trimmed))
        self.line(f"context: {what} · {figures}", "yellow")
        if summary:
            self.line(f"  {one_line(summary, self._limit(RESULT_CHARS))}", "dim")

    def line(self, text: str, style: str = "") -> None:
        """One line of its own."""
        self._end_stream()
        self._print(plain(text) + "\n", style)

    def _stream(self, kind: Literal["thought", "text"], text: str) -> None:
        if self._streaming != kind:
            text = text.lstrip("\n")
            if not text:
                return
            self._end_stream()
            self._streaming = kind
            if kind == "thought":
                text = f"thought: {text}"
        self._print(plain(text), "dim italic" if kind == "thought" else "")

    def _end_stream(self) -> None:
        if self._line_open:
            self._print("\n", "")
        self._streaming = None

    def _print(self, text: str, style: str) -> None:
        if text:
            self._console.print(Text(text, style), end="", soft_wrap=True)
            self._line_open = not text.endswith("\n")

    def _network(self, attempt: NetworkAttempt) -> None:
        place = f"{attempt.host}:{attempt.port}" + (f" ({attempt.count} times)" if attempt.count > 1 else "")
        if attempt.allowed:
            self.line(f"  network: {one_line(place)}", "dim")
        else:
            self.line(f"  network denied: {one_line(place)}: {attempt.reason}", "yellow")

    def _note_degraded(self, degraded: frozenset[str]) -> None:
        if degraded - self._degraded:
            self._degraded |= degraded
            self.line(f"  limits that this host does not enforce: {', '.join(sorted(degraded))}", "yellow")

    def _finish(self, event: RunFinished) -> None:
        verdict, usage = event.verdict, event.usage
        reason = f" ({verdict.reason})" if verdict.reason else ""
        tokens = usage.prompt_tokens + usage.generated_tokens
        counts = f"{counted(event.steps, 'step')} · {counted(tokens, 'token')} · {usage.seconds:.1f} s"
        self.line(
            f"{verdict.outcome}{reason} · {counts} · session {event.session_id}", "green" if verdict.ok else "bold red"
        )
        if verdict.resumable:
            self.line(f"  go on with: g4agent sessions resume {event.session_id}", "dim")

    def _limit(self, limit: int) -> int | None:
        return None if self._verbose else limit


def _sureness(signals: CallSignals) -> str:
    sure = f"  tool {signals.tool:.0%} · arguments {signals.arguments:.0%}"
    return f"{sure} · mask pressure {signals.mask_pressure:.0%}" if signals.mask_pressure >= 0.005 else sure
