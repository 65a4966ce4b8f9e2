"""The commands, put together."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated

import typer

from g4agent import __version__
from g4agent.cli import chat, doctor, headless, init, models, people, run, sessions, tools

app = typer.Typer(
    name="g4agent",
    help="Agents for Gemma 4 on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"g4agent {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Agents for Gemma 4 on your own machine."""


app.command("init")(init.init)
app.command("run")(run.run)
app.command("batch")(headless.batch)
app.command("chat")(chat.chat)
app.command("approve")(people.approve)
app.command("ctl")(people.ctl)
app.add_typer(sessions.app, name="sessions")
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.command("tools")(tools.tools)
for command in entry_points(group="g4agent.commands"):  # of packages on the shelves
    app.command(command.name)(command.load())
