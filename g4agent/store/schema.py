"""Which version of the schema a database has, and how it gets to the present one.

An open costs two small queries. Alembic is only imported where there is something to create or to upgrade.
"""

from __future__ import annotations

from sqlalchemy import Connection

from g4agent.errors import StoreError
from g4agent.store.database import POSTGRESQL, SQLITE, Database

HEAD = "0006"
"""The newest revision in `migrations/versions`. Revisions are numbered, so that they can be compared."""

APPLICATION_ID = 0x67346167
"""`g4ag` in the header of the file says whose database it is (`PRAGMA application_id`)."""

_OURS = {
    SQLITE: f"SELECT application_id = {APPLICATION_ID} FROM pragma_application_id",
    POSTGRESQL: "SELECT count(*) = 2 FROM pg_tables WHERE schemaname = current_schema()"
    " AND tablename IN ('alembic_version', 'transcript')",
}
_TABLES = {
    SQLITE: "SELECT count(*) FROM sqlite_master",
    POSTGRESQL: "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()",
}


def ensure_schema(database: Database) -> None:
    """Creates or upgrades the tables where needed. Raises StoreError for a database that is not ours, or newer."""
    with database.reading() as connection:
        version = stored_version(connection, database)
    if version != HEAD:
        _upgrade(database)


def stored_version(connection: Connection, database: Database) -> str | None:
    """The revision that the database has; None where it is empty."""
    if connection.exec_driver_sql(_OURS[database.dialect]).scalar_one():
        version = str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
        if version > HEAD:
            raise StoreError(
                f"The store {database.location} was written by a newer g4agent (schema {version}, this one knows "
                f"{HEAD}).",
                hint="Upgrade with `pip install -U g4agent`, or choose another place for the store with G4AGENT_HOME.",
            )
        return version
    if connection.exec_driver_sql(_TABLES[database.dialect]).scalar_one() == 0:
        return None
    raise StoreError(
        f"{database.location} is another application's database.",
        hint="Choose another file or database, or another place for the store with G4AGENT_HOME.",
    )


def _upgrade(database: Database) -> None:
    """All migrations that are missing, in one transaction, with other processes kept out.

    On SQLite foreign keys are off meanwhile, as it changes a table by copying it and dropping the old one, which would
    cascade; they are checked before the commit.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "g4agent.store:migrations")
    config.attributes["connection"] = database.connection
    sqlite = database.dialect == SQLITE
    if sqlite:
        _pragma(database, "foreign_keys = OFF")
    with database.writing() as connection:
        if not sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPLICATION_ID})")
        if stored_version(connection, database) != HEAD:  # else another process was faster
            command.upgrade(config, HEAD)
        if sqlite:
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            assert not orphans, f"the migration to {HEAD} left rows without an owner: {orphans[:3]}"
    if sqlite:
        _pragma(database, "foreign_keys = ON")


def _pragma(database: Database, setting: str) -> None:
    """Outside of a transaction, where SQLite heeds it."""
    with database.connection.begin():
        database.connection.exec_driver_sql(f"PRAGMA {setting}")
