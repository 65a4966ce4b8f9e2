"""Finds a tool again by module and name, as a sandbox's worker does."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from types import ModuleType

from g4agent.errors import ToolDefinitionError
from g4agent.tools import Tool, tool


def load_tool(module: str, attribute: str, file: Path | None = None) -> Tool:
    """The tool that a `PythonTarget` names; what a sandbox's worker calls.

    A script is loaded under a private name, so its `if __name__ == "__main__"` block does not run; its folder goes to
    the front of `sys.path`, as when Python runs it.

    Raises:
        ToolDefinitionError: There is no such module, attribute or script.
    """
    try:
        loaded = importlib.import_module(module) if file is None else _load_script(file)
        value = attrgetter(attribute)(loaded)
    except (ModuleNotFoundError, AttributeError, FileNotFoundError) as error:
        raise ToolDefinitionError(
            f"the tool {attribute} of {file or module} cannot be loaded: {error}",
            hint="Its module must be importable there (BoxSpec.python_paths) and keep the tool under its own name.",
        ) from error
    return value if isinstance(value, Tool) else tool(value)


def _load_script(file: Path) -> ModuleType:
    name = f"_g4agent_script_{sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "a script is a .py file"
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    sys.modules[name] = script = importlib.util.module_from_spec(spec)  # before it runs: its classes look it up
    try:
        spec.loader.exec_module(script)
    except BaseException:
        del sys.modules[name]
        raise
    return script
