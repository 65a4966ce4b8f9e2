"""Malformed calls: every malformation that was seen in the wild is repaired where the schema leaves one reading, or
answered with an error that shows the signature; never lost, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_samples import ids, segments

from g4agent.gemma4 import render
from g4agent.gemma4.parse import AnswerText, CallEnd, RawCall, parse
from g4agent.gemma4.repair import Malformed, Parsed, read_call
from g4agent.gemma4.tokens import QUOTE, Control, Segment, Text
from g4agent.testing import ByteTokenizer
from g4agent.tools import Tool, tool
from g4agent.toolset import ToolSet

TOKENIZER = ByteTokenizer()


@tool(where="host")
def search(query: str, limit: int = 5, exact: bool = False, lang: Literal["de", "en"] | None = None) -> list[str]:
    """Searches."""
    return [query]


@tool(where="host")
def move(path: str, target: str) -> str:
    """Moves a file."""
    return path + target


@tool(where="host")
def plot(points: list[float], options: dict[str, str] | None = None, title: str = "", size: float = 1.0) -> str:
    """Plots."""
    return title


@tool(where="host")
def show(file_path: str, maxLines: int = 10) -> str:
    """Shows a file."""
    return file_path


@tool(where="host")
def now() -> str:
    """The time."""
    return ""


TOOLS = ToolSet([search, move, plot, show, now])


def read(payload: str, end: Literal["closed", "stopped", "cut"] = "closed", tools: Mapping[str, Tool] = TOOLS) -> Any:
    return read_call(
        RawCall(tuple(s for s in segments(payload) if s.__class__.__name__ != "Text" or s.text), end), tools
    )


REPAIRED: list[tuple[str, dict[str, Any], str]] = [
    # opening delimiter missing, closing present: 26B, up to 6 of 20 calls
    ('call:search{query:weather in Tokyo<|"|>}', {"query": "weather in Tokyo"}, "missing_opening_delimiter"),
    ('call:search{limit:3,query:a, b<|"|>}', {"limit": 3, "query": "a, b"}, "missing_opening_delimiter"),
    ('call:search{query:a<|"|>,limit:3}', {"query": "a", "limit": 3}, "missing_opening_delimiter"),
    ('call:move{path:a<|"|>,target:b<|"|>}', {"path": "a", "target": "b"}, "missing_opening_delimiter"),
    ('call:move{path:a,target:b<|"|>}', {"path": "a", "target": "b"}, "bare_string missing_opening_delimiter"),
    # round brackets
    ('call:search(query:<|"|>a<|"|>,limit:3)', {"query": "a", "limit": 3}, "round_brackets"),
    ("call:search(query='a')", {"query": "a"}, "equals_separator round_brackets single_quotes"),
    # `call` missing
    (':search{query:<|"|>a<|"|>}', {"query": "a"}, "missing_call_prefix"),
    ('search{query:<|"|>a<|"|>}', {"query": "a"}, "missing_call_prefix"),
    # key=value
    ("call:search{query='a',limit=3}", {"query": "a", "limit": 3}, "equals_separator single_quotes"),
    ('call:search{query=<|"|>a<|"|>}', {"query": "a"}, "equals_separator"),
    # quotes of JSON and Python
    ('call:search{query:"a, b: {c}"}', {"query": "a, b: {c}"}, "quoted_json_strings"),
    ('call:search{"query":"a","limit":3}', {"query": "a", "limit": 3}, "quoted_json_strings quoted_key"),
    ('call:search{query:"she said "no" twice"}', {"query": 'she said "no" twice'}, "quoted_json_strings"),
    ("call:search{query:'it's fine'}", {"query": "it's fine"}, "single_quotes"),
    ('call:search{<|"|>query<|"|>:<|"|>a<|"|>}', {"query": "a"}, "quoted_key"),
    # raw text, and a last string that is not closed
    ("call:search{query:weather in Tokyo}", {"query": "weather in Tokyo"}, "bare_string"),
    ("call:search{query:if (x) { y; }}", {"query": "if (x) { y; }"}, "bare_string"),
    ("call:search{query:\nline 1\nline 2}", {"query": "line 1\nline 2"}, "bare_string whitespace"),
    ('call:search{query:<|"|>weather in Tokyo}', {"query": "weather in Tokyo"}, "unclosed_string"),
    ('call:search{query:<|"|>f(x) { }}', {"query": "f(x) { }"}, "unclosed_string"),
    ('call:search{query:<|"|>weather', {"query": "weather"}, "missing_brace unclosed_string"),
    ('call:plot{points:[1],options:{a:<|"|>x}}', {"points": [1], "options": {"a": "x"}}, "unclosed_string"),
    # spaces, newlines, hyphens
    ('call:search{ query : <|"|>a<|"|> ,\n limit : 3 }', {"query": "a", "limit": 3}, "whitespace"),
    ('call: search {query:<|"|>a<|"|>}\n', {"query": "a"}, "whitespace"),
    # keys
    ('call:search{Query:<|"|>a<|"|>}', {"query": "a"}, "renamed_key"),
    ('call:show{file path:<|"|>a<|"|>,maxlines:3}', {"file_path": "a", "maxLines": 3}, "renamed_key spaced_key"),
    ('call:show{file-path:<|"|>a<|"|>}', {"file_path": "a"}, "renamed_key"),
    ("call:show{File Path=a.txt}", {"file_path": "a.txt"}, "bare_string equals_separator renamed_key spaced_key"),
    # the end
    ('call:search{query:<|"|>a<|"|>', {"query": "a"}, "missing_brace"),
    ("call:plot{points:[1,2", {"points": [1, 2]}, "missing_brace"),
    ('call:search{query:<|"|>a<|"|>,}', {"query": "a"}, "trailing_comma"),
    ("call:plot{points:[1,2,],}", {"points": [1, 2]}, "trailing_comma"),
    ("call:now", {}, "missing_brace"),
    ("call:now()", {}, "round_brackets"),
    # literals
    ('call:search{exact:True,lang:None,query:<|"|>a<|"|>}', {"query": "a", "exact": True, "lang": None},
     "python_literals"),
    # types
    ('call:search{query:<|"|>a<|"|>,limit:<|"|>3<|"|>}', {"query": "a", "limit": 3}, "coerced_type"),
    ('call:search{query:<|"|>a<|"|>,exact:<|"|>True<|"|>}', {"query": "a", "exact": True}, "coerced_type"),
    ('call:search{query:<|"|>a<|"|>,lang:<|"|>null<|"|>}', {"query": "a", "lang": None}, "coerced_type"),
    ("call:search{query:3.10}", {"query": "3.10"}, "coerced_type"),
    ('call:plot{points:[<|"|>1<|"|>,2]}', {"points": [1, 2]}, "coerced_type"),
    ('call:plot{points:<|"|>[1, 2.5]<|"|>}', {"points": [1, 2.5]}, "coerced_type"),
    ('call:plot{points:[1],size:<|"|>2e1<|"|>}', {"points": [1], "size": 20.0}, "coerced_type"),
    ("call:search{query:'3',limit:'3'}", {"query": "3", "limit": 3}, "coerced_type single_quotes"),
    ("call:search{query:007}", {"query": "007"}, "bare_string"),
    # hallucinated names
    ('call:tool:search{query:<|"|>a<|"|>}', {"query": "a"}, "renamed_tool"),
    ('call:google:tool:search{query:<|"|>a<|"|>}', {"query": "a"}, "renamed_tool"),
    ('call:default_api.Search{query:<|"|>a<|"|>}', {"query": "a"}, "renamed_tool"),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "arguments", "repairs"), REPAIRED)
def test_repaired(payload: str, arguments: dict[str, Any], repairs: str) -> None:
    """One reading validates: it is taken, and says what was mended."""
    result = read(payload)
    assert isinstance(result, Parsed), result
    assert (result.arguments, result.repairs) == (arguments, tuple(repairs.split()))
    assert result.name in TOOLS
    TOOLS[result.name].validate(result.arguments)


REFUSED = [
    # more than one reading validates
    ('call:plot{points:[1],title:a,size:2<|"|>}', "several ways"),
    ("call:search{query:a, limit: 3}", "several ways"),
    ('call:search{query:"C:\\new"}', "several ways"),
    # none does
    ("call:search{query:None}", "must stand between delimiters"),
    ("call:search{query:}", "must stand between delimiters"),
    ("call:search BEGIN_ARG query END_ARG", "a call starts with"),
    ('call:plot{points:<|"|>[NaN]<|"|>,}', "expected a key"),
    ("call:search{limit:three}", "must stand between delimiters"),
    ('call:search{query:<|"|>a<|"|>,limit:3x}', "must stand between delimiters"),
    ('call:search{query:<|"|>a<|"|>,query:<|"|>b<|"|>}', "twice"),
    ('call:search{query:<|"|>a<|"|>,what:x}', "must stand between delimiters"),
    ('call:search{query:<|"|>a<|"|>}{}', "nothing may follow"),
    ('call:search{query:<|"|>a<channel|>b<|"|>}', "no closing delimiter"),
    ("call:search{" + "limit:{" * 500, ""),
    ("call:plot{points:[" + "a," * 3000 + "}", ""),
]


@pytest.mark.parametrize(("payload", "reason"), REFUSED)
def test_refused(payload: str, reason: str) -> None:
    """Nothing is guessed: the model is told what is wrong, that nothing ran, and how to call the tool."""
    result = read(payload)
    assert isinstance(result, Malformed), result
    assert reason in result.message and "Nothing was run. Call it as " in result.message
    assert f"{result.name}(" in result.message
    assert '<|"|>' not in result.message and "<tool_call|>" not in result.message


def test_well_formed_calls_are_left_alone() -> None:
    """A strict reading is the call, even where it does not fit the schema: validation, not repair, answers that."""
    assert read('call:search{query:<|"|>3<|"|>}') == Parsed("search", {"query": "3"})
    assert read("call:search{query:null}") == Parsed("search", {"query": None})
    assert read('call:search{quantity:<|"|>x<|"|>}') == Parsed("search", {"quantity": "x"})
    assert read('call:search{query:<|"|>a<|"|>,limit:<|"|>x<|"|>}') == Parsed("search", {"query": "a", "limit": "x"})


def test_unknown_tools() -> None:
    """A well-formed call of an unknown tool is a call; a broken one says which tools there are. Names are not guessed
    beyond case and prefix, nor where two tools would fit."""
    assert read("call:serach{}") == Parsed("serach", {})
    broken = read("call:serach{a:}")
    assert (
        isinstance(broken, Malformed) and broken.name == "serach" and "search, move, plot, show, now" in broken.message
    )
    nameless = read("{}")
    assert isinstance(nameless, Malformed) and nameless.name == "unknown"
    both = {"now": now, "NOW": now}
    assert read("call:Now{}", tools=both) == Parsed("Now", {})


def test_calls_that_were_not_closed() -> None:
    """Small models stop without `<tool_call|>`. A complete call counts; but one that ran into the token limit may lack
    half of its text, and is not run however well it could be completed."""
    whole, open_string = 'call:search{query:<|"|>a<|"|>}', 'call:search{query:<|"|>a'
    assert read(whole, "stopped") == Parsed("search", {"query": "a"}, ("truncated_call",))
    assert read(whole, "cut") == Parsed("search", {"query": "a"}, ("truncated_call",))
    assert read('call:search{query:<|"|>a<|"|>', "stopped").repairs == ("missing_brace", "truncated_call")
    cut = read(open_string, "cut")
    assert isinstance(cut, Malformed) and "cut off" in cut.message


def test_a_call_without_its_token_is_text() -> None:
    """Seen in the wild: `call:f{}` after a thought without `<|tool_call>`. Making a call of text is how a web page
    would make one, so it stays text, visible to the user."""
    text = 'call:search{query:"a"}'
    events = parse(TOKENIZER, ids(TOKENIZER, "<channel|>") + TOKENIZER.encode(text))
    assert AnswerText(text) in events and not any(isinstance(event, CallEnd) for event in events)


def test_parallel_duplicates_and_extra_closers_are_each_read() -> None:
    """Nine identical calls are nine calls: what to do with them is policy, not parsing."""
    native = "<|tool_call>call:now{}<tool_call|><tool_call|>" * 9 + "<|tool_response>"
    calls = [event.call for event in parse(TOKENIZER, ids(TOKENIZER, native)) if isinstance(event, CallEnd)]
    assert [read_call(call, TOOLS) for call in calls] == [Parsed("now", {})] * 9


fragments = st.sampled_from(
    ["call:", "search", "plot", "{", "}", "(", ")", "[", "]", ":", "=", ",", " ", "\n", "query", "points", "limit", "a",
     "3", "3.5", "True", "null", "'", '"', "\\", '<|"|>', '<|"|>', "<channel|>", "é", "\udc05"]
)  # fmt: skip


@settings(max_examples=400)
@given(parts=st.lists(fragments, max_size=25), end=st.sampled_from(["closed", "stopped", "cut"]))
def test_every_payload_is_answered(parts: list[str], end: Any) -> None:
    """No payload raises or hangs, and what is repaired validates."""
    result = read("".join(["call:search{", *parts]), end)
    if isinstance(result, Parsed) and set(result.repairs) - {"truncated_call"}:
        TOOLS[result.name].validate(result.arguments)


words = st.text(max_size=10).map(str.strip) | st.sampled_from(
    ["a, b", "x}", "{y", "a,target:b", "3", "it's", 'say "no"', "a:b"]
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[dict[str, Any], str, list[Segment]]:
    """Arguments of `move` or `search`, and their call with one defect."""
    called: dict[str, Any] = {"path": draw(words), "target": draw(words)}
    name = draw(st.sampled_from(["move", "search"]))
    if name == "search":
        called = {"query": draw(words), "limit": draw(st.integers(0, 99))}
    whole = render.tool_call(name, called)[1:-1]
    quotes = [i for i, segment in enumerate(whole) if segment == Control(QUOTE)]
    defect = draw(st.sampled_from(["opening", "closing", "both", "brace", "comma", "space"]))
    at = draw(st.integers(0, len(quotes) // 2 - 1)) * 2
    lost = {"opening": quotes[at : at + 1], "closing": quotes[at + 1 : at + 2], "both": quotes[at : at + 2]}
    end = {"brace": [], "comma": [Text(",}")], "space": [Text(" }")]}.get(defect, [Text("}")])
    kept = [segment for i, segment in enumerate(whole[:-1]) if i not in lost.get(defect, [])]
    return called, defect, [*kept, *end]


@settings(max_examples=400)
@given(case=damaged())
def test_a_repair_never_means_something_else(case: tuple[dict[str, Any], str, list[Segment]]) -> None:
    """A call with one defect is read as it was meant, or not at all. (Words that begin with a quote apart: without both
    delimiters nobody can tell a quoted a from `"a"`.)"""
    called, defect, payload = case
    if defect == "both" and any(str(value).startswith(('"', "'")) for value in called.values()):
        return
    result = read_call(RawCall(tuple(payload), "closed"), TOOLS)
    if isinstance(result, Parsed) and result.repairs:
        assert result.arguments == called
