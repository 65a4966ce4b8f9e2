"""Every version of the file opens, and the tables are what the migrations make."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import grown, integrity

from g4agent.errors import StoreError
from g4agent.store import Store
from g4agent.store.database import Database, locate
from g4agent.store.schema import APPLICATION_ID, HEAD, ensure_schema
from g4agent.store.tables import METADATA
from g4agent.verdict import Outcome, Verdict

GOLDEN = Path(__file__).parent / "golden"


def version(path: Path) -> str:
    connection = sqlite3.connect(path)
    (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.close()
    return str(found)


def test_tables_agree_with_migrations(path: Path) -> None:
    """A column that is declared and never migrated exists on new databases only, or on none."""
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    database = Database(locate(path), 1.0)
    ensure_schema(database)
    context = MigrationContext.configure(database.connection, opts={"compare_type": True})
    assert compare_metadata(context, METADATA) == []
    database.close()

    config = Config()
    config.set_main_option("script_location", "g4agent.store:migrations")
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [HEAD]
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert sorted(revisions, reverse=True) == revisions, "versions are compared as strings"
    assert {f"v{revision}.sql" for revision in revisions} == {file.name for file in GOLDEN.iterdir()}


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.sql")), ids=lambda file: file.stem)
def test_golden_database_opens_and_upgrades(golden: Path, path: Path) -> None:
    """A session of years ago must be there, whole, and go on in the present version."""
    connection = sqlite3.connect(path)
    connection.executescript(golden.read_text(encoding="utf-8"))
    connection.close()
    with Store.open(path) as store:
        (summary,) = store.list_sessions()
        stored = store.session(summary.id)
        assert (stored.title, stored.steps, stored.tokens) == ("Two mugs, please", 3, 12)
        assert stored.verdict == Verdict(Outcome.DONE, "the model ended its turn")
        assert stored.sampling.seed == 7 and stored.variant == "small" and stored.thinking
        assert store.transcript(stored.id) == [2, 105, 9, 9, 48, 5, 5, 50, 8, 8, 8, 106]
        assert [step.text for step in store.steps(stored.id)] == ["Two mugs, please", "", "There you are."]
        paid, refused = store.calls(stored.id)
        assert paid.result is not None and paid.result.value == {"total": 19.8}
        assert refused.result is not None and refused.result.error is not None
        assert refused.result.error.message == "unknown item 'cup'"
        assert [call.call_id for call in store.open_calls(stored.id)] == []
        assert store.workspace(stored.id) == b"a tar archive"
        kept = {"kv_bits": "4", "context_length": 4096} if golden.stem >= "v0006" else {}
        assert stored.model_options == kept and store.session(store.fork(stored.id)).model_options == kept
        grown(store, 2)
    assert version(path) == HEAD
    assert integrity(path) == "ok"


def test_existing_store_opens_without_alembic(path: Path) -> None:
    """Alembic costs more to import than all else of an open; a present database needs none of it."""
    Store.open(path).close()
    code = (
        "import sys, g4agent.store as s; s.Store.open(sys.argv[1]).close(); "
        "print([m for m in sys.modules if m.startswith('alembic')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_package_loads_no_database_code() -> None:
    """`import g4agent` must stay quick for those who keep no sessions."""
    code = (
        "import sys, json, g4agent, g4agent.store, g4agent.store.records; "
        "print(json.dumps([m for m in ('sqlalchemy', 'sqlmodel', 'alembic') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_newer_schema_is_refused_untouched(path: Path) -> None:
    """An older g4agent must not write into what it does not know."""
    Store.open(path).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match=r"newer g4agent(.|\n)*Upgrade"):
        Store.open(path)
    assert version(path) == "9999"


def test_another_applications_database_is_refused_untouched(path: Path) -> None:
    """A wrong path must not add our tables to somebody's data, not even if it is managed by Alembic too."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
    connection.close()
    with pytest.raises(StoreError, match="another application"):
        Store.open(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
    connection.close()


def test_file_says_whose_it_is(path: Path) -> None:
    """The id in the header is how the store knows its own; migrations spell it out once more."""
    Store.open(path).close()
    assert int.from_bytes(path.read_bytes()[68:72], "big") == APPLICATION_ID
    assert path.stat().st_mode & 0o077 == 0, "sessions are for their user's eyes only"
