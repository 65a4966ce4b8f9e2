"""SQLite databases: what a query gives, and what it cannot do."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4agent import Agent, Policy, Rule
from g4agent.testing import ScriptedModel, call, say
from g4agent.tools import to_json
from g4agent_sql import database, tools
from g4agent_sql.changing import execute
from g4agent_sql.reading import describe_table, list_tables, query
from g4agent_sql.results import MAX_CHARS

SHOP = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, rating REAL DEFAULT 1.5, photo BLOB);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customers(id), note);
CREATE VIEW names AS SELECT name FROM customers;
INSERT INTO customers VALUES (1, 'Ann', 4.5, x'00ff'), (2, 'Bob "B"', NULL, NULL);
INSERT INTO orders VALUES (7, 1, 'first');
"""


def make(path: Path, script: str = SHOP) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    """A workspace with a database, and something secret beside it."""
    make(tmp_path / "secret.db", "CREATE TABLE secret (word)")
    folder = tmp_path / "workspace"
    folder.mkdir()
    make(folder / "shop.db")
    with chdir(folder):
        yield folder / "shop.db"


def test_writing_must_be_asked_for() -> None:
    """By default no tool can change a database; crash recovery and policies rely on the marks."""
    assert [(tool.name, tool.effect, tool.untrusted) for tool in tools()] == [
        (name, "pure", True) for name in ("list_tables", "describe_table", "query")
    ]
    assert [(tool.name, tool.effect) for tool in tools(write=True)[3:]] == [("execute", "once")]


@pytest.mark.anyio
async def test_an_agent_works_with_a_database_in_the_sandbox(tmp_path: Path) -> None:
    """What one call commits, the next one sees; the host's file stays as it is."""
    make(tmp_path / "shop.db")
    before = (tmp_path / "shop.db").read_bytes()
    model = ScriptedModel(
        [
            call("list_tables", database="shop.db"),
            call("describe_table", database="shop.db", table="ORDERS"),
            call("execute", database="shop.db", sql="INSERT INTO orders VALUES (8, 2, 'second')"),
            call(
                "query",
                database="shop.db",
                sql="SELECT name, rating, o.id FROM customers c JOIN orders o ON customer = c.id",
            ),
            call("query", database="shop.db", sql="DELETE FROM orders"),
            say("done"),
        ]
    )
    policy = Policy((Rule("allow", tool="execute"),))  # rows are untrusted: without it a person would be asked
    agent = Agent(model=model, tools=tools(write=True), policy=policy, workspace=tmp_path, store=False)
    result = await agent.run("x")
    assert [r.value for r in result.results] == [
        {"tables": ["customers", "names", "orders"]},
        {
            "columns": ["id INTEGER primary key", "customer INTEGER", "note"],
            "rows": 1,
            "foreign_keys": ["customer → customers(id)"],
        },
        {"changed_rows": 1},
        {"columns": ["name", "rating", "id"], "rows": [["Ann", 4.5, 7], ['Bob "B"', None, 8]]},
        {"error": "DELETE is not allowed: the database is open for reading only"},
    ]
    assert (tmp_path / "shop.db").read_bytes() == before


def test_values_keep_their_types(shop: Path) -> None:
    """A number that comes as text would be compared as text; a blob or an infinity is no JSON."""
    got = query("shop.db", "SELECT 1, 2.5, 'x', NULL, x'0001', 9e999, 9223372036854775807, CAST(x'ff' AS TEXT)")
    assert got["rows"] == [[1, 2.5, "x", None, "[2 bytes]", "inf", 9223372036854775807, "�"]]
    to_json("query", got)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO customers(name) VALUES ('x')",
        "UPDATE customers SET name = 'x' RETURNING id",
        "WITH x AS (SELECT 1) DELETE FROM customers WHERE id IN x",
        "DROP TABLE customers",
        "CREATE TABLE t (x)",
        "CREATE TEMP TABLE t (x)",
        "ATTACH '../secret.db' AS s",
        "ATTACH ':memory:' AS s",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "PRAGMA writable_schema = ON",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = WAL",
        "BEGIN",
        "REINDEX",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM customers",
        "SELECT writefile('x', 'y')",
        "",
        "-- nothing",
        "nonsense",
        "SELECT '\0",
        "SELECT '\ud800'",
    ],
)
def test_a_query_cannot_change_or_open_anything(shop: Path, sql: str) -> None:
    """Each is answered with an error, and no byte of the workspace changes."""
    before = {file.name: file.read_bytes() for file in shop.parent.iterdir()}
    assert list(query("shop.db", sql)) == ["error"]
    assert {file.name: file.read_bytes() for file in shop.parent.iterdir()} == before


@pytest.mark.parametrize(
    "sql",
    ["ATTACH '../secret.db' AS s", "VACUUM INTO 'copy.db'", "PRAGMA writable_schema = ON", "COMMIT", "SAVEPOINT s"],
)
def test_execute_stays_within_its_file_and_transaction(shop: Path, sql: str) -> None:
    """Writing one database is not writing any file; and half a transaction would be left behind by a crash."""
    refusal = execute("shop.db", sql)["error"]
    assert "not allowed" in refusal or refusal == "cannot VACUUM from within a transaction"
    assert [file.name for file in shop.parent.iterdir()] == ["shop.db"]


def test_a_statement_changes_all_or_nothing(shop: Path) -> None:
    """A failure in its middle leaves no half; foreign keys are checked; RETURNING gives its rows."""
    failed = execute("shop.db", "INSERT INTO customers(id, name) VALUES (3, 'Cy'), (1, 'again')")
    assert failed == {"error": "UNIQUE constraint failed: customers.id"}
    assert query("shop.db", "SELECT count(*) FROM customers")["rows"] == [[2]]
    assert "FOREIGN KEY" in execute("shop.db", "DELETE FROM customers")["error"]
    changed = execute("shop.db", "UPDATE customers SET rating = 5 RETURNING id")
    assert changed == {"changed_rows": 2, "columns": ["id"], "rows": [[1], [2]]}
    assert query("shop.db", "SELECT DISTINCT rating FROM customers")["rows"] == [[5.0]]


def test_errors_say_what_there_is(shop: Path) -> None:
    """A model guesses names; the answer has to end the guessing."""
    assert (
        query("shop.db", "SELECT * FROM customer")["error"]
        == "no such table: customer; tables: customers, names, orders"
    )
    assert "customers (id, name, rating, photo)" in query("shop.db", "SELECT nam FROM customers")["error"]
    assert describe_table("shop.db", "x")["error"] == "no table x; tables: customers, names, orders"
    assert "syntax error" in query("shop.db", "SELEC 1")["error"]
    (shop.parent / "text.db").write_text("no database " * 100)
    assert query("text.db", "SELECT * FROM x")["error"] == "file is not a database"


@pytest.mark.parametrize("path", ["../secret.db", "/etc/passwd", "link.db", "none.db", ".", "a?mode=rw", "secret.key"])
def test_no_other_file_is_opened(shop: Path, path: str) -> None:
    """Outside, through a link, missing (and not made), protected, and a name that is half an address."""
    (shop.parent / "link.db").symlink_to("../secret.db")
    make(shop.parent / "secret.key")
    for answer in (list_tables(path), query(path, "SELECT 1"), execute(path, "CREATE TABLE t (x)")):
        assert list(answer) == ["error"]
    assert not (shop.parent / "none.db").exists() and not (shop.parent / "a").exists()


def test_a_name_with_signs_of_an_address_is_a_name(shop: Path) -> None:
    """`?` and `%` in a file's name must not become options of the connection."""
    shop.rename(shop.with_name("a?mode=rwc%41#.db"))
    assert list_tables("a?mode=rwc%41#.db") == {"tables": ["customers", "names", "orders"]}
    assert "reading only" in query("a?mode=rwc%41#.db", "DELETE FROM orders")["error"]


def test_results_are_capped_and_say_so(shop: Path) -> None:
    """Neither many rows nor wide ones nor one long value may fill the context."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
    many = query("shop.db", f"{numbers} SELECT i FROM n")
    assert len(many["rows"]) == 50 and "only the first 50 rows" in many["note"]
    wide = query("shop.db", f"{numbers} SELECT i, hex(zeroblob(200)) FROM n", 500)
    assert len(json.dumps(wide)) < 1.5 * MAX_CHARS and "note" in wide
    (((value,),)) = query("shop.db", "SELECT hex(zeroblob(100000))")["rows"]
    assert value.endswith("[cut, 200000 characters]")
    assert "too big" in query("shop.db", "SELECT zeroblob(1000000000)")["error"]


def test_a_query_without_end_is_ended(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten join condition must not hold the agent up."""
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 0.2)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    assert query("shop.db", endless)["error"] == "no end after 0.2 s: ask for less"
    assert query("shop.db", endless.replace("count(*)", "i WHERE i < 0"))["error"]


def test_a_strangers_schema_cannot_write(shop: Path) -> None:
    """A view or trigger of the file runs when it is read or changed, with the rights of the call."""
    make(shop.parent / "evil.db", "CREATE TABLE t (x); CREATE VIEW v AS SELECT load_extension('/tmp/x.so') AS x;")
    assert query("evil.db", "SELECT * FROM v")["error"] == "unsafe use of load_extension()"
    make(
        shop.parent / "odd.db",
        'CREATE TABLE "a""; DROP TABLE t; --" ("x y" INT); INSERT INTO "a""; DROP TABLE t; --" VALUES (1)',
    )
    (name,) = list_tables("odd.db")["tables"]
    assert describe_table("odd.db", name) == {"columns": ["x y INT"], "rows": 1}


@given(cut=st.integers(0, 8192), junk=st.binary(min_size=1, max_size=40))
def test_a_damaged_database_gets_an_answer(tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes) -> None:
    """Half files and overwritten pages are an error to read about, not a crash."""
    with chdir(tmp_path_factory.mktemp("w")):
        make(Path("d.db"))
        whole = Path("d.db").read_bytes()
        for damaged in (whole[:cut], whole[:cut] + junk + whole[cut + len(junk) :]):
            Path("d.db").write_bytes(damaged)
            for answer in (
                list_tables("d.db"),
                describe_table("d.db", "orders"),
                query("d.db", "SELECT * FROM customers"),
            ):
                to_json("query", answer)
