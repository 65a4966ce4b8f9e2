"""Where a worker process finds the Python function behind a tool."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from g4agent.errors import ToolDefinitionError

Where: TypeAlias = Literal["sandbox", "host", "box"]
"""The session's closed box; this process, with all its rights; or a closed box of the tool's own (an MCP server's)."""


@dataclass(frozen=True, slots=True)
class PythonTarget:
    """A Python function and where a worker process finds it."""

    function: Callable[..., Any]
    module: str
    """Importable module, or `__main__` for a script."""
    attribute: str
    """Qualified name in the module."""
    file: Path | None = None
    """The script, where `module` is `__main__`."""


def python_target(function: Callable[..., Any], where: Where) -> PythonTarget:
    """The function's module and name. Raises ToolDefinitionError where no other process could find it."""
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise ToolDefinitionError(f"{function!r} is not a function", hint="Write a `def` that calls it, with types.")
    if function.__name__ == "<lambda>":
        raise ToolDefinitionError("a lambda cannot be a tool", hint="Write a `def` with types and a docstring.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ToolDefinitionError(f"{function.__name__} is a generator", hint="Return a list instead of yielding.")
    if where != "sandbox":
        return PythonTarget(function, function.__module__, function.__qualname__)
    if inspect.ismethod(function) or "<locals>" in function.__qualname__:
        raise ToolDefinitionError(
            f"{function.__qualname__} cannot be found by the sandbox, which loads a tool by module and name",
            hint='Move it to module level, or pass where="host" to run it in this process.',
        )
    module, file = _importable(function.__module__, function.__name__)
    return PythonTarget(function, module, function.__qualname__, file)


def _importable(module: str, name: str) -> tuple[str, Path | None]:
    """The module that another process can load, and the script's file where that is `__main__`."""
    if module != "__main__":
        return module, None
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # started by `python -m package.module`
        return main.__spec__.name, None
    file = Path(getattr(main, "__file__", None) or "")
    if not file.is_file():
        raise ToolDefinitionError(
            f"{name} is defined where no file holds it (a prompt, a notebook, standard input)",
            hint='Put the tool in a file and import it, or pass where="host" to run it in this process.',
        )
    return module, file.resolve()
