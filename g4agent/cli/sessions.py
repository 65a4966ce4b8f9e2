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

app = typer.Typer(
    help="Stored sessions: list, show, resume, fork, replay, export, import, delete.", no_args_is_help=True
)

SessionId = Annotated[str, typer.Argument(metavar="ID", help="Id of a session, or its beginning.")]


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the last used first.")] = 20,
    verbose: o.Verbose = False,
) -> None:
    """List the stored sessions, the last used first.

    `memory` is what a session's keys and values take, `plain` what they would take without compression.
    """
    from g4agent.cli.console import stdout, table
    from g4agent.cli.drive import reported_errors
    from g4agent.store import Store

    with reported_errors(verbose), Store.open() as store:
        rows = [_row(summary) for summary in store.list_sessions(limit)]
        columns = ("session", "age", "agent", "model", "steps", "tokens", "memory", "plain", "status", "prompt")
        stdout().print(table(*columns, rows=rows, right=frozenset(columns[1:2] + columns[4:8])))


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
    kv_sliding_bits: o.KvSlidingBits = None,
    head_bits: o.HeadBits = None,
    kv_memory: o.KvMemory = None,
    kv_disk: o.KvDisk = None,
    context_length: o.ContextLength = None,
    changes: o.Changes = None,
    offline: o.Offline = False,
    log: o.LogFile = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Go on with a stored session, by the agent, the model and the options of the KV cache that it was made with.

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
            kv_sliding_bits=kv_sliding_bits,
            head_bits=head_bits,
            kv_memory=kv_memory,
            kv_disk=kv_disk,
            context_length=context_length,
            offline=offline,
            log=log,
        )
        configured = stored_agent(id, chosen)
        with Store.open() as store:
            watched = sys.stdin.isatty() and sys.stderr.isatty()
            copied = Copied.stored(store, store.session(id).id, changes, watched=watched)
        driver = Driver(configured if copied is None else copied.agent(configured), as_json=as_json, verbose=verbose)
        driver.copied = copied
        raise typer.Exit(driver.run(go_on))


@app.command("fork")
def fork(
    id: SessionId,
    at: Annotated[
        int | None, typer.Option("--at", metavar="STEP", min=0, help="Last step to take over. Default: the last one.")
    ] = None,
    verbose: o.Verbose = False,
) -> None:
    """Begin a new session with another one's history, up to and including a step. Prints its id."""
    from g4agent.cli.drive import reported_errors
    from g4agent.store import Store

    with reported_errors(verbose), Store.open() as store:
        typer.echo(store.fork(store.session(id).id, at))


@app.command("export")
def export_session(
    id: SessionId,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    verbose: o.Verbose = False,
) -> None:
    """Write all of a session into one file, for another store."""
    from g4agent.cli.drive import reported_errors
    from g4agent.store import Store

    with reported_errors(verbose), Store.open() as store:
        store.export_session(store.session(id).id, file)


@app.command("import")
def import_session(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Made by `sessions export`.")],
    verbose: o.Verbose = False,
) -> None:
    """Take in an exported session. Prints its id: a new one where its own is taken."""
    from g4agent.cli.drive import reported_errors
    from g4agent.store import Store

    with reported_errors(verbose), Store.open() as store:
        typer.echo(store.import_session(file))


@app.command("delete")
def delete(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of sessions, or their beginnings.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    verbose: o.Verbose = False,
) -> None:
    """Delete sessions: story, workspace, keys and values, and the folder that their services keep on this host.

    Asks first; where nobody can be asked, it takes --yes.
    """
    from g4agent.cli.console import counted
    from g4agent.cli.drive import reported_errors
    from g4agent.deletion import delete_session
    from g4agent.errors import ConfigError
    from g4agent.store import Store

    with reported_errors(verbose), Store.open() as store:
        sessions = [store.session(id) for id in ids]
        for session in sessions:
            if not yes:
                if not sys.stdin.isatty():
                    raise ConfigError("deleting cannot be undone, and nobody can be asked", hint="Add --yes.")
                if not typer.confirm(f"Delete session {session.id} ({counted(session.steps, 'step')})?"):
                    continue
            delete_session(store, session.id)
            typer.echo(session.id)


@app.command("replay")
def replay(
    id: SessionId,
    verify: Annotated[bool, typer.Option("--verify", help="Exit with 1 where a token comes out otherwise.")] = False,
    seed: o.Seed = None,
    temperature: o.Temperature = None,
    agent: o.AgentPath = None,
    model: o.Model = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    kv_bits: o.KvBits = None,
    kv_sliding_bits: o.KvSlidingBits = None,
    head_bits: o.HeadBits = None,
    offline: o.Offline = False,
    verbose: o.Verbose = False,
) -> None:
    """Have the model sample a session anew, its results taken from the store, and tell the first other token.

    No tool runs. Another seed, temperature or model shows where it would have gone another way. Options that are not
    given are as they were; only the device is this machine's.
    """
    from g4agent.cli.drive import Driver, reported_errors
    from g4agent.cli.replay import tell
    from g4agent.store import Store

    async def run_again(driver: Driver) -> int:
        with Store.open() as store:
            sampling = store.session(id).sampling
        sampling = o.changed(sampling, seed=seed, temperature=temperature)
        result = await driver.agent.replay(id, sampling)
        tell(result, await driver.agent.load())
        return int(verify and result.divergence is not None)

    with reported_errors(verbose):
        chosen = o.AgentOptions(
            agent=agent,
            model=model,
            device=device,
            dtype=dtype,
            kv_bits=kv_bits,
            kv_sliding_bits=kv_sliding_bits,
            head_bits=head_bits,
            offline=offline,
        )
        raise typer.Exit(Driver(stored_agent(id, chosen), as_json=False, verbose=verbose).run(run_again))


def stored_agent(id: str, chosen: o.AgentOptions) -> Agent:
    """The agent that a session was made with, found again by the reference in the store, unless `chosen` names one.

    Its model gets the options that the session was begun with, unless `chosen` has others.

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
    kept = {name: value for name, value in session.model_options.items() if getattr(chosen, name) is None}
    return agent.replace(model_options={**agent.model_options, **kept}) if kept else agent


def age(then: datetime) -> str:
    """How long ago, in the largest unit that fits: `41s`, `5m`, `3h`, `12d`."""
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def size(count: int) -> str:
    """Bytes in the largest unit that fits: `512 B`, `64 KiB`, `1.5 GiB`."""
    value, units = float(count), ["TiB", "GiB", "MiB", "KiB", "B"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop()
    return f"{value:.0f} {units[-1]}" if value >= 10 or units[-1] == "B" else f"{value:.1f} {units[-1]}"


def _row(s: SessionSummary) -> tuple[str, ...]:
    from g4agent.cli.console import one_line

    agent, prompt = Path(s.agent).name, one_line(s.title, 60)
    memory, plain = ("-", "-") if s.memory is None else (size(s.memory.bytes), size(s.memory.plain_bytes))
    return s.id, age(s.updated), agent, s.model, str(s.steps), str(s.tokens), memory, plain, s.status, prompt
