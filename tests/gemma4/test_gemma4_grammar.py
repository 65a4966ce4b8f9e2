"""The grammar of calls, in llguidance itself: what is valid is accepted to the last token, what is not is refused at
the token that makes it wrong."""

from __future__ import annotations

import random
from typing import Any

import pytest
from gemma4_masks import TOKENIZER, matcher, one, refused_at, tool_with, walk
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from g4agent.gemma4 import render
from g4agent.gemma4.grammar import answer_grammar, call_grammar
from g4agent.gemma4.grammar.strings import FORMATS
from g4agent.gemma4.tokens import RESPONSE_OPEN, encode_segments

ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
    "required": ["street"],
    "additionalProperties": False,
}
TREE = {
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/Node"}},
    "required": ["node"],
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
            "required": ["v"],
        }
    },
}

CASES: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("string", {"type": "string"}, ["", "a", 'say "hi", {x}', "zwei\nZeilen €"], [1, True, None, ["a"]]),
    ("integer", {"type": "integer"}, [0, -7, 123456789], [1.5, "1", None]),
    ("range", {"type": "integer", "minimum": 3, "maximum": 12}, [3, 9, 12], [2, 13, -3, 100]),
    ("open range", {"type": "integer", "exclusiveMinimum": 0}, [1, 99999], [0, -1]),
    ("multiple", {"type": "integer", "multipleOf": 5}, [0, 5, 100], [3, 101]),
    ("number", {"type": "number"}, [0.5, -3, 1e20, 2.5e-7], ["0.5", True]),
    ("number range", {"type": "number", "minimum": 0, "maximum": 1}, [0, 0.25, 1], [1.5, -0.1]),
    ("boolean", {"type": "boolean"}, [True, False], ["true", 0, None]),
    ("null", {"type": "null"}, [None], [0, "null"]),
    ("enum", {"enum": ["red", "green", 3, None, True]}, ["red", 3, None, True], ["blue", "re", 4, False]),
    ("typed enum", {"type": "string", "enum": ["a", 1]}, ["a"], [1]),
    ("const", {"const": {"b": [1, "x"], "a": None}}, [{"b": [1, "x"], "a": None}], [{"b": [1, "y"], "a": None}, {}]),
    ("length", {"type": "string", "minLength": 2, "maxLength": 4}, ["ab", "abcd", "äöü"], ["a", "abcde"]),
    ("pattern", {"type": "string", "pattern": "^[A-Z]{2}-\\d+$"}, ["AB-1"], ["ab-1", "AB-", "AB-1x"]),
    ("loose pattern", {"type": "string", "pattern": "cat|^dog$"}, ["a cat!", "dog"], ["dogs", "ca"]),
    ("slash", {"type": "string", "pattern": "^/a/b$"}, ["/a/b"], ["/a"]),
    ("array", {"type": "array", "items": {"type": "integer"}}, [[], [1], [1, 2, 3]], [["a"], 1, [1, None]]),
    ("bounded", {"type": "array", "items": {}, "minItems": 1, "maxItems": 2}, [[1], ["a", {}]], [[], [1, 2, 3]]),
    (
        "tuple",
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False, "minItems": 1},
        [[1], [1, "a"]],
        [[], ["a"], [1, "a", 2]],
    ),
    ("object", ADDRESS, [{"street": "a"}, {"street": "a", "zip": "12345"}], [{}, {"zip": "12345"}, {"street": 1}]),
    ("closed", ADDRESS, [], [{"street": "a", "city": "b"}, {"street": "a", "zip": "1234"}]),
    ("map", {"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"a": 1, "b": 2}], [{"a": "1"}]),
    ("anyOf", {"anyOf": [{"type": "string"}, {"type": "null"}]}, ["a", None], [1, False]),
    ("oneOf", {"oneOf": [{"type": "integer", "maximum": 5}, ADDRESS]}, [4, {"street": "a"}], [6, "a"]),
    (
        "allOf",
        {"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 4}]},
        [2, 4],
        [1, 5, "2"],
    ),
    ("type list", {"type": ["integer", "null"]}, [1, None], ["a", 1.5]),
    ("untyped", {"minimum": 3}, [5, "a", [], None], [2]),
    ("free", {}, [1, "a", None, [1, {"a": "b"}], {"k": [True]}], []),
    ("siblings", {"type": "string", "anyOf": [{"maxLength": 2}, {"pattern": "^z"}]}, ["ab", "zebra"], ["abc"]),
]


@pytest.mark.parametrize(("schema", "good", "bad"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_fits_is_accepted_and_what_does_not_is_refused(schema: Any, good: list[Any], bad: list[Any]) -> None:
    validator = Draft202012Validator(schema)
    for value in good:
        assert validator.is_valid(value), value
        assert refused_at(one(schema, "x"), {"x": value}) is None, value
    for value in bad:
        assert not validator.is_valid(value), value
        assert refused_at(one(schema, "x"), {"x": value}) is not None, value


def test_names_keys_and_required_arguments_are_masked() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}, "c": {}}, "required": ["b"]}
    assert refused_at(schema, {"b": 1}) is None
    assert refused_at(schema, {"a": 1, "b": 2, "c": 3}) is None
    assert refused_at(schema, {"a": 1, "c": 3}) == "call:act{a:1,"
    assert refused_at(schema, {"b": 1, "d": 3}) == "call:act{b:1,"
    assert refused_at(schema, {}) == "call:act"  # `{}` is one token
    assert refused_at(schema, {"b": 1}, name="other") == "call:"


def test_no_spaces_around_numbers_with_bounds() -> None:
    either = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 1}]}
    text = call_grammar([tool_with(one(either, "x"))]).text
    for said, taken in (("call:act{x:12}", True), ("call:act{x: 12}", False), ("call:act{x:12 }", False)):
        ids = TOKENIZER.encode(said)
        assert (matcher(text).try_consume_tokens(ids) == len(ids)) is taken, said


def test_recursive_references() -> None:
    assert refused_at(TREE, {"node": {"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3}]}}) is None
    assert refused_at(TREE, {"node": {"v": 1, "kids": [{"kids": []}]}}) is not None


@pytest.mark.parametrize(
    ("schema", "note"),
    [
        ({"type": "array", "uniqueItems": True}, "arguments.x: uniqueItems"),
        ({"not": {"type": "string"}}, "arguments.x: not"),
        ({"oneOf": [{"minimum": 3}, {"type": "integer"}]}, "arguments.x: oneOf, as anyOf"),
        ({"allOf": [{"type": "string"}, {"type": "boolean"}]}, "arguments.x: type"),
        ({"type": "string", "const": 1}, "arguments.x: const: no value fits"),
        ({"type": "string", "pattern": "^(?=a)b"}, "arguments.x: pattern ^(?=a)b"),
        ({"type": "string", "format": "regex"}, "arguments.x: format regex"),
        ({"type": "number", "multipleOf": 0.1}, "arguments.x: multipleOf"),
        ({"type": "object", "properties": {"y": {"minProperties": 1}}}, "arguments.x.y: minProperties"),
    ],
)
def test_a_rule_that_cannot_be_masked_is_listed_and_the_rest_stays_masked(schema: Any, note: str) -> None:
    grammar = call_grammar([tool_with(one(schema, "x"))])
    assert grammar.unmasked == {"act": (note,)} and tool_with(one(schema, "x")).unmasked == (note,)
    assert refused_at(one(schema, "x"), {"y": 1}) == "call:act{"


def test_a_schema_that_the_engine_refuses_loosens_only_its_own_tool() -> None:
    odd = one({"type": "string", "pattern": "a"}, "x")
    tools = [tool_with(one({"type": "integer"}, "x"), "good"), tool_with(odd, "odd")]
    grammar = call_grammar(tools, accepts=lambda text: "(a)" not in text)
    assert list(grammar.unmasked) == ["odd"]
    for name, value, taken in (("odd", 7, True), ("good", 7, True), ("good", "a", False)):
        ids = encode_segments(TOKENIZER, render.tool_call(name, {"x": value}))[1:]
        assert (matcher(grammar.text).try_consume_tokens(ids) == len(ids)) is taken


def test_without_parallel_calls_the_response_must_follow() -> None:
    call = encode_segments(TOKENIZER, render.tool_call("act", {}))[1:]
    follower = matcher(call_grammar([tool_with({"type": "object"})], parallel=False).text)
    assert follower.try_consume_tokens(call) == len(call)
    assert follower.compute_ff_tokens() == [RESPONSE_OPEN]


def test_an_answer_is_json_of_its_schema() -> None:
    text, good = answer_grammar(one({"type": "integer"}, "x")), TOKENIZER.encode('{"x": 5}')
    follower = matcher(text)
    assert follower.try_consume_tokens(good) == len(good)
    assert follower.is_accepting()
    assert matcher(text).try_consume_tokens(TOKENIZER.encode('{"x": "a"}')) < 7


def test_a_spelled_out_delimiter_stays_text() -> None:
    """The four characters of a delimiter in a string are content, not its end."""
    assert refused_at(one({"type": "string"}, "x"), {"x": '<|"|>,y:1}<tool_call|>'}) is None


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**9))
def test_every_string_of_a_format_is_one(name: str, seed: int) -> None:
    """Random walks through the grammar: each must satisfy the checker that validates calls."""
    schema = one({"type": "string", "format": name}, "x")
    arguments = walk(schema, random.Random(seed))
    if arguments is not None:
        tool_with(schema).validate(arguments)


def values(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Random schemas of what the grammar claims to say in full."""
    text = st.fixed_dictionaries({"type": st.just("string")}, optional={"maxLength": st.integers(3, 9)})
    number = st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={"minimum": st.integers(-9, 0), "maximum": st.integers(1, 99)},
    )
    leaf = text | number | st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"enum": ["a", "bc", 3, None]}, {}])
    if depth == 0:
        return leaf
    inner = values(depth - 1)
    array = st.fixed_dictionaries(
        {"type": st.just("array"), "items": inner},
        optional={"minItems": st.integers(0, 1), "maxItems": st.integers(1, 4)},
    )
    members = st.dictionaries(st.sampled_from(["a", "b2", "Key", "z_z"]), inner, max_size=3)
    closed = members.flatmap(
        lambda found: st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.just(found),
                "required": st.just([name for i, name in enumerate(found) if i % 2]),
                "additionalProperties": st.just(False),
            }
        )
    )
    union = st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)})
    return leaf | array | closed | union


@settings(max_examples=150)
@given(schema=values(2), seed=st.integers(0, 10**9))
def test_whatever_the_mask_allows_is_read_strictly_and_validates(schema: dict[str, Any], seed: int) -> None:
    arguments = walk(one(schema, "x"), random.Random(seed))
    if arguments is not None:
        tool_with(one(schema, "x")).validate(arguments)


@settings(max_examples=150)
@given(
    schema=values(2),
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-99, 120)
        | st.text("ab €{}:,", max_size=12)
        | st.sampled_from(["bc", 3]),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b2", "Key", "z_z"]), inner),
        max_leaves=8,
    ),
)
def test_mask_and_validator_agree(schema: dict[str, Any], value: Any) -> None:
    valid = Draft202012Validator(schema).is_valid(value)
    assert (refused_at(one(schema, "x"), {"x": value}) is None) is valid
