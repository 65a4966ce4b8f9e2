"""JSON Schema → what Gemma 4's native tool declaration can say.

The official chat template renders a narrow dialect faithfully: one `type` per value, `properties` and `required` of
objects, `items` of arrays, `enum` of strings, `nullable`, and descriptions. Everything else (`$ref`, unions, ranges,
defaults, formats) is dropped or comes out broken. `declare` puts a schema into that dialect and says the rest in words.
The declaration only informs the model; calls are validated against the full schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from g4agent.schema_merge import Schema, as_mapping, merge, resolve
from g4agent.schema_words import hints, kind_name, rules, sentence, short_json

MAX_DEPTH = 8
"""Objects and lists inside one another; deeper ones are cut. A `$ref` inside itself is cut at once."""
MAX_NODES = 1000
"""Values described in one declaration, which keeps it finite and readable whatever the schema does."""
MAX_SIGNATURE = 240
"""Characters of a signature with its objects spelled out."""

_UNSAID = (
    "not",
    "if",
    "dependentSchemas",
    "dependentRequired",
    "contains",
    "patternProperties",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
)
_TYPICAL_KEYS = {
    "object": ("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    "string": ("pattern", "format", "minLength", "maxLength", "contentEncoding"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_TEXTS = {"title", "description", "default", "examples"}
_ANNOTATIONS = _TEXTS | {"deprecated", "readOnly", "writeOnly", "$comment", "$defs", "$schema"}
_MAX_SHAPES = 4
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Declaration:
    """Parameters as the native declaration renders them, and what could not be said in it."""

    parameters: dict[str, Any]
    """`{"type": "object", "properties": {...}, "required": [...]}`, nested alike; types in lower case."""
    notes: tuple[str, ...] = ()
    """One line, `path: what`, for each rule that the model is not told. The validator still enforces it."""


def declaration_schema(schema: Schema) -> dict[str, Any]:
    """The parameters of `declare(schema)`."""
    return declare(schema).parameters


def declare(schema: Schema) -> Declaration:
    """Normalises a tool's full schema (JSON Schema 2020-12, an object) for the native declaration.

    Ends on every valid schema, recursive ones too, and gives the same answer for the same schema.
    """
    writer = _Writer(schema)
    node = writer.write(schema, "arguments", ())
    if said := node.get("description"):
        writer.note("arguments", said)  # the template has no place for a description of the whole
    if node["type"] != "object":
        node = {"properties": {}, "required": []}
    parameters = {"type": "object", "properties": node["properties"], "required": node["required"]}
    return Declaration(parameters, tuple(dict.fromkeys(writer.notes)))


def signature_text(name: str, parameters: Schema) -> str:
    """A declared tool in one line: `add_to_cart(sku: string, quantity?: integer)`. Objects inside are spelled out
    where the line stays short."""
    text = f"{name}({_parameters_text(parameters, deep=True)})"
    return text if len(text) <= MAX_SIGNATURE else f"{name}({_parameters_text(parameters, deep=False)})"


def _parameters_text(node: Schema, deep: bool) -> str:
    required = node["required"]
    return ", ".join(
        f"{name}{'' if name in required else '?'}: {_type_text(each, deep)}"
        for name, each in node["properties"].items()
    )


def _type_text(node: Schema, deep: bool) -> str:
    if node["type"] == "array":
        inner = _type_text(node["items"], deep)
        text = f"({inner})[]" if "|" in inner else f"{inner}[]"
    elif node["type"] == "object" and node["properties"] and deep:
        text = f"{{{_parameters_text(node, deep)}}}"
    else:
        text = "|".join(short_json(v) for v in node["enum"]) if "enum" in node else str(node["type"])
    return f"{text}|null" if node.get("nullable") else text


@dataclass(frozen=True, slots=True)
class _Variant:
    """One alternative of a value: its single JSON type, its schema without references and unions, and the references
    that were followed to it."""

    kind: str
    schema: Schema
    trail: tuple[str, ...]


class _Writer:
    """Writes one declaration; `notes` collects what it cannot say."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.notes: list[str] = []
        self.nodes = 0

    def note(self, path: str, what: str) -> None:
        self.notes.append(f"{path}: {what}")

    def write(self, schema: Any, path: str, trail: tuple[str, ...], depth: int = 0) -> dict[str, Any]:
        """The node for one value. `trail` holds the references that are open around it."""
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            self.note(path, "cut, because the schema is too deep or too large")
            schema = _cut(as_mapping(schema), "nested further")
        flat, trail = self._flatten(as_mapping(schema), path, trail)
        for keyword in _UNSAID:
            if keyword in flat:
                self.note(path, f"the rule '{keyword}' is not shown")
        variants = list(self._variants(flat, path, trail))
        values = [v for v in variants if v.kind != "null"]
        node: dict[str, Any] = {"description": "null" if variants else "no value is valid", "type": "string"}
        if values:
            node = self._write_variants(values, flat, path, depth)
        if len(values) < len(variants):
            node["nullable"] = True
        return node

    def _write_variants(self, values: list[_Variant], flat: Schema, path: str, depth: int) -> dict[str, Any]:
        """One node for all alternatives: those of the first one's type are joined, the others are named."""
        kind = values[0].kind
        if kind == "integer" and any(v.kind == "number" for v in values):
            kind = "number"
        same = [v for v in values if v.kind == kind or (kind == "number" and v.kind == "integer")]
        others = [v for v in values if v not in same]
        joined, remarks = _join(kind, same)
        trail = tuple(dict.fromkeys(ref for v in same for ref in v.trail))
        node: dict[str, Any] = {"type": kind}
        if kind == "object":
            remarks += self._write_object(node, joined, path, trail, depth)
        elif kind == "array":
            remarks += self._write_array(node, joined, path, trail, depth)
        elif kind == "string" and "enum" in joined:
            node["enum"] = joined["enum"]
        remarks += [f"or {_phrase(v.kind, v.schema)}" for v in others]
        if others:
            self.note(path, f"declared as {kind}, though other types are valid")
        description = sentence(flat.get("description") or joined.get("description") or "", [*remarks, *hints(flat)])
        return {"description": description, **node} if description else node

    def _write_object(
        self, node: dict[str, Any], schema: Schema, path: str, trail: tuple[str, ...], depth: int
    ) -> list[str]:
        required = list(schema.get("required", ()))
        properties = {**dict.fromkeys(required, True), **schema.get("properties", {})}
        node["properties"] = {}
        for name, each in properties.items():
            inner = name if path == "arguments" else f"{path}.{name}"
            if not _IDENTIFIER.fullmatch(name):
                self.note(inner, "the native syntax is not made for a name like this")
            node["properties"][name] = self.write(each, inner, trail, depth + 1)
        node["required"] = [name for name in properties if name in required]
        extra = schema.get("additionalProperties", not properties)
        if not properties and extra is False:
            return []
        if isinstance(extra, Mapping) and extra:
            value = self.write(extra, f"{path}.*", trail, depth + 1)
            said = f", {value['description']}" if value.get("description") else ""
            return [f"{'any other' if properties else 'any'} keys, each with {_a_type(value)}{said}"]
        return ["any keys"] if not properties and "$cut" not in schema else []

    def _write_array(
        self, node: dict[str, Any], schema: Schema, path: str, trail: tuple[str, ...], depth: int
    ) -> list[str]:
        places = list(schema.get("prefixItems", ()))
        rest = schema.get("items", True)
        alternatives = places if rest in (True, False, {}) and places else [*places, rest]
        if len(alternatives) == 1:
            node["items"] = self.write(alternatives[0], f"{path}[]", trail, depth + 1)
            return []
        node["items"] = self.write({"anyOf": alternatives}, f"{path}[]", trail, depth + 1)
        kinds = [_a_type(self.write(each, f"{path}[{i}]", trail, depth + 1)) for i, each in enumerate(places)]
        return [f"in this order: {', '.join(kinds)}"]

    def _flatten(self, schema: Schema, path: str, trail: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """The schema with `$ref` and `allOf` folded in, and all references open there. One that is open is cut."""
        flat, opened = schema, list(trail)
        while "$ref" in flat or "allOf" in flat:
            self.nodes += 1
            rest: Schema = {key: value for key, value in flat.items() if key not in ("$ref", "allOf")}
            parts = [(as_mapping(part), trail) for part in flat.get("allOf", ())]
            if reference := flat.get("$ref"):
                target, name = self._resolve(reference, path), reference.rpartition("/")[2].replace("#", "whole")
                if reference in trail or self.nodes > MAX_NODES:
                    self.note(path, f"{name} is recursive or large, and not written out again")
                    target = _cut(target, f"again a {name}")
                parts.insert(0, (target, (*trail, reference)))
            for part, inside in parts:
                inner, inside = self._flatten(part, path, inside)
                opened += inside
                rest = merge(rest, inner)
            flat = rest
        return flat, tuple(dict.fromkeys(opened))

    def _resolve(self, reference: str, path: str) -> Schema:
        """The schema that a local reference (`#/$defs/Name`) points to."""
        try:
            return resolve(self.root, reference)
        except LookupError:
            self.note(path, f"the reference {reference} is not followed")
            return {}

    def _variants(self, flat: Schema, path: str, trail: tuple[str, ...]) -> Iterator[_Variant]:
        """The alternatives of a flat schema, each with one JSON type."""
        for keyword in ("anyOf", "oneOf"):
            if keyword in flat:
                base = {k: v for k, v in flat.items() if k != keyword and k not in _TEXTS}
                for part in flat[keyword]:
                    self.nodes += 1
                    if self.nodes > MAX_NODES:
                        part = _cut(as_mapping(part), "or another form")
                    alternative, inner = self._flatten(merge(as_mapping(part), base), path, trail)
                    yield from self._variants(alternative, path, inner)
                return
        if "const" in flat:
            flat = {**{k: v for k, v in flat.items() if k != "const"}, "enum": [flat["const"]]}
        if "enum" in flat:
            allowed = _types(flat)
            for kind in dict.fromkeys(_json_type(value) for value in flat["enum"]):
                if not allowed or kind in allowed or (kind == "integer" and "number" in allowed):
                    values = [value for value in flat["enum"] if _json_type(value) == kind]
                    yield _Variant(kind, {**flat, "enum": values}, trail)
            return
        for kind in _types(flat) or [_guess_type(flat)]:
            yield _Variant(kind, flat, trail)


def _types(schema: Schema) -> list[str]:
    declared = schema.get("type")
    return list(declared) if isinstance(declared, list) else [declared] if declared else []


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    for kind, python in (("null", type(None)), ("integer", int), ("number", float), ("string", str), ("array", list)):
        if isinstance(value, python):
            return kind
    return "object"


def _guess_type(schema: Schema) -> str:
    """The type that a schema without `type` speaks about; a string where it speaks about none."""
    return next((kind for kind, keys in _TYPICAL_KEYS.items() if any(key in schema for key in keys)), "string")


def _cut(schema: Schema, remark: str) -> dict[str, Any]:
    """What stands for a schema that is not written out further; `$cut` is said of it and is no JSON Schema keyword."""
    kind = schema.get("type")
    if kind == "array":
        return {"type": kind, "items": {"type": "object", "$cut": remark}}
    return {"type": kind if isinstance(kind, str) else "object", "$cut": remark}


def _join(kind: str, variants: list[_Variant]) -> tuple[Schema, list[str]]:
    """Alternatives of one type as one schema, with the words that keep them apart."""
    schemas = [v.schema for v in variants]
    if len(schemas) == 1:
        return schemas[0], _remarks(schemas[0], kind)
    if kind == "object":
        return _join_objects(schemas)
    if kind == "array":
        items = [s.get("items", {"anyOf": list(s.get("prefixItems", ())) or [{}]}) for s in schemas]
        return {"items": {"anyOf": _distinct(items)}}, _either(kind, schemas)
    if all("enum" in s for s in schemas):
        joined = {"enum": _distinct(value for s in schemas for value in s["enum"])}
        return joined, _remarks(joined, kind)
    return {}, _either(kind, schemas)


def _join_objects(schemas: list[Schema]) -> tuple[Schema, list[str]]:
    """All properties of all forms; required are those that every form requires."""
    names = dict.fromkeys(name for s in schemas for name in s.get("properties", {}))
    properties: dict[str, Any] = {}
    for name in names:
        forms = _distinct(s["properties"][name] for s in schemas if name in s.get("properties", {}))
        properties[name] = forms[0] if len(forms) == 1 else {"anyOf": forms}
    required = [name for name in schemas[0].get("required", ()) if all(name in s.get("required", ()) for s in schemas)]
    shapes = _distinct(_shape(s) for s in schemas)
    said = f"one of {len(shapes)} forms" if len(shapes) > _MAX_SHAPES else f"either {' or '.join(shapes)}"
    return {"properties": properties, "required": required}, [said] if len(shapes) > 1 else []


def _shape(schema: Schema) -> str:
    """An object's form in short: `{kind: "cat", meows, age?}`."""
    parts = []
    for name, each in schema.get("properties", {}).items():
        fixed = f": {short_json(each['const'])}" if isinstance(each, Mapping) and "const" in each else ""
        parts.append(f"{name}{'' if name in schema.get('required', ()) else '?'}{fixed}")
    return f"{{{', '.join(parts)}}}"


def _remarks(schema: Schema, kind: str) -> list[str]:
    if not schema.keys() - _ANNOTATIONS:
        return ["any JSON value"]
    return [*rules(schema, kind), *([schema["$cut"]] if "$cut" in schema else [])]


def _either(kind: str, schemas: list[Schema]) -> list[str]:
    """The rules of alternatives of one type, as one remark."""
    texts = _distinct(_phrase(kind, s) for s in schemas)
    return [" or ".join(texts)] if texts != [kind_name(kind)] else []


def _phrase(kind: str, schema: Schema) -> str:
    """One alternative in words: `an integer, 1 to 7`."""
    if kind == "string" and "enum" in schema:
        return " or ".join(short_json(value) for value in schema["enum"])
    if kind == "object" and schema.get("properties"):
        return _shape(schema)
    remarks = _remarks(schema, kind)
    return ", ".join(remarks if remarks and kind == "string" else [kind_name(kind), *remarks])


def _a_type(node: Schema) -> str:
    """A written node's type in words; where it has parts, as the signature shows it."""
    plain = "enum" not in node and not node.get("properties") and node["type"] != "array"
    return kind_name(node["type"]) if plain else _type_text(node, deep=True)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Without repetitions, in order; the values need not be hashable."""
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(json.dumps(value, sort_keys=True), value)
    return list(seen.values())
