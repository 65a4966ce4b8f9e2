"""The tools of one agent, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from g4agent.errors import ToolDefinitionError
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
