"""A call's payload → a call: read strictly, else repaired where the tool's schema allows one reading only.

A repair is never a guess. A repaired reading is taken if its arguments validate against the tool's full schema, use its
parameters only, and no other reading of the same payload does. Otherwise the model is told what is wrong, and how the
tool is called. Each repair that was needed is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from g4agent.errors import InvalidArguments
from g4agent.gemma4.payload import CallSyntaxError, fold, read_number, read_strict
from g4agent.gemma4.readings import Leaf, Node, Reading, TooManyReadingsError, head_of, readings
from g4agent.messages import JsonValue
from g4agent.tools import Tool, signature

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

    from g4agent.gemma4.parse import RawCall

UNKNOWN_NAME: Final = "unknown"
"""The name under which a call without a readable name is answered, as the official template has it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A call that could be read. Its name may be unknown and its arguments invalid: validation comes after."""

    name: str
    arguments: dict[str, JsonValue]
    repairs: tuple[str, ...] = ()
    """What had to be mended, sorted; empty where the payload was well formed."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A call that could not be read, nor repaired without guessing."""

    name: str
    """The tool that was probably meant."""
    message: str
    """For the model: what is wrong, and how to call the tool."""


def read_call(call: RawCall, tools: Mapping[str, Tool]) -> Parsed | Malformed:
    """Reads a call for these tools."""
    folded = fold(call.payload)
    try:
        name, arguments = read_strict(call.payload)
    except CallSyntaxError as error:
        return _repaired(call, folded, tools, error)
    ended = () if call.end == "closed" else ("truncated_call",)
    tool, renamed = _find(name, tools)
    if tool is None:
        return Parsed(name, arguments, ended)
    before = (*ended, *renamed)
    if not _valid(tool, arguments):
        found = _settle_all(tool, folded, trust_delimiters=True)
        if len(found) == 1:
            return Parsed(tool.name, found[0][0], _named(before, found[0][1]))
    return Parsed(tool.name, arguments, _named(before))


def _repaired(call: RawCall, folded: str, tools: Mapping[str, Tool], error: CallSyntaxError) -> Parsed | Malformed:
    name = head_of(folded) or UNKNOWN_NAME
    tool, renamed = _find(name, tools)
    if tool is None:
        known = ", ".join(tools) or "none"
        return Malformed(name, f"The call cannot be read ({error.message}). The tools are: {known}.")
    usage = f"Nothing was run. Call it as {signature(tool)}."
    if call.end == "cut":
        return Malformed(tool.name, f"The call was cut off before its end. {usage}")
    before = renamed if call.end == "closed" else (*renamed, "truncated_call")
    for trust in (True, False):
        found = _settle_all(tool, folded, trust_delimiters=trust)
        if len(found) == 1:
            return Parsed(tool.name, found[0][0], _named(before, found[0][1]))
        if found:
            return Malformed(tool.name, f"The call can be read in several ways ({error.message}). {usage}")
    return Malformed(tool.name, f"The call cannot be read: {error.message}. {usage}")


def _named(*repairs: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({repair for group in repairs for repair in group}))


def _find(name: str, tools: Mapping[str, Tool]) -> tuple[Tool | None, tuple[str, ...]]:
    """The tool of that name; else the only one that differs by case or by a prefix (`tool:`, `google:tool:`)."""
    if name in tools:
        return tools[name], ()
    plain = name.replace(".", ":").rpartition(":")[2].casefold()
    same = [tool for known, tool in tools.items() if known.casefold() == plain]
    return (same[0], ("renamed_tool",)) if len(same) == 1 else (None, ())


def _settle_all(
    tool: Tool, folded: str, *, trust_delimiters: bool
) -> list[tuple[dict[str, JsonValue], frozenset[str]]]:
    """The distinct arguments that validate, each with the fewest repairs that lead to it; two are enough to know."""
    from jsonschema import Draft202012Validator  # 100 ms: only a first repair pays for it

    properties = tool.schema.get("properties")
    keys = set(properties) if isinstance(properties, Mapping) else set()
    validator = Draft202012Validator(tool.schema)
    found: dict[str, tuple[dict[str, JsonValue], frozenset[str]]] = {}
    try:
        for reading in readings(folded, keys, trust_delimiters):
            if not keys.issuperset(reading.arguments) and not _takes_more(tool.schema):
                continue
            if (settled := _settle(tool, validator, reading)) is None:
                continue
            arguments, repairs = settled
            same = json.dumps(arguments, sort_keys=True)
            if same not in found or len(repairs) < len(found[same][1]):
                found[same] = arguments, repairs
            if len(found) == 2:
                break
    except TooManyReadingsError:
        return []  # one that was not looked at might differ
    return list(found.values())


def _settle(
    tool: Tool, validator: Draft202012Validator, reading: Reading
) -> tuple[dict[str, JsonValue], frozenset[str]] | None:
    """The reading's arguments, scalars turned into the type that the schema asks for, if they then validate."""
    arguments: Any = _plain(reading.arguments)
    repairs = reading.repairs
    for error in list(validator.iter_errors(arguments)):
        if not _coerce_at(error, reading.arguments, arguments):
            return None
        repairs = repairs | {"coerced_type"}
    return (arguments, repairs) if _valid(tool, arguments) else None


def _takes_more(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("additionalProperties") or schema.get("patternProperties"))


def _valid(tool: Tool, arguments: dict[str, JsonValue]) -> bool:
    try:
        tool.validate(arguments)
    except InvalidArguments:
        return False
    return True


def _plain(node: Node) -> JsonValue:
    match node:
        case Leaf():
            return node.value
        case list():
            return [_plain(item) for item in node]
        case dict():
            return {key: _plain(item) for key, item in node.items()}


def _coerce_at(error: ValidationError, root: Node, arguments: Any) -> bool:
    """Mends one validation error in place, if it is a scalar of the wrong type and only one value can be meant."""
    path = list(error.absolute_path)
    node: Any = root
    for step in path:
        node = node[step]
    if not path or not isinstance(node, Leaf):
        return False
    options = {(type(value), str(value)): value for value in _meant(node, error)}
    if len(options) != 1:
        return False
    for step in path[:-1]:
        arguments = arguments[step]
    arguments[path[-1]] = next(iter(options.values()))
    return True


def _meant(leaf: Leaf, error: ValidationError) -> Iterable[JsonValue]:
    expected: Any = error.validator_value
    if error.validator in ("enum", "const"):
        allowed = expected if error.validator == "enum" else [expected]
        return [value for value in allowed if not isinstance(value, str) and leaf.text == json.dumps(value)]
    if error.validator == "type":
        return _of_types(leaf, [expected] if isinstance(expected, str) else expected)
    if error.validator in ("anyOf", "oneOf"):
        return [value for part in error.context or () if not part.path for value in _meant(leaf, part)]
    return []


def _of_types(leaf: Leaf, types: Iterable[str]) -> Iterable[JsonValue]:
    """What the leaf's spelling says in each of the JSON types."""
    for kind in types:
        value = leaf.value
        if kind == "string" and not isinstance(value, str) and value is not None:
            yield leaf.text
        if not isinstance(value, str):
            continue
        if kind in ("integer", "number"):
            number = read_number(value)
            if number is not None and (kind == "number" or number == int(number)):
                yield number
        elif kind == "boolean" and value.lower() in ("true", "false"):
            yield value.lower() == "true"
        elif kind == "null" and value in ("null", "None"):
            yield None
        elif kind in ("array", "object"):
            yield from _json_of(value, list if kind == "array" else dict)


def _json_of(text: str, kind: type[list[Any]] | type[dict[str, Any]]) -> Iterable[JsonValue]:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # Python reads NaN and 1e999, which are no JSON values
    except (ValueError, RecursionError):
        return []
    return [value] if isinstance(value, kind) else []
