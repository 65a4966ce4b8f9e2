"""Tools for one PostgreSQL database, reached from the sandbox by a unix socket or by `net`: tables, queries, changes.

The address, password included, is the secret POSTGRES_URL, `postgresql://user:password@host:port/database`: neither the
model nor anything that is kept of a run sees it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from g4agent.errors import ConfigError

if TYPE_CHECKING:
    from g4agent.session import Service
    from g4agent.tools import Tool

SOCKETS = "/run/postgresql"
"""The folder in the box where `socket` shows a server's socket: the host of an address that names none."""


def tools(*, write: bool = False) -> Sequence[Tool]:
    """The tools, in the order in which a model should read them.

    Args:
        write: Also `execute_postgres`, which changes the database.

    Raises:
        ConfigError: The library psycopg is not installed.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError("tools for PostgreSQL need the library psycopg", hint="pip install 'g4agent[postgres]'")
    from g4agent_sql.postgres.changing import execute_postgres
    from g4agent_sql.postgres.reading import describe_postgres_table, list_postgres_tables, query_postgres

    reading = [list_postgres_tables, describe_postgres_table, query_postgres]
    return [*reading, execute_postgres] if write else reading


def socket(path: Path | str = "/var/run/postgresql/.s.PGSQL.5432") -> Service:
    """Opens a server's unix socket into the box, for `Agent(services=[…])`.

    Args:
        path: The socket on the host, `.s.PGSQL.` and the port. The address names the port where it is not 5432:
            `postgresql://user:password@:5433/database`.

    Raises:
        ConfigError: It is not called so.
    """
    path = Path(path)
    if not path.name.startswith(".s.PGSQL."):
        raise ConfigError(f"{path} is no socket of PostgreSQL", hint="It is called .s.PGSQL.5432, or another port.")

    @asynccontextmanager
    async def opened(folder: Path, seed: int) -> AsyncIterator[Mapping[str, Path]]:
        yield {f"{SOCKETS}/{path.name}": path}

    return opened


__all__ = ["socket", "tools"]
