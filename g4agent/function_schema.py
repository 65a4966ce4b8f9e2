"""A typed, documented Python function → the description and JSON Schema of its arguments.

The function's parameters become one `TypedDict`, and pydantic does the rest: nested models, enums, unions, dates,
constraints and defaults come out as JSON Schema 2020-12, and the same type later turns JSON arguments into Python
values.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, get_origin, get_type_hints

from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from typing_extensions import TypedDict

from g4agent.errors import ToolDefinitionError
from g4agent.messages import JsonValue

NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a tool and a parameter may be called: the native syntax writes both bare."""


@dataclass(frozen=True, slots=True)
class FunctionSchema:
    """What a function says about its arguments."""

    description: str
    """The docstring's text without its sections."""
    schema: Mapping[str, JsonValue]
    """JSON Schema 2020-12 of the arguments object; closed: unknown arguments are invalid."""
    adapter: TypeAdapter[dict[str, Any]]
    """Turns JSON arguments into keyword arguments."""


def function_schema(function: Callable[..., Any], description: str | None = None) -> FunctionSchema:
    """Reads signature, annotations and docstring of `function`.

    Args:
        function: A plain function, or a bound method (whose `self` is left out).
        description: Replaces the docstring's text.

    Raises:
        ToolDefinitionError: The function cannot be described to a model; the message says why and what to do.
    """
    text, documented = _read_docstring(function)
    description = description.strip() if description is not None else text
    if not description:
        raise ToolDefinitionError(
            f"{_name(function)} has no description",
            hint="Write a docstring, or pass description=…: the model chooses tools by it.",
        )
    hints = _type_hints(function)
    fields = {
        parameter.name: _field(function, parameter, hints, documented.get(parameter.name))
        for parameter in inspect.signature(function).parameters.values()
    }
    if unknown := sorted(documented.keys() - fields.keys()):
        raise ToolDefinitionError(
            f"the docstring of {_name(function)} describes {', '.join(unknown)}, which is no parameter of it",
            hint="Use the parameter's exact name in the docstring.",
        )
    make: Any = TypedDict  # made at run time, which type checkers do not follow
    arguments = make("arguments", fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    adapter: TypeAdapter[dict[str, Any]] = _adapter(function, arguments)
    return FunctionSchema(description, _json_schema(function, adapter), adapter)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The text without its sections, and the description of each parameter."""
    import docstring_parser  # costs 30 ms, and only definitions need it

    parsed = docstring_parser.parse(inspect.getdoc(function) or "")
    text = "\n".join(part.strip() for part in (parsed.short_description, parsed.long_description) if part)
    described = {p.arg_name: " ".join(p.description.split()) for p in parsed.params if p.description}
    return text, described


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError) as error:
        raise ToolDefinitionError(
            f"an annotation of {_name(function)} cannot be resolved: {error}",
            hint="Types used by a tool must be defined at module level, above the tool, and imported at run time.",
        ) from error


def _field(
    function: Callable[..., Any], parameter: inspect.Parameter, hints: Mapping[str, Any], text: str | None
) -> Any:
    """The parameter's type with its description and default attached, as pydantic reads them."""

    def refuse(problem: str, hint: str) -> NoReturn:
        raise ToolDefinitionError(f"parameter {parameter.name} of {_name(function)} {problem}", hint=hint)

    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        refuse("takes any number of arguments", "A model needs named arguments: spell out each parameter.")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        refuse("is positional-only", "Tools are called by argument name: remove the `/`.")
    if parameter.name in ("self", "cls") and parameter.name not in hints:
        refuse("makes it a method", "A tool is a function: move it to module level.")
    if not NAME_PATTERN.fullmatch(parameter.name):
        refuse("has a name that the native syntax cannot write", "Use ASCII letters, digits and underscores.")
    if parameter.name not in hints:
        refuse("has no type annotation", f"Write its type, e.g. `{parameter.name}: str`.")
    hint = hints[parameter.name]
    kind, metadata = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    if any(isinstance(m, FieldInfo) and not (m.is_required() and m.alias is None) for m in metadata) or isinstance(
        parameter.default, FieldInfo
    ):
        refuse(
            "has a default or alias in Field()",
            "Put the default in the signature: `x: Annotated[int, Field(ge=1)] = 3`.",
        )
    base = Field(description=text)
    if parameter.default is not parameter.empty:
        base = Field(description=text, default=parameter.default)
        try:
            _adapter(function, hint).validate_python(parameter.default)
        except ValidationError as error:
            refuse(
                f"has the default {parameter.default!r}, which its type does not allow: {error.errors()[0]['msg']}",
                "Mend the default or widen the type, e.g. `int | None = None`.",
            )
    return Annotated[(kind, base, *metadata)]  # later metadata wins: Field(description=…) over the docstring


def _adapter(function: Callable[..., Any], kind: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(kind)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        raise _not_json(function, str(error)) from error


class _Strict(GenerateJsonSchema):
    """pydantic's generator without invented titles, and with its warnings as errors."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = set()  # noqa: RUF012  # the base class's own declaration

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        raise PydanticInvalidForJsonSchema(detail)


def _json_schema(function: Callable[..., Any], adapter: TypeAdapter[Any]) -> dict[str, JsonValue]:
    try:
        schema = adapter.json_schema(schema_generator=_Strict)
    except (PydanticUserError, ValueError) as error:
        raise _not_json(function, str(error)) from error
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return schema


def _not_json(function: Callable[..., Any], reason: str) -> ToolDefinitionError:
    return ToolDefinitionError(
        f"a parameter of {_name(function)} has a type or default that JSON cannot express: {reason.splitlines()[0]}",
        hint="Use JSON-like types: str, int, float, bool, list, dict, enums, dates, dataclasses or pydantic models.",
    )
