"""The Berkeley function-calling leaderboard's documents and answers in Gemma 4's native syntax, under the mask.

Every function document becomes a tool or is refused with the reason. Every right answer that fits its own schema must
be accepted by the grammar token by token and come back from the parser as it was; broken ones must be refused at the
mask.
Only the data of PyPI's `bfcl-eval` is used; the wheel is downloaded once, without what it depends on.

    python benchmarks/bfcl_native.py [--wheel FILE] [--json] [--check]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from _report import Report, Target, arguments, publish
from llguidance import LLMatcher, LLTokenizer

import g4agent_torch
from g4agent.errors import G4AgentError
from g4agent.gemma4 import render
from g4agent.gemma4.grammar import call_grammar
from g4agent.gemma4.parse import CallEnd, parse
from g4agent.gemma4.payload import read_strict
from g4agent.gemma4.tokens import encode_segments
from g4agent.tools import CommandTarget, InvalidArguments, Tool
from g4agent_torch.tokenizer import TorchTokenizer

VERSION = "2026.3.23"
CATEGORIES = (
    *("simple_python", "multiple", "parallel", "parallel_multiple"),
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
)
TYPES = {"dict": "object", "float": "number", "tuple": "array"}
FILE = Path(g4agent_torch.__file__).parent / "nano" / "tokenizer.json"
TOKENIZER = TorchTokenizer(FILE, 2048)
GUIDANCE = LLTokenizer(FILE.read_text(), n_vocab=2048, eos_token=[1, 106, 50])


def download() -> Path:
    """The wheel with the data."""
    folder = Path(tempfile.gettempdir()) / f"bfcl-{VERSION}"
    if not list(folder.glob("*.whl")):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            str(folder),
            f"bfcl-eval=={VERSION}",
        ]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def rows(wheel: ZipFile, name: str) -> Iterator[dict[str, Any]]:
    """One JSON object per line."""
    for line in wheel.read(f"bfcl_eval/data/{name}.json").decode().splitlines():
        yield json.loads(line)


def converted(schema: Any) -> Any:
    """The leaderboard's schema dialect as JSON Schema."""
    if isinstance(schema, list):
        return [converted(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    known = {key: converted(value) for key, value in schema.items()}
    kind = known.get("type")
    if kind == "any":
        del known["type"]
    elif isinstance(kind, str):
        known["type"] = TYPES.get(kind, kind)
    return known


def tool_of(document: dict[str, Any]) -> Tool:
    """A tool of a function document; dots in its name become underscores."""
    name = re.sub(r"\W", "_", document["name"])
    schema = converted(document["parameters"]) | {"additionalProperties": False}
    return Tool(name, document["description"], schema, CommandTarget(("true",)))


def answer(possible: dict[str, Any]) -> dict[str, Any]:
    """The first right value of every argument; those that may be left out are. Deep inside, values stand bare."""
    found = {}
    for key, choices in possible.items():
        if not isinstance(choices, list):
            found[key] = answer(choices) if isinstance(choices, dict) else choices
        elif "" not in choices:
            first = choices[0] if choices else []
            found[key] = answer(first) if isinstance(first, dict) else _listed(first)
    return found


def _listed(item: Any) -> Any:
    if isinstance(item, list):
        return [answer(part) if isinstance(part, dict) else _listed(part) for part in item]
    return item


def broken(tool: Tool, good: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same call with one thing wrong."""
    yield "unknown key", good | {"no_such_key": 1}
    properties: dict[str, Any] = tool.schema.get("properties", {})  # type: ignore[assignment]
    for key, item in good.items():
        yield "wrong type", good | {key: 7 if isinstance(item, str | list | dict) else "seven"}
        if key in tool.schema.get("required", []):  # type: ignore[operator]
            yield "missing required", {k: v for k, v in good.items() if k != key}
        if "enum" in properties.get(key, {}):
            yield "enum miss", good | {key: "no such choice"}


def accepted(template: LLMatcher, ids: list[int]) -> bool:
    """Whether the grammar takes a call's tokens, one by one, to its end."""
    follower = template.deep_copy()
    return all(follower.consume_token(token) for token in ids[1:]) and follower.is_accepting()


def valid(tool: Tool, call: dict[str, Any]) -> bool:
    """Whether a call fits its tool's schema."""
    try:
        tool.validate(call)
    except InvalidArguments:
        return False
    return True


def check_calls(tools: dict[str, Tool], truths: list[dict[str, Any]], count: Counter[str]) -> None:
    """Right and broken calls of one question."""
    grammar = call_grammar(tools.values())
    template = LLMatcher(GUIDANCE, LLMatcher.grammar_from_lark(grammar.text), log_level=0)
    assert not template.is_error(), template.get_error()
    count["tools with unmasked rules"] += len(grammar.unmasked)
    for truth in truths:
        [(name, possible)] = truth.items()
        name, good = re.sub(r"\W", "_", name), answer(possible)
        count["answers"] += 1
        if name not in tools or not valid(tools[name], good):
            count["answers against their own schema"] += 1
            continue
        ids = encode_segments(TOKENIZER, render.tool_call(name, good))
        count["valid answers"] += 1
        count["accepted at the mask"] += accepted(template, ids)
        end = next(event for event in parse(TOKENIZER, ids) if isinstance(event, CallEnd))
        count["round trip with types intact"] += json.dumps(read_strict(end.call.payload)) == json.dumps(
            (name, dict(sorted(good.items(), key=lambda member: member[0].lower())))
        ) or read_strict(end.call.payload) == (name, good)
        for how, bad in broken(tools[name], good):
            if not valid(tools[name], bad):
                count[f"broken: {how}"] += 1
                refused = not accepted(template, encode_segments(TOKENIZER, render.tool_call(name, bad)))
                count[f"broken: {how}, refused"] += refused


def measure(wheel: ZipFile) -> tuple[Counter[str], Counter[str]]:
    """Counts, and the reasons of refused documents."""
    count, reasons = Counter[str](), Counter[str]()
    for category in CATEGORIES:
        truths = {row["id"]: row["ground_truth"] for row in rows(wheel, f"possible_answer/BFCL_v4_{category}")}
        for question in rows(wheel, f"BFCL_v4_{category}"):
            tools = {}
            for document in question["function"]:
                count["function documents"] += 1
                try:
                    tool = tool_of(document)
                    render.declaration(tool.name, tool.description, tool.declaration.parameters)
                    tools[tool.name] = tool
                except G4AgentError as error:
                    count["documents refused"] += 1
                    reasons[str(error)[:100]] += 1
            if tools:
                check_calls(tools, truths[question["id"]], count)
    return count, reasons


def main() -> int:
    """Counts and prints; gives the exit code."""
    parser = arguments(__doc__)
    parser.add_argument("--wheel", type=Path, help="bfcl-eval's wheel; default: downloaded")
    options = parser.parse_args()
    with ZipFile(options.wheel or download()) as wheel:
        count, reasons = measure(wheel)
    kinds = sorted(name.removesuffix(", refused") for name in count if name.endswith(", refused"))
    targets = [
        Target("valid answers not accepted", count["valid answers"] - count["accepted at the mask"], 0),
        Target("answers changed by the round trip", count["valid answers"] - count["round trip with types intact"], 0),
        *(Target(f"{kind}: accepted", count[kind] - count[f"{kind}, refused"], 0) for kind in kinds),
    ]
    for reason, times in reasons.most_common(5):
        print(f"refused {times}: {reason}", file=sys.stderr)
    table = {name: {"count": float(count[name])} for name in sorted(count)}
    return publish(Report(f"BFCL {VERSION} in the native syntax", "count", table, tuple(targets)), options)


if __name__ == "__main__":
    sys.exit(main())
