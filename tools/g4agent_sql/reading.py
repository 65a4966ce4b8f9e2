"""Looking into a database: its tables, one table, a query."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals
from g4agent_sql.database import connect, quoted, table_names
from g4agent_sql.results import rows_of, shown

MAX_TABLES = 100
MAX_COLUMNS = 200
MAX_ROWS = 500


@tool(effect="pure", untrusted=True)
@answers_refusals
def list_tables(database: str) -> dict[str, Any]:
    """List the tables and views of a SQLite database.

    Args:
        database: File.
    """
    with connect(database) as connection:
        names = table_names(connection)
    listed: dict[str, Any] = {"tables": names[:MAX_TABLES]}
    return listed | {"note": f"only the first {MAX_TABLES} of {len(names)}"} if len(names) > MAX_TABLES else listed


@tool(effect="pure", untrusted=True)
@answers_refusals
def describe_table(database: str, table: str) -> dict[str, Any]:
    """Show a table's columns, foreign keys and number of rows.

    Args:
        database: File.
        table: Its name.
    """
    with connect(database) as connection:
        name = next((each for each in table_names(connection) if each.casefold() == table.casefold()), None)
        if name is None:
            raise Refusal(f"no table {table}; tables: {', '.join(table_names(connection)[:50]) or 'none'}")
        info = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
        keys = connection.execute(f"PRAGMA foreign_key_list({quoted(name)})").fetchall()
        (rows,) = connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()
    described: dict[str, Any] = {"columns": [_column(*each) for each in info[:MAX_COLUMNS]], "rows": rows}
    if keys:
        described["foreign_keys"] = [
            f"{source} → {other}({target or 'its key'})" for _, _, other, source, target, *_ in keys
        ]
    if len(info) > MAX_COLUMNS:
        described["note"] = f"only the first {MAX_COLUMNS} of {len(info)} columns"
    return described


@tool(effect="pure", untrusted=True)
@answers_refusals
def query(database: str, sql: str, limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 50) -> dict[str, Any]:
    """Read from a SQLite database.

    Args:
        database: File.
        sql: One SELECT statement.
        limit: Most rows that are shown.
    """
    with connect(database) as connection:
        cursor = connection.execute(sql)
        if cursor.description is None:
            raise Refusal("`sql` is no query: write one SELECT statement")
        return rows_of([column[0] for column in cursor.description], cursor, limit)


def _column(_: int, name: str, kind: str, required: int, default: str | None, key: int) -> str:
    """One line of the table's definition: `price REAL not null default 0`."""
    words = [name, kind, "primary key" if key else "", "not null" if required else ""]
    if default is not None:
        words.append(f"default {shown(default)}")
    return " ".join(filter(None, words))
