"""Dialogue → segments, in Gemma 4's native format (chat template of 2026-07-09).

Pure functions, one per piece of a transcript: a conversation appends what they give and never renders anything twice.
Two deviations from the template, both of which it gets wrong: text before a call stays before it, and the schema of an
array's items is written like any other schema, however deep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from g4agent.gemma4.tokens import (
    CALL_CLOSE,
    CALL_OPEN,
    CHANNEL_CLOSE,
    CHANNEL_OPEN,
    QUOTE,
    RESPONSE_CLOSE,
    RESPONSE_OPEN,
    THINK,
    TOOL_CLOSE,
    TOOL_OPEN,
    TURN_CLOSE,
    TURN_OPEN,
    Control,
    Segment,
    Text,
)
from g4agent.messages import JsonValue

_V = TypeVar("_V")


def system_turn(system: str, declarations: Iterable[Sequence[Segment]], thinking: bool) -> list[Segment]:
    """The system turn, or nothing where there is nothing to say: no text, no tools, no thinking."""
    tools = [segment for declared in declarations for segment in declared]
    text = system.strip()
    if not (text or tools or thinking):
        return []
    think: list[Segment] = [Control(THINK), Text("\n")] if thinking else []
    return [Control(TURN_OPEN), Text("system\n"), *think, Text(text), *tools, *turn_close()]


def user_turn(*parts: str | Sequence[Segment]) -> list[Segment]:
    """A complete user turn of texts, each trimmed as the template trims it, and of images."""
    said = [segment for part in parts for segment in ([Text(part.strip())] if isinstance(part, str) else part)]
    return [Control(TURN_OPEN), Text("user\n"), *said, *turn_close()]


def model_turn_open(thinking: bool, variant: Literal["small", "large"]) -> list[Segment]:
    """The start of a model turn. Large models are told not to think by an empty thought; small ones by nothing."""
    opening: list[Segment] = [Control(TURN_OPEN), Text("model\n")]
    if not thinking and variant == "large":
        opening += [*thought_open(), Control(CHANNEL_CLOSE)]
    return opening


def thought_open() -> list[Segment]:
    """An open thought channel: what follows is the model's reasoning."""
    return [Control(CHANNEL_OPEN), Text("thought\n")]


def turn_close(token_present: bool = False) -> list[Segment]:
    """The end of a turn. With `token_present` the model has already written `<turn|>` and only the newline is due."""
    return [Text("\n")] if token_present else [Control(TURN_CLOSE), Text("\n")]


def declaration(name: str, description: str, parameters: Mapping[str, Any]) -> list[Segment]:
    """A tool's declaration for the system turn.

    Args:
        name: The tool's name.
        description: What it does; may be empty.
        parameters: An object schema, normalised to what the native format can say: `type`, `description`, `enum` (of
            strings), `items`, `nullable`, `properties` and `required`. Other keys are not shown to the model, nor is
            the description of the whole object.
    """
    entries = {"description": _string(description)}
    if parameters:
        entries["parameters"] = _schema(parameters, "parameters")
    return [Control(TOOL_OPEN), Text(f"declaration:{name}"), *_mapping(entries.items()), Control(TOOL_CLOSE)]


def value(json: JsonValue) -> list[Segment]:
    """A JSON value: bare keys in the template's order (case-insensitive), strings between delimiters without escapes.

    A string that spells `<|"|>` keeps it as plain characters, which a reader of ids takes as content; a reader of the
    detokenised text cannot tell the two apart.
    """
    match json:
        case str():
            return _string(json)
        case None:
            return [Text("null")]
        case bool():
            return [Text("true" if json else "false")]
        case dict():
            return _mapping((key, value(item)) for key, item in _dictsort(json))
        case list() | tuple():
            return _sequence(value(item) for item in json)
        case _:
            return [Text(str(json))]


def tool_call(name: str, arguments: Mapping[str, JsonValue]) -> list[Segment]:
    """A call, as the model writes it."""
    return [Control(CALL_OPEN), Text(f"call:{name}"), *value(dict(arguments)), Control(CALL_CLOSE)]


def tool_responses(
    results: Sequence[tuple[str, Mapping[str, JsonValue]]],
    opener_present: bool,
    thinking: bool,
    images: Sequence[Sequence[Segment]] = (),
) -> list[Segment]:
    """The results of the last calls, in the order of the calls and inside the same model turn.

    Args:
        results: Tool name and response object of every call.
        opener_present: The model ended with `<|tool_response>`, so the first response must not open again.
        thinking: Whether the model thinks; if so it goes on inside a thought that is opened for it.
        images: Those of every call, which follow its result; none at all where no call has any.
    """
    segments: list[Segment] = []
    for index, (name, response) in enumerate(results):
        if index > 0 or not opener_present:
            segments.append(Control(RESPONSE_OPEN))
        segments += [Text(f"response:{name}"), *value(dict(response)), Control(RESPONSE_CLOSE)]
        segments += images[index] if images else ()
    return segments + thought_open() if thinking else segments


def _schema(schema: Mapping[str, Any], place: Literal["parameters", "property", "items"]) -> list[Segment]:
    """A schema in the template's key order, which is the alphabet's. An object without properties shows an empty
    `properties` only where it is a property; a missing type is the empty string: both as the template has it."""
    kind = str(schema.get("type", "")).upper()
    entries: dict[str, list[Segment]] = {}
    if schema.get("description") and place != "parameters":
        entries["description"] = _string(schema["description"])
    if schema.get("enum") and (kind == "STRING" or place == "items"):
        entries["enum"] = value(schema["enum"])
    if kind == "ARRAY" and schema.get("items"):
        entries["items"] = _schema(schema["items"], "items")
    if schema.get("nullable"):
        entries["nullable"] = [Text("true")]
    if kind == "OBJECT" and (schema.get("properties") or place == "property"):
        properties: Mapping[str, Any] = schema.get("properties") or {}
        entries["properties"] = _mapping((name, _schema(member, "property")) for name, member in _dictsort(properties))
    if kind == "OBJECT" and schema.get("required"):
        entries["required"] = value(list(schema["required"]))
    entries["type"] = _string(kind)
    return _mapping(entries.items())


def _string(text: str) -> list[Segment]:
    return [Control(QUOTE), Text(text), Control(QUOTE)]


def _mapping(entries: Iterable[tuple[str, list[Segment]]]) -> list[Segment]:
    return [Text("{"), *_joined([Text(f"{key}:"), *item] for key, item in entries), Text("}")]


def _sequence(items: Iterable[list[Segment]]) -> list[Segment]:
    return [Text("["), *_joined(items), Text("]")]


def _joined(items: Iterable[list[Segment]]) -> list[Segment]:
    joined: list[Segment] = []
    for item in items:
        joined += [Text(","), *item] if joined else item
    return joined


def _dictsort(mapping: Mapping[str, _V]) -> list[tuple[str, _V]]:
    return sorted(mapping.items(), key=lambda entry: entry[0].lower())
