"""Running a piece of code: its last value, what it printed, and where it failed, each in a readable size."""

from __future__ import annotations

import ast
import io
import linecache
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any

HEAD_CHARS = 2000
TAIL_CHARS = 4000
RESULT_CHARS = 4000
MAX_FRAMES = 6


class TimeIsUp(BaseException):
    """The code has had its seconds. No Exception, so that `except Exception` in the code does not stop it."""


@dataclass(slots=True)
class Ran:
    """What a piece of code came to."""

    result: str = ""
    """`repr` of the last expression; empty where there is none or it is None."""
    output: str = ""
    """Standard output and standard error in their order, those of processes that it started too."""
    error: str = ""
    """The traceback, of the code's own lines."""


def file_name(number: int) -> str:
    """How tracebacks name the code of a call."""
    return f"<call {number}>"


def remember_source(number: int, source: str) -> None:
    """Lets tracebacks and `inspect` show the lines of a call's code."""
    name = file_name(number)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)


def run_code(source: str, namespace: dict[str, Any], number: int, seconds: float) -> Ran:
    """Runs the code in the namespace. Whatever it raises is part of the answer, and so is that it took too long.

    Must be called in the main thread, where alarms arrive.
    """
    remember_source(number, source)
    ran = Ran()
    with _captured() as printed:
        try:
            with _alarm(seconds):
                value = _execute(source, namespace, file_name(number))
                if value is not None:
                    ran.result = shorten(repr(value), RESULT_CHARS // 2, RESULT_CHARS // 2)
        except TimeIsUp:
            ran.error = f"no end after {seconds:g} s; names that were set until then are there"
        except BaseException as error:
            ran.error = _trimmed(error)
        finally:
            ran.output = _read(printed)
    return ran


def shorten(text: str, head: int = HEAD_CHARS, tail: int = TAIL_CHARS) -> str:
    """The text, or its beginning, how much is missing, and its end."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= head + tail:
        return text
    return f"{text[:head]}\n[{len(text) - head - tail} characters left out]\n{text[-tail:]}"


def _execute(source: str, namespace: dict[str, Any], name: str) -> object:
    """Runs the statements; gives the value of the last one where that is an expression."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec", dont_inherit=True), namespace)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), namespace)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _captured() -> Iterator[IO[bytes]]:
    """Sends what is printed to a file, by Python and by processes that the code starts; gives the file."""
    with tempfile.TemporaryFile() as stream:
        sys.stdout.flush()
        sys.stderr.flush()
        before = sys.stdout, sys.stderr
        saved = os.dup(1), os.dup(2)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(
            io.FileIO(stream.fileno(), "w", closefd=False), "utf-8", "backslashreplace", write_through=True
        )
        try:
            yield stream
        finally:
            sys.stdout, sys.stderr = before
            for old, fd in zip(saved, (1, 2), strict=True):
                os.dup2(old, fd)
                os.close(old)


def _read(stream: IO[bytes]) -> str:
    """The file's text, only its head and tail if it is long: a flood is never read as a whole."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size <= 4 * (HEAD_CHARS + TAIL_CHARS):
        return shorten(stream.read().decode(errors="replace").rstrip("\n"))
    head = stream.read(HEAD_CHARS)
    stream.seek(-TAIL_CHARS, os.SEEK_END)
    tail = stream.read()
    missing = size - len(head) - len(tail)
    return f"{head.decode(errors='replace')}\n[{missing} bytes left out]\n{tail.decode(errors='replace')}"


def _trimmed(error: BaseException) -> str:
    """The traceback with the frames of the calls' code and the last one; where there are many, the innermost."""
    try:
        described = traceback.TracebackException.from_exception(error)
        link: traceback.TracebackException | None = described
        while link is not None:
            own = [frame for frame in link.stack[:-1] if frame.filename.startswith("<call ")]
            last = [frame for frame in link.stack[-1:] if frame.filename != __file__]
            link.stack = traceback.StackSummary.from_list([*own, *last][-MAX_FRAMES:])
            link = link.__cause__ or link.__context__
        text = "".join(described.format())
    except Exception:  # its __str__ fails
        text = type(error).__name__
    return shorten(text.strip(), RESULT_CHARS // 4, RESULT_CHARS * 3 // 4)
