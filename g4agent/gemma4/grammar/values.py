"""JSON Schema → rules for values in the native syntax: one walk, equal schemas share one rule.

What is allowed is what validates, with one exception that no grammar can say: keys of an object with free keys may
repeat. The strict reader refuses such a call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import UnknownType
from referencing.exceptions import Unresolvable

from g4agent.gemma4 import render
from g4agent.gemma4.grammar.strings import FREE, MAX_COUNT, terminal
from g4agent.gemma4.tokens import QUOTE, Control
from g4agent.messages import JsonValue
from g4agent.schema_merge import Schema, as_mapping, merge, resolve

KINDS: Final = ("string", "number", "boolean", "null", "array", "object")
_SILENT: Final = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"} | {
    *("$comment", "$defs", "definitions", "$schema", "$id")
}
_UNSAID: Final = {"not", "if", "then", "else", "dependentSchemas", "dependentRequired", "$dynamicRef"} | {
    *("contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems", "unevaluatedProperties"),
    *("patternProperties", "propertyNames", "minProperties", "maxProperties"),
}
"""Rules that a context-free grammar cannot say, or only at great length. The validator enforces them."""
_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_INTEGER: Final = "/-?(0|[1-9][0-9]{0,17})/"
_NUMBER: Final = r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/"
"""Any number that a double holds: the digits end somewhere, or a model could write them for ever."""
_KEY: Final = "/[A-Za-z_][A-Za-z0-9_.-]{0,63}/"
_MAX_DEPTH: Final = 24
"""References and unions inside one another; deeper, any value is allowed."""


class ValueRules:
    """Collects the rules and terminals of one grammar. `notes` lists, as `path: rule`, what the present tool's schema
    says beyond them."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self.notes: list[str] = []
        self._terminals: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self._root: Schema = {}

    def arguments(self, schema: Schema) -> str:
        """The rule for a tool's arguments: an object."""
        self._root, self.notes = schema, []
        self._known = {key: rule for key, rule in self._known.items() if "$ref" not in key}
        return self._value(merge({"type": "object"}, schema), "arguments", 0)

    def rule(self, body: str, hint: str) -> str:
        """A new rule with this body."""
        name = f"{hint}{len(self.rules)}"
        self.rules.append(f"{name}: {body}")
        return name

    def text(self) -> str:
        """All rules and terminals, a line each."""
        return "\n".join([*self.rules, *(f"{name}: {body}" for body, name in self._terminals.items())])

    # Schemas ----------------------------------------------------------------------------------------------------------

    def _value(self, schema: Any, path: str, depth: int) -> str:
        schema = {key: value for key, value in as_mapping(schema).items() if key not in _SILENT}
        known = json.dumps(schema, sort_keys=True)
        if known not in self._known:
            name = self._known[known] = f"v{len(self._known)}"  # before its body: schemas may contain themselves
            before = len(self.notes)
            self.rules.append(f"{name}: {self._body(schema, path, depth)}")
            if len(self.notes) > before:  # the notes belong to this place: said again for the next
                del self._known[known]
                self._known[f"{known} at {path}"] = name
        return self._known.get(known) or self._known[f"{known} at {path}"]

    def _body(self, schema: dict[str, Any], path: str, depth: int) -> str:
        for rule in sorted(_UNSAID & schema.keys()):
            self._note(path, rule)
            del schema[rule]
        if not schema or depth > _MAX_DEPTH:
            return self._anything()
        if "$ref" in schema:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            target = resolve(self._root, schema["$ref"])
            return self._value(self._merged(rest, target, path) if rest else target, path, depth + 1)
        if "const" in schema:
            rest = {key: value for key, value in schema.items() if key != "const"}
            return self._enum({**rest, "enum": [schema["const"]]}, rest, "const", path)
        if "enum" in schema:
            rest = {key: value for key, value in schema.items() if key != "enum"}
            return self._enum(schema, rest, "enum", path)
        if "allOf" in schema:
            merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
            for part in schema["allOf"]:
                merged = self._merged(merged, self._followed(as_mapping(part)), path)
            return self._value(merged, path, depth + 1)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                rest = {key: value for key, value in schema.items() if key != union}
                parts = [as_mapping(part) for part in schema[union]]
                if union == "oneOf" and not _disjoint(parts):
                    self._note(path, "oneOf, as anyOf")
                parts = [self._merged(rest, self._followed(part), path) if rest else part for part in parts]
                return " | ".join(dict.fromkeys(self._value(part, path, depth + 1) for part in parts))
        kinds = schema.get("type", KINDS)
        if isinstance(kinds, str):
            return self._kind(kinds, schema, path, depth)
        return " | ".join(self._value({**schema, "type": kind}, path, depth + 1) for kind in kinds)

    def _merged(self, first: Schema, second: Schema, path: str) -> Schema:
        """Both at once; what cannot be kept of the second is noted."""
        return merge(first, second, lambda rule: None if rule in _SILENT else self._note(path, rule))

    def _followed(self, schema: Schema) -> Schema:
        """The schema that a reference stands for, so that it can be merged."""
        for _ in range(_MAX_DEPTH):
            if "$ref" not in schema:
                break
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = merge(rest, resolve(self._root, schema["$ref"]))
        return schema

    def _kind(self, kind: str, schema: dict[str, Any], path: str, depth: int) -> str:
        match kind:
            case "string":
                return self._quoted(self._terminal(terminal(schema, lambda rule: self._note(path, rule))))
            case "integer" | "number":
                return self._number(kind, schema, path)
            case "boolean":
                return '"true" | "false"'
            case "null":
                return '"null"'
            case "array":
                return self._array(schema, path, depth)
            case _:
                return self._object(schema, path, depth)

    def _number(self, kind: str, schema: Mapping[str, Any], path: str) -> str:
        bounds = {key: schema[key] for key in _BOUNDS if key in schema}
        if isinstance(bounds.get("multipleOf", 1), float) and not float(bounds["multipleOf"]).is_integer():
            self._note(path, "multipleOf")  # a validator divides in floating point, where 0.3 is no multiple of 0.1
            del bounds["multipleOf"]
        if not bounds:
            return self._terminal(_INTEGER if kind == "integer" else _NUMBER)
        if not {"maximum", "exclusiveMaximum"} & bounds.keys():
            bounds["maximum"] = 10**18
        if not {"minimum", "exclusiveMinimum"} & bounds.keys():
            bounds["minimum"] = -(10**18)
        compact = {"whitespace_flexible": False}  # JSON would allow spaces, the native syntax has none
        return "%json " + json.dumps({"type": kind, **bounds, "x-guidance": compact})

    def _array(self, schema: Mapping[str, Any], path: str, depth: int) -> str:
        low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
        if low > MAX_COUNT or (high is not None and high > MAX_COUNT):
            self._note(path, f"more than {MAX_COUNT} items")
            low, high = min(low, MAX_COUNT), None
        first = schema.get("prefixItems", [])
        fixed = [self._value(item, f"{path}[{at}]", depth + 1) for at, item in enumerate(first)]
        if schema.get("items", True) is False:
            high = len(fixed) if high is None else min(high, len(fixed))
        more = None
        if high is None or high > len(fixed):
            more = self._value(schema.get("items", True), f"{path}[]", depth + 1)
        return f'"[" {self._items(fixed, more, low, high)} "]"'

    def _items(self, fixed: list[str], more: str | None, low: int, high: int | None) -> str:
        """Items one after the other: each of the fixed ones may be the last where enough are there."""
        rest = '""'
        if more is not None:
            if not fixed:
                some = f"{more} {_repeated(more, low - 1, None if high is None else high - 1)}"
                return some if low > 0 else f"({some})?"
            rest = _repeated(more, low - len(fixed), None if high is None else high - len(fixed))
        for at in reversed(range(len(fixed) if high is None else min(len(fixed), high))):
            comma = '"," ' if at else ""
            item = f"{comma}{fixed[at]} {rest}"
            rest = self.rule(item if at < low else f"({item})?", "i")
        return rest

    def _object(self, schema: Mapping[str, Any], path: str, depth: int) -> str:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = set(schema.get("required", ()))
        others = schema.get("additionalProperties", True)
        names = sorted({*properties, *required}, key=str.lower)
        extra = None
        if others is not False:
            value = self._value(others, f"{path}.*", depth + 1)
            taken = " | ".join(json.dumps(name, ensure_ascii=False) for name in names)
            key = self._terminal(f"{_KEY} & ~({taken})" if names else _KEY)
            extra = self.rule(f'{key} ":" {value}', "e")
        begun = f'("," {extra})*' if extra else '""'  # what may follow once a member is written
        fresh = f'({extra} ("," {extra})*)?' if extra else '""'  # and before
        for name in reversed(names):
            if properties.get(name, True) is False and name not in required:
                continue
            value = self._value(properties.get(name, others), f"{path}.{name}", depth + 1)
            member = f"{json.dumps(name + ':', ensure_ascii=False)} {value}"
            after, skipped = self.rule(begun, "b"), self.rule(fresh, "f")
            if name in required:
                fresh, begun = f"{member} {after}", f'"," {member} {after}'
            else:
                fresh, begun = f"{member} {after} | {skipped}", f'("," {member})? {after}'
        return f'"{{" {self.rule(fresh, "f")} "}}"'

    # Leaves -----------------------------------------------------------------------------------------------------------

    def _enum(self, schema: Mapping[str, Any], rest: Mapping[str, Any], rule: str, path: str) -> str:
        """The values that fit the rest of the schema too, all where none does; its strings as one terminal."""
        fitting = Draft202012Validator(
            {**{k: self._root[k] for k in ("$defs", "definitions") if k in self._root}, **rest}
        )
        values = []
        for value in schema["enum"]:
            try:
                fits = fitting.is_valid(value)
            except (UnknownType, Unresolvable):
                fits = True
            if fits:
                values.append(value)
        if not values:
            self._note(path, f"{rule}: no value fits")
            values = schema["enum"]
        strings = [value for value in values if isinstance(value, str) and value]
        others = [self._literal(value) for value in values if not (isinstance(value, str) and value)]
        if strings:
            spelled = " | ".join(json.dumps(string, ensure_ascii=False) for string in strings)
            others.insert(0, self._quoted(self._terminal(spelled)))
        return " | ".join(dict.fromkeys(others))

    def _literal(self, value: JsonValue) -> str:
        """Exactly this value, as it is rendered."""
        return " ".join(
            f"<[{part.id}]>" if isinstance(part, Control) else json.dumps(part.text, ensure_ascii=False)
            for part in render.value(value)
            if isinstance(part, Control) or part.text
        )

    def _quoted(self, inner: str) -> str:
        return f"<[{QUOTE}]> {inner} <[{QUOTE}]>"

    def _anything(self) -> str:
        if "any" not in self._known:
            self._known["any"] = "any"
            key = self._terminal(_KEY)
            scalars = f'{self._quoted(self._terminal(FREE))} | {self._terminal(_NUMBER)} | "true" | "false" | "null"'
            self.rules += [
                f"any: {scalars} | any_list | any_object",
                'any_list: "[" (any ("," any)*)? "]"',
                f'any_object: "{{" ({key} ":" any ("," {key} ":" any)*)? "}}"',
            ]
        return "any"

    def _terminal(self, body: str) -> str:
        return self._terminals.setdefault(body, f"T{len(self._terminals)}")

    def _note(self, path: str, rule: str) -> None:
        self.notes.append(f"{path}: {rule}")


def _disjoint(parts: list[Schema]) -> bool:
    """Whether no value can fit two of the schemas, because their types differ."""
    kinds = ["number" if part.get("type") == "integer" else part.get("type") for part in parts]
    return all(isinstance(kind, str) for kind in kinds) and len(set(kinds)) == len(kinds)


def _repeated(item: str, low: int, high: int | None) -> str:
    """Further items of a list, each after a comma."""
    return '""' if high == 0 else f'("," {item}){{{max(0, low)},{"" if high is None else high}}}'
