"""Changing a database, for agents that may."""

from __future__ import annotations

from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import answers_refusals
from g4agent_sql.database import connect
from g4agent_sql.results import rows_of

MAX_RETURNED = 50


@tool(effect="once", untrusted=True)
@answers_refusals
def execute(database: str, sql: str) -> dict[str, Any]:
    """Change a SQLite database, all of the statement or nothing.

    Args:
        database: File.
        sql: One statement, such as INSERT, UPDATE, DELETE or CREATE TABLE.
    """
    with connect(database, write=True) as connection:
        before = connection.total_changes
        cursor = connection.execute(sql)
        returned = {}
        if cursor.description is not None:
            returned = rows_of([column[0] for column in cursor.description], cursor, MAX_RETURNED)
        cursor.fetchall()  # a RETURNING statement is only done when its last row was read
        return {"changed_rows": connection.total_changes - before, **returned}
