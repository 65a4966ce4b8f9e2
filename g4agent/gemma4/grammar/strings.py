"""What JSON Schema says of strings, as bodies of grammar terminals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

FREE: Final = "/(?s:.*)/"
"""Any text. A control token never matches a regular expression, so it ends at the delimiter."""
MAX_COUNT: Final = 2000
"""Longer bounds on a string or list are left to the validator: the automaton grows with them."""

_YEAR = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DAYS = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_DATE = f"({_YEAR}-{_DAYS}|{_LEAP}-02-29)"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
_IPV4 = r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

FORMATS: Final[Mapping[str, str]] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "email": rf"[A-Za-z0-9._%+-]{{1,64}}@{_HOST}",
    "hostname": _HOST,
    "ipv4": _IPV4,
    "uri": rf"https?://{_HOST}(:[0-9]{{1,4}})?(/[A-Za-z0-9._~%+-]*)*(\?[A-Za-z0-9._~+=&-]*)?",
    "uuid": "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}
"""Formats with the strings that a model may write for them. Exact for dates, times, UUIDs and IPv4; of e-mail
addresses, host names and URIs the plain ones."""

# Lookarounds, back-references, word boundaries, possessive and conditional groups: no regular language, or none that
# Python and Rust read alike.
_IRREGULAR = re.compile(r"\(\?(?!:|P<\w+>)|\\[1-9bBAZzGkKpP]|\(\?P[=>]|[*+?}]\+")


def terminal(schema: Mapping[str, Any], note: Callable[[str], None]) -> str:
    """The body of a terminal for the strings that fit a schema; `note` is told of rules that it leaves out."""
    parts: list[str] = []
    if "pattern" in schema:
        body = _pattern(str(schema["pattern"]))
        if body is None:
            note(f"pattern {schema['pattern']}")
        else:
            parts.append(f"/{body}/")
    if "format" in schema:
        if schema["format"] in FORMATS:
            parts.append(f"/{_escaped(FORMATS[schema['format']])}/")
        else:
            note(f"format {schema['format']}")
    low, high = int(schema.get("minLength", 0)), schema.get("maxLength")
    if low > MAX_COUNT or (high is not None and high > MAX_COUNT):
        note(f"lengths above {MAX_COUNT}")
        low, high = min(low, MAX_COUNT), None
    if low or high is not None:
        parts.append(f"/(?s:.){{{low},{'' if high is None else int(high)}}}/")
    return " & ".join(parts) or FREE


def _pattern(pattern: str) -> str | None:
    """A pattern, which JSON Schema looks for anywhere in a string, as an expression for the whole string; None where it
    cannot be said."""
    try:
        re.compile(pattern)
    except re.error:
        return None
    if _IRREGULAR.search(pattern):
        return None
    whole = []
    for branch in _branches(pattern):
        start, end = branch.startswith("^"), branch.endswith("$") and not branch.endswith(r"\$")
        inner = branch[start : len(branch) - end]
        if re.search(r"(?<!\\)(?<!\[)\^|(?<!\\)\$", re.sub(r"\[[^\]]*\]", "", inner)):
            return None  # an anchor in the middle
        whole.append(f"{'' if start else '(?s:.*)'}({inner}){'' if end else '(?s:.*)'}")
    return _escaped("|".join(whole))


def _branches(pattern: str) -> Iterator[str]:
    """The alternatives at the top level of a pattern."""
    depth, inside_class, start, at = 0, False, 0, 0
    while at < len(pattern):
        match pattern[at]:
            case "\\":
                at += 1
            case "[":
                inside_class = True
            case "]":
                inside_class = False
            case "(" if not inside_class:
                depth += 1
            case ")" if not inside_class:
                depth -= 1
            case "|" if not inside_class and depth == 0:
                yield pattern[start:at]
                start = at + 1
            case _:
                pass
        at += 1
    yield pattern[start:]


def _escaped(expression: str) -> str:
    """An expression as it stands between slashes."""
    return re.sub(r"(?<!\\)/", r"\\/", expression).replace("\n", r"\n")
