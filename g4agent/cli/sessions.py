"""`g4agent sessions`: what is stored, its story, and going on with it."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from g4agent.cli import options as o

if TYPE_CHECKING:
    from g4agent.agent import Agent
    from g4agent.store import SessionSummary

app = typer.Typer(help="Stored sessions: list, show, resume.", no_args_is_help=True)

SessionId = Annotated[str, typer.Argument(metavar="ID", help="Id of a session, or its beginning.")]


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the last used first.")] = 20,
    verbose: o.Verbose = False,
) -> None:
    """List the stored sessions, the last used first."""
    from g4agent.cli.console import stdout, table
    from g4agent.cli.drive import reported_errors
    from g4agent.store import Store

    with reported_errors(verbose), Store.open() as store:
        rows = [_row(summary) for summary in store.list_sessions(limit)]
        columns = ("session", "age", "agent", "model", "steps", "tokens", "status", "prompt")
        stdout().print(table(*columns, rows=rows, right=frozenset({"age", "steps", "tokens"})))


@app.command("show")
def show(id: SessionId, verbose: o.Verbose = False) -> None:
    """Tell a session's story from the store: turns, thoughts, calls, questions, results, and what it took."""
    from g4agent.cli.console import stdout
    from g4agent.cli.drive import reported_errors
    from g4agent.cli.render import Story
    from g4agent.cli.stored_story import tell
    from g4agent.store import Store

    with reported_errors(verbose), Store.open() as store:
        tell(Story(stdout(), verbose=verbose), store, store.session(id), verbose=verbose)


@app.command("resume")
def resume(
    id: SessionId,
    prompt: Annotated[
        str | None, typer.Argument(help="A new user turn. Without it, an interrupted run goes on.")
    ] = None,
    agent: o.AgentPath = None,
    model: o.Model = None,
    max_steps: o.MaxSteps = None,
    allow_degraded: o.Degraded = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    kv_bits: o.KvBits = None,
    changes: o.Changes = None,
    offline: o.Offline = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Go on with a stored session, by the agent and the model that it was made with.

    Where it works on a copy of a folder, all that it has changed in it comes out as `--changes` says.
    """
    from g4agent.cli.drive import Driver, reported_errors
    from g4agent.cli.workspace import Copied
    from g4agent.store import Store

    async def go_on(driver: Driver) -> int:
        async with driver.agent.session(id) as session:
            verdict = await driver.turn(session, prompt)
            await driver.settle(session, prompt or "", ok=verdict.ok)
            return verdict.exit_code

    with reported_errors(verbose):
        chosen = o.AgentOptions(
            agent=agent,
            model=model,
            max_steps=max_steps,
            allow_degraded=allow_degraded,
            device=device,
            dtype=dtype,
            kv_bits=kv_bits,
            offline=offline,
        )
        configured = stored_agent(id, chosen)
        with Store.open() as store:
            watched = sys.stdin.isatty() and sys.stderr.isatty()
            copied = Copied.stored(store.folder, store.session(id).id, changes, watched=watched)
        driver = Driver(configured if copied is None else copied.agent(configured), as_json=as_json, verbose=verbose)
        driver.copied = copied
        raise typer.Exit(driver.run(go_on))


def stored_agent(id: str, chosen: o.AgentOptions) -> Agent:
    """The agent that a session was made with, found again by the reference in the store, unless `chosen` names one.

    Raises:
        SessionNotFoundError: There is no such session.
        ConfigError: The agent is not where it was.
    """
    from g4agent.agent import Agent
    from g4agent.errors import ConfigError
    from g4agent.store import Store

    with Store.open() as store:
        session = store.session(id)
    if chosen.agent is None and session.agent != Agent().name:
        chosen = replace(chosen, agent=session.agent)
    try:
        agent = chosen.configure()
    except ConfigError as error:
        raise ConfigError(error.message, hint=f"Session {session.id} needs its agent: --agent PATH.") from error
    if chosen.model is None and isinstance(agent.model, str):
        agent = agent.replace(model=session.model)
    return agent


def age(then: datetime) -> str:
    """How long ago, in the largest unit that fits: `41s`, `5m`, `3h`, `12d`."""
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _row(s: SessionSummary) -> tuple[str, ...]:
    from g4agent.cli.console import one_line

    agent, prompt = Path(s.agent).name, one_line(s.title, 60)
    return s.id, age(s.updated), agent, s.model, str(s.steps), str(s.tokens), s.status, prompt
