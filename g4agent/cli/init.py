"""`g4agent init`: a new agent project."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from g4agent.cli import options as o


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the project goes; here by default.", show_default=False)
    ] = Path(),
    verbose: o.Verbose = False,
) -> None:
    """Write a small agent project that works: agent, policy, tasks, a test, and a workflow for GitHub.

    Existing files are never overwritten.
    """
    from g4agent.cli.drive import reported_errors
    from g4agent.scaffold import scaffold

    with reported_errors(verbose):
        for name in scaffold(folder):
            typer.echo(f"  {folder / name}")
    typer.echo("Next:")
    if folder != Path():
        typer.echo(f"  cd {shlex.quote(str(folder))}")
    typer.echo('  g4agent run "What is the stock of the lamp?" --agent .')
    typer.echo("  g4agent batch tasks.jsonl --agent . --out results")
