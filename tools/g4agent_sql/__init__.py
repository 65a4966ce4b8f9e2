"""Tools for SQLite databases in the workspace: what tables there are, and queries. They run in the sandbox.

Those for a PostgreSQL server are in `g4agent_sql.postgres`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g4agent.tools import Tool


def tools(*, write: bool = False) -> Sequence[Tool]:
    """The pack's tools, in the order in which a model should read them.

    Args:
        write: Also `execute`, which changes a database.
    """
    from g4agent_sql.changing import execute
    from g4agent_sql.reading import describe_table, list_tables, query

    reading = [list_tables, describe_table, query]
    return [*reading, execute] if write else reading


__all__ = ["tools"]
