"""Text files by lines, in whatever encoding they are; a file of any size is read in small pieces."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

from pydantic import Field

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate_file
from g4agent_files.shaping import MAX_CHARS, clean

MAX_LINES = 500
MAX_LINE_CHARS = 500
SAMPLE_BYTES = 64 * 1024


@tool(effect="pure", untrusted=True)
@answers_refusals
def read_text(
    path: str, start: Annotated[int, Field(ge=1)] = 1, count: Annotated[int, Field(ge=1, le=MAX_LINES)] = 100
) -> dict[str, Any]:
    """Read lines of a text file.

    Args:
        path: File.
        start: First line, from 1.
        count: How many lines.
    """
    kept: list[str] = []
    room = MAX_CHARS
    number = 0
    with open_text(path) as stream:
        for number, line in enumerate(_lines(stream), 1):
            if number == start + len(kept) and len(kept) < count and len(line) < room:
                kept.append(line)
                room -= len(line) + 1
    if start > max(1, number):
        raise Refusal(f"{path} has {number} lines")
    end = start + len(kept) - 1
    read: dict[str, Any] = {"text": clean("\n".join(kept)), "lines": f"{start}-{end} of {number}"}
    if end < number:
        read["note"] = f"read on with start={end + 1}"
    return read


def open_text(path: str) -> TextIO:
    """Opens a text file of the workspace; line ends as they are, bytes that are no text as U+FFFD.

    Raises:
        Refusal: It is missing, protected, no regular file or binary.
    """
    file = locate_file(path)
    try:
        return file.open(encoding=_encoding(file, path), errors="replace", newline="")
    except OSError as error:
        raise Refusal(f"cannot read {path}: {error.strerror}") from error


def _encoding(file: Path, path: str) -> str:
    """UTF-16 where a byte order mark says so, else UTF-8 where the beginning is that, else Windows-1252."""
    with file.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in sample:
        raise Refusal(f"{path} is a binary file")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)  # the sample may end within a character
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _lines(stream: TextIO) -> Iterator[str]:
    """The lines without their ends, long ones cut, without ever holding a whole one."""
    while piece := stream.readline(MAX_LINE_CHARS + 2):
        length = len(piece)
        line = piece
        while not piece.endswith("\n") and (piece := stream.readline(SAMPLE_BYTES)):
            length += len(piece)
        text = line.rstrip("\r\n")
        whole = length == len(line)
        yield text if whole and len(text) <= MAX_LINE_CHARS else f"{text[:MAX_LINE_CHARS]}… [cut, {length} characters]"
