"""Tools: what can be one and what is refused, validation, calls, commands, and loading them in another process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from g4agent.errors import ConfigError, InvalidArguments, ToolDefinitionError, ToolResultError
from g4agent.tools import CommandTarget, PythonTarget, Tool, ToolSet, command_tool, load_tool, signature, tool


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Line(BaseModel):
    sku: str
    quantity: Annotated[int, Field(ge=1)] = 1

    @field_validator("sku")
    @classmethod
    def known(cls, sku: str) -> str:
        if sku == "S-0":
            raise ValueError("S-0 is not sold any more")
        return sku


class Order(BaseModel):
    lines: list[Line]
    day: date


@tool(effect="idempotent", timeout=5)
def place(order: Order, size: Size = Size.SMALL, note: str | None = None) -> dict[str, Any]:
    """Places an order.

    It is paid later.

    Args:
        order: What to
            buy.
        note: For the courier.
    """
    assert isinstance(order, Order) and isinstance(size, Size)
    return {"day": order.day + timedelta(days=1), "size": size, "order": order, "set": {note}}


@tool
async def wait(seconds: float = 0.0) -> float:
    """Waits."""
    await anyio.sleep(seconds)
    return seconds


@tool
def block(seconds: float) -> str:
    """Blocks its thread."""
    time.sleep(seconds)
    return threading.current_thread().name


@tool
def echo(value: Any) -> Any:
    """Gives back its argument."""
    return value


def undecorated(x: int) -> int:
    """Doubles."""
    return 2 * x


ORDER = {"lines": [{"sku": "S-1", "quantity": 2}], "day": "2026-01-31"}
PLACED = {
    "day": "2026-02-01",
    "size": "l",
    "order": {"lines": [{"sku": "S-1", "quantity": 2}], "day": "2026-01-31"},
    "set": ["ring"],
}


def test_a_function_becomes_a_tool() -> None:
    """Name, texts, promises and the place where a worker finds it: all of these go into the transcript and journal."""
    assert (place.name, place.description) == ("place", "Places an order.\nIt is paid later.")
    assert (place.effect, place.timeout, place.where) == ("idempotent", 5, "sandbox")
    assert isinstance(place.target, PythonTarget)
    assert (place.target.module, place.target.attribute, place.target.file) == (__name__, "place", None)
    described = {n: p.get("description") for n, p in place.declaration.parameters["properties"].items()}
    assert described == {"order": "What to buy.", "size": 'default "s"', "note": "For the courier."}
    assert place.schema["additionalProperties"] is False and place.schema["required"] == ["order"]


def test_an_undeclared_effect_is_once() -> None:
    """A milder default would let a crash repeat a payment."""
    assert echo.effect == "once"


def test_a_tool_is_still_the_function() -> None:
    """Decorating must not take the function from the program that owns it."""
    assert echo({1, 2}) == {1, 2}


def numpy_style(a: int, b: int) -> None:
    """Adds.

    Parameters
    ----------
    a : int
        First.
    b : int
        Second.
    """


def rest_style(a: int, b: int) -> None:
    """Adds.

    :param a: First.
    :param b: Second.
    """


def google_style(a: int, b: Annotated[int, Field(description="Second.")]) -> None:
    """Adds.

    Args:
        a: First.
        b: Overruled.

    Returns:
        Nothing.
    """


@pytest.mark.parametrize("function", [numpy_style, rest_style, google_style])
def test_docstring_styles(function: Callable[..., Any]) -> None:
    """A style that is not read leaves the model without descriptions, or with the whole section as the tool's text."""
    made = tool(function)
    texts = [p["description"] for p in made.declaration.parameters["properties"].values()]
    assert (made.description, texts) == ("Adds.", ["First.", "Second."])


# What cannot be a tool ------------------------------------------------------------------------------------------------


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


# Validation -----------------------------------------------------------------------------------------------------------

INVALID: list[tuple[Any, str]] = [
    ({}, "order is missing"),
    ({"order": ORDER, "siz": "s"}, "unknown argument 'siz', did you mean 'size'?"),
    ({"order": ORDER, "size": "m"}, 'size: expected "s" or "l", got "m"'),
    ({"order": {**ORDER, "day": "31.1."}}, 'order.day: expected date, e.g. 2026-01-31, got "31.1."'),
    ({"order": {**ORDER, "day": 7}}, "order.day: expected text, got 7"),
    ({"order": {"lines": [{"sku": "a", "quantity": 0}], "day": "2026-01-31"}}, "order.lines[0].quantity: expected at"),
    ({"order": {"lines": [{}], "day": "2026-01-31"}}, "order.lines[0]: sku is missing"),
    ({"order": {"lines": [{"sku": "S-0"}], "day": "2026-01-31"}}, "order.lines[0].sku: Value error, S-0 is not sold"),
    ({"order": ORDER, "note": 3}, "note: expected text or null, got 3"),
    ({"order": {"lines": [{}] * 9, "day": ""}}, "and 7 more"),
    ([1], "expected named arguments"),
]


@pytest.mark.parametrize(("arguments", "message"), INVALID, ids=lambda v: v if isinstance(v, str) else "")
def test_the_error_tells_the_model_what_to_mend(arguments: Any, message: str) -> None:
    """A model mends its call only if it reads where it was wrong, what was expected, and how to call the tool."""
    with pytest.raises(InvalidArguments) as error:
        place.validate(arguments)
    text = str(error.value)
    assert message in text and text.endswith(f"Expected: {signature(place)}") and len(text) < 500


def test_naive_datetimes_are_valid_for_python() -> None:
    """RFC 3339 demands a time zone and `datetime` does not: with both checks a NaiveDatetime could never be given."""
    when: list[datetime] = []

    @tool(where="host")
    def remind(at: datetime) -> None:
        """Reminds."""
        when.append(at)

    remind.invoke_sync({"at": "2026-01-31T09:30:00"})
    assert when == [datetime(2026, 1, 31, 9, 30)]
    with pytest.raises(InvalidArguments, match="at: "):
        remind.validate({"at": "soon"})


lines = st.fixed_dictionaries(
    {"sku": st.text().filter(lambda sku: sku != "S-0")}, optional={"quantity": st.integers(1) | st.just(2.0)}
)
placements = st.fixed_dictionaries(
    {"order": st.fixed_dictionaries({"lines": st.lists(lines, max_size=3), "day": st.dates().map(date.isoformat)})},
    optional={"size": st.sampled_from("sl"), "note": st.none() | st.text()},
)


@settings(max_examples=60, deadline=None)
@given(placements)
def test_what_the_full_schema_allows_is_accepted(arguments: dict[str, Any]) -> None:
    """A grammar built from the schema lets the model write all of these; refusing one would trap it."""
    place.validate(arguments)


# Calls ----------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_arguments_and_result_cross_json() -> None:
    """The function sees models, enums and dates; the model sees JSON: what typed tools and the journal rest on."""
    assert await place.invoke({"order": ORDER, "size": "l", "note": "ring"}) == PLACED
    assert await wait.invoke({"seconds": 0.0}) == 0.0


def test_without_an_event_loop() -> None:
    """A sandbox's worker has none, and sync functions must run in its main thread, where signals and forks are sane."""
    assert place.invoke_sync({"order": ORDER, "size": "l", "note": "ring"}) == PLACED
    assert wait.invoke_sync({}) == 0.0
    assert block.invoke_sync({"seconds": 0.0}) == threading.main_thread().name


@pytest.mark.anyio
async def test_a_timeout_holds_over_a_blocking_function() -> None:
    """A sync tool that hangs must not hang the agent: the planner's timeout returns while the thread is left behind."""
    started = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await block.invoke({"seconds": 1.0})
    assert scope.cancelled_caught and time.monotonic() - started < 0.8


@pytest.mark.parametrize("result", [float("nan"), {"a": [float("inf")]}, object(), {"\ud800"}, b"\xff"], ids=repr)
def test_a_result_without_json_is_an_error(result: Any) -> None:
    """NaN would be stored as null or as invalid JSON, and an object as its repr with an address."""

    @tool(where="host")
    def give() -> Any:
        """Gives."""
        return result

    with pytest.raises(ToolResultError, match="give returned"):
        give.invoke_sync({})


# Commands -------------------------------------------------------------------------------------------------------------

GREP: dict[str, Any] = {
    "properties": {
        "pattern": {"type": "string"},
        "paths": {"type": "array", "items": {"type": "string"}},
        "context": {"type": "integer", "default": 0},
        "limit": {"type": "integer"},
    },
    "required": ["pattern"],
}
grep = command_tool(
    "grep",
    ["grep", "-n", "-C", "{context}", "--max-count={limit}", "-e{{}}", "--", "{pattern}", "{paths}"],
    description="Finds lines.",
    parameters=GREP,
    effect="pure",
)


def expand(made: Tool, arguments: dict[str, Any]) -> list[str]:
    assert isinstance(made.target, CommandTarget)
    return made.target.expand(made.bind(arguments))


def test_a_value_is_never_split_nor_formatted() -> None:
    """A shell would run `$(rm -rf)`; a second format pass would read `{x}` in the model's text."""
    text = "a b; $(rm -rf ~) {x} '\""
    assert expand(grep, {"pattern": text, "paths": ["p q", "-r"], "limit": 3.0}) == [
        *("grep", "-n", "-C", "0", "--max-count=3", "-e{}", "--", text, "p q", "-r"),
    ]


def test_an_optional_value_takes_its_argument_with_it() -> None:
    """`--max-count=` with nothing behind it, or the word None, would fail or mean something else."""
    assert expand(grep, {"pattern": "x"}) == ["grep", "-n", "-C", "0", "-e{}", "--", "x"]


def test_null_means_the_default() -> None:
    """A flag whose value vanished would swallow the next argument as its own."""

    class Head(BaseModel):
        lines: int | None = 10
        files: list[str] | None = None

    head = command_tool("head", ["head", "-n", "{lines}", "--", "{files}"], description="Shows.", parameters=Head)
    assert expand(head, {"lines": None, "files": None}) == ["head", "-n", "10", "--"]
    assert expand(head, {"lines": 2, "files": ["a"]}) == ["head", "-n", "2", "--", "a"]


def test_a_value_cannot_become_an_option() -> None:
    """`-f/etc/passwd` as a pattern would be read as an option wherever the author did not write `--`."""
    cat = command_tool("cat", ["cat", "{path}"], description="Shows.", parameters=Single)
    assert expand(cat, {"path": "a"}) == ["cat", "a"]
    for value in ("-n", "a\0b"):
        with pytest.raises(InvalidArguments, match=r"path: .*Expected: cat\(path: string\)"):
            cat.validate({"path": value})
    with pytest.raises(ConfigError, match="is a command"):
        cat("a")


class Single(BaseModel):
    path: str


@pytest.mark.parametrize(
    ("argv", "properties", "problem"),
    [
        ([], {}, "name of a program"),
        ("ls {p}", {"p": {"type": "string"}}, "name of a program"),
        (["{p}"], {"p": {"type": "string"}}, "name of a program"),
        (["ls", "{q}"], {}, "uses q"),
        (["ls"], {"p": {"type": "string"}}, "does not use its parameter p"),
        (["ls", "{p}"], {"p": {"type": "string"}}, "optional parameter p"),
        (["ls", "-n", "{p}"], {"p": {"type": ["integer", "null"]}}, "optional parameter p"),
        (["ls", "-x{p}"], {"p": {"type": "array"}}, "type array, inside"),
        (["ls", "{p}"], {"p": {"type": "object"}}, "type object, inside"),
        (["ls", "{p!r}"], {"p": {"type": "string"}}, "not a plain parameter name"),
        (["ls", "{"], {}, "do not match"),
        (["ls", "--x={p}"], {"p": {"$ref": "https://example.com/p.json"}}, "refer to https://example.com/p.json"),
        (["ls", "--x={p}"], {"p": {"$ref": "#/$defs/P"}}, "refer to #/\\$defs/P"),
        (["ls", "--x={p}"], {"p": {"type": "text"}}, "are not JSON Schema: properties.p.type"),
    ],
)
def test_a_command_that_cannot_work_is_refused(argv: Any, properties: dict[str, Any], problem: str) -> None:
    """A misspelt placeholder would reach the program as a literal, and an unused parameter would lie to the model."""
    with pytest.raises(ToolDefinitionError, match=problem):
        command_tool("x", argv, description="Does.", parameters={"properties": properties})


# Loading and collecting -----------------------------------------------------------------------------------------------

SCRIPT = '''
from __future__ import annotations
from pydantic import BaseModel
from g4agent.tools import tool
from beside import FACTOR

class Job(BaseModel):
    n: int

@tool
def scale(job: Job) -> Job:
    """Scales."""
    return Job(n=job.n * FACTOR)

if __name__ == "__main__":
    print(scale.target.module, scale.target.attribute, scale.target.file)
'''


def test_a_tool_of_a_script_is_found_again(tmp_path: Path) -> None:
    """An agent in one file is what anybody writes first: the worker must load it without running the agent."""
    script = tmp_path / "agent_script.py"
    script.write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    module, attribute, file = done.stdout.split()
    assert (module, attribute, file) == ("__main__", "scale", str(script))
    loaded = load_tool(module, attribute, Path(file))
    assert loaded.invoke_sync({"job": {"n": 2}}) == {"n": 6}
    assert load_tool(module, attribute, Path(file)) is loaded


def test_a_tool_of_a_prompt_has_no_file() -> None:
    """A worker cannot load what was typed at a prompt: that must be said at the definition, not at the first call."""
    code = SCRIPT.replace("from beside import FACTOR", "FACTOR = 3")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and 'Put the tool in a file and import it, or pass where="host"' in done.stderr


def test_loading_by_module() -> None:
    """The worker finds module-level tools, wraps a plain function, and says what is wrong with a name."""
    assert load_tool(__name__, "place") is place
    assert load_tool(__name__, "undecorated").invoke_sync({"x": 4}) == 8
    for module, attribute in (("no.such", "x"), (__name__, "absent")):
        with pytest.raises(ToolDefinitionError, match="cannot be loaded"):
            load_tool(module, attribute)


def test_names_are_unique() -> None:
    """Of two tools with one name the model would call the wrong one."""
    tools = ToolSet([place, echo])
    assert list(tools) == ["place", "echo"] and tools["echo"] is echo and len(tools) == 2
    with pytest.raises(ToolDefinitionError, match="two tools are called echo"):
        ToolSet([echo, tool(name="echo")(undecorated)])
    with pytest.raises(ToolDefinitionError, match="Decorate the function"):
        ToolSet([undecorated])  # type: ignore[list-item]


def test_importing_tools_is_light() -> None:
    """A worker imports this in every box; jsonschema and the docstring parser are for those who need them."""
    code = "import sys, g4agent.tools; print({'jsonschema', 'docstring_parser', 'anyio', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_literals_in_the_signature() -> None:
    """The signature is the short form of the contract: what it shows must be callable as shown."""

    @tool(where="host")
    def add(customer: str, unit: Literal["kg", "lb"], quantity: int = 1, tags: list[str] | None = None) -> None:
        """Adds."""

    assert signature(add) == 'add(customer: string, unit: "kg"|"lb", quantity?: integer, tags?: string[]|null)'
