"""Tools: typed Python functions and fixed commands that a model may call.

`@tool` turns a function into a `Tool`: a name, a description, a JSON Schema and a few promises about how it runs. The
schema is the contract: every call is validated against all of it before anything happens.

    @tool(effect="pure", timeout=5)
    def find_product(name: str, limit: Annotated[int, Field(ge=1, le=20)] = 5) -> list[Product]:
        \"\"\"Finds products by name.

        Args:
            name: Words of the product's name.
        \"\"\"
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, cast, get_args, overload

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError, to_jsonable_python

from g4agent.command import CommandTarget
from g4agent.cost import Cost, check_cost
from g4agent.errors import ConfigError, InvalidArguments, ToolDefinitionError, ToolResultError
from g4agent.function_schema import NAME_PATTERN, function_schema
from g4agent.image import Image
from g4agent.messages import JsonValue
from g4agent.python_target import PythonTarget, Where, python_target
from g4agent.schema import Declaration, declare, signature_text
from g4agent.secrets import check_names
from g4agent.validation import ArgumentValidator, check_schema, check_usable

Effect: TypeAlias = Literal["pure", "idempotent", "once"]
"""What repeating a call does: `pure` changes nothing, `idempotent` nothing more, `once` must not be repeated."""

MAX_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Tool:
    """Something a model may call. Made by `@tool`, `command_tool` or a tool pack."""

    name: str
    description: str
    schema: Mapping[str, JsonValue]
    """JSON Schema 2020-12 of the arguments object, in full: this is what validates."""
    target: PythonTarget | CommandTarget
    effect: Effect = "once"
    """An undeclared effect is `once`, the safe reading: after a crash such a call is never repeated blindly."""
    timeout: float | None = None
    """Seconds per call; None leaves it to the sandbox's limits."""
    where: Where = "sandbox"
    untrusted: bool = False
    """Whether its results may hold what strangers wrote (web pages, mail); policies are told of it from then on."""
    secrets: Sequence[str] = ()
    """Names of the secrets that its calls are given (`g4agent.secret`)."""
    cost: Cost | None = None
    """What a call costs, for policies."""
    reconcile: Tool | None = None
    """Says of an interrupted call, by its key, what it came to: its result, or None where it may run (again)."""
    adapter: TypeAdapter[Any] | None = field(default=None, repr=False)
    """Turns JSON arguments into Python values, and checks what only Python can; None where the schema says it all."""
    validator: ArgumentValidator = field(init=False, repr=False)
    declaration: Declaration = field(init=False, repr=False)
    """What the model is told about the arguments."""

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name) or len(self.name) > MAX_NAME_LENGTH:
            raise ToolDefinitionError(
                f"a tool cannot be called {self.name!r}",
                hint=f"Use 1 to {MAX_NAME_LENGTH} ASCII letters, digits and underscores, not starting with a digit.",
            )
        if self.timeout is not None and not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ToolDefinitionError(
                f"the timeout of {self.name} is {self.timeout!r}",
                hint="Give seconds greater than 0, or leave it out.",
            )
        if self.effect not in ("pure", "idempotent", "once") or self.where not in get_args(Where):
            raise ToolDefinitionError(
                f"{self.name} has effect {self.effect!r} and where {self.where!r}",
                hint='effect is "pure", "idempotent" or "once"; where is "sandbox", "host" or "box".',
            )
        object.__setattr__(self, "secrets", check_names(self.name, self.secrets))
        check_usable(self.name, self.schema)
        check_cost(self.name, self.cost, self.schema)
        object.__setattr__(self, "declaration", declare(self.schema))
        object.__setattr__(self, "validator", ArgumentValidator(self.schema, self.adapter, signature(self)))

    @property
    def unmasked(self) -> tuple[str, ...]:
        """Rules of the schema that no mask enforces while a call is written, only the validator, as `path: rule`."""
        from g4agent.gemma4.grammar import call_grammar

        return tuple(call_grammar([self]).unmasked.get(self.name, ()))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the plain function, with no validation: a decorated function stays a function."""
        return self._function()(*args, **kwargs)

    def validate(self, arguments: Mapping[str, Any]) -> None:
        """Raises InvalidArguments unless the arguments fit the full schema and, for Python tools, their types."""
        self.bind(arguments)

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Validated keyword arguments: models, enums and dates for a function, JSON with defaults for a command.

        Raises:
            InvalidArguments: The message says where, what was expected, and the tool's signature.
        """
        values: dict[str, Any] = self.validator.bind(arguments)
        if isinstance(self.target, CommandTarget):
            values = self.target.defaults | {k: v for k, v in arguments.items() if v is not None}
            try:
                self.target.expand(values)
            except InvalidArguments as error:
                raise InvalidArguments(f"{error.message}. Expected: {signature(self)}") from None
        return values

    async def invoke(self, arguments: Mapping[str, Any], images: list[Image] | None = None) -> JsonValue:
        """Validates, calls and gives the result as JSON, in which images are described; they themselves are added to
        `images`. Whatever the function raises passes through.

        A sync function runs in a thread. Cancelling returns at once and abandons the thread, which may still finish:
        a function that must be killed belongs in a sandbox.
        """
        import anyio.to_thread

        function, values = self._function(), self.bind(arguments)
        if inspect.iscoroutinefunction(function):
            return to_json(self.name, await function(**values), images)
        result = await anyio.to_thread.run_sync(partial(function, **values), abandon_on_cancel=True)
        return to_json(self.name, await result if inspect.isawaitable(result) else result, images)

    def invoke_sync(self, arguments: Mapping[str, Any], images: list[Image] | None = None) -> JsonValue:
        """`invoke` for a process without an event loop: a sync function runs right here, in the calling thread."""
        function, values = self._function(), self.bind(arguments)
        result = function(**values)
        if inspect.isawaitable(result):
            import anyio

            result = anyio.run(_wait, result)
        return to_json(self.name, result, images)

    def _function(self) -> Callable[..., Any]:
        if isinstance(self.target, CommandTarget):
            raise ConfigError(f"{self.name} is a command, not a function", hint="Run it in a box: Box.exec.")
        return self.target.function


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def signature(tool: Tool) -> str:
    """One line that says how to call the tool: `add_to_cart(sku: string, quantity?: integer)`."""
    return signature_text(tool.name, tool.declaration.parameters)


def to_json(name: str, result: Any, images: list[Image] | None = None) -> JsonValue:
    """The result of the tool called `name` as JSON: models, dataclasses, dates, enums and sets are converted.

    An image is described in it, and added to `images`.

    Raises:
        ToolResultError: It holds something that JSON cannot express, or NaN or an infinity.
    """

    def described(value: Any) -> JsonValue:
        if not isinstance(value, Image):
            raise TypeError(f"a {type(value).__name__} is no JSON")
        if images is not None:
            images.append(value)
        return value.described

    try:
        value = to_jsonable_python(result, fallback=described)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise ToolResultError(
            f"{name} returned a result that JSON cannot express: {error}",
            hint="Return str, int, finite float, bool, None, lists, dicts, dataclasses or pydantic models.",
        ) from error
    return cast(JsonValue, value)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect = "once",
    timeout: float | None = None,
    where: Where = "sandbox",
    untrusted: bool = False,
    secrets: Sequence[str] = (),
    cost: Cost | None = None,
    reconcile: Callable[[str], Any] | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect = "once",
    timeout: float | None = None,
    where: Where = "sandbox",
    untrusted: bool = False,
    secrets: Sequence[str] = (),
    cost: Cost | None = None,
    reconcile: Callable[[str], Any] | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Makes a tool of a typed, documented function, sync or async. Bare `@tool`, or with options.

    Args:
        function: The decorated function.
        name: How the model calls it; the function's name by default.
        description: What it does; by default the docstring's text. Parameters are described in the docstring (Google,
            NumPy or reST style) or by `Annotated[..., Field(description=...)]`, which wins.
        effect: What repeating a call does.
        timeout: Seconds per call.
        where: "sandbox" runs it in the session's closed box, "host" in this process, with all its rights; "box" is
            said of a function that hands its call to a closed box of its own.
        untrusted: Whether its results may hold what strangers wrote.
        secrets: Names of the secrets that its calls are given.
        cost: What a call costs, in a unit of your own: a number, or the name of the argument that says it.
        reconcile: A documented function `(key: str)`, run where the tool runs, when a crash has left an earlier attempt
            at the very call with unknown outcome: gives its result, or None where the call may run (again). The tool
            gets the same key from `call_key()`. Without it, a person is asked about a `once` call.

    Raises:
        ToolDefinitionError: The function cannot be a tool; the message says why and what to do.
    """
    make = partial(
        _python_tool,
        name=name,
        description=description,
        effect=effect,
        timeout=timeout,
        where=where,
        untrusted=untrusted,
        secrets=secrets,
        cost=cost,
        reconcile=reconcile,
    )
    return make if function is None else make(function)


def _python_tool(
    function: Callable[..., Any],
    *,
    name: str | None,
    description: str | None,
    effect: Effect,
    timeout: float | None,
    where: Where,
    untrusted: bool,
    secrets: Sequence[str],
    cost: Cost | None,
    reconcile: Callable[[str], Any] | None,
) -> Tool:
    target = python_target(function, where)
    described = function_schema(function, description)
    return Tool(
        name=name if name is not None else function.__name__,
        description=described.description,
        schema=described.schema,
        target=target,
        effect=effect,
        timeout=timeout,
        where=where,
        untrusted=untrusted,
        secrets=secrets,
        cost=cost,
        reconcile=None if reconcile is None else _reconciler(reconcile, where, timeout, secrets),
        adapter=described.adapter,
    )


def _reconciler(function: Callable[[str], Any], where: Where, timeout: float | None, secrets: Sequence[str]) -> Tool:
    """The function as a tool that only the framework calls."""
    made = _python_tool(
        function,
        name=None,
        description=None,
        effect="pure",
        timeout=timeout,
        where=where,
        untrusted=False,
        secrets=secrets,
        cost=None,
        reconcile=None,
    )
    properties = made.schema.get("properties")
    if not isinstance(properties, Mapping) or list(properties) != ["key"]:
        raise ToolDefinitionError(
            f"{made.name} cannot reconcile: its one parameter must be `key`", hint="Write def find(key: str): ..."
        )
    return made


def command_tool(
    name: str,
    argv: Sequence[str],
    *,
    description: str,
    parameters: Mapping[str, JsonValue] | type[BaseModel],
    effect: Effect = "once",
    timeout: float | None = None,
    untrusted: bool = False,
    secrets: Sequence[str] = (),
    cost: Cost | None = None,
) -> Tool:
    """Makes a tool of a fixed command that runs in the box, without a shell.

    Args:
        name: How the model calls it.
        argv: The command and its arguments; `{parameter}` stands for a value (see `CommandTarget`).
        description: What it does.
        parameters: JSON Schema of the arguments object, or a pydantic model.
        effect: What repeating a call does.
        timeout: Seconds per call.
        untrusted: Whether its output may hold what strangers wrote.
        secrets: Names of the secrets that its calls are given, as environment variables.
        cost: As for `tool`.

    Raises:
        ToolDefinitionError: Command and parameters do not fit together; the message says why and what to do.
    """
    adapter: TypeAdapter[Any] | None = None
    if isinstance(parameters, type):
        adapter = TypeAdapter(parameters)
        schema: Mapping[str, JsonValue] = adapter.json_schema()
    else:
        schema = {"type": "object", "additionalProperties": False, **parameters}
        check_schema(name, schema)
    if not description.strip():
        raise ToolDefinitionError(f"{name} has no description", hint="Say what it does: the model chooses by it.")
    target = CommandTarget.parse(argv, schema)
    return Tool(
        name,
        description.strip(),
        schema,
        target,
        effect=effect,
        timeout=timeout,
        untrusted=untrusted,
        secrets=secrets,
        cost=cost,
        adapter=adapter,
    )


__all__ = [
    "CommandTarget",
    "Effect",
    "InvalidArguments",
    "PythonTarget",
    "Tool",
    "ToolDefinitionError",
    "ToolResultError",
    "Where",
    "command_tool",
    "signature",
    "to_json",
    "tool",
]
