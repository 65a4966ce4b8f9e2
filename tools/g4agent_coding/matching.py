"""Finding the text that an edit names, and saying what is wrong where it is not there or not clear."""

from __future__ import annotations

from difflib import SequenceMatcher

from g4agent.workspace_files import Refusal

NEAREST = 0.6
"""Least likeness of what is shown as the nearest text."""
SHOWN_CHARS = 400
CANDIDATES = 5


def replace(text: str, old: str, new: str, *, everywhere: bool = False) -> str:
    """The text with `old`, which must occur once, replaced; everywhere, if asked for.

    Line ends are those of the text: the model reads, and writes, plain line feeds.

    Raises:
        Refusal: `old` is empty, missing (with the nearest text), or ambiguous (with the lines), or is `new`.
    """
    if "\r\n" in text:
        old, new = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (old, new))
    if not old:
        raise Refusal("`old` is empty")
    if old == new:
        raise Refusal("`old` and `new` are the same")
    times = text.count(old)
    if not times:
        raise Refusal(f"`old` not found{nearest(text, old)}")
    if times > 1 and not everywhere:
        lines = ", ".join(map(str, places(text, old)[:6]))
        raise Refusal(f"`old` occurs {times} times, at lines {lines}: give more context")
    return text.replace(old, new)


def places(text: str, part: str) -> list[int]:
    """Lines, from 1, at which `part` begins."""
    found, at = [], text.find(part)
    while at >= 0:
        found.append(text.count("\n", 0, at) + 1)
        at = text.find(part, at + len(part))
    return found


def nearest(text: str, wanted: str, first: int = 1) -> str:
    """What to tell about the lines that are most like the wanted ones; empty where nothing is like them.

    Args:
        text: Where to look.
        wanted: What should have been there.
        first: Number of the text's first line in its file.
    """
    lines, target = text.replace("\r\n", "\n").split("\n"), wanted.replace("\r\n", "\n").strip("\n").split("\n")
    size = len(target)
    anchor = max(target, key=lambda line: len(line.strip())).strip()
    if not anchor:
        return ""
    offset = [line.strip() for line in target].index(anchor)
    stripped = [line.strip() for line in target]
    scored = []
    matcher = SequenceMatcher(None, b=anchor, autojunk=False)
    for start in range(max(1, len(lines) - size + 1)):
        window = [line.strip() for line in lines[start : start + size]]
        same = sum(map(str.__eq__, window, stripped))
        matcher.set_seq1(window[min(offset, len(window) - 1)])
        scored.append((same + matcher.quick_ratio(), -start))
    best = [-start for _, start in sorted(scored, reverse=True)[:CANDIDATES]]
    likeness, start = max((_likeness(lines[s : s + size], target), -s) for s in best)
    if likeness < NEAREST:
        return ""
    at = -start
    found = lines[at : at + size]
    shown = "\n".join(found)
    where = f"line {first + at}" if size == 1 else f"lines {first + at}-{first + at + len(found) - 1}"
    if "".join(shown.split()) == "".join("\n".join(target).split()):
        return f": its spaces or line breaks differ; {where}:\n{shown[:SHOWN_CHARS]}"
    return f"; nearest is {where}:\n{shown[:SHOWN_CHARS]}"


def _likeness(window: list[str], target: list[str]) -> float:
    return SequenceMatcher(None, "\n".join(window), "\n".join(target), autojunk=False).ratio()
