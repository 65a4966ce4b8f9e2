"""Looking into a PostgreSQL database: its tables, one table, a query."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals
from g4agent_sql.postgres.connection import ADDRESS, connect
from g4agent_sql.results import rows_of, shown

MAX_TABLES = 100
MAX_COLUMNS = 200
MAX_ROWS = 500
MAX_COUNTED = 100_000
"""Rows of a table that are counted; a whole one may take minutes."""
QUERY = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|with|values|table)\b", re.IGNORECASE | re.DOTALL)
"""How a query begins: for a better message than the server's, which decides."""

COLUMNS = """
SELECT attname, pg_catalog.format_type(atttypid, atttypmod), attnotnull,
CASE WHEN attgenerated = '' THEN pg_catalog.pg_get_expr(adbin, adrelid) END
FROM pg_catalog.pg_attribute LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
CONSTRAINTS = """
SELECT pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
WHERE conrelid = %s AND contype IN ('p', 'u', 'f', 'c') ORDER BY contype DESC, conname
"""


@tool(effect="pure", untrusted=True, secrets=[ADDRESS])
@answers_refusals
def list_postgres_tables() -> dict[str, Any]:
    """List the tables and views of the PostgreSQL database."""
    with connect() as database:
        names = [name for name, _ in database.tables()]
    listed: dict[str, Any] = {"tables": names[:MAX_TABLES]}
    return listed | {"note": f"only the first {MAX_TABLES} of {len(names)}"} if len(names) > MAX_TABLES else listed


@tool(effect="pure", untrusted=True, secrets=[ADDRESS])
@answers_refusals
def describe_postgres_table(table: str) -> dict[str, Any]:
    """Show the columns, keys and number of rows of a table in the PostgreSQL database.

    Args:
        table: Its name.
    """
    with connect() as database:
        tables = dict(database.tables())
        wanted = table.casefold()
        name = next((each for each in tables if wanted in (each.casefold(), each.strip('"').casefold())), None)
        if name is None:
            raise Refusal(f"no table {table}; tables: {', '.join(list(tables)[:50]) or 'none'}")
        columns = [_column(*each) for each in database.run(COLUMNS, (tables[name],))]
        constraints = [shown(text) for (text,) in database.run(CONSTRAINTS, (tables[name],))]
        (kind,) = database.run("SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = %s", (tables[name],))
        described: dict[str, Any] = {"columns": columns[:MAX_COLUMNS]}
        if kind != ("v",):
            ((rows,),) = database.run(f"SELECT count(*) FROM (SELECT FROM {name} LIMIT {MAX_COUNTED + 1}) counted")
            described["rows"] = rows if rows <= MAX_COUNTED else f"more than {MAX_COUNTED}"
    if constraints:
        described["constraints"] = constraints
    if len(columns) > MAX_COLUMNS:
        described["note"] = f"only the first {MAX_COLUMNS} of {len(columns)} columns"
    return described


@tool(effect="pure", untrusted=True, secrets=[ADDRESS])
@answers_refusals
def query_postgres(sql: str, limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 50) -> dict[str, Any]:
    """Read from the PostgreSQL database.

    Args:
        sql: One SELECT statement.
        limit: Most rows that are shown.
    """
    if not QUERY.match(sql):
        raise Refusal("`sql` is no query, and the database is open for reading only: write one SELECT statement")
    with connect() as database:
        return rows_of(*database.read(sql), limit)


def _column(name: str, kind: str, required: bool, default: str | None) -> str:
    """One line of the table's definition: `price numeric(10,2) not null default 0`."""
    words = [name, kind, "not null" if required else "", f"default {shown(default)}" if default is not None else ""]
    return " ".join(filter(None, words))
