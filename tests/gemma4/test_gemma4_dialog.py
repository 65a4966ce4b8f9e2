"""Conformance with Google's `dialog`: what ours writes its grammar reads, what it writes ours reads, and they are equal
where the two agree on the format. Where they do not is the table at the end, with the reason."""

from __future__ import annotations

from typing import Any

import dialog_reference as dialog
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark.exceptions import LarkError
from native_samples import CONTROL_IDS, json_values, segments

from g4agent.gemma4 import render
from g4agent.gemma4.payload import CallSyntaxError, read_strict
from g4agent.gemma4.tokens import to_text

MANY = settings(max_examples=400)
SOME = settings(max_examples=120)  # its Earley parser needs tens of milliseconds a piece
keys = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)
texts = st.text(max_size=12).filter(lambda text: not any(control in text for control in CONTROL_IDS))
plain_numbers = st.integers(-(2**70), 2**70) | st.sampled_from([0.5, -12.25, 1234.0625])
plain_arguments = st.dictionaries(keys, json_values(texts, keys, plain_numbers), max_size=4)

_described = st.fixed_dictionaries({}, optional={"description": texts.filter(bool), "nullable": st.just(True)})


def _with(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda base, more: base | more, _described, st.fixed_dictionaries(parts))


def _object(member: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    properties = st.dictionaries(keys, member, min_size=1, max_size=3)
    return properties.flatmap(
        lambda found: _with(
            type=st.just("object"),
            properties=st.just(found),
            required=st.lists(st.sampled_from(sorted(found)), min_size=1, unique=True),
        )
    )


schemas = st.recursive(
    _with(type=st.sampled_from(["string", "integer", "number", "boolean"]))
    | _with(type=st.just("string"), enum=st.lists(texts, min_size=1, max_size=3)),
    lambda member: _object(member) | _with(type=st.just("array"), items=member),
    max_leaves=6,
)
declarations = st.builds(
    lambda described, parameters: {
        "description": described,
        "parameters": {k: v for k, v in parameters.items() if k in ("type", "properties", "required")},
    },
    texts,
    _object(schemas),
)


def inner(native: str, tag: str) -> str:
    return native.removeprefix(f"<|{tag}>").removesuffix(f"<{tag}|>")


@SOME
@given(called=plain_arguments, declaration=declarations)
def test_its_grammar_reads_what_ours_writes(called: dict[str, Any], declaration: dict[str, Any]) -> None:
    """Calls, responses and declarations."""
    call = to_text(render.tool_call("f", called))
    assert dialog.read(inner(call, "tool_call")) == ("f", called)
    response = to_text(render.tool_responses([("f", called)], opener_present=False, thinking=False))
    assert dialog.read(inner(response, "tool_response")) == ("f", called)
    declared = to_text(render.declaration("f", declaration["description"], declaration["parameters"]))
    assert dialog.read(inner(declared, "tool")) == ("f", dialog.normalised(declaration))


@MANY
@given(called=plain_arguments)
def test_our_reader_reads_what_it_writes(called: dict[str, Any]) -> None:
    """Calls in any order of keys, as a model may emit them."""
    call = dialog.render_block("tool_call", "call", "f", called)
    assert read_strict(segments(inner(call, "tool_call"))) == ("f", called)


@MANY
@given(declaration=declarations)
def test_declarations_are_equal(declaration: dict[str, Any]) -> None:
    """For normalised schemas the official template and `dialog` write the same declaration, and so do we."""
    ours = to_text(render.declaration("f", declaration["description"], declaration["parameters"]))
    assert ours == dialog.render_block("tool", "declaration", "f", dialog.normalised(declaration))


READ_BY_US_ONLY = [
    ("call:f{a:1e-07}", {"a": 1e-07}, "its NUMBER has no exponent, yet the template and dialog itself write one"),
    ("call:f{Content-Type:1}", {"Content-Type": 1}, "its KEY is an identifier; JSON objects have other keys"),
    ("call:f{größe:1}", {"größe": 1}, "its KEY is ASCII"),
]
READ_BY_DIALOG_ONLY = [
    ("call:f{a:007}", {"a": 7}, "a number with leading zeros may be an identifier that is meant as text"),
    ("call:f{a:1,a:2}", {"a": 2}, "a repeated key has two readings; dialog takes the last"),
    ("call:a b(c){a:1}", {"a": 1}, "tool names are identifiers; its charset has spaces, quotes and brackets"),
]


@pytest.mark.parametrize(("block", "value", "reason"), READ_BY_US_ONLY)
def test_read_by_us_only(block: str, value: Any, reason: str) -> None:
    """If `dialog` starts to read one of these, the row can go."""
    with pytest.raises(LarkError):
        dialog.read(block)
    assert read_strict(segments(block))[1] == value


@pytest.mark.parametrize(("block", "value", "reason"), READ_BY_DIALOG_ONLY)
def test_read_by_dialog_only(block: str, value: Any, reason: str) -> None:
    """Each of these goes to schema-gated repair instead, or is answered with an error."""
    assert dialog.read(block)[1] == value, reason
    with pytest.raises(CallSyntaxError):
        read_strict(segments(block))


WRITTEN_DIFFERENTLY = [
    ({"a": 1.0}, "{a:1.0}", "{a:1}", "the template writes Python's str(), which keeps a float a float"),
    ({"b": 1, "B": 2, "a": 3}, "{a:3,b:1,B:2}", "{b:1,B:2,a:3}", "the template sorts keys, case aside"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "ours", "theirs", "reason"), WRITTEN_DIFFERENTLY)
def test_written_differently(value: Any, ours: str, theirs: str, reason: str) -> None:
    """In values we follow the template, which made the prompts that the models are served with."""
    assert to_text(render.value(value)) == ours, reason
    assert dialog.render_block("tool_call", "call", "f", value) == f"<|tool_call>call:f{theirs}<tool_call|>", reason


DECLARED_DIFFERENTLY = [
    (
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        'a:{type:<|"|><|"|>}',
        'a:{anyOf:[{type:<|"|>STRING<|"|>},{type:<|"|>NULL<|"|>}]}',
        "dialog keeps every key of JSON Schema; the template knows seven, so declarations are normalised before",
    ),
    (
        {"type": "integer", "default": 1, "minimum": 0},
        'a:{type:<|"|>INTEGER<|"|>}',
        'a:{default:1,minimum:0,type:<|"|>INTEGER<|"|>}',
        "the same",
    ),
    (
        {"type": "integer", "enum": [1, 2]},
        'a:{type:<|"|>INTEGER<|"|>}',
        'a:{enum:[1,2],type:<|"|>INTEGER<|"|>}',
        "the template shows enumerations of strings only",
    ),
    (
        {"type": "object"},
        'a:{properties:{},type:<|"|>OBJECT<|"|>}',
        'a:{type:<|"|>OBJECT<|"|>}',
        "the template shows empty properties",
    ),
    (
        {"type": "array", "items": {"type": "string"}, "description": ""},
        'a:{items:{type:<|"|>STRING<|"|>},type:<|"|>ARRAY<|"|>}',
        'a:{description:<|"|><|"|>,items:{type:<|"|>STRING<|"|>},type:<|"|>ARRAY<|"|>}',
        "the template leaves empty descriptions of parameters out",
    ),
]


@pytest.mark.parametrize(("schema", "ours", "theirs", "reason"), DECLARED_DIFFERENTLY)
def test_declared_differently(schema: dict[str, Any], ours: str, theirs: str, reason: str) -> None:
    """In declarations, too, we follow the template."""
    parameters = {"type": "object", "properties": {"a": schema}}
    frame = (
        '<|tool>declaration:f{{description:<|"|>D<|"|>,parameters:{{properties:{{{}}},type:<|"|>OBJECT<|"|>}}}}<tool|>'
    )
    assert to_text(render.declaration("f", "D", parameters)) == frame.format(ours), reason
    content = dialog.normalised({"description": "D", "parameters": parameters})
    assert dialog.render_block("tool", "declaration", "f", content) == frame.format(theirs), reason
