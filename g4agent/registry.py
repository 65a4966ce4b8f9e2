"""Finds what shelves and users provide: runtimes, sandboxes and tool packs by entry point, agents by path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g4agent.errors import ConfigError, RuntimeUnavailableError, SandboxUnavailableError
from g4agent.ports.runtime import ChatRuntime, TokenRuntime
from g4agent.ports.sandbox import Sandbox

if TYPE_CHECKING:
    from g4agent.agent import Agent
    from g4agent.tools import Tool

DEFAULT_RUNTIME = "torch"


def _entry(group: str, name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=group, name=name)), None)


def names(kind: str) -> list[str]:
    """Names of all installed plug-ins of a kind: `runtimes`, `sandboxes` or `tools`."""
    return sorted({e.name for e in entry_points(group=f"g4agent.{kind}")})


def load_runtime(model: str, options: Mapping[str, Any]) -> TokenRuntime | ChatRuntime:
    """Loads `[runtime:]model`, e.g. `nano`, `google/gemma-4-E4B-it` or `torch:/models/gemma`. May take long.

    Raises:
        RuntimeUnavailableError: No installed runtime has that name.
        ModelLoadError: The runtime cannot load the model.
    """
    prefix, colon, rest = model.partition(":")
    runtime, name = (prefix, rest) if colon and prefix in names("runtimes") else (DEFAULT_RUNTIME, model)
    entry = _entry("g4agent.runtimes", runtime)
    if entry is None:
        raise RuntimeUnavailableError(
            f"no model runtime called {runtime!r} is installed",
            hint=f"Installed: {', '.join(names('runtimes')) or 'none'}. The embedded one: pip install 'g4agent[torch]'",
        )
    loaded: TokenRuntime | ChatRuntime = entry.load()(name, **options)
    return loaded


def load_sandbox(name: str) -> Sandbox:
    """The backend of that name. Raises SandboxUnavailableError if it is not installed."""
    entry = _entry("g4agent.sandboxes", name)
    if entry is None:
        raise SandboxUnavailableError(
            f"no sandbox called {name!r} is installed", hint=f"Installed: {', '.join(names('sandboxes')) or 'none'}"
        )
    sandbox: Sandbox = entry.load()()
    return sandbox


def load_tool_pack(name: str) -> Sequence[Tool]:
    """The tools of an installed pack. Raises ConfigError if there is none of that name."""
    entry = _entry("g4agent.tools", name)
    if entry is None:
        raise ConfigError(f"no tool pack called {name!r} is installed", hint=f"Installed: {', '.join(names('tools'))}")
    tools: Sequence[Tool] = entry.load()()
    return tools


def load_agent(reference: str) -> Agent:
    """Loads the agent that `reference` names: a folder with `agent.py`, a Python file, or `module:attribute`.

    The folder of a file's package is put on `sys.path`, so that the agent's modules import each other absolutely.

    Raises:
        ConfigError: Nothing is there, the module fails to import, or it has no `Agent` under that name.
    """
    from g4agent.agent import Agent

    path = Path(reference)
    module_name, _, attribute = reference.partition(":")
    if path.is_dir() or path.suffix == ".py":
        file = path / "agent.py" if path.is_dir() else path
        if not file.is_file():
            raise ConfigError(f"no file {file}", hint="Name a folder that holds an agent.py, or a Python file.")
        module, attribute = _import_file(file.resolve()), "agent"
    else:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as problem:
            hint = "Name a folder that holds an agent.py, a Python file, or module:attribute."
            raise ConfigError(f"no agent at {reference!r}: {problem}", hint=hint) from problem
    agent = getattr(module, attribute or "agent", None)
    if not isinstance(agent, Agent):
        raise ConfigError(
            f"{reference!r} defines no Agent called {attribute or 'agent'!r}", hint="Write: agent = Agent(...)"
        )
    return agent


def _import_file(file: Path) -> Any:
    """Imports a file by its package name (`folder.stem` where the folder is a package, else `stem`)."""
    in_package = (file.parent / "__init__.py").is_file()
    root = file.parent.parent if in_package else file.parent
    name = f"{file.parent.name}.{file.stem}" if in_package else file.stem
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module = importlib.import_module(name)
    found = Path(module.__file__ or "").resolve()
    if found != file:
        raise ConfigError(f"{name} is already another module ({found})", hint=f"Rename {file} or its folder.")
    return module
