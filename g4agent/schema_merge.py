"""JSON Schema algebra: what a reference points to, and two schemas that both apply → one.

The declaration needs it, to fold `allOf` and `$ref` into one plain schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote

Schema: TypeAlias = Mapping[str, Any]

_LARGER = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_SMALLER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_MAX_PRODUCT = 64


def as_mapping(schema: Any) -> Schema:
    """A schema as a mapping: `true` allows anything, `false` nothing."""
    if isinstance(schema, Mapping):
        return schema
    return {} if schema is not False else {"not": {}}


def resolve(root: Schema, reference: str) -> Schema:
    """The schema inside `root` that a reference such as `#/$defs/Name` points to.

    Raises:
        LookupError: It points nowhere, or is not a pointer into this schema.
    """
    if reference != "#" and not reference.startswith("#/"):
        raise LookupError(reference)
    target: Any = root
    for part in reference.split("/")[1:]:
        part = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and part.isdecimal():
            target = target[int(part)]
        elif isinstance(target, Mapping):
            target = target[part]
        else:
            raise LookupError(reference)
    return as_mapping(target)


def merge(first: Schema, second: Schema, lost: Callable[[str], None] = lambda keyword: None) -> dict[str, Any]:
    """A schema for values that fit both. Where both cannot be kept (texts, patterns), `first` wins.

    A `$ref` may stand in one of them only.

    Args:
        first: A schema.
        second: Another one.
        lost: Told each keyword of `second` that could not be kept.
    """
    merged = dict(first)
    for key, value in second.items():
        merged[key] = _merge_keyword(key, first[key], value, lost) if key in first else value
    return merged


def _merge_keyword(key: str, first: Any, second: Any, lost: Callable[[str], None]) -> Any:
    if key == "properties":
        both = {name: both_of(first[name], second[name]) for name in first.keys() & second.keys()}
        return {**first, **second, **both}
    if key == "required":
        return list(dict.fromkeys([*first, *second]))
    if key == "allOf":
        return [*first, *second]
    if key in ("anyOf", "oneOf") and len(first) * len(second) <= _MAX_PRODUCT:
        return [both_of(a, b) for a in first for b in second]
    if key == "enum" and (shared := [value for value in first if value in second]):
        return shared
    if key == "type" and (types := _merge_types(first, second)):
        return types[0] if len(types) == 1 else types
    if key in ("items", "additionalProperties"):
        return both_of(first, second)
    if key in _LARGER:
        return max(first, second)
    if key in _SMALLER:
        return min(first, second)
    if first != second:
        lost(key)
    return first


def both_of(first: Any, second: Any) -> Any:
    """A schema for values that fit both, left unmerged where neither says more than the other."""
    if first == second or second in (True, {}):
        return first
    if first in (True, {}):
        return second
    if first is False or second is False:
        return False
    return {"allOf": [first, second]}


def _merge_types(first: Any, second: Any) -> list[str]:
    a = first if isinstance(first, list) else [first]
    b = second if isinstance(second, list) else [second]
    kept = [t for t in a if t in b or (t == "integer" and "number" in b)]
    kept += [t for t in b if t == "integer" and "number" in a and t not in kept]
    return kept
