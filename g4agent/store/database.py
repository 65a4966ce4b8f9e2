"""Where a store lies and how it is opened: one connection to SQLite or PostgreSQL, and transactions on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, NullPool, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from g4agent.errors import StoreError
from g4agent.store.errors import ELSEWHERE, translated_errors

SQLITE, POSTGRESQL = "sqlite", "postgresql"

_BEGIN_WRITING = {SQLITE: "BEGIN IMMEDIATE", POSTGRESQL: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"}
"""SQLite takes its one write lock at once, so that a transaction cannot fail half-way for want of it; PostgreSQL locks
the rows that a transaction touches, which are its session's own."""
_BEGIN_READING = {SQLITE: "BEGIN", POSTGRESQL: "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"}
_CLOCK = {
    SQLITE: "SELECT (julianday('now') - 2440587.5) * 86400.0",
    POSTGRESQL: "SELECT extract(epoch from clock_timestamp())",
}


def default_path() -> Path:
    """`$G4AGENT_HOME/g4agent.db`, else `g4agent/g4agent.db` in the XDG data folder of the user."""
    home = os.environ.get("G4AGENT_HOME")
    if home:
        return Path(home) / "g4agent.db"
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "g4agent" / "g4agent.db"


def locate(place: str | os.PathLike[str] | None) -> URL:
    """The URL for a URL, a path or the default (`$G4AGENT_STORE`, else `default_path`). A file is there and private to
    the user afterwards.

    Only the folder of the default place is created: a missing one elsewhere is more likely a slip of the pen.
    Raises StoreError.
    """
    if place is None:
        place = os.environ.get("G4AGENT_STORE") or None
    if isinstance(place, str) and "://" in place:
        return _parse(place)
    path = default_path() if place is None else Path(place).expanduser()
    try:
        if place is None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(
            f"The store {path} cannot be opened: {error.strerror}.",
            hint=f"Check that its folder exists and is writable, {ELSEWHERE}",
        ) from error
    return URL.create(SQLITE, database=str(path))


def _parse(place: str) -> URL:
    try:
        url = make_url(place)
    except ArgumentError as error:
        raise StoreError(f"{place} is not a database URL.", hint="Write sqlite:///path/to/file.db") from error
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        return url
    raise StoreError(
        f"A store cannot live in {url.drivername}.",
        hint="Give the path of a file, sqlite:///path/to/file.db, or postgresql://user@host/database.",
    )


class Database:
    """One connection, on which the threads of a process take turns.

    Args:
        url: From `locate`.
        busy_seconds: How long to wait for another process's lock.
    """

    def __init__(self, url: URL, busy_seconds: float) -> None:
        self.dialect = url.get_backend_name()
        shown = url.set(drivername=self.dialect).render_as_string()
        self.location = (url.database or ":memory:") if self.dialect == SQLITE else shown
        """As errors name it: the file, or the URL without its password."""
        self._lock = threading.Lock()
        with translated_errors(self.location):
            self.connection: Connection = (_sqlite if self.dialect == SQLITE else _postgresql)(url, busy_seconds)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: all of it is committed when the block ends, or nothing."""
        with self._lock, translated_errors(self.location), self.connection.begin():
            self.connection.exec_driver_sql(_BEGIN_WRITING[self.dialect])
            yield self.connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view, which no writer disturbs or waits for."""
        with self._lock, translated_errors(self.location), self.connection.begin():
            self.connection.exec_driver_sql(_BEGIN_READING[self.dialect])
            yield self.connection

    def now(self, connection: Connection) -> float:
        """Unix time by the database's clock, which all hosts share."""
        return float(connection.exec_driver_sql(_CLOCK[self.dialect]).scalar_one())

    def close(self) -> None:
        """Ends the connection. Harmless when it has ended already."""
        with self._lock, translated_errors(self.location):
            self.connection.close()
            self.connection.engine.dispose()


def _sqlite(url: URL, busy_seconds: float) -> Connection:
    """A connection with its transactions left to `BEGIN` statements of ours.

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


def _postgresql(url: URL, busy_seconds: float) -> Connection:
    """A connection that is made anew, at the next transaction, if the server broke it."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise StoreError(
            "PostgreSQL needs a driver.", hint="Install it with: pip install 'g4agent[postgres]'"
        ) from error
    options = f"-c lock_timeout={int(busy_seconds * 1000)} -c synchronous_commit=on"
    arguments = {"connect_timeout": 10, "options": options, "application_name": "g4agent"}
    return create_engine(url, poolclass=NullPool, connect_args=arguments).connect()
