"""Where the database lies, how it is opened, and what its errors mean to the reader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, ResourceClosedError, StatementError

from g4agent.errors import StoreError

_ELSEWHERE = "or choose another place for the store with G4AGENT_HOME."

_MEANING = {
    "SQLITE_BUSY": (
        "is locked by another process",
        "Wait for that process or end it, then resume the session.",
    ),
    "SQLITE_READONLY": ("is read-only", f"Make the file and its folder writable, {_ELSEWHERE}"),
    "SQLITE_CANTOPEN": ("cannot be opened", f"Check that its folder exists and is writable, {_ELSEWHERE}"),
    "SQLITE_FULL": ("has no space left to grow", "Free some disk space, then resume the session."),
    "SQLITE_IOERR": (
        "could not be read or written by the system",
        "Check the disk and its free space, then try again.",
    ),
    "SQLITE_CORRUPT": (
        "is damaged",
        "Save what is readable with `sqlite3 FILE .recover`, or move the file away to begin a new store.",
    ),
    "SQLITE_NOTADB": ("is not a database", f"Move the file away, {_ELSEWHERE}"),
    "SQLITE_TOOBIG": ("cannot hold a value of this size", "Keep the workspace below 1 GB."),
}
"""What happened and what to do, by SQLite's result code (https://www.sqlite.org/rescode.html)."""


def default_path() -> Path:
    """`$G4AGENT_HOME/g4agent.db`, else `g4agent/g4agent.db` in the XDG data folder of the user."""
    home = os.environ.get("G4AGENT_HOME")
    if home:
        return Path(home) / "g4agent.db"
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "g4agent" / "g4agent.db"


def locate(place: str | os.PathLike[str] | None) -> URL:
    """The SQLite URL for a URL, a path or the default, with the file there and private to the user.

    Only the folder of the default place is created: a missing one elsewhere is more likely a slip of the pen.
    Raises StoreError.
    """
    if isinstance(place, str) and "://" in place:
        try:
            url = make_url(place)
        except ArgumentError as error:
            raise StoreError(f"{place} is not a database URL.", hint="Write sqlite:///path/to/file.db") from error
        if url.drivername not in ("sqlite", "sqlite+pysqlite"):
            raise StoreError(
                f"A store cannot live in {url.drivername}.",
                hint="Sessions are kept in SQLite: give the path of a file, or sqlite:///path/to/file.db",
            )
        return url
    path = default_path() if place is None else Path(place).expanduser()
    try:
        if place is None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(
            f"The store {path} cannot be opened: {error.strerror}.",
            hint=f"Check that its folder exists and is writable, {_ELSEWHERE}",
        ) from error
    return URL.create("sqlite", database=str(path))


def connect(url: URL, busy_seconds: float) -> Connection:
    """The one connection of a store, with its transactions left to `BEGIN` statements of ours.

    `synchronous=FULL` makes a commit survive the loss of power, not only of the process: an intent that was journaled
    must not be forgotten after its tool ran. It costs one sync of the write-ahead log per commit.
    """
    engine = create_engine(
        url, poolclass=StaticPool, connect_args={"timeout": busy_seconds, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def configure(dbapi: Any, _: object) -> None:
        dbapi.isolation_level = None  # the driver's own BEGIN is deferred and leaves out DDL
        dbapi.execute("PRAGMA foreign_keys = ON")
        dbapi.execute("PRAGMA journal_mode = WAL")
        dbapi.execute("PRAGMA synchronous = FULL")

    return engine.connect()


@contextmanager
def translated_errors(location: str) -> Iterator[None]:
    """Turns the database's errors into StoreError."""
    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorname", "")
        for prefix, (what, hint) in _MEANING.items():
            if code.startswith(prefix):
                raise StoreError(f"The store {location} {what}.", hint=hint) from error
        raise StoreError(f"The store {location} refused a statement: {error.orig}") from error
    except (StatementError, UnicodeEncodeError) as error:
        problem = error.orig if isinstance(error, StatementError) else error
        raise StoreError(
            f"A value cannot be stored: {problem}.", hint="Values are JSON; texts are Unicode without lone surrogates."
        ) from error
    except ResourceClosedError as error:
        raise StoreError(f"The store {location} was closed.", hint="Open it again.") from error
