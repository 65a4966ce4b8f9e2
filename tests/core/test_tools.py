"""Tools: functions as tools, validation, calls, and loading them in another process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from g4agent.errors import InvalidArguments, ToolDefinitionError, ToolResultError
from g4agent.tool_loading import load_tool
from g4agent.tools import PythonTarget, signature, tool
from g4agent.toolset import ToolSet


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


@settings(max_examples=60)
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


@pytest.mark.parametrize("result", [float("nan"), {"a": [float("inf")]}, object(), {"\ud800"}, b"\xff"], ids=type)
def test_a_result_without_json_is_an_error(result: Any) -> None:
    """NaN would be stored as null or as invalid JSON, and an object as its repr with an address."""

    @tool(where="host")
    def give() -> Any:
        """Gives."""
        return result

    with pytest.raises(ToolResultError, match="give returned"):
        give.invoke_sync({})


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
