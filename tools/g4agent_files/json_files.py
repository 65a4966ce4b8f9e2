"""JSON and JSON Lines files: a part by its JSON Pointer (RFC 6901), made small enough to read."""

from __future__ import annotations

import json
from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate_file
from g4agent_files.shaping import clean, cut
from g4agent_files.text import open_text

MAX_BYTES = 32 * 1024 * 1024
SHOWN_CHARS = 6000
NARROWER = ((8, 100, 1000), (6, 40, 400), (4, 20, 200), (3, 10, 200), (2, 10, 100), (1, 30, 60), (1, 5, 60))
"""Levels, items per level and characters per string that are shown: the first that is small enough is taken."""
LINES = (".jsonl", ".ndjson")


@tool(effect="pure", untrusted=True)
@answers_refusals
def read_json(path: str, pointer: str = "") -> dict[str, Any]:
    """Read a JSON file, or a part of it. What is large is shortened.

    Args:
        path: File.
        pointer: Which part, such as /orders/0/name; empty for all.
    """
    value = _find(_load(path), pointer)
    for levels, items, chars in NARROWER:
        shown, shortened = _shorten(value, levels, items, chars)
        if len(json.dumps(shown, ensure_ascii=False)) <= SHOWN_CHARS:
            break
    read = {"value": shown}
    if shortened:
        read["note"] = f"shortened; the whole is {_kind(value)}: read a part of it by its pointer"
    return read


def _load(path: str) -> Any:
    locate_file(path, max_bytes=MAX_BYTES)
    try:
        with open_text(path) as stream:
            if path.lower().endswith(LINES):
                return [json.loads(line, parse_constant=str) for line in stream if line.strip()]
            return json.load(stream, parse_constant=str)
    except RecursionError:
        raise Refusal(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise Refusal(f"{path} is no JSON: {error}") from None


def _find(value: Any, pointer: str) -> Any:
    """The part that a pointer names. Raises Refusal with what there is where the pointer leads nowhere."""
    if pointer and not pointer.startswith("/"):
        raise Refusal(f"`pointer` begins with a slash, such as /{pointer}")
    at = ""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            if key not in value:
                names = ", ".join(cut(clean(name), 40) for name in list(value)[:30])
                raise Refusal(f"no key {key} at {at or 'the top'}; keys: {names}")
            value = value[key]
        elif isinstance(value, list):
            if not (key.isascii() and key.isdigit()) or len(key) > 12 or int(key) >= len(value):
                raise Refusal(f"no item {key} at {at or 'the top'}: a list of {len(value)}, counted from 0")
            value = value[int(key)]
        else:
            raise Refusal(f"{at or 'the top'} is {_kind(value)}, with nothing below it")
        at += f"/{part}"
    return value


def _shorten(value: Any, levels: int, items: int, chars: int) -> tuple[Any, bool]:
    """The value with deep parts, long lists and long strings replaced by what they are, and whether any was."""
    if isinstance(value, str):
        return cut(clean(value), chars), len(value) > chars
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value) if value.bit_length() < 1024 else f"[integer of {value.bit_length()} bits]", True
    if isinstance(value, float):
        return (value, False) if abs(value) != float("inf") else (str(value), True)
    if not isinstance(value, dict | list):
        return value, False
    if levels == 0 and value:
        return f"[{_kind(value)}]", True
    more = len(value) - items
    if isinstance(value, list):
        parts = [_shorten(item, levels - 1, items, chars) for item in value[:items]]
        rest = [f"[{more} more items]"] if more > 0 else []
        return [part for part, _ in parts] + rest, bool(rest) or any(short for _, short in parts)
    named = {cut(clean(key), chars): _shorten(value[key], levels - 1, items, chars) for key in list(value)[:items]}
    end = {"…": f"[{more} more keys]"} if more > 0 else {}
    return {key: part for key, (part, _) in named.items()} | end, bool(end) or any(s for _, s in named.values())


def _kind(value: Any) -> str:
    match value:
        case dict():
            return f"an object with {len(value)} keys"
        case list():
            return f"a list of {len(value)}"
        case str():
            return f"a string of {len(value)} characters"
    return "null" if value is None else f"a {type(value).__name__}"
