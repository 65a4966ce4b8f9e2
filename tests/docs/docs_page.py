"""Reads a page of the docs: its code blocks, what they are said to print, and which are not run.

    ```python          run in the page's own interpreter; with the first line `# name.py` it is written to that file
    ```console         lines after `$ ` are run by a shell, the others are what they print
    ```sh              a shell script
    ```toml json yaml  read by what reads them in earnest; with the first line `# name.toml` also written to that file
    ```text            what the block before it prints

`<!-- not run: why -->` before a block takes it out. Indented blocks are an overview of commands and are not run; their
`g4agent` commands must take the options they show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: ([^>]+) -->\n+\Z")
_FILE_NAME = re.compile(r"# ([\w./-]+\.(?:py|toml|yml))\n")
_ID = re.compile(r"\b\d[0-9a-z]{11}\b")
"""Of a session: another one in every run."""
_CHANGING = [(re.compile(r"\b\d+(\.\d+)? ?m?s\b"), "0 s"), (re.compile(r"[ \t]+"), " ")]
"""Times and the widths of columns differ from run to run, too."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    line: int
    language: str
    text: str
    not_run: str | None
    output: str | None
    """What it prints, where the page says so in a `text` block of its own."""

    @property
    def file(self) -> str | None:
        """The file that it is, by its first line."""
        named = _FILE_NAME.match(self.text)
        return None if named is None else named[1]

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Of a `console` block: each command, with the lines that it prints."""
        pieces = re.split(r"^\$ ", self.text, flags=re.MULTILINE)
        assert not pieces[0], f"line {self.line}: a console block begins with `$ `"
        return [_split_command(piece) for piece in pieces[1:]]


def _split_command(piece: str) -> tuple[str, str]:
    """Splits off the printed lines. A command goes on after a line that ends with `\\`, or to the end of its `EOF`."""
    lines = piece.splitlines(keepends=True)
    last = next(number for number, line in enumerate(lines) if not line.endswith("\\\n"))
    if "<<" in lines[last]:
        last = lines.index("EOF\n")
    return "".join(lines[: last + 1]), "".join(lines[last + 1 :])


def read_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, `text` joined to the block before it."""
    blocks: list[Block] = []
    end = 0
    for fence in _FENCE.finditer(page):
        language, text = fence[1], fence[2]
        line = page.count("\n", 0, fence.start()) + 1
        before = page[end : fence.start()]
        reason = _NOT_RUN.search(before)
        if language == "text" and reason is None:
            assert blocks and blocks[-1].output is None, f"line {line}: this text is no block's output"
            last = blocks.pop()
            blocks.append(Block(last.line, last.language, last.text, last.not_run, text))
        else:
            blocks.append(Block(line, language, text, None if reason is None else reason[1], None))
        end = fence.end()
    return blocks


def overview_commands(page: str) -> Iterator[str]:
    """The `g4agent` commands in the page's indented blocks."""
    for line in _FENCE.sub("", page).replace("\\\n", " ").splitlines():
        if command := re.match(r"    (?:\w+=\S+ )*g4agent (.*)", line):
            yield command[1]


def printed_ids(said: str, printed: str) -> dict[str, str] | None:
    """The printed ids of sessions by those of the page, or None where something else was printed than the page says.

    `…` stands for any text, alone on a line for any lines.
    """
    lines = (re.escape(_steady(line)).replace("…", ".*") for line in said.splitlines())
    pattern = "".join(r"(?:.*\n)*?" if line == ".*" else f"{line}\n" for line in lines)
    actual = "".join(f"{_steady(line)}\n" for line in printed.splitlines())
    found = re.fullmatch(_ID.sub(lambda _: f"({_ID.pattern})", pattern), actual)
    return None if found is None else dict(zip(_ID.findall(pattern), found.groups(), strict=True))


def _steady(line: str) -> str:
    for changing, steady in _CHANGING:
        line = changing.sub(steady, line)
    return line.rstrip()


def pages(root: Path) -> list[Path]:
    """The quick start, which takes longest, the README, and every other page in docs/."""
    quick_start = root / "docs/quickstart.md"
    return [quick_start, root / "README.md", *sorted({*(root / "docs").glob("*.md")} - {quick_start})]
