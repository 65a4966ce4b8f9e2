"""Empty stores for a test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from postgresql import server

from g4agent.store import Store

NUMBERS = count()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as store:
        yield store


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


def _fresh(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = f"store{next(NUMBERS)}"
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/{name}.db"
    url: str = request.getfixturevalue("postgres")
    with psycopg.connect(url % "postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return url % name


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database: its URL."""
    return _fresh(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def other_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Another fresh database."""
    return _fresh(request.param, request, tmp_path)
