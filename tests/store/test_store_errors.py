"""What goes wrong with a file is said in words, with what to do; nothing that was committed is lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from store_samples import SESSION, call, grown, integrity, intent, model_step

from g4agent.errors import StoreError
from g4agent.store import Store


def test_locked_by_another_process(path: Path) -> None:
    """A writer that hangs must end in a message, not in a hang or a traceback of the driver; readers go on."""
    with Store.open(path, busy_seconds=0.05) as store:
        session_id = grown(store, 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"is locked by another process(.|\n)*resume"):
            store.commit_step(session_id, model_step(1, 4))
        with pytest.raises(StoreError, match="is locked"):
            store.record_intents(session_id, 1, [intent(1)])
        assert store.session(session_id).steps == 1
        with Store.open(path, busy_seconds=0.05) as reader:
            assert reader.transcript(session_id) == [0, 0, 0, 0]
        other.execute("ROLLBACK")
        other.close()
        store.commit_step(session_id, model_step(1, 4))


def test_read_only(path: Path) -> None:
    """A store on a read-only mount can be read; a write says why it cannot be."""
    with Store.open(path) as store:
        session_id = grown(store, 1)
    with Store.open(f"sqlite:///file:{path}?mode=ro&uri=true") as store:
        assert store.session(session_id).steps == 1
        with pytest.raises(StoreError, match=r"is read-only(.|\n)*writable"):
            store.commit_step(session_id, model_step(1, 4))


def test_places_that_cannot_be_opened(tmp_path: Path) -> None:
    """A slip in a path must neither create folders nor show the driver's bare `unable to open`."""
    for place in (tmp_path, tmp_path / "missing" / "sessions.db", "/proc/sessions.db"):
        with pytest.raises(StoreError, match=r"cannot be opened: .*\n.*folder exists"):
            Store.open(place)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(f"sqlite:///{tmp_path}/missing/sessions.db")
    with pytest.raises(StoreError, match="not a database URL"):
        Store.open("://")
    with pytest.raises(StoreError, match="cannot live in mysql"):
        Store.open("mysql://localhost/sessions")


def test_not_a_database(path: Path) -> None:
    """Any file given by mistake must be left as it is."""
    path.write_text("My notes, which are longer than the header of a database would be.\n" * 20)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is not a database"):
        Store.open(path)
    assert path.read_bytes() == before


def test_damaged_file(path: Path) -> None:
    """Pages that a disk has spoilt must be named as damage, not come out as an empty or odd session."""
    with Store.open(path) as store:
        session_id = grown(store, 400)
    data = bytearray(path.read_bytes())
    for page in range(32, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with Store.open(path) as store, pytest.raises(StoreError, match=r"is damaged(.|\n)*\.recover"):
        store.transcript(session_id)


def test_full(path: Path) -> None:
    """At the limit of space a commit fails as a whole, and the store goes on to be readable."""

    def limit(connection: Any, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 60")

    event.listen(Engine, "connect", limit)
    try:
        store = Store.open(path)
    finally:
        event.remove(Engine, "connect", limit)
    with store:
        session_id, index = store.create_session(SESSION), 0
        with pytest.raises(StoreError, match=r"no space left(.|\n)*disk space"):
            while index < 10_000:
                store.commit_step(session_id, model_step(index, index * 500, 500))
                index += 1
        assert (store.session(session_id).steps, len(store.transcript(session_id))) == (index, index * 500)
    assert index > 10 and integrity(path) == "ok"


def test_closed(path: Path) -> None:
    """A store that was closed says so; closing twice is harmless."""
    store = Store.open(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.list_sessions()


def test_what_cannot_be_stored_leaves_nothing_behind(store: Store) -> None:
    """A commit that fails at its last statement must undo the first ones, and leave the store usable."""
    session_id = grown(store, 1)
    no_json, no_text = call(1, value=object()), call(1, output="\ud800")  # type: ignore[arg-type]
    for record in (no_json, no_text):
        with pytest.raises(StoreError, match="cannot be stored"):
            store.commit_step(session_id, model_step(1, 4, calls=(record,)))
        assert store.session(session_id).steps == 1
        assert len(store.steps(session_id)) == len(store.calls(session_id)) == 1
    store.commit_step(session_id, model_step(1, 4))
