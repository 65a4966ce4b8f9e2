"""transformers' own response parser as a reference: equal on well-formed generations; where it is known to lose or
misread something, the difference stands in the table at the end, with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_samples import CONTROL_IDS, arguments, identifiers, ids

from g4agent.gemma4 import render
from g4agent.gemma4.parse import AnswerText, CallEnd, ThoughtText, parse
from g4agent.gemma4.payload import CallSyntaxError, read_strict
from g4agent.gemma4.tokens import CHANNEL_CLOSE, RESPONSE_OPEN, TURN_CLOSE, Control, Segment, Text, encode_segments

_RESERVED = [*CONTROL_IDS, "\x01", "\x02"]
texts = st.text(max_size=12).filter(lambda text: not any(part in text for part in _RESERVED))
said = texts.map(str.strip).filter(bool)
calls = st.lists(st.tuples(identifiers, arguments(texts)), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """The response template that `transformers serve` has built in for Gemma 4."""
    from transformers.cli.serving.utils import _RESPONSE_TEMPLATE_FALLBACKS

    return next(entry for types, entry in _RESPONSE_TEMPLATE_FALLBACKS.items() if "gemma4" in types)


def theirs(fast_tokenizer: Any, template: dict[str, Any], prompt: list[int], tokens: list[int]) -> dict[str, Any]:
    """Reasoning, content and calls; a field that is absent is left out, as is the constant role."""
    message = fast_tokenizer.parse_response(tokens, template, prefix=prompt)
    found = {"thought": message.get("reasoning_content"), "answer": message.get("content")}
    made = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]
    return {key: value for key, value in (found | {"calls": made}).items() if value}


def ours(tokenizer: Any, tokens: list[int]) -> dict[str, Any]:
    """The same from our events; texts are trimmed because the reference trims them."""
    events = parse(tokenizer, tokens)
    found = {
        "thought": "".join(e.text for e in events if isinstance(e, ThoughtText)).strip(),
        "answer": "".join(e.text for e in events if isinstance(e, AnswerText)).strip(),
        "calls": [_call(e) for e in events if isinstance(e, CallEnd)],
    }
    return {key: value for key, value in found.items() if value}


def _call(end: CallEnd) -> Any:
    try:
        return read_strict(end.call.payload)
    except CallSyntaxError:
        return "malformed"


@settings(max_examples=200)
@given(thought=st.none() | said, answer=said, made=calls, calling=st.booleans())
def test_equal_on_well_formed_generations(
    bpe_tokenizer: Any,
    fast_tokenizer: Any,
    template: dict[str, Any],
    thought: str | None,
    answer: str,
    made: list[tuple[str, Any]],
    calling: bool,
) -> None:
    """Thought, then an answer or calls: nesting, unicode, quotes, exponents. JSON text is compared, so types count."""
    generation: list[Segment] = []
    if thought is not None:
        generation += [*render.thought_open(), Text(thought), Control(CHANNEL_CLOSE)]
    if calling:
        generation += [segment for name, args in made for segment in render.tool_call(name, args)]
    else:
        generation.append(Text(answer))
    generation.append(Control(RESPONSE_OPEN if calling else TURN_CLOSE))
    tokens = encode_segments(bpe_tokenizer, generation)
    prompt = encode_segments(bpe_tokenizer, [*render.user_turn("Hi"), *render.model_turn_open(True, "large")])
    reference = theirs(fast_tokenizer, template, prompt, tokens)
    assert json.dumps(ours(bpe_tokenizer, tokens), sort_keys=True) == json.dumps(reference, sort_keys=True)


DIFFERENT = [
    (
        "Let me see.<|tool_call>call:f{}<tool_call|>Done.<|tool_response>",
        {"answer": "Done.", "calls": [("f", {})]},
        {"answer": "Let me see.Done.", "calls": [("f", {})]},
        "text after a call overwrites the text before it",
    ),
    (
        "<|channel>thought\n1<channel|>a<|channel>thought\n2<channel|>b<turn|>",
        {"thought": "2", "answer": "b"},
        {"thought": "12", "answer": "ab"},
        "the last thought and the last text win",
    ),
    (
        "<|channel>thought\nI call.<|tool_call>call:f{}<tool_call|><|tool_response>",
        {"thought": "I call.<|tool_call>call:f{}<tool_call|><|tool_response>"},
        {"thought": "I call.", "calls": [("f", {})]},
        "a call inside an open thought is swallowed by it",
    ),
    (
        "<|channel>thoughtX<channel|>a<turn|>",
        {"answer": "<|channel>thoughtX<channel|>a"},
        {"thought": "thoughtX", "answer": "a"},
        "a channel without its label line leaks into the answer, tokens and all",
    ),
    (
        "Done.<turn|><|turn>user\nPay!",
        {"answer": "<|turn>user\nPay!"},
        {"answer": "Done."},
        "what comes after the end of the turn replaces the answer",
    ),
    (
        "<|tool_call>call:f{a:1,a:2}<tool_call|>",
        {"calls": [("f", {"a": 2})]},
        {"calls": ["malformed"]},
        "the last of two equal keys wins; for us it is not clear which one is meant",
    ),
    (
        '<|tool_call>call:f{a:"x"}<tool_call|>',
        {"calls": [("f", {"a": "x"})]},
        {"calls": ["malformed"]},
        "quotes of JSON are accepted by its strict reading; for us they are a repair, which the schema must allow",
    ),
]


@pytest.mark.parametrize(("native", "reference", "expected", "reason"), DIFFERENT)
def test_known_differences(
    bpe_tokenizer: Any, fast_tokenizer: Any, template: Any, native: str, reference: Any, expected: Any, reason: str
) -> None:
    """If transformers mends one of these, the row can go."""
    tokens = ids(bpe_tokenizer, native)
    assert theirs(fast_tokenizer, template, ids(bpe_tokenizer, "<|turn>model\n"), tokens) == reference, reason
    assert ours(bpe_tokenizer, tokens) == expected, reason


LOST = [
    ("call:f-g{a:1}", ("f-g", {"a": 1}), "a hyphen in the tool's name"),
    ("call:f{a-b:1}", ("f", {"a-b": 1}), "a hyphen in a key"),
    ('call:f{a:<|"|>\x01<|"|>}', ("f", {"a": "\x01"}), "a character that it uses internally"),
    ("call:f{a:1, b:2}", "malformed", "a space after a comma"),
    ("call:f{a:1,}", "malformed", "a trailing comma"),
    ("call:f{a:True}", "malformed", "a literal of Python"),
    ('call:f{a:x<|"|>}', "malformed", "an opening delimiter that is missing"),
    ("call:f(a:1)", "malformed", "round brackets"),
]


@pytest.mark.parametrize(("payload", "expected", "reason"), LOST)
def test_generations_that_transformers_loses_whole(
    bpe_tokenizer: Any, fast_tokenizer: Any, template: Any, payload: str, expected: Any, reason: str
) -> None:
    """It raises, and thought and answer are gone with the call. Ours is read, or malformed with its text in place."""
    tokens = ids(bpe_tokenizer, f"Wait.<|tool_call>{payload}<tool_call|><|tool_response>")
    with pytest.raises(ValueError, match="json"):
        theirs(fast_tokenizer, template, ids(bpe_tokenizer, "<|turn>model\n"), tokens)
    assert ours(bpe_tokenizer, tokens) == {"answer": "Wait.", "calls": [expected]}, reason


def test_a_spelled_closer_in_a_string(bpe_tokenizer: Any, fast_tokenizer: Any, template: Any) -> None:
    """It works on the decoded text, where a string that spells `<tool_call|>` ends the call; ids keep them apart."""
    called = {"a": 'x<tool_call|><|"|>'}
    tokens = encode_segments(bpe_tokenizer, render.tool_call("f", called))
    with pytest.raises(ValueError, match="json"):
        theirs(fast_tokenizer, template, ids(bpe_tokenizer, "<|turn>model\n"), tokens)
    assert ours(bpe_tokenizer, tokens) == {"calls": [("f", called)]}
