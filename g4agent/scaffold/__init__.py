"""A new agent project from the templates in `project/`: what `g4agent init` writes.

The templates are the files as they are, but for two names: `dot_gitignore`, which would rule the folder that it lies
in, and `agent.yml`, which goes where GitHub looks for it.
"""

from __future__ import annotations

from pathlib import Path

from g4agent.errors import ConfigError

TEMPLATES = Path(__file__).with_name("project")
RENAMED = {"dot_gitignore": ".gitignore", "agent.yml": ".github/workflows/agent.yml"}


def templates() -> dict[str, bytes]:
    """Contents of a new project's files, by relative path."""
    found = (path for path in sorted(TEMPLATES.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    by_name = {path.relative_to(TEMPLATES).as_posix(): path.read_bytes() for path in found}
    return {RENAMED.get(name, name): data for name, data in by_name.items()}


def scaffold(folder: Path) -> list[str]:
    """Writes a new project into a folder, made if it is not there; returns the relative paths of its files.

    Raises:
        ConfigError: A file of that name is there already, or the folder cannot be written. Nothing is overwritten.
    """
    files = templates()
    if taken := [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]:
        raise ConfigError(
            f"{folder} has {', '.join(taken)} already; nothing was written", hint="Name a new folder: g4agent init DIR."
        )
    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("xb") as file:
                file.write(data)
    except OSError as error:
        raise ConfigError(f"the project cannot be written to {folder}: {error}") from error
    return list(files)
