"""Which version of the schema a database has, and how it gets to the present one.

An open costs two small queries. Alembic is only imported where there is something to create or to upgrade.
"""

from __future__ import annotations

from sqlalchemy import Connection

from g4agent.errors import StoreError

HEAD = "0001"
"""The newest revision in `migrations/versions`. Revisions are numbered, so that they can be compared."""

APPLICATION_ID = 0x67346167
"""`g4ag` in the header of the file says whose database it is (`PRAGMA application_id`)."""


def ensure_schema(connection: Connection, location: str) -> None:
    """Creates or upgrades the tables where needed. Raises StoreError for a database that is not ours, or newer."""
    with connection.begin():
        version = stored_version(connection, location)
    if version != HEAD:
        _upgrade(connection, location)


def stored_version(connection: Connection, location: str) -> str | None:
    """The revision that the database has; None where it is empty."""
    if connection.exec_driver_sql("PRAGMA application_id").scalar_one() == APPLICATION_ID:
        version = str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
        if version > HEAD:
            raise StoreError(
                f"The store {location} was written by a newer g4agent (schema {version}, this one knows {HEAD}).",
                hint="Upgrade with `pip install -U g4agent`, or choose another place for the store with G4AGENT_HOME.",
            )
        return version
    if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0:
        return None
    raise StoreError(
        f"{location} is another application's database.",
        hint="Choose another file, or another place for the store with G4AGENT_HOME.",
    )


def _upgrade(connection: Connection, location: str) -> None:
    """All migrations that are missing, in one transaction.

    Foreign keys are off meanwhile, as SQLite changes a table by copying it and dropping the old one, which would
    cascade; they are checked before the commit.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "g4agent.store:migrations")
    config.attributes["connection"] = connection
    with connection.begin():
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if stored_version(connection, location) != HEAD:  # else another process was faster
            command.upgrade(config, HEAD)
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            assert not orphans, f"the migration to {HEAD} left rows without an owner: {orphans[:3]}"
    with connection.begin():
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
