"""One connection to a SQLite file: what it may do, how long, and what its errors say to a model."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from g4agent.workspace_files import Refusal, locate_file

STATEMENT_SECONDS = 20.0
MAX_VALUE_BYTES = 8 * 1024 * 1024
"""Largest value or row that SQLite may build: more would fill the box's memory."""
INSTRUCTIONS_PER_CHECK = 10_000
"""Of SQLite's virtual machine between two looks at the clock."""

FAILURES = (sqlite3.Error, sqlite3.Warning, UnicodeError)
"""What a statement raises: a damaged file's messages and names may be no text."""
READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
DESCRIBING = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
)
"""The pragmas that only tell about the schema."""
NEVER: Mapping[int, str] = {
    sqlite3.SQLITE_ATTACH: "ATTACH and VACUUM are not allowed: one file at a time",
    sqlite3.SQLITE_DETACH: "DETACH is not allowed: one file at a time",
}
CHANGING = {
    getattr(sqlite3, f"SQLITE_{name}"): name.replace("_", " ")
    for name in (
        *("INSERT", "UPDATE", "DELETE", "ALTER_TABLE", "ANALYZE", "REINDEX", "TRANSACTION", "SAVEPOINT"),
        *("CREATE_TABLE", "CREATE_INDEX", "CREATE_VIEW", "CREATE_TRIGGER", "CREATE_VTABLE", "DROP_TABLE"),
        *("DROP_INDEX", "DROP_VIEW", "DROP_TRIGGER", "DROP_VTABLE", "CREATE_TEMP_TABLE", "CREATE_TEMP_INDEX"),
        *("CREATE_TEMP_VIEW", "CREATE_TEMP_TRIGGER", "DROP_TEMP_TABLE", "DROP_TEMP_INDEX", "DROP_TEMP_VIEW"),
        "DROP_TEMP_TRIGGER",
    )
}
"""What `execute` may do, by SQLite's action code, with the words for a message."""


@contextmanager
def connect(path: str, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """A guarded connection to a database of the workspace; what fails in it becomes a Refusal.

    Without `write` the file is opened read-only, and SQLite's authorizer lets nothing through but reading. With it the
    changes of the block are committed at its end, or none of them.

    Raises:
        Refusal: There is no such file, it is protected or no database, or a statement fails, with what would help.
    """
    file = locate_file(path, change=write)
    address = f"{file.as_uri()}?mode={'rw' if write else 'ro'}"
    refused: list[str] = []
    deadline = time.monotonic() + STATEMENT_SECONDS
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=5, isolation_level=None)) as connection:
            connection.text_factory = lambda data: data.decode(errors="replace")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.execute("PRAGMA trusted_schema = OFF")  # views and triggers of a stranger's file
            if write:
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("BEGIN IMMEDIATE")
            else:
                connection.execute("PRAGMA query_only = ON")
            guard(connection, refused, write=write)
            connection.set_progress_handler(lambda: time.monotonic() > deadline, INSTRUCTIONS_PER_CHECK)
            try:
                yield connection
            except FAILURES as error:
                raise Refusal(_explain(error, refused, connection)) from error
            if write:
                connection.set_authorizer(None)
                connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise Refusal(f"{path}: {error}") from error


def guard(connection: sqlite3.Connection, refused: list[str], *, write: bool) -> None:
    """Sets the authorizer; it appends why it refuses, for SQLite itself only says `not authorized`."""

    def decide(action: int, first: str | None, second: str | None, schema: str | None, source: str | None) -> int:
        if action in READING:
            if action != sqlite3.SQLITE_FUNCTION or (second or "").lower() != "load_extension":
                return sqlite3.SQLITE_OK
            refused.append("load_extension is not allowed")
        elif action == sqlite3.SQLITE_PRAGMA:
            if (first or "").lower() in DESCRIBING:
                return sqlite3.SQLITE_OK
            refused.append(f"PRAGMA {first} is not allowed, only {', '.join(sorted(DESCRIBING))}")
        elif action in NEVER:
            refused.append(NEVER[action])
        elif write and action in CHANGING and action not in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT):
            return sqlite3.SQLITE_OK
        elif write:
            refused.append(f"{CHANGING.get(action, 'this')} is not allowed: each call is one transaction of its own")
        else:
            refused.append(f"{CHANGING.get(action, 'this')} is not allowed: the database is open for reading only")
        return sqlite3.SQLITE_DENY

    connection.set_authorizer(decide)


def table_names(connection: sqlite3.Connection) -> list[str]:
    """Tables and views, without SQLite's own."""
    listed = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    return [str(name) for (name,) in connection.execute(f"{listed} ORDER BY name")]


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def _explain(error: Exception, refused: list[str], connection: sqlite3.Connection) -> str:
    """The error with what the model needs to do better."""
    if refused:
        return refused[0]
    text = str(error)
    if text == "interrupted":
        return f"no end after {STATEMENT_SECONDS:g} s: ask for less"
    connection.set_progress_handler(None, 0)
    try:
        if text.startswith("no such table"):
            return f"{text}; tables: {', '.join(table_names(connection)[:50]) or 'none'}"
        if text.startswith("no such column"):
            return f"{text}; columns: {_columns(connection)}"
    except FAILURES:
        return text
    return text


def _columns(connection: sqlite3.Connection) -> str:
    """The columns of all tables, as many as fit in a message."""
    tables = []
    for name in table_names(connection)[:20]:
        described = connection.execute(f"SELECT * FROM {quoted(name)} LIMIT 0").description
        tables.append(f"{name} ({', '.join(column[0] for column in described[:40])})")
    return "; ".join(tables)[:2000]
