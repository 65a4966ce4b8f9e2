"""Rules of a JSON Schema in few plain words, for a model to read: "1 to 7", "default 3", "date, e.g. 2026-01-31"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LONGEST_VALUE = 60
_MOST_VALUES = 20

_FORMATS = {
    "date": "date, e.g. 2026-01-31",
    "date-time": "date and time, e.g. 2026-01-31T09:30:00Z",
    "time": "time, e.g. 09:30:00",
    "duration": "duration, e.g. PT1H30M",
    "email": "e-mail address",
    "uuid": "UUID",
    "uri": "URL",
    "ipv4": "IPv4 address",
    "ipv6": "IPv6 address",
    "regex": "regular expression",
}

_KINDS = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def rules(schema: Mapping[str, Any], kind: str) -> Iterator[str]:
    """What a value of the JSON type `kind` must fulfil beyond its type, as far as few words can say it."""
    if kind in ("integer", "number"):
        yield from _range(schema)
    elif kind == "string":
        yield from _text(schema)
    elif kind == "array":
        yield from _count(schema, "minItems", "maxItems", "item")
        if schema.get("uniqueItems") is True:
            yield "no duplicates"
    elif kind == "object":
        yield from _count(schema, "minProperties", "maxProperties", "key")
    if "enum" in schema and kind != "string":
        values = schema["enum"]
        shown = ", ".join(short_json(v) for v in values[:_MOST_VALUES]) + (", …" if len(values) > _MOST_VALUES else "")
        yield f"only {shown}" if len(values) == 1 else f"one of {shown}"


def hints(schema: Mapping[str, Any]) -> Iterator[str]:
    """The default and the first example, where they are short."""
    default, examples = schema.get("default"), schema.get("examples")
    if default not in (None, [], {}) and len(shown := short_json(default)) <= _LONGEST_VALUE:
        yield f"default {shown}"
    if isinstance(examples, Sequence) and examples and len(shown := short_json(examples[0])) <= _LONGEST_VALUE:
        yield f"e.g. {shown}"


def kind_name(kind: str) -> str:
    """The JSON type in words: "an integer"."""
    return _KINDS.get(kind, kind)


def short_json(value: Any) -> str:
    """A value as compact JSON."""
    return json.dumps(value, ensure_ascii=False)


def sentence(text: str, remarks: Sequence[str]) -> str:
    """A description with remarks behind it: `Days to look at (1 to 7, default 3)`."""
    text, said = " ".join(text.split()), ", ".join(dict.fromkeys(remarks))
    if not said or not text:
        return text or said
    return f"{text.removesuffix('.')} ({said}){'.' if text.endswith('.') else ''}"


def _range(schema: Mapping[str, Any]) -> Iterator[str]:
    low, high, above, below = (
        None if (limit := schema.get(key)) is None else _number(limit)
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    )
    if low is not None and high is not None:
        yield f"{low} to {high}"
    elif low is not None:
        yield f"at least {low}"
    elif high is not None:
        yield f"at most {high}"
    if above is not None:
        yield f"more than {above}"
    if below is not None:
        yield f"less than {below}"
    if "multipleOf" in schema:
        yield f"a multiple of {_number(schema['multipleOf'])}"


def _text(schema: Mapping[str, Any]) -> Iterator[str]:
    if name := schema.get("format"):
        yield _FORMATS.get(name, name)
    if encoding := schema.get("contentEncoding"):
        yield encoding
    if schema.get("minLength") == 1 and "maxLength" not in schema:
        yield "not empty"
    else:
        yield from _count(schema, "minLength", "maxLength", "character")
    if pattern := schema.get("pattern"):
        yield f"matches {pattern}" if len(pattern) <= _LONGEST_VALUE else "matches a pattern"


def _count(schema: Mapping[str, Any], least: str, most: str, noun: str) -> Iterator[str]:
    low, high = schema.get(least) or 0, schema.get(most)
    if high is None:
        if low:
            yield f"at least {_plural(low, noun)}"
    elif low == high:
        yield f"exactly {_plural(low, noun)}"
    else:
        yield f"{low} to {_plural(high, noun)}" if low else f"at most {_plural(high, noun)}"


def _number(value: float) -> str:
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
