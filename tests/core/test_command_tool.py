"""Command tools: a fixed argv, values put in without a shell."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from g4agent.errors import ConfigError, InvalidArguments, ToolDefinitionError
from g4agent.tools import CommandTarget, Tool, command_tool

GREP: dict[str, Any] = {
    "properties": {
        "pattern": {"type": "string"},
        "paths": {"type": "array", "items": {"type": "string"}},
        "context": {"type": "integer", "default": 0},
        "limit": {"type": "integer"},
    },
    "required": ["pattern"],
}
grep = command_tool(
    "grep",
    ["grep", "-n", "-C", "{context}", "--max-count={limit}", "-e{{}}", "--", "{pattern}", "{paths}"],
    description="Finds lines.",
    parameters=GREP,
    effect="pure",
)


def expand(made: Tool, arguments: dict[str, Any]) -> list[str]:
    assert isinstance(made.target, CommandTarget)
    return made.target.expand(made.bind(arguments))


def test_a_value_is_never_split_nor_formatted() -> None:
    """A shell would run `$(rm -rf)`; a second format pass would read `{x}` in the model's text."""
    text = "a b; $(rm -rf ~) {x} '\""
    assert expand(grep, {"pattern": text, "paths": ["p q", "-r"], "limit": 3.0}) == [
        *("grep", "-n", "-C", "0", "--max-count=3", "-e{}", "--", text, "p q", "-r"),
    ]


def test_an_optional_value_takes_its_argument_with_it() -> None:
    """`--max-count=` with nothing behind it, or the word None, would fail or mean something else."""
    assert expand(grep, {"pattern": "x"}) == ["grep", "-n", "-C", "0", "-e{}", "--", "x"]


def test_null_means_the_default() -> None:
    """A flag whose value vanished would swallow the next argument as its own."""

    class Head(BaseModel):
        lines: int | None = 10
        files: list[str] | None = None

    head = command_tool("head", ["head", "-n", "{lines}", "--", "{files}"], description="Shows.", parameters=Head)
    assert expand(head, {"lines": None, "files": None}) == ["head", "-n", "10", "--"]
    assert expand(head, {"lines": 2, "files": ["a"]}) == ["head", "-n", "2", "--", "a"]


def test_a_value_cannot_become_an_option() -> None:
    """`-f/etc/passwd` as a pattern would be read as an option wherever the author did not write `--`."""
    cat = command_tool("cat", ["cat", "{path}"], description="Shows.", parameters=Single)
    assert expand(cat, {"path": "a"}) == ["cat", "a"]
    for value in ("-n", "a\0b"):
        with pytest.raises(InvalidArguments, match=r"path: .*Expected: cat\(path: string\)"):
            cat.validate({"path": value})
    with pytest.raises(ConfigError, match="is a command"):
        cat("a")


class Single(BaseModel):
    path: str


@pytest.mark.parametrize(
    ("argv", "properties", "problem"),
    [
        ([], {}, "name of a program"),
        ("ls {p}", {"p": {"type": "string"}}, "name of a program"),
        (["{p}"], {"p": {"type": "string"}}, "name of a program"),
        (["ls", "{q}"], {}, "uses q"),
        (["ls"], {"p": {"type": "string"}}, "does not use its parameter p"),
        (["ls", "{p}"], {"p": {"type": "string"}}, "optional parameter p"),
        (["ls", "-n", "{p}"], {"p": {"type": ["integer", "null"]}}, "optional parameter p"),
        (["ls", "-x{p}"], {"p": {"type": "array"}}, "type array, inside"),
        (["ls", "{p}"], {"p": {"type": "object"}}, "type object, inside"),
        (["ls", "{p!r}"], {"p": {"type": "string"}}, "not a plain parameter name"),
        (["ls", "{"], {}, "do not match"),
        (["ls", "--x={p}"], {"p": {"$ref": "https://example.com/p.json"}}, "refer to https://example.com/p.json"),
        (["ls", "--x={p}"], {"p": {"$ref": "#/$defs/P"}}, "refer to #/\\$defs/P"),
        (["ls", "--x={p}"], {"p": {"type": "text"}}, "are not JSON Schema: properties.p.type"),
    ],
)
def test_a_command_that_cannot_work_is_refused(argv: Any, properties: dict[str, Any], problem: str) -> None:
    """A misspelt placeholder would reach the program as a literal, and an unused parameter would lie to the model."""
    with pytest.raises(ToolDefinitionError, match=problem):
        command_tool("x", argv, description="Does.", parameters={"properties": properties})
