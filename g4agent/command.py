"""Commands as tools: a fixed argument vector with places for values. No shell ever reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from g4agent.errors import InvalidArguments, ToolDefinitionError
from g4agent.messages import JsonValue
from g4agent.schema import declaration_schema


@dataclass(frozen=True, slots=True)
class CommandTarget:
    """A command's argument vector, with `{parameter}` where a value goes.

    - A value is never split: it stays one argument, or a part of one (`--max={n}`). Literal braces are doubled.
    - A list stands alone (`{paths}`) and becomes one argument for each of its elements.
    - An optional parameter without a default leaves out the whole argument it stands in. Unless it is a list it cannot
      stand alone, where a flag before it would be left dangling.
    - A string that begins with `-` is refused where it stands alone, as the program would read it as an option, unless
      `--` comes before it.
    """

    argv: tuple[str, ...]
    defaults: dict[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def parse(cls, argv: Sequence[str], schema: Mapping[str, Any]) -> CommandTarget:
        """Checks a command against the schema of its parameters.

        Raises:
            ToolDefinitionError: An unknown, unused or misplaced placeholder; the message says what to do.
        """
        if isinstance(argv, str) or not argv or not argv[0] or _places(argv[0]):
            raise ToolDefinitionError(
                f"the command {argv!r} does not start with the name of a program",
                hint='Give a list such as ["grep", "-n", "{pattern}", "{path}"]; the program itself is fixed.',
            )
        properties = declaration_schema(schema)["properties"]
        used = [name for argument in argv for name in _places(argument)]
        if unknown := sorted(set(used) - properties.keys()):
            raise ToolDefinitionError(
                f"the command uses {', '.join(unknown)}, which is no parameter of it",
                hint="Declare it in `parameters`, or double the braces if they are meant literally: {{ }}.",
            )
        if unused := sorted(properties.keys() - set(used)):
            raise ToolDefinitionError(
                f"the command does not use its parameter {', '.join(unused)}",
                hint="Put {" + unused[0] + "} where its value goes, or remove it.",
            )
        written: Mapping[str, Any] = schema.get("properties", {})
        defaults = {name: each["default"] for name, each in written.items() if each.get("default") is not None}
        given = defaults.keys() | {name for name in schema.get("required", ()) if not properties[name].get("nullable")}
        for argument in argv:
            for name in _places(argument):
                kind, bare = properties[name]["type"], argument == f"{{{name}}}"
                if kind == "object" or (kind == "array" and not bare):
                    raise ToolDefinitionError(
                        f"the command has {name}, of type {kind}, inside {argument!r}",
                        hint="Only text, numbers and booleans fit inside an argument; a list stands alone: {name}.",
                    )
                if bare and kind != "array" and name not in given:
                    raise ToolDefinitionError(
                        f"the command has the optional parameter {name} as an argument of its own",
                        hint="Give it a default, make it required, or write it in one piece: --" + name + "={…}.",
                    )
        return cls(tuple(argv), defaults)

    def expand(self, arguments: Mapping[str, Any]) -> list[str]:
        """The argument vector for one call with valid arguments.

        Raises:
            InvalidArguments: A value cannot be an argument: it holds a NUL, or would be read as an option.
        """
        values = self.defaults | {name: value for name, value in arguments.items() if value is not None}
        expanded: list[str] = []
        for argument in self.argv:
            places = _places(argument)
            if not places:
                expanded.append(argument.format())
            elif argument == f"{{{places[0]}}}":
                value = values.get(places[0], [])
                elements = value if isinstance(value, list) else [value]
                if "--" not in expanded:
                    _refuse_options(places[0], elements)
                expanded.extend(_text(places[0], element) for element in elements)
            elif all(name in values for name in places):
                expanded.append(argument.format(**{name: _text(name, values[name]) for name in places}))
        return expanded


def _places(argument: str) -> list[str]:
    """Names of the placeholders in one argument."""
    try:
        parsed = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(argument)]
    except ValueError as error:
        raise ToolDefinitionError(
            f"the braces in {argument!r} do not match: {error}", hint="Double literal braces: {{ }}."
        ) from error
    names = [name for name, _, _ in parsed if name is not None]
    if any(not name.isidentifier() for name in names) or any(spec or conversion for _, spec, conversion in parsed):
        raise ToolDefinitionError(
            f"{argument!r} has a placeholder that is not a plain parameter name",
            hint="Write {name}, or {{ }} for literal braces.",
        )
    return names


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidArguments(f"{name}: expected text without NUL characters")
        return value
    if isinstance(value, dict | list):
        raise InvalidArguments(f"{name}: expected text, a number or a boolean")
    whole = isinstance(value, float) and value.is_integer()  # 3.0 is a valid integer in JSON Schema
    return json.dumps(int(value) if whole else value)


def _refuse_options(name: str, values: Sequence[Any]) -> None:
    for value in values:
        if isinstance(value, str) and value.startswith("-"):
            raise InvalidArguments(f"{name}: expected a value that does not begin with '-'; got {value[:40]!r}")
