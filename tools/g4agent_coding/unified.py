"""Unified diffs: reading one, and finding where its hunks belong. Nothing is written here.

The counts in hunk headers are not trusted, since models miscount; what a hunk says is its lines. Line numbers only
decide where the same lines occur several times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from g4agent.workspace_files import Refusal
from g4agent_coding.matching import nearest

HEADER = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
FORM = "a unified diff has, per file, the lines `--- a/PATH` and `+++ b/PATH`, then hunks that begin with `@@`"
NOWHERE = "/dev/null"


@dataclass(slots=True)
class Hunk:
    """One place of a file: the lines that are there and those to be there."""

    number: int
    """In its file, from 1."""
    line: int | None
    """Where the header says that it begins, from 1; None where it does not say."""
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    old_unended: bool = False
    """The last old line is the file's last, and no line feed follows it."""
    new_unended: bool = False


@dataclass(slots=True)
class FilePatch:
    """What a diff does to one file."""

    old: str | None
    """Path before; None for a new file."""
    new: str | None
    """Path after; None for a file that is deleted."""
    hunks: list[Hunk] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.new or self.old or ""


def read_patch(text: str) -> list[FilePatch]:
    """The files of a diff in order; what stands before the first is skipped.

    Raises:
        Refusal: It is no unified diff, is binary, or has a hunk line that begins with none of space, `+` and `-`.
    """
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    files: list[FilePatch] = []
    renamed: str | None = None
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith(("GIT binary patch", "Binary files ")):
            raise Refusal("binary files cannot be patched")
        if line.startswith("rename from "):
            renamed = line.removeprefix("rename from ")
        elif line.startswith("rename to ") and renamed is not None:
            files.append(FilePatch(renamed, line.removeprefix("rename to ")))
            renamed = None
        elif _begins_file(lines, at):
            old, new = _paths(line[4:], lines[at + 1][4:])
            if not (files and not files[-1].hunks and (files[-1].old, files[-1].new) == (old, new)):
                files.append(FilePatch(old, new))
            at += 1
        elif line.startswith("@@"):
            if not files:
                raise Refusal(f"no file is named before the first hunk: {FORM}")
            at = _read_hunk(lines, at, files[-1])
            continue
        at += 1
    if not files:
        raise Refusal(f"this is no patch: {FORM}")
    return files


def apply_hunks(text: str, patch: FilePatch) -> str:
    """The file's text after all of its hunks. Line ends are those of the text.

    Raises:
        Refusal: A hunk does not fit, with its number, and the nearest lines or the places where it fits.
    """
    windows = "\r\n" in text
    lines = text.replace("\r\n", "\n").split("\n") if text else []
    done = shift = 0  # lines before `done` are patched; `shift` is by how much they grew
    for hunk in patch.hunks:
        at = _place(lines, hunk, done, shift, patch.name)
        lines[at : at + len(hunk.old)] = hunk.new
        done = at + len(hunk.new)
        shift += len(hunk.new) - len(hunk.old)
        if hunk.new_unended and lines[done:] == [""]:
            del lines[done:]
        elif (hunk.old_unended or not text) and not hunk.new_unended and done == len(lines) > 0:
            lines.append("")
    return ("\r\n" if windows else "\n").join(lines)


def _begins_file(lines: list[str], at: int) -> bool:
    """Two header lines and then a hunk, or the end: a removed line may begin with `--- ` too."""
    following = lines[at + 1 : at + 3]
    return (
        lines[at].startswith("--- ")
        and bool(following)
        and following[0].startswith("+++ ")
        and (len(following) == 1 or following[1].startswith("@@"))
    )


def _paths(old: str, new: str) -> tuple[str | None, str | None]:
    old, new = (path.split("\t")[0].strip().strip('"') for path in (old, new))
    if old.startswith("a/") and (new.startswith("b/") or new == NOWHERE):
        old = old[2:]
        new = new.removeprefix("b/")
    elif old == NOWHERE:
        new = new.removeprefix("b/")
    return (None if old == NOWHERE else old), (None if new == NOWHERE else new)


def _read_hunk(lines: list[str], at: int, patch: FilePatch) -> int:
    """Adds the hunk whose header is at `at`; gives the line after it.

    Models miscount, so the header's counts only tell where a removed `-- x` and an added `++ y` look like a file.
    """
    header = HEADER.match(lines[at])
    hunk = Hunk(len(patch.hunks) + 1, int(header[1]) if header else None)
    stated = (int(header[2] or 1), int(header[3] or 1)) if header else None
    patch.hunks.append(hunk)
    kinds = ""
    for after, line in enumerate(lines[at + 1 :], at + 1):
        kind = line[:1] or " "  # the space of an empty line is easily lost
        if kind == "@" or line.startswith("diff --git "):
            return after
        ends_hunk = stated == (len(hunk.old) + 1, len(hunk.new) + 1) and not line.startswith(("--- a/", "--- /"))
        if _begins_file(lines, after) and not ends_hunk:
            return after
        if kind == "\\":
            hunk.old_unended |= kinds in ("-", " ")
            hunk.new_unended |= kinds in ("+", " ")
            continue
        if kind not in " +-":
            raise Refusal(
                f"hunk {hunk.number} of {patch.name}: a line must begin with a space, + or -, not: {line[:80]}"
            )
        if kind in " -":
            hunk.old.append(line[1:])
        if kind in " +":
            hunk.new.append(line[1:])
        kinds = kind
    return len(lines)


def _place(lines: list[str], hunk: Hunk, done: int, shift: int, name: str) -> int:
    """Index of the hunk's first line in the partly patched file."""
    what = f"hunk {hunk.number} of {name}"
    stated = None if hunk.line is None else max(0, hunk.line - 1) + shift
    size = len(hunk.old)
    if not size:
        after = len(lines) if hunk.line is None else hunk.line + shift  # `-5,0` stands for: after line 5
        if done <= after <= len(lines):
            return after
        raise Refusal(f"{what} begins after the end of the file: it has {len(lines)} lines")
    places = [at for at in range(done, len(lines) - size + 1) if lines[at : at + size] == hunk.old]
    if stated in places:
        return stated
    if len(places) == 1:
        return places[0]
    if places:
        fits = ", ".join(str(at + 1 - shift) for at in places[:6])
        raise Refusal(f"{what} fits at lines {fits}: give more context lines, or the right line number")
    rest = "\n".join(lines[done:])
    found = nearest(rest, "\n".join(hunk.old), first=done - shift + 1) if rest else ""
    raise Refusal(f"{what}: its context and removed lines are not in the file{found}")
