"""One connection to the PostgreSQL server: what it may do, how long, and what its errors say to a model.

Each call has a connection and a transaction of its own. What a query may do is decided by the server: the transaction
is read-only, and the statement stands in a cursor's declaration, which takes one query and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass

import psycopg
from psycopg import errors, pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import TextLoader

from g4agent.secrets import secret
from g4agent.workspace_files import Refusal
from g4agent_sql.postgres import SOCKETS
from g4agent_sql.postgres.tunnel import Tunnel

ADDRESS = "POSTGRES_URL"
"""The secret."""
STATEMENT_SECONDS = 20.0
CONNECT_SECONDS = 10
BATCH = 20
"""Rows that are fetched at a time, so that wide rows are not all in memory."""
AS_TEXT = ("date", "time", "timetz", "timestamp", "timestamptz", "interval", "json", "jsonb")
"""Types whose text says more to a model, or that Python cannot hold in full (infinity, years before Christ)."""
FAILURES = (psycopg.Error, UnicodeError)

MIGHTY = """
SELECT rolname FROM pg_catalog.pg_roles
WHERE (rolsuper OR rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))
AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER') ORDER BY rolsuper DESC, rolname LIMIT 1
"""
VISIBLE = """
SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
ELSE pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) END AS name, c.oid
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
AND n.nspname NOT LIKE 'pg\\_%' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT') ORDER BY name
"""
"""The tables and views that may be read, named as a statement has to name them."""


class DatabaseError(Exception):
    """The database cannot be used at all, whatever is asked of it."""


class Database:
    """An open connection with its transaction. Made by `connect`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + STATEMENT_SECONDS

    def run(self, statement: str, values: tuple[Any, ...] = ()) -> psycopg.Cursor[Any]:
        """One statement; the server takes no second one after it."""
        return self._connection.execute(statement, values or None, prepare=True)

    def read(self, query: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """The columns of a query, and its rows as they are asked for."""
        cursor = self._connection.cursor("rows")
        cursor.execute(query)
        if cursor.description is None:
            raise Refusal("`sql` is no query: write one SELECT statement")
        return [column.name for column in cursor.description], self._fetch(cursor)

    def _fetch(self, cursor: psycopg.ServerCursor[Any]) -> Iterator[tuple[Any, ...]]:
        while True:
            self.limit_time()  # again, because the query itself may have changed it
            batch = cursor.fetchmany(BATCH)
            yield from batch
            if len(batch) < BATCH:
                return

    def limit_time(self) -> None:
        """Lets the server end the next statement when the call's time is up, and the transaction with it."""
        left = max(1, int((self._deadline - time.monotonic()) * 1000))
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            self._connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, str(left)))

    def tables(self) -> list[tuple[str, int]]:
        """The tables and views that may be read: name and number in the catalogue."""
        return [(str(name), int(number)) for name, number in self.run(VISIBLE)]

    def columns(self) -> str:
        """The columns of all tables, as many as fit in a message."""
        found = self.run(
            f"SELECT name, pg_catalog.string_agg(attname::text, ', ' ORDER BY attnum) FROM ({VISIBLE} LIMIT 20) t "
            "JOIN pg_catalog.pg_attribute ON attrelid = t.oid AND attnum > 0 AND NOT attisdropped GROUP BY name "
            "ORDER BY name"
        )
        return "; ".join(f"{name} ({columns})" for name, columns in found)[:2000]


@contextmanager
def connect(*, write: bool = False) -> Iterator[Database]:
    """A transaction at the database that the secret POSTGRES_URL names; what fails in it becomes a Refusal.

    Without `write` it is read-only, and rolled back at its end. With it the changes of the block are committed at its
    end, or none of them.

    Raises:
        Refusal: A statement fails, with what would help.
        DatabaseError: The address is none, the server cannot be reached, or its user may do too much.
    """
    with _connected(_settings(secret(ADDRESS))) as connection:
        connection.read_only = not write
        database = Database(connection)
        try:
            if not write:
                database.run("SET default_transaction_read_only = on")  # undone with the transaction
            mighty = database.run(MIGHTY).fetchone()
            database.limit_time()
        except FAILURES as error:
            raise DatabaseError(f"the database cannot be used: {error}") from error
        if mighty is not None:
            raise DatabaseError(
                f"the user of the database is {mighty[0]} or may become it, for whom even a SELECT may read files and "
                "run programs on the server: give the address of a user with fewer rights"
            )
        try:
            yield database
            if write:
                if connection.info.transaction_status != pq.TransactionStatus.INTRANS:
                    raise Refusal("that is not allowed: each call is one transaction of its own")
                connection.commit()
        except FAILURES as error:
            raise Refusal(_explain(error, connection, database)) from error


@contextmanager
def _connected(settings: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """A connection, through the box's proxy where there is one and the server is not on a socket."""
    host, port, tunnel = settings["host"], settings["port"], None
    with ExitStack() as stack:
        proxy = getproxies_environment().get("https")
        if proxy is not None and not host.startswith(("/", "@")) and not proxy_bypass(host):
            tunnel = stack.enter_context(closing(Tunnel(proxy, host, port)))
            settings |= {"hostaddr": "127.0.0.1", "port": tunnel.port}
        try:
            connection = stack.enter_context(closing(psycopg.Connection[Any].connect(**settings, prepare_threshold=0)))
        except FAILURES as error:
            said = tunnel.refusal if tunnel is not None and tunnel.refusal is not None else str(error).strip()
            raise DatabaseError(f"no connection to the database: {said}") from error
        for name in AS_TEXT:
            connection.adapters.register_loader(name, TextLoader)
        yield connection


def _settings(address: str) -> dict[str, Any]:
    """What libpq is told. No error shows the address."""
    try:
        if not address.startswith(("postgresql://", "postgres://")):
            raise ValueError(ADDRESS)
        settings: dict[str, Any] = dict(conninfo_to_dict(address))
        settings["port"] = int(settings.get("port") or 5432)
    except (psycopg.Error, ValueError):
        raise DatabaseError(f"{ADDRESS} is no address: postgresql://user:password@host:port/database") from None
    settings["host"] = settings.get("host") or os.environ.get("PGHOST", SOCKETS)
    if "," in settings["host"]:
        raise DatabaseError(f"{ADDRESS} names several servers: one is supported")
    settings.setdefault("connect_timeout", CONNECT_SECONDS)
    return settings | {"client_encoding": "utf8", "application_name": "g4agent"}


def _explain(error: Exception, connection: psycopg.Connection[Any], database: Database) -> str:
    """The error with what the model needs to do better."""
    if not isinstance(error, psycopg.Error):
        return f"the result holds what is no text: {error}"
    if isinstance(error, errors.QueryCanceled):
        return f"no end after {STATEMENT_SECONDS:g} s: ask for less"
    text = " ".join(filter(None, [error.diag.message_primary or str(error).strip(), error.diag.message_detail]))
    if error.diag.message_hint:
        text += f" ({error.diag.message_hint})"
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return f"{text}: the database is open for reading only"
    try:
        connection.rollback()
        if isinstance(error, errors.UndefinedTable):
            return f"{text}; tables: {', '.join(name for name, _ in database.tables()[:50]) or 'none'}"
        if isinstance(error, errors.UndefinedColumn):
            return f"{text}; columns: {database.columns()}"
    except FAILURES:
        pass
    return text
