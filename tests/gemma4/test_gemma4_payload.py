"""The strict reader of calls: what is native syntax, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_samples import nasty_text, segments

from g4agent.gemma4.payload import MAX_DEPTH, CallSyntaxError, fold, read_number, read_strict, show
from g4agent.gemma4.tokens import Control, Text


@pytest.mark.parametrize(
    ("payload", "name", "arguments"),
    [
        ("call:f{}", "f", {}),
        ("call:google:tool.shell-2{}", "google:tool.shell-2", {}),
        ("call:f{a:1,b:-2.50,c:1e-07,d:1E+2}", "f", {"a": 1, "b": -2.5, "c": 1e-07, "d": 100.0}),
        ("call:f{a:true,b:false,c:null}", "f", {"a": True, "b": False, "c": None}),
        ('call:f{a:<|"|><|"|>,b:<|"|> {x}, [y]\n"\\n <|"|>}', "f", {"a": "", "b": ' {x}, [y]\n"\\n '}),
        ('call:f{o:{p:{},q:[]},l:[[1],{a:[<|"|>b<|"|>]}]}', "f", {"o": {"p": {}, "q": []}, "l": [[1], {"a": ["b"]}]}),
        ("call:f{Content-Type:1,größe:2,0:3,a.b/c:4}", "f", {"Content-Type": 1, "größe": 2, "0": 3, "a.b/c": 4}),
    ],
)
def test_well_formed(payload: str, name: str, arguments: dict[str, Any]) -> None:
    """Types are JSON's: an integer stays one, an exponent makes a float, strings are raw."""
    read = read_strict(segments(payload))
    assert read == (name, arguments)
    assert [type(v) for v in read[1].values()] == [type(v) for v in arguments.values()]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("", "starts with call:NAME{, at the end"),
        ("f{}", "starts with call:NAME{, at: f{}"),
        ("call:{}", "starts with call:NAME{"),
        ("call:f(a:1)", "starts with call:NAME{"),
        ("call:f {}", "starts with call:NAME{"),
        ("call:f{", "expected a key, at the end"),
        ("call:f{a:1", "expected , or } after a value, at the end"),
        ("call:f{a:1}}", "nothing may follow the closing }, at: }"),
        ("call:f{a:1,}", "expected a key"),
        ("call:f{a:1, b:2}", "expected a key"),
        ("call:f{a: 1}", "must stand between delimiters"),
        ("call:f{a=1}", "expected a colon after the key a, at: =1}"),
        ("call:f{a b:1}", "expected a colon after the key a"),
        ("call:f{a:1,a:2}", "the key a is there twice"),
        ("call:f{o:{a:1,a:1}}", "the key a is there twice"),
        ("call:f{a:}", "must stand between delimiters"),
        ("call:f{a:x}", "must stand between delimiters"),
        ("call:f{a:True}", "must stand between delimiters"),
        ("call:f{a:'x'}", "must stand between delimiters"),
        ("call:f{a:007}", "must stand between delimiters"),
        ("call:f{a:1e999}", "must stand between delimiters"),
        ("call:f{a:NaN}", "must stand between delimiters"),
        ("call:f{a:٣}", "must stand between delimiters"),
        ("call:f{a:[1,]}", "must stand between delimiters"),
        ("call:f{a:[1}", "expected , or ] after an item"),
        ('call:f{a:x<|"|>}', 'at: x"}'),
        ('call:f{a:<|"|>x}', "no closing delimiter"),
        ('call:f{a:<|"|>x<|"|>y<|"|>}', "expected , or }"),
        ('call:f{a:<|"|>x<channel|><|"|>}', "no closing delimiter"),
        ('call:f{<|"|>a<|"|>:1}', "expected a key"),
        ("call:f{a:" + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "nested too deeply"),
        ("call:f{a:" + "{b:" * 5000, "nested too deeply"),
        ("call:f{a:" + "9" * 5000 + "}", "must stand between delimiters"),
    ],
)
def test_malformed(payload: str, message: str) -> None:
    """The reader forgives nothing: what it refuses goes to repair, which knows the schema. Its message says where."""
    with pytest.raises(CallSyntaxError) as error:
        read_strict(segments(payload))
    assert message in error.value.message
    assert '<|"|>' not in error.value.message, "a message must not teach the model to spell control strings"


@settings(max_examples=300)
@given(
    parts=st.lists(nasty_text | st.sampled_from(["call:f{", "a:", "1", ",", "}", "[", "]", 52, 49, 100]), max_size=12)
)
def test_any_payload_is_read_or_refused(parts: list[Any]) -> None:
    """Whatever comes, the answer is a call or `CallSyntaxError`."""
    payload = [Text(part) if isinstance(part, str) else Control(part) for part in parts]
    try:
        name, arguments = read_strict(payload)
    except CallSyntaxError:
        return
    assert name and isinstance(arguments, dict)


def test_folding_keeps_tokens_and_their_spelling_apart() -> None:
    """Repair works on the folded string: a spelled delimiter must not look like one there."""
    folded = fold([Text('a<|"|>'), Control(52), Text("\udc05")])
    assert len(folded) == len('a<|"|>') + 2
    assert folded[-1] == "\N{REPLACEMENT CHARACTER}"
    assert show(folded) == 'a<|"|>"\N{REPLACEMENT CHARACTER}'


@pytest.mark.parametrize("text", ["", "-", "01", "1.", ".5", "1e", "+1", "0x1", "1_000", "1e400", "∞"])
def test_no_number(text: str) -> None:
    """Only JSON's numbers are numbers; anything else may be meant as text."""
    assert read_number(text) is None
