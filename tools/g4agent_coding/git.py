"""git, as the tools call it: without hooks, pagers, prompts, user settings or programs that a repository names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from g4agent.workspace_files import Refusal
from g4agent_coding.process import run

GIT_SECONDS = 60.0
QUIET = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C.UTF-8",
}
SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.quotePath=false", "safe.directory=*", "gc.auto=0")


def git(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    stdin: str = "",
) -> str:
    """Runs git in the current folder; gives what it prints.

    Raises:
        Refusal: git is not there, takes too long, or fails, with its own words.
    """
    options = [word for setting in (*SETTINGS, *settings) for word in ("-c", setting)]
    ended = run(["git", *options, *arguments], GIT_SECONDS, env={**QUIET, **(env or {})}, stdin=stdin)
    if ended.exit_code is None:
        raise Refusal(f"git {arguments[0]}: no end after {GIT_SECONDS:g} s")
    if ended.exit_code:
        raise Refusal(f"git {arguments[0]}: {ended.output.strip() or f'exit code {ended.exit_code}'}")
    return ended.output


def require_repository() -> None:
    """Raises Refusal unless the workspace is a git repository of its own."""
    if not (Path.cwd() / ".git").exists():
        raise Refusal("the workspace is no git repository: `git init` makes one")
