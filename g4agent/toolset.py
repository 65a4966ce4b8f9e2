"""The tools of one agent, by name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from g4agent.errors import ToolDefinitionError
from g4agent.python_target import PythonTarget
from g4agent.tools import Tool


class ToolSet(Mapping[str, Tool]):
    """Tools by name, in the order given; no two share a name."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for each in tools:
            if not isinstance(each, Tool):
                raise ToolDefinitionError(f"{each!r} is not a tool", hint="Decorate the function with @tool.")
            if each.name in self._tools:
                raise ToolDefinitionError(f"two tools are called {each.name}", hint="Rename one: @tool(name=…).")
            self._tools[each.name] = each

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def source_roots(self) -> tuple[Path, ...]:
        """Folders from which the modules of the tools that run in a sandbox can be imported."""
        roots: dict[Path, None] = {}
        reconcilers = [tool.reconcile for tool in self.values() if tool.reconcile is not None]
        for tool in [*self.values(), *reconcilers]:
            target = tool.target
            if tool.where != "sandbox" or not isinstance(target, PythonTarget):
                continue
            if target.file is not None:
                roots[target.file.parent] = None
                continue
            file = Path(sys.modules[target.module].__file__ or "").resolve()
            package_depth = target.module.count(".") + (1 if file.name == "__init__.py" else 0)
            roots[file.parents[package_depth]] = None
        return tuple(roots)
