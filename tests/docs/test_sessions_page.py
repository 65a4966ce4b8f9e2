"""The page on sessions names every command of `g4agent sessions`, with options that exist."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from g4agent.cli.app import app

PAGE = (Path(__file__).resolve().parents[2] / "docs/sessions.md").read_text()


def test_the_commands_take_the_options_of_the_page() -> None:
    """An option that was renamed must not live on in the page."""
    commands = re.findall(r"^    g4agent sessions (\w+)(.*)$", PAGE, re.MULTILINE)
    assert {name for name, _ in commands} == {"list", "show", "resume", "fork", "replay", "export", "import", "delete"}
    for name, rest in commands:
        help = CliRunner().invoke(app, ["sessions", name, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
        assert all(option in help for option in re.findall(r"--[\w-]+", rest)), help
