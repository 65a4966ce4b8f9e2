"""Google's `dialog` package as a reference that is not ours: its grammar of tool blocks and its renderer.

The package as a whole needs Python 3.12 (type parameters); what is used here does not, so it is loaded around that:
the grammar is imported without the package's `__init__`, and two renderers are taken out of their modules' source.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any


def _root() -> Path:
    spec = importlib.util.find_spec("dialog")
    assert spec is not None and spec.origin is not None, "the tests need the package dialog"
    return Path(spec.origin).parent


ROOT = _root()
_package = types.ModuleType("dialog")
_package.__path__ = [str(ROOT)]
sys.modules["dialog"] = _package

from dialog._src.string import tool_grammar  # noqa: E402


def _functions(module: str, first: str, last: str | None) -> dict[str, Any]:
    source = (ROOT / "_src" / module).read_text()
    body = source[source.index(first) : source.index(last) if last else None].replace("[_JsonT](", "(")
    names: dict[str, Any] = {"epy": None}
    exec("from __future__ import annotations\n" + body, names)
    return names


_render = _functions("tool_helper.py", "def _json_to_text_root(", "def _tool_from_text")
_schemas = _functions("schema_utils.py", "def order_alphabetically", None)


def read(block: str) -> tuple[str, Any]:
    """Name and value of a tool block without its brackets. Raises where the grammar refuses it."""
    name, value = tool_grammar.parse(block).children
    return name.as_conversation(), value.as_conversation()


def render_block(tag: str, kind: str, name: str, content: dict[str, Any]) -> str:
    """A tool block as `dialog` writes it: `<|tool_call>call:NAME{…}<tool_call|>`."""
    return _render["_json_to_text_root"](name=name, content=content, tag=tag, kind=kind)


def normalised(declaration: dict[str, Any]) -> dict[str, Any]:
    """A declaration's content with its parameters normalised and sorted, as `dialog` does before it writes it."""
    parameters = _schemas["_normalize_schema"](declaration["parameters"])
    return _schemas["order_alphabetically"](declaration | {"parameters": parameters})
