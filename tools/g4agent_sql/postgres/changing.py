"""Changing a PostgreSQL database, for agents that may."""

from __future__ import annotations

from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import answers_refusals
from g4agent_sql.postgres.connection import ADDRESS, connect
from g4agent_sql.results import rows_of

MAX_RETURNED = 50
CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")


@tool(effect="once", untrusted=True, secrets=[ADDRESS])
@answers_refusals
def execute_postgres(sql: str) -> dict[str, Any]:
    """Change the PostgreSQL database, all of the statement or nothing.

    Args:
        sql: One statement, such as INSERT, UPDATE, DELETE or CREATE TABLE.
    """
    with connect(write=True) as database:
        cursor = database.run(sql)
        done = {"changed_rows": cursor.rowcount if (cursor.statusmessage or "").startswith(CHANGES) else 0}
        if cursor.description is None:
            return done
        return {**done, **rows_of([column.name for column in cursor.description], cursor, MAX_RETURNED)}
