"""Grammars in llguidance itself, with nano's tokenizer: what they take, and random walks through them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLTokenizer

import g4agent_torch
from g4agent.gemma4 import render
from g4agent.gemma4.grammar import call_grammar
from g4agent.gemma4.parse import CallEnd, parse
from g4agent.gemma4.payload import CallSyntaxError, read_strict
from g4agent.gemma4.tokens import encode_segments
from g4agent.tools import CommandTarget, Tool
from g4agent_torch.tokenizer import TorchTokenizer

FILE = Path(g4agent_torch.__file__).parent / "nano" / "tokenizer.json"
TOKENIZER = TorchTokenizer(FILE, 2048)
GUIDANCE = LLTokenizer(FILE.read_text(), n_vocab=2048, eos_token=[1, 106, 50])


def tool_with(schema: Mapping[str, Any], name: str = "act") -> Tool:
    return Tool(name, "Does it.", schema, CommandTarget(("true",)))


def compiles(text: str) -> bool:
    """Whether llguidance takes the grammar."""
    return not LLMatcher(GUIDANCE, LLMatcher.grammar_from_lark(text), log_level=0).is_error()


def matcher(text: str) -> LLMatcher:
    found = LLMatcher(GUIDANCE, LLMatcher.grammar_from_lark(text), log_level=0)
    assert not found.is_error(), found.get_error()
    return found


def refused_at(schema: Mapping[str, Any], arguments: Mapping[str, Any], name: str = "act") -> str | None:
    """The text up to the first token of a rendered call that the grammar refuses; None where it takes the whole."""
    ids = encode_segments(TOKENIZER, render.tool_call(name, arguments))[1:]
    follower = matcher(call_grammar([tool_with(schema)], accepts=compiles).text)
    taken = follower.try_consume_tokens(ids)
    if taken == len(ids):
        assert follower.is_accepting()
        return None
    return TOKENIZER.decode(ids[:taken])


def one(schema: Any, *required: str) -> dict[str, Any]:
    """Arguments with one property, `x`."""
    return {"type": "object", "properties": {"x": schema}, "required": list(required)}


def walk(schema: Mapping[str, Any], rng: random.Random, most: int = 300) -> dict[str, Any] | None:
    """Arguments of a random call that the grammar allows; None where it does not end soon, or repeats a free key."""
    follower, ids = matcher(call_grammar([tool_with(schema)], accepts=compiles).text), [48]
    while not follower.is_accepting():
        if len(ids) == most:
            return None
        mask = follower.compute_bitmask()
        allowed = [i for i in range(2048) if mask[i // 8] >> (i % 8) & 1]
        ends = [token for token in allowed if token in (49, 52)]
        token = ends[0] if ends and rng.random() < 0.4 else rng.choice(allowed)
        assert follower.consume_token(token)
        ids.append(token)
    end = next(event for event in parse(TOKENIZER, ids) if isinstance(event, CallEnd))
    try:
        return read_strict(end.call.payload)[1]
    except CallSyntaxError as error:  # the one thing that no grammar can say of objects with free keys
        assert "is there twice" in str(error)
        return None
