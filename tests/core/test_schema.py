"""The native declaration: which schema becomes which declared parameters, and that nothing else ever comes out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from g4agent.schema import MAX_NODES, declaration_schema, declare, signature_text
from g4agent.tools import tool

TYPES = {"string", "integer", "number", "boolean", "array", "object"}


class Color(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    meows: int


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: bool = True


class Node(BaseModel):
    value: int
    children: list[Node] = []


@dataclass
class Point:
    x: float
    y: float = 0.0


class Address(TypedDict):
    street: str


def parameter(annotation: Any, *default: Any) -> dict[str, Any]:
    """The declared parameter of a tool with one parameter of that type."""

    def function(value: Any) -> None:
        """Probe."""

    function.__annotations__ = {"value": annotation}
    function.__defaults__ = default
    node: dict[str, Any] = tool(where="host")(function).declaration.parameters["properties"]["value"]
    return node


FREE: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
Days: TypeAlias = Annotated[int, Field(ge=1, le=7, description="Days to look at.")]

CASES: list[tuple[Any, dict[str, Any]]] = [
    (str, {"type": "string"}),
    (bool, {"type": "boolean"}),
    (int | None, {"type": "integer", "nullable": True}),
    (Days, {"description": "Days to look at (1 to 7).", "type": "integer"}),
    (Annotated[float, Field(gt=0)], {"description": "more than 0", "type": "number"}),
    (Annotated[int, Field(multiple_of=5)], {"description": "a multiple of 5", "type": "integer"}),
    (Annotated[str, Field(min_length=1)], {"description": "not empty", "type": "string"}),
    (Annotated[str, Field(pattern="^[A-Z]+$")], {"description": "matches ^[A-Z]+$", "type": "string"}),
    (Annotated[str, Field(examples=["O-1"])], {"description": 'e.g. "O-1"', "type": "string"}),
    (date, {"description": "date, e.g. 2026-01-31", "type": "string"}),
    (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
    (Literal[1, 2], {"description": "one of 1, 2", "type": "integer"}),
    (Literal["a", None], {"type": "string", "enum": ["a"], "nullable": True}),
    (Literal["auto"] | int, {"description": "or an integer", "type": "string", "enum": ["auto"]}),
    (Color, {"description": "A colour.", "type": "string", "enum": ["red", "blue"]}),
    (Level, {"description": "one of 1, 2", "type": "integer"}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (set[str], {"description": "no duplicates", "type": "array", "items": {"type": "string"}}),
    (
        Annotated[list[Color], Field(max_length=3)],
        {
            "description": "at most 3 items",
            "type": "array",
            "items": {"description": "A colour.", "type": "string", "enum": ["red", "blue"]},
        },
    ),
    (
        tuple[int, str],
        {
            "description": "exactly 2 items, in this order: an integer, text",
            "type": "array",
            "items": {"description": "or text", "type": "integer"},
        },
    ),
    (dict[str, int], {"description": "any keys, each with an integer", **FREE}),
    (dict[str, Address], {"description": "any keys, each with {street: string}", **FREE}),
    (dict[str, list[int]], {"description": "any keys, each with integer[]", **FREE}),
    (dict[str, Any], {"description": "any keys", **FREE}),
    (Any, {"description": "any JSON value", "type": "string"}),
    (Decimal | None, {"description": "or text", "type": "number", "nullable": True}),
    (int | str, {"description": "or text", "type": "integer"}),
    (str | list[str], {"description": "or a list", "type": "string"}),
    (int | float, {"type": "number"}),
    (
        date | datetime,
        {"description": "date, e.g. 2026-01-31 or date and time, e.g. 2026-01-31T09:30:00Z", "type": "string"},
    ),
    (
        Point,
        {
            "type": "object",
            "properties": {"x": {"type": "number"}, "y": {"description": "default 0.0", "type": "number"}},
            "required": ["x"],
        },
    ),
    (Address, {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]}),
    (
        Cat | Dog,
        {
            "description": 'either {kind: "cat", meows} or {kind: "dog", barks?}',
            "type": "object",
            "properties": {
                "kind": {"type": "string", "enum": ["cat", "dog"]},
                "meows": {"type": "integer"},
                "barks": {"description": "default true", "type": "boolean"},
            },
            "required": ["kind"],
        },
    ),
    (
        Node,
        {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"description": "again a Node", **FREE}},
            },
            "required": ["value"],
        },
    ),
]


@pytest.mark.parametrize(
    ("annotation", "declared"), CASES, ids=lambda v: str(v)[:60] if not isinstance(v, dict) else ""
)
def test_each_python_type_has_its_declaration(annotation: Any, declared: dict[str, Any]) -> None:
    """A type that is declared otherwise reaches the model wrong: an empty type, a lost range, an `anyOf` argument."""
    assert parameter(annotation) == declared


def test_a_default_is_said_and_makes_the_parameter_optional() -> None:
    """The template drops `default`: without the words the model has to guess what leaving out means."""
    assert parameter(int, 3) == {"description": "default 3", "type": "integer"}
    assert parameter(Color, Color.RED)["description"] == 'A colour (default "red").'
    assert parameter(list[int], []) == {"type": "array", "items": {"type": "integer"}}


RAW: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
    ({"type": ["integer", "string"]}, {"description": "or text", "type": "integer"}),
    ({"const": "x"}, {"type": "string", "enum": ["x"]}),
    ({"enum": [1, "a", None]}, {"description": 'only 1, or "a"', "type": "integer", "nullable": True}),
    ({"minimum": 1}, {"description": "at least 1", "type": "number"}),
    ({"type": "null"}, {"description": "null", "type": "string", "nullable": True}),
    ({"allOf": [{"type": "number", "minimum": 1}, {"type": "integer", "minimum": 3}]}, {"type": "integer"}),
    ({"required": ["a"], "type": "object"}, {"type": "object", "required": ["a"]}),
    ({"$ref": "#/$defs/a~1b%20c", "description": "Mine"}, {"description": "Mine (at most 2)", "type": "integer"}),
    ({"type": "object", "additionalProperties": True}, {"description": "any keys", **FREE}),
    ({"type": "object", "additionalProperties": False}, FREE),
    ({"type": "array"}, {"type": "array", "items": {"description": "any JSON value", "type": "string"}}),
]


@pytest.mark.parametrize(("schema", "part"), RAW, ids=lambda v: json.dumps(v)[:60])
def test_schemas_that_no_python_type_gives(schema: dict[str, Any], part: dict[str, Any]) -> None:
    """Tools from elsewhere (MCP, commands) bring any JSON Schema; each of these renders broken if passed through."""
    root = {"type": "object", "properties": {"v": schema}, "$defs": {"a/b c": {"type": "integer", "maximum": 2}}}
    node = declaration_schema(root)["properties"]["v"]
    assert {key: node.get(key) for key in part} == part


def test_what_cannot_be_said_is_noted() -> None:
    """A rule that the model never hears of must at least be known to the developer."""
    schema = {
        "type": "object",
        "minProperties": 1,
        "properties": {"a-b": {"type": "string", "not": {"const": "x"}}, "far": {"$ref": "https://example.com/s"}},
    }
    assert declare(schema).notes == (
        "a-b: the native syntax is not made for a name like this",
        "a-b: the rule 'not' is not shown",
        "far: the reference https://example.com/s is not followed",
        "arguments: at least 1 key",
    )


def test_the_whole_is_always_an_object_without_a_description() -> None:
    """`parameters` without a type renders unbalanced braces, and its description is not rendered at all."""
    for schema in ({}, {"type": "string"}, {"description": "All", "type": "object"}, {"$ref": "#"}):
        assert declaration_schema(schema) == FREE


def test_a_schema_that_explodes_stays_small() -> None:
    """Twelve definitions that all refer to each other unroll to 12! nodes unless they are cut."""
    names = [f"d{i}" for i in range(12)]
    every = {name: {"$ref": f"#/$defs/{name}"} for name in names}
    root = {"type": "object", "properties": every, "$defs": {n: {"type": "object", "properties": every} for n in names}}
    assert sum(1 for _ in nodes(declaration_schema(root))) < 2 * MAX_NODES


def test_the_signature_is_one_short_line() -> None:
    """Every error message ends with it: nested objects must not flood the model's context."""

    @tool(where="host")
    def add(
        sku: str, pet: Cat | None = None, colors: tuple[Color, ...] = (), points: list[Point | None] | None = None
    ) -> None:
        """Adds."""

    assert signature_text("add", add.declaration.parameters) == (
        'add(sku: string, pet?: {kind: "cat", meows: integer}|null, colors?: ("red"|"blue")[], '
        "points?: ({x: number, y?: number}|null)[]|null)"
    )
    wide = {"type": "object", "properties": {f"p{i}": {"type": "object", "properties": {"x": {}}} for i in range(20)}}
    assert "p19?: object)" in signature_text("f", declaration_schema(wide))


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for each in [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]:
        yield from nodes(each)


def check_dialect(node: dict[str, Any], root: bool = True) -> None:
    """Asserts that a node uses only what the official template renders faithfully."""
    for each in nodes(node):
        kind = each["type"]
        assert kind in TYPES
        allowed = {"type", "description", "nullable"}
        allowed |= {"object": {"properties", "required"}, "array": {"items"}, "string": {"enum"}}.get(kind, set())
        assert each.keys() <= allowed
        assert (kind == "object") == ("properties" in each and "required" in each)
        assert (kind == "array") == ("items" in each)
        assert each.get("nullable", True) is True
        assert each.get("description", "some") and isinstance(each.get("description", ""), str)
        assert set(each.get("required", ())) <= each.get("properties", {}).keys()
        if "enum" in each:
            assert each["enum"] and all(isinstance(value, str) for value in each["enum"])


def with_keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas with any mixture of keywords, well formed but not necessarily sensible."""
    kinds = st.sampled_from([*sorted(TYPES), "null"])
    names = st.sampled_from(["a", "b", "type", "properties", "x-y"])
    many = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(names, inner, max_size=3),
            "required": st.lists(names, max_size=2, unique=True),
            "items": inner,
            "prefixItems": many,
            "additionalProperties": inner,
            "anyOf": many,
            "oneOf": many,
            "allOf": many,
            "not": inner,
            "$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/nowhere", "other.json"]),
            "enum": st.lists(st.none() | st.booleans() | st.integers() | st.text(max_size=3), min_size=1, max_size=4),
            "const": st.none() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
            "minimum": st.integers(0, 5),
            "maximum": st.floats(0, 5),
            "minLength": st.integers(0, 5),
            "maxItems": st.integers(0, 5),
            "pattern": st.just("^a"),
            "format": st.sampled_from(["date", "made-up"]),
            "default": st.none() | st.integers() | st.text(max_size=3),
            "description": st.text(max_size=8),
        },
    )


schemas: st.SearchStrategy[Any] = st.recursive(st.booleans() | st.just({}), with_keywords, max_leaves=8)


@settings(max_examples=150)
@given(schemas.filter(lambda s: isinstance(s, dict)), st.dictionaries(st.sampled_from("ab"), schemas))
def test_any_schema_gives_the_dialect_and_always_the_same(schema: dict[str, Any], defs: dict[str, Any]) -> None:
    """Whatever a tool pack brings: it ends, uses only faithful keys, is deterministic and leaves its input alone."""
    root = {**schema, "$defs": defs}
    Draft202012Validator.check_schema(root)
    before = copy.deepcopy(root)
    declared = declare(root)
    check_dialect(declared.parameters)
    assert declare(root) == declared
    assert root == before


def test_declaring_loosely_never_loosens_or_tightens_validation() -> None:
    """The declaration says `integer, or text`; the validator must go on taking text, and refusing what is no SKU."""
    seen: list[Any] = []

    @tool(where="host")
    def find(key: int | Annotated[str, Field(pattern="^S-")], tree: Node | None = None) -> None:
        """Finds."""
        seen.append(key)

    calls: Callable[[Any], object] = find.invoke_sync
    assert find.declaration.parameters["properties"]["key"]["type"] == "integer"
    calls({"key": "S-1", "tree": {"value": 1, "children": [{"value": 2, "children": [{"value": 3}]}]}})
    assert seen == ["S-1"]
    with pytest.raises(Exception, match="key: expected"):
        calls({"key": "T-1"})
