"""`g4agent run`: one prompt, to its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from g4agent.cli import options as o
from g4agent.errors import ConfigError


def run(
    prompt: Annotated[str | None, typer.Argument(help="What the agent shall do.")] = None,
    task_file: Annotated[
        Path | None,
        typer.Option("--task-file", metavar="FILE", help="Read the prompt from a file, or from -."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An image to see before the prompt is read. May be given several times."),
    ] = None,
    image_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="What each may take: 70, 140, 280 (default), 560 or 1120 tokens.")
    ] = None,
    agent: o.AgentPath = None,
    model: o.Model = None,
    policy: o.PolicyFile = None,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", metavar="PATH", help="Work on a copy of this folder or git repository."),
    ] = None,
    changes: o.Changes = None,
    headless: Annotated[
        bool, typer.Option("--headless", help="Nobody watches: ask nothing, and believe nothing that is not shown.")
    ] = False,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK",
            help="What must be so afterwards: command:…, file:PATH, changes, schema:FILE, python:FILE:FUNCTION."
            " May be given several times; implies --headless.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML; implies --headless.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE", help="Append a Markdown summary; implies --headless.")
    ] = None,
    think: o.Think = None,
    seed: o.Seed = None,
    temperature: o.Temperature = None,
    tool_choice: o.ToolChoice = None,
    masked: o.Masked = None,
    max_steps: o.MaxSteps = None,
    max_tokens: o.MaxTokens = None,
    max_thoughts: o.MaxThoughts = None,
    max_seconds: o.MaxSeconds = None,
    allow_degraded: o.Degraded = None,
    sandbox: o.SandboxName = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    kv_bits: o.KvBits = None,
    kv_sliding_bits: o.KvSlidingBits = None,
    head_bits: o.HeadBits = None,
    kv_memory: o.KvMemory = None,
    kv_disk: o.KvDisk = None,
    context_length: o.ContextLength = None,
    offline: o.Offline = False,
    log: o.LogFile = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Run a prompt in a new session.

    The exit code says how the run ended: 0 done, 10 budget used up, 11 too many errors, 12 no answer, 13 context full,
    14 model error, 15 answer cut off, 16 infrastructure (sandbox or store), 17 a call waits for approval, 18 stuck,
    130 interrupted, 1 anything else. Headless also: 19 every call denied, 20 nothing done, 21 a check failed.
    """
    from g4agent.cli.drive import Driver, reported_errors
    from g4agent.cli.headless import Reporting, run_headless, unwatched
    from g4agent.cli.workspace import Copied
    from g4agent.image import DEFAULT_SOFT_TOKENS, Image, Prompt

    async def once(driver: Driver) -> int:
        async with driver.agent.session() as session:
            verdict = await driver.turn(session, prompted)
            await driver.settle(session, task, ok=verdict.ok)
            return verdict.exit_code

    with reported_errors(verbose):
        task, name = _task(prompt, task_file)
        pictures = [Image(file, tokens=image_tokens or DEFAULT_SOFT_TOKENS) for file in image or ()]
        prompted: Prompt = [*pictures, task] if pictures else task
        configured = o.AgentOptions(
            agent=agent,
            model=model,
            policy=policy,
            think=think,
            seed=seed,
            temperature=temperature,
            tool_choice=tool_choice,
            masked=masked,
            max_steps=max_steps,
            max_tokens=max_tokens,
            max_thoughts=max_thoughts,
            max_seconds=max_seconds,
            allow_degraded=allow_degraded,
            sandbox=sandbox,
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
        ).configure()
        unseen = bool(headless or expect or junit is not None or summary is not None)
        if workspace is None and changes is not None:
            raise ConfigError("--changes belongs to --workspace", hint="Name the folder that the run shall work on.")
        copied = None
        if workspace is not None:
            watched = not unseen and sys.stdin.isatty() and sys.stderr.isatty()
            copied = Copied.prepare(workspace, changes, watched=watched)
            configured = copied.agent(configured)
        driver = Driver(unwatched(configured) if unseen else configured, as_json=as_json, verbose=verbose)
        driver.copied = copied
        if unseen:
            reporting = Reporting(expect=expect or [], junit=junit, summary=summary)
            raise typer.Exit(run_headless(driver, name, prompted, reporting))
        raise typer.Exit(driver.run(once))


def _task(prompt: str | None, file: Path | None) -> tuple[str, str]:
    """The prompt, and a name for the task."""
    if (prompt is None) == (file is None):
        raise ConfigError("there is no prompt, or there are two", hint='g4agent run "…", or --task-file FILE.')
    if file is None:
        return prompt or "", "run"
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the task file {file} cannot be read: {error}") from error
    return text.strip(), "run" if str(file) == "-" else file.stem
