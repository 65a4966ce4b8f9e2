"""The mask against schemas and a validator that are not ours: hypothesis-jsonschema's schemas, and jsonschema-rs."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import jsonschema_rs
import pytest
from gemma4_masks import compiles, matcher, one, refused_at, tool_with, walk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

from g4agent.errors import ToolDefinitionError
from g4agent.gemma4.grammar import call_grammar

WORDS = st.sampled_from(["a", "b2", "Key", "z_z", "Zip-code"])
KEY = re.compile("[A-Za-z_][A-Za-z0-9_.-]{0,63}")
COUNTS = Counter[str]()


def schemas(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas over everything that the issue names, including what no grammar can say."""
    text = st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "minLength": st.integers(0, 2),
            "maxLength": st.integers(2, 6),
            "pattern": st.sampled_from(["^[a-c]+$", "b", "^$|^ab"]),
        },
    )
    number = st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number", ["integer", "null"]])},
        optional={
            "minimum": st.integers(-20, 3),
            "exclusiveMaximum": st.integers(4, 40),
            "multipleOf": st.sampled_from([1, 2, 5, 0.5]),
        },
    )
    leaf = (
        text
        | number
        | st.sampled_from(
            [{"type": "boolean"}, {"enum": ["a", 1, None, [1]]}, {"const": {"a": 1}}, {}, {"not": {"type": "string"}}]
        )
    )
    if depth == 0:
        return leaf
    inner = schemas(depth - 1)
    array = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(2, 3),
            "uniqueItems": st.booleans(),
        },
    )
    members = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(WORDS, inner, max_size=3)},
        optional={
            "required": st.lists(WORDS, max_size=2, unique=True),
            "additionalProperties": st.booleans() | inner,
        },
    )
    several = st.lists(inner, min_size=1, max_size=2)
    mixed = st.sampled_from(["anyOf", "oneOf", "allOf"]).flatmap(lambda key: st.fixed_dictionaries({key: several}))
    return leaf | array | members | mixed


def mask_is_whole(schema: dict[str, Any]) -> bool | None:
    """Whether the grammar says all of the schema; None where it cannot be a tool's."""
    try:
        return not call_grammar([tool_with(one(schema, "x"))], accepts=compiles).unmasked
    except ToolDefinitionError:
        return None


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(schema=schemas(2), data=st.data())
def test_what_the_schema_allows_the_mask_allows(schema: dict[str, Any], data: st.DataObject) -> None:
    """A mask that is too narrow would keep the model from saying what is right, and nobody would ever see it."""
    if mask_is_whole(schema) is None:
        return
    try:
        value = data.draw(from_schema(schema))
    except Exception:  # a schema that nothing fits has no strategy
        COUNTS["no value"] += 1
        return
    if not jsonschema_rs.is_valid(schema, value) or not _sayable(value):
        return
    COUNTS["accepted"] += 1
    at = refused_at(one(schema, "x"), {"x": value})
    assert at is None, (schema, value, at)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(schema=schemas(2), seed=st.integers(0, 10**9))
def test_what_the_mask_allows_the_schema_allows(schema: dict[str, Any], seed: int) -> None:
    """Where nothing is listed as unmasked, a call that the mask let through is one that jsonschema-rs accepts."""
    if not mask_is_whole(schema):
        return
    follower = matcher(call_grammar([tool_with(one(schema, "x"))], accepts=compiles).text)
    if follower.is_stopped():
        return
    arguments = walk(one(schema, "x"), random.Random(seed))
    if arguments is not None:
        COUNTS["walked"] += 1
        assert jsonschema_rs.is_valid(one(schema, "x"), arguments), (schema, arguments)


@pytest.mark.parametrize("what", ["accepted", "walked"])
def test_enough_was_tried(what: str) -> None:
    """A test that skips its cases proves nothing."""
    assert COUNTS[what] > 100, COUNTS


def _sayable(value: Any) -> bool:
    """Whether a value is within the limits that docs/calls.md names, for digits of a number and for free keys."""
    match value:
        case bool() | None:
            return True
        case int() | float():
            return abs(value) < 1e15 and (value == 0 or abs(value) >= 1e-4)
        case str():
            return value.isascii()
        case list():
            return all(map(_sayable, value))
        case dict():
            return all(KEY.fullmatch(key) and _sayable(item) for key, item in value.items())
    raise AssertionError(value)
