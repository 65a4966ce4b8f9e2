"""What cannot be a tool is refused where it is defined, with the reason and the mend."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from pydantic import Field

from g4agent.errors import ToolDefinitionError
from g4agent.tools import tool


def undecorated(x: int) -> int:
    """Doubles."""
    return 2 * x


def no_docstring(x: int) -> None: ...


def unannotated(x) -> None:  # type: ignore[no-untyped-def]
    """Doc."""


def variadic(*x: int) -> None:
    """Doc."""


def keywords(**x: int) -> None:
    """Doc."""


def positional(x: int, /) -> None:
    """Doc."""


def unserialisable(x: threading.Thread) -> None:
    """Doc."""


def a_callback(x: Callable[[], int]) -> None:
    """Doc."""


def wrong_default(x: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
    """Doc."""


def default_without_json(x: Any = threading) -> None:
    """Doc."""


def field_default(x: Annotated[int, Field(default=3)]) -> None:
    """Doc."""


def typo(quantity: int) -> None:
    """Doc.

    Args:
        qty: How many.
    """


def unresolved(x: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Doc."""


def bad_pattern(x: Annotated[str, Field(pattern=r"\p{L}+")]) -> None:
    """Doc."""


def yields() -> Iterator[int]:
    """Doc."""
    yield 1


async def yields_later() -> AsyncIterator[int]:
    """Doc."""
    yield 1


def größe(größe: int) -> None:
    """Doc."""


class Shop:
    def method(self, x: int) -> None:
        """Doc."""


REFUSED: list[tuple[Any, str]] = [
    (no_docstring, "has no description"),
    (unannotated, "x of unannotated has no type annotation"),
    (variadic, "any number of arguments"),
    (keywords, "any number of arguments"),
    (positional, "positional-only"),
    (unserialisable, "JSON cannot express"),
    (a_callback, "JSON cannot express"),
    (wrong_default, "has the default None"),
    (default_without_json, "JSON cannot express"),
    (field_default, r"Annotated\[int, Field\(ge=1\)\] = 3"),
    (typo, "describes qty"),
    (unresolved, "cannot be resolved"),
    (bad_pattern, "which Python cannot read"),
    (yields, "generator"),
    (yields_later, "generator"),
    (größe, "native syntax cannot write"),
    (Shop.method, "makes it a method"),
    (Shop().method, "cannot be found by the sandbox"),
    (lambda x: x, "lambda"),
    (len, "not a function"),
    (Shop, "not a function"),
]


@pytest.mark.parametrize(("function", "problem"), REFUSED, ids=lambda v: getattr(v, "__name__", "") or "")
def test_what_cannot_be_a_tool_is_refused_at_its_definition(function: Any, problem: str) -> None:
    """Each of these would otherwise fail in the middle of a run, or silently tell the model something wrong."""
    with pytest.raises(ToolDefinitionError, match=problem) as refusal:
        tool(function)
    assert refusal.value.hint


@pytest.mark.parametrize(
    "options",
    [{"name": "add-to"}, {"name": ""}, {"name": "x" * 65}, {"timeout": 0}, {"timeout": float("nan")}, {"effect": "no"}],
    ids=str,
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """A name that the native syntax cannot write can never be called; a timeout of 0 fails every call."""
    with pytest.raises(ToolDefinitionError):
        tool(**options)(undecorated)


def test_a_local_function_runs_on_the_host_only() -> None:
    """A sandbox's worker cannot import what only exists inside a function call; the error must say the way out."""

    def local(x: int) -> int:
        """Doubles."""
        return 2 * x

    with pytest.raises(ToolDefinitionError, match='module level, or pass where="host"'):
        tool(local)
    assert tool(where="host")(local).invoke_sync({"x": 2}) == 4
