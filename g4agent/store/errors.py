"""What the databases' errors mean to the reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, ResourceClosedError, StatementError

from g4agent.errors import StoreError

ELSEWHERE = "or choose another place for the store with G4AGENT_HOME."

_SQLITE = {
    "SQLITE_BUSY": (
        "is locked by another process",
        "Wait for that process or end it, then resume the session.",
    ),
    "SQLITE_READONLY": ("is read-only", f"Make the file and its folder writable, {ELSEWHERE}"),
    "SQLITE_CANTOPEN": ("cannot be opened", f"Check that its folder exists and is writable, {ELSEWHERE}"),
    "SQLITE_FULL": ("has no space left to grow", "Free some disk space, then resume the session."),
    "SQLITE_IOERR": (
        "could not be read or written by the system",
        "Check the disk and its free space, then try again.",
    ),
    "SQLITE_CORRUPT": (
        "is damaged",
        "Save what is readable with `sqlite3 FILE .recover`, or move the file away to begin a new store.",
    ),
    "SQLITE_NOTADB": ("is not a database", f"Move the file away, {ELSEWHERE}"),
    "SQLITE_TOOBIG": ("cannot hold a value of this size", "Keep the workspace below 1 GB."),
}
"""What happened and what to do, by SQLite's result code (https://www.sqlite.org/rescode.html)."""

_UNREACHABLE = ("cannot be reached", "Check the URL, that the server runs, and that it lets you in; then try again.")
_POSTGRESQL = {
    "08": _UNREACHABLE,
    "57P": _UNREACHABLE,
    "28": ("refuses the user or the password", "Check the URL, and the server's pg_hba.conf."),
    "3D": ("does not exist", "Create it with `createdb NAME`; its tables are then made by g4agent."),
    "42501": ("does not let this user do that", "Use the user that owns the tables, or grant it the rights."),
    "25006": ("is read-only", "Use the primary server, and a user with the right to write."),
    "53": ("has no room left on its server", "Free disk space, memory or connections there, then resume the session."),
    "55P03": ("is locked by another process", "Wait for that process or end it, then resume the session."),
    "40": ("had two transactions in each other's way", "Resume the session to try again."),
    "XX": ("is damaged", "Look at the server's log; restore it from a backup."),
}
"""By the beginning of the SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


@contextmanager
def translated_errors(location: str) -> Iterator[None]:
    """Turns the database's errors into StoreError."""
    try:
        yield
    except DBAPIError as error:
        if meaning := _meaning(error):
            what, hint = meaning
            raise StoreError(f"The store {location} {what}.", hint=hint) from error
        raise StoreError(f"The store {location} refused a statement: {error.orig}") from error
    except (StatementError, UnicodeEncodeError) as error:
        problem = error.orig if isinstance(error, StatementError) else error
        raise StoreError(
            f"A value cannot be stored: {problem}.", hint="Values are JSON; texts are Unicode without lone surrogates."
        ) from error
    except ResourceClosedError as error:
        raise StoreError(f"The store {location} was closed.", hint="Open it again.") from error


def _meaning(error: DBAPIError) -> tuple[str, str] | None:
    if code := getattr(error.orig, "sqlite_errorname", None):
        return next((meaning for prefix, meaning in _SQLITE.items() if code.startswith(prefix)), None)
    state = getattr(error.orig, "sqlstate", None)
    if (state is None and error.connection_invalidated) or type(error.orig).__name__ == "ConnectionTimeout":
        return _UNREACHABLE
    if state is None and type(error.orig).__name__ == "OperationalError":
        return _UNREACHABLE  # the server answered with no SQLSTATE, or not at all
    return next((meaning for prefix, meaning in _POSTGRESQL.items() if (state or "").startswith(prefix)), None)
