"""One session as one file, to be taken to another store.

The file is gzipped JSON lines: a header with the format's version, one line per row, and an end line with the SHA-256
of everything before it. The end line is what tells a whole file from one that was cut short between two members of
gzip; gzip's own checksum finds the rest of the damage.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Connection, Insert, LargeBinary, Table, insert, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.types import TypeDecorator

from g4agent.errors import StoreError
from g4agent.store import statements
from g4agent.store.ids import ALPHABET, RANDOM_DIGITS, TIME_DIGITS
from g4agent.store.records import SESSION_OPTIONS
from g4agent.store.tables import (
    BLOBS,
    CALLS,
    GENERATIONS,
    IMAGES,
    OPTIONS,
    PROGRESS,
    QUESTIONS,
    SESSIONS,
    STEPS,
    TRANSCRIPT,
    UtcDateTime,
)

VERSION = 3
"""Of the format. A change of the tables' columns is one of the format. 2 may have images, 3 the model's options."""

_OWNED = (PROGRESS, OPTIONS, STEPS, CALLS, TRANSCRIPT, GENERATIONS, IMAGES, QUESTIONS)
_TABLES = {table.name: table for table in (BLOBS, SESSIONS, *_OWNED)}
_ID = re.compile(f"[{ALPHABET}]{{{TIME_DIGITS + RANDOM_DIGITS}}}")
_OWNER_COLUMNS = {"session_id", "seq"}
"""Not in the file: they are given anew."""
_ANEW = "Nothing was imported. Export it anew with `g4agent sessions export`, and copy the whole file."


class Damaged(Exception):
    """What is wrong with a file, in a few words."""


# Writing --------------------------------------------------------------------------------------------------------------


@contextmanager
def new_archive(file: Path) -> Iterator[gzip.GzipFile]:
    """A file for its user's eyes only, which is there once the block has ended well, and else not at all."""
    if file.exists():
        raise StoreError(f"{file} is there already.", hint="Choose another name, or move the file away.")
    part = file.with_name(file.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as raw:
                with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                    yield packed
                raw.flush()
                os.fsync(raw.fileno())
            part.replace(file)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}.", hint="Choose another place.") from error


def write_session(db: Connection, session_id: str, archive: gzip.GzipFile) -> None:
    """Writes all rows of a session, its blobs first. Leases and orders are of the moment and stay behind."""
    digest, count = hashlib.sha256(), 0
    header = {"g4agent_session": VERSION, "id": session_id}
    for line in chain([header], _rows(db, session_id)):
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        digest.update(data)
        archive.write(data)
        count += 1
    archive.write(json.dumps({"end": count, "sha256": digest.hexdigest()}).encode() + b"\n")


def _rows(db: Connection, session_id: str) -> Iterator[dict[str, Any]]:
    names = db.execute(statements.BLOB_NAMES, {"p_session": session_id}).scalars().all()
    for name in sorted(filter(None, names)):
        yield from _lines(db, BLOBS, BLOBS.c.sha256 == name)
    yield from _lines(db, SESSIONS, SESSIONS.c.id == session_id)
    for table in _OWNED:
        yield from _lines(db, table, table.c.session_id == session_id)


def _lines(db: Connection, table: Table, owner: Any) -> Iterator[dict[str, Any]]:
    order = [table.c.seq] if "seq" in table.c else list(table.primary_key.columns)
    for row in db.execute(select(table).where(owner).order_by(*order)).mappings():
        values = {c.name: _to_json(row[c.name]) for c in _kept_columns(table)}
        yield {"table": table.name, "row": values}


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


# Reading --------------------------------------------------------------------------------------------------------------


@contextmanager
def opened_archive(file: Path) -> Iterator[gzip.GzipFile]:
    """An exported file to read from, checked to its end. What is found wrong, then or in the block, is a StoreError.

    Checked before the first row is read: a flipped bit is found by the checksums at the end, and may until then look
    like a row that the database refuses.
    """
    try:
        with gzip.open(file, "rb") as archive:
            for _ in _checked_lines(archive):
                pass
            archive.seek(0)
            yield archive
    except gzip.BadGzipFile as error:
        raise StoreError(f"{file} is damaged, or no exported session.", hint=_ANEW) from error
    except (EOFError, zlib.error) as error:
        raise StoreError(f"{file} is damaged or cut short.", hint=_ANEW) from error
    except Damaged as problem:
        raise StoreError(f"{file} is damaged: {problem}.", hint=_ANEW) from problem
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}.", hint="Check its name.") from error


def read_session(db: Connection, archive: gzip.GzipFile, add_blob: Insert, new_id: Callable[[], str]) -> str:
    """Adds the rows of an archive in a transaction that must not be committed if this raises; returns the id.

    Args:
        db: The transaction.
        archive: From `opened_archive`.
        add_blob: Adds a snapshot that may be there already.
        new_id: Makes an id where the session's own is taken.

    Raises:
        Damaged: The file is not what was exported.
        StoreError: A newer g4agent has made it.
    """
    lines = _checked_lines(archive)
    origin = _origin(next(lines))
    taken = db.execute(select(SESSIONS.c.id).where(SESSIONS.c.id == origin)).one_or_none() is not None
    id = new_id() if taken else origin
    for line in lines:
        table, row = _row(line)
        if table is BLOBS:
            _check_snapshot(row)
            db.execute(add_blob, row)
            continue
        if table is OPTIONS:
            _check_options(row["model_options"])
        if table is SESSIONS:
            row["id"] = id
        else:
            row["session_id"] = id
        if table is QUESTIONS:
            row["id"] = f"{id}-{row['id'].rpartition('-')[2]}"
        if table is CALLS and taken:
            row["made_in"] = row["made_in"] or origin
        _add(db, table, row)
    _check_history(db, id)
    return id


def _add(db: Connection, table: Table, row: dict[str, Any]) -> None:
    """Adds one row. Raises Damaged where no store can have held it beside the others."""
    try:
        db.execute(insert(table), row)
    except (IntegrityError, DataError) as error:
        raise Damaged(f"a row of {table.name} contradicts the others") from error
    except (StatementError, UnicodeEncodeError, OverflowError) as error:
        if isinstance(error, DBAPIError):
            raise
        raise Damaged(f"a row of {table.name} has a value that no store can hold") from error


def _checked_lines(archive: Iterable[bytes]) -> Iterator[Any]:
    """The lines up to the end line, which must be there, fit the lines before it, and be the last."""
    digest, lines = hashlib.sha256(), iter(archive)
    for count, data in enumerate(lines):
        try:
            line = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Damaged(f"line {count + 1} is not JSON") from error
        if not isinstance(line, dict):
            raise Damaged(f"line {count + 1} is not an object")
        if "end" in line and count:
            if line != {"end": count, "sha256": digest.hexdigest()}:
                raise Damaged("its checksum does not fit")
            if next(lines, None) is not None:
                raise Damaged("something follows its end")
            return
        digest.update(data)
        yield line
    raise Damaged("its end is missing")


def _origin(header: Mapping[str, Any]) -> str:
    """The id of the session that was exported."""
    version, id = header.get("g4agent_session"), header.get("id")
    if not isinstance(version, int) or not isinstance(id, str) or not _ID.fullmatch(id):
        raise Damaged("it is no exported session")
    if version > VERSION:
        raise StoreError(
            f"This session was exported by a newer g4agent (format {version}, this one knows {VERSION}).",
            hint="Nothing was imported. Upgrade with `pip install -U g4agent`.",
        )
    return id


def _kept_columns(table: Table) -> list[Column[Any]]:
    return [column for column in table.c if column.name not in _OWNER_COLUMNS]


def _row(line: Mapping[str, Any]) -> tuple[Table, dict[str, Any]]:
    table, values = _TABLES.get(str(line.get("table"))), line.get("row")
    if table is None or not isinstance(values, dict):
        raise Damaged("it has a line of an unknown kind")
    columns = _kept_columns(table)
    if values.keys() != {column.name for column in columns}:
        raise Damaged(f"a row of {table.name} has other columns")
    return table, {column.name: _from_json(column, values[column.name]) for column in columns}


def _from_json(column: Column[Any], value: Any) -> Any:
    """A value as its column takes it. Raises Damaged where it is of another type: SQLite would not mind."""
    if isinstance(column.type, JSON):
        return value
    if value is None and column.nullable:
        return None
    try:
        if isinstance(column.type, LargeBinary):
            return base64.b64decode(value, validate=True)
        if isinstance(column.type, UtcDateTime):
            return datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Damaged(f"{column} cannot be read") from error
    kind = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    wanted = kind.python_type
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise Damaged(f"{column} is not of type {wanted.__name__}")
    return value


def _check_snapshot(row: Mapping[str, Any]) -> None:
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(row["data"], row["size"] + 1)
    if len(data) != row["size"] or hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise Damaged("a snapshot of the workspace, or an image, is not what its name says")


def _check_options(options: Any) -> None:
    """Raises Damaged for what a runtime cannot be loaded with: it is given the options by these names."""
    known = isinstance(options, dict) and options.keys() <= set(SESSION_OPTIONS)
    if not known or not all(isinstance(value, str | int | float) for value in options.values()):
        raise Damaged("the model's options are none")


def _check_history(db: Connection, id: str) -> None:
    """Raises Damaged unless the session is there, and its steps and its transcript have no gap."""
    position = db.execute(statements.POSITION, {"p_session": id}).one_or_none()
    if position is None:
        raise Damaged("the session itself is missing")
    steps = db.execute(select(STEPS.c.step).where(STEPS.c.session_id == id).order_by(STEPS.c.step)).scalars().all()
    query = select(TRANSCRIPT.c.step, TRANSCRIPT.c.start, TRANSCRIPT.c.ids).where(TRANSCRIPT.c.session_id == id)
    length, changed = 0, []
    for step, start, ids in db.execute(query.order_by(TRANSCRIPT.c.step)):
        if not 0 <= start <= length:
            raise Damaged("its transcript has a gap")
        length = start + len(ids) // 4
        changed.append(step)
    if not list(range(position.steps)) == list(steps) == changed or length != position.tokens:
        raise Damaged("its steps are not complete")
