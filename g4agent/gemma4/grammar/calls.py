"""Grammars of what a model may write: a call of one of the live tools, or an answer of a given shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from g4agent.gemma4.grammar.values import ValueRules
from g4agent.gemma4.tokens import CALL_CLOSE, RESPONSE_OPEN
from g4agent.schema_merge import Schema
from g4agent.tools import Tool


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """One call, from the token after `<|tool_call>` to `<tool_call|>`."""

    text: str
    """Lark, with control tokens by id."""
    unmasked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By tool, the rules of its schema that only the validator enforces, each as `path: rule`."""


def call_grammar(
    tools: Iterable[Tool], *, parallel: bool = True, accepts: Callable[[str], bool] = lambda text: True
) -> CallGrammar:
    """The grammar of a call of any of the tools; at least one is needed.

    Args:
        tools: What may be called.
        parallel: Whether another call may follow. If not, `<|tool_response>` must.
        accepts: Whether a grammar compiles in the engine. Where the whole does not, the tools at fault are masked as
            any call of theirs, and stand in `unmasked`.
    """
    tools = list(tools)
    grammar = _written(tools, parallel, frozenset())
    if accepts(grammar.text):
        return grammar
    refused = frozenset(tool.name for tool in tools if not accepts(_written([tool], parallel, frozenset()).text))
    return _written(tools, parallel, refused)


def _written(tools: list[Tool], parallel: bool, loose: frozenset[str]) -> CallGrammar:
    rules = ValueRules()
    heads: list[str] = []
    unmasked: dict[str, tuple[str, ...]] = {}
    for tool in tools:
        schema = {} if tool.name in loose else _closed(tool.schema)
        heads.append(rules.rule(f"{json.dumps(tool.name)} {rules.arguments(schema)}", "tool"))
        if tool.name in loose:
            unmasked[tool.name] = ("arguments: a schema that the engine cannot compile",)
        elif rules.notes:
            unmasked[tool.name] = tuple(dict.fromkeys(rules.notes))
    assert heads, "a grammar needs a tool"
    end = f"<[{CALL_CLOSE}]>" if parallel else f"<[{CALL_CLOSE}]> <[{RESPONSE_OPEN}]>"
    start = f'start: "call:" ({" | ".join(heads)}) {end}'
    return CallGrammar(f"%llguidance {{}}\n{start}\n{rules.text()}\n", unmasked)


def answer_grammar(schema: Schema) -> str:
    """The grammar of an answer that is JSON of this schema; the end of the turn follows it."""
    return f"%llguidance {{}}\nstart: %json {json.dumps(schema)}\n"


def _closed(schema: Schema) -> Schema:
    """A tool takes no argument that it does not declare, unless it says so."""
    return schema if "additionalProperties" in schema else {**schema, "additionalProperties": False}
