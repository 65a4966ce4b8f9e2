"""Names that outlive a call: one file with a pickle, by value, of all that the code has defined.

Functions and classes are kept with their code (cloudpickle). A function's globals are not copied but are those of the
session, so a function sees what later calls assign. The file is written whole or not at all, and only after a process
of its own could read it.
"""

from __future__ import annotations

import io
import marshal
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import _lru_cache_wrapper, lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from g4agent_python.code import remember_source

HEADER = f"g4agent names 1, Python {sys.version_info.major}.{sys.version_info.minor}\n".encode()
MAX_BYTES = 48 * 1024 * 1024
"""Of the file: a box's files may be 64 MiB, and every checkpoint of the session holds it."""
MAX_SOURCES = 50
CHECK_SECONDS = 8
"""In which the file must be readable."""
READABLE = "readable"
MAX_NAMED = 20


@dataclass(slots=True)
class Memory:
    """What is kept of a namespace, in a file."""

    file: Path
    namespace: dict[str, Any]
    _sources: dict[int, str] = field(default_factory=dict)
    """The code of the latest calls by their number, for tracebacks."""

    def load(self) -> list[str]:
        """Puts the names of the calls before into the namespace; gives a note if they are lost."""
        try:
            data = self.file.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            return [f"the names of the calls before could not be read: {error.strerror}"]
        try:
            if not data.startswith(HEADER):
                raise ValueError("another version wrote them")
            self._sources, names = _load(data, self.namespace)
        except Exception as error:
            return [f"the names of the calls before are lost: {_short(error)}"]
        self.namespace.update(names)
        for number, source in self._sources.items():
            remember_source(number, source)
        return []

    def begin(self, source: str) -> int:
        """The number of the call that is about to run this code."""
        number = max(self._sources, default=0) + 1
        self._sources[number] = source
        for old in sorted(self._sources)[:-MAX_SOURCES]:
            del self._sources[old]
        return number

    def save(self) -> list[str]:
        """Writes the file; gives a note about the names that could not be kept, with the reasons."""
        names = {name: value for name, value in self.namespace.items() if not _is_own(name)}
        data, left_out = self._encode(names)
        try:
            _replace(self.file, data)
        except OSError as error:
            return [f"nothing of this call is kept: {error.strerror}"]
        if not left_out:
            return []
        listed = [f"{name} ({reason})" for name, reason in list(left_out.items())[:MAX_NAMED]]
        more = [f"and {len(left_out) - MAX_NAMED} more"] if len(left_out) > MAX_NAMED else []
        return [f"not kept for the next call: {', '.join([*listed, *more])}"]

    def _encode(self, names: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        """All names in one pickle, so that what they share stays shared; if that fails, all but the offenders."""
        data, problem = self._try({**names})
        if problem is None:
            return data, {}
        left_out: dict[str, str] = {}
        sizes: dict[str, int] = {}
        for name, value in names.items():
            alone, problem = self._try({name: value})
            if problem is None:
                sizes[name] = len(alone)
            else:
                left_out[name] = problem
        room = MAX_BYTES
        for name in sorted(sizes, key=sizes.__getitem__):
            room -= sizes[name]
            if room < 0:
                left_out[name] = f"no room: all names together may take {MAX_BYTES >> 20} MiB"
        data, problem = self._try({name: names[name] for name in names if name not in left_out})
        if problem is None:
            return data, left_out
        data, _ = self._try({})
        return data, dict.fromkeys(names, problem)

    def _try(self, names: Mapping[str, Any]) -> tuple[bytes, str | None]:
        """The file's content, or why there cannot be one."""
        stream = _Bounded(HEADER)
        stream.seek(0, os.SEEK_END)
        try:
            _Pickler(stream, self.namespace).dump((self._sources, dict(names)))
        except Exception as error:
            return b"", _short(error)
        data = stream.getvalue()
        return data, _problem_of_reading(data)


class _Bounded(io.BytesIO):
    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > MAX_BYTES:
            raise _TooLarge(f"more than {MAX_BYTES >> 20} MiB: save it to a file")
        return super().write(data)


class _TooLarge(Exception):
    pass


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles by value, but the session's namespace, and what functions see of it, by reference."""

    def __init__(self, stream: io.BytesIO, namespace: dict[str, Any]) -> None:
        super().__init__(stream, protocol=pickle.HIGHEST_PROTOCOL)
        self._namespace = namespace

    def persistent_id(self, value: Any) -> str | None:
        return "namespace" if value is self._namespace else None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, CodeType):  # cloudpickle would drop the file's name, by which tracebacks find the lines
            return marshal.loads, (marshal.dumps(value),)
        if isinstance(value, _lru_cache_wrapper):  # pickles as a name that the next call's module does not have
            return _cached, (value.__wrapped__, value.cache_parameters())
        reduced = super().reducer_override(value)
        if not (
            isinstance(value, FunctionType) and value.__globals__ is self._namespace and isinstance(reduced, tuple)
        ):
            return reduced
        make, (code, _, *rest), (attributes, slots), *end = reduced
        return make, (code, self._namespace, *rest), (attributes, {**slots, "__globals__": {}}), *end


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    """The function with an empty cache, in place of one that `functools.lru_cache` or `cache` has made."""
    cached: Callable[..., Any] = lru_cache(maxsize=parameters["maxsize"], typed=parameters["typed"])(function)
    return cached


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, namespace: dict[str, Any]) -> None:
        super().__init__(stream)
        self._namespace = namespace

    def persistent_load(self, identifier: Any) -> dict[str, Any]:
        return self._namespace


def _load(data: bytes, namespace: dict[str, Any]) -> tuple[dict[int, str], dict[str, Any]]:
    sources, names = _Unpickler(io.BytesIO(data[len(HEADER) :]), namespace).load()
    return sources, names


def _problem_of_reading(data: bytes) -> str | None:
    """Reads the file's content in a fork, where nothing of this process can be harmed; why that fails, or None."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _read_back(data, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    os.waitpid(pid, 0)
    return None if outcome == READABLE else outcome or "reading it back ends the process or takes too long"


def _read_back(data: bytes, report: int) -> None:
    """The fork's work: reports READABLE or what is wrong, and ends the process."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHECK_SECONDS)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        sys.modules["__main__"] = main = ModuleType("__main__")  # as empty as the next call will find it
        _load(data, vars(main))
        os.write(report, READABLE.encode())
    except BaseException as error:
        os.write(report, _short(error).encode(errors="replace"))
    finally:
        os._exit(0)


def _is_own(name: str) -> bool:
    """Names of Python's own in a module, such as `__builtins__`."""
    return name.startswith("__") and name.endswith("__")


def _replace(file: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as stream:
        temporary = Path(stream.name)
        try:
            stream.write(data)
            stream.flush()
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _short(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # its __str__ fails
        text = ""
    return text[:160] or type(error).__name__
