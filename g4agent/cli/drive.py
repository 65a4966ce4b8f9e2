"""Drives an agent from a terminal: shows its events, asks for approval, and ends well on Ctrl-C and on errors.

Ctrl-C is left to asyncio's runner: the first one cancels the main task, so that every call gets its result and the
step is stored; then `anyio.run` raises KeyboardInterrupt. A second one does not wait for that.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import typer
from rich.text import Text

from g4agent.cli.console import arguments, one_line, plain, stderr, stdout
from g4agent.cli.render import JsonLines, Renderer, Story
from g4agent.errors import (
    G4AgentError,
    ModelLoadError,
    RuntimeUnavailableError,
    SandboxUnavailableError,
    SessionNotFoundError,
    StoreError,
)
from g4agent.events import CheckFinished, Event, RunFinished, RunJudged, RunStarted, StepFinished, Usage
from g4agent.messages import ToolCall
from g4agent.verdict import EXIT_CODES, Outcome, Verdict

if TYPE_CHECKING:
    from g4agent.agent import Agent
    from g4agent.cli.workspace import Copied
    from g4agent.headless.report import CheckResult, RunReport
    from g4agent.image import Prompt
    from g4agent.session import Session
    from g4agent.tools import Tool

INTERRUPTED = Verdict(Outcome.INTERRUPTED, "stopped by a signal")


class Driver:
    """Runs user turns of one session and shows them.

    Args:
        agent: What to run. Where it has nobody to ask for approval, the terminal is asked, if there is one.
        as_json: JSON lines instead of a story.
        verbose: As for `Story`; also show tracebacks of errors.
    """

    def __init__(self, agent: Agent, *, as_json: bool, verbose: bool) -> None:
        can_ask = agent.approve is None and sys.stdin.isatty() and sys.stderr.isatty()
        self.agent = agent.replace(approve=_approve_on_terminal) if can_ask else agent
        self._renderer: Renderer = JsonLines() if as_json else Story(stdout(), verbose=verbose)
        self.report: RunReport | None = None
        """Sees every event, where there is one."""
        self.copied: Copied | None = None
        """The project that the run works on a copy of."""
        self._running: RunStarted | None = None
        self._usage = Usage()
        self._steps = 0

    async def turn(self, session: Session, prompt: Prompt | None) -> Verdict:
        """One user turn, shown while it happens; None goes on with an interrupted one."""
        if self.copied is not None:
            await self.copied.remember(self, session)
        async with aclosing(session.stream(prompt)) as events:
            return await self._show(events)

    async def settle(self, session: Session, task: str, *, ok: bool) -> None:
        """Shows and takes over what changed in the copy of a project, if there is one."""
        if self.copied is not None:
            await self.copied.settle(self, session, task, ok=ok)

    def show(self, event: Event) -> None:
        """Shows something that is no part of a turn."""
        self._renderer.show(event)

    async def judge(self, session: Session, report: RunReport, checks: list[CheckResult]) -> int:
        """Shows what came of a headless run's checks and of its changes, and its verdict; returns the exit code."""
        verdict = report.finish(checks)
        for check in checks:
            self._renderer.show(CheckFinished(check.name, check.passed, check.ran, check.detail))
        await self.settle(session, report.prompt, ok=verdict.ok)
        self._renderer.show(RunJudged(verdict, verdict.exit_code))
        return verdict.exit_code

    def run(self, body: Callable[[Driver], Awaitable[int]]) -> int:
        """Runs `body` in an event loop with the agent open; returns its exit code, or 130 after Ctrl-C or SIGTERM."""
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

        async def with_agent() -> int:
            async with self.agent:
                return await body(self)

        try:
            return anyio.run(with_agent)
        except KeyboardInterrupt:
            self._interrupted()
            return INTERRUPTED.exit_code

    async def _show(self, events: AsyncGenerator[Event, None]) -> Verdict:
        verdict = INTERRUPTED
        async for event in events:
            match event:
                case RunStarted():
                    self._running, self._usage, self._steps = event, Usage(), 0
                case StepFinished(usage=usage):
                    self._usage += usage
                    self._steps += 1
                case RunFinished():
                    self._running, verdict = None, event.verdict
            self._show_one(event)
        return verdict

    def _show_one(self, event: Event) -> None:
        self._renderer.show(event)
        if self.report is not None:
            self.report.see(event)

    def _interrupted(self) -> None:
        """The end of a run whose own last event was lost with its task."""
        if self._running is not None:
            id = self._running.session_id
            self._show_one(RunFinished(id, INTERRUPTED, "", self._usage, self._steps))


async def ask(question: str) -> str | None:
    """A line from standard input, None at its end. Ctrl-C is passed on to the event loop, and cancels right here.

    Blocks the event loop on purpose: nothing else is under way while a person is asked. Asyncio's own handler would
    swallow Ctrl-C here, so Python's takes its place for as long as the question stands.
    """
    loops_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        await anyio.lowlevel.checkpoint()  # where a Ctrl-C from just before takes effect
        sys.stderr.write(question if sys.stdin.isatty() else "")
        sys.stderr.flush()
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, loops_handler)
        signal.raise_signal(signal.SIGINT)
        await anyio.lowlevel.checkpoint()
        return None
    finally:
        signal.signal(signal.SIGINT, loops_handler)
    return line.rstrip("\n") if line else None


async def _approve_on_terminal(call: ToolCall, tool: Tool, reason: str) -> bool:
    console = stderr()
    console.print(Text(f"? {one_line(call.name)}({arguments(call.arguments)})", "bold yellow"), soft_wrap=True)
    console.print(Text(f"  {plain(reason)}; effect: {tool.effect}, runs in: {tool.where}", "dim"), soft_wrap=True)
    return (await ask("  Let it run? [y/N] ") or "").strip().lower() in ("y", "yes")


@contextmanager
def reported_errors(verbose: bool) -> Iterator[None]:
    """Turns an exception into a message on stderr and an exit code; with `verbose`, the traceback comes first.

    The code is that of the verdict where the model or the machine is to blame, else 1.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if verbose:
            traceback.print_exc()
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:  # a task group's wrapping
            error = error.exceptions[0]
        _explain(error, verbose)
        raise typer.Exit(_exit_code(error)) from error


def verdict_of(error: Exception) -> Verdict:
    """What an exception says about a run: the model or the machine was to blame, or the code."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    reason = error.message if isinstance(error, G4AgentError) else f"{type(error).__name__}: {error}"
    blame = Outcome.MODEL_ERROR if _exit_code(error) == EXIT_CODES[Outcome.MODEL_ERROR] else Outcome.INFRASTRUCTURE
    return Verdict(blame, reason)


def _exit_code(error: Exception) -> int:
    if isinstance(error, SandboxUnavailableError | StoreError) and not isinstance(error, SessionNotFoundError):
        return EXIT_CODES[Outcome.INFRASTRUCTURE]
    if isinstance(error, ModelLoadError | RuntimeUnavailableError):
        return EXIT_CODES[Outcome.MODEL_ERROR]
    return 1


def _explain(error: Exception, verbose: bool) -> None:
    if isinstance(error, G4AgentError):
        lines = [f"error: {error.message}", *([f"  {error.hint}"] if error.hint else [])]
    else:
        where = "" if verbose else " Use --verbose to see where."
        lines = [f"error: {type(error).__name__}: {error}", f"  A bug, or a fault of the agent's own code.{where}"]
    console = stderr()
    for line, style in zip(lines, ("bold red", ""), strict=False):
        console.print(Text(plain(line), style), soft_wrap=True)
