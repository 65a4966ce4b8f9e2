"""A PostgreSQL database, on Debian's own server: what a query gives, and what it cannot do."""

from __future__ import annotations

import json
import re
import socket as sockets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from postgresql import server

from g4agent import Agent, Policy, Rule
from g4agent.errors import ConfigError
from g4agent.events import NetworkAttempt, RunFinished, ToolFinished
from g4agent.messages import ToolResult
from g4agent.ports.sandbox import Limits, MiB
from g4agent.testing import Reply, ScriptedModel, call, say
from g4agent.tools import to_json
from g4agent_sql.postgres import connection, socket, tools
from g4agent_sql.postgres.changing import execute_postgres
from g4agent_sql.postgres.connection import DatabaseError
from g4agent_sql.postgres.reading import describe_postgres_table, list_postgres_tables, query_postgres
from g4agent_sql.results import MAX_CHARS

PASSWORD = "swordfish/%7"
SHOP = f"""
CREATE ROLE clerk LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE mighty LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_execute_server_program;
CREATE ROLE root LOGIN PASSWORD '{PASSWORD}' SUPERUSER;
CREATE SCHEMA "Back Room" AUTHORIZATION clerk;
CREATE SCHEMA private;
CREATE TABLE private.safe (word text);
SET ROLE clerk;
CREATE TABLE "Back Room".shelves (id int);
RESET ROLE;
GRANT CREATE ON SCHEMA public TO clerk;
SET ROLE clerk;
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, rating numeric(3,1) DEFAULT 1.5, photo bytea);
CREATE TABLE orders (id bigserial PRIMARY KEY, customer int REFERENCES customers (id), note text UNIQUE);
CREATE VIEW names AS SELECT name FROM customers;
INSERT INTO customers VALUES (1, 'Ann', 4.5, '\\x00ff'), (2, 'Bob "B"', NULL, NULL);
INSERT INTO orders (customer, note) VALUES (1, 'first');
"""
"""`clerk` owns the tables; `private.safe` is the administrator's."""


@dataclass(frozen=True)
class Shop:
    """A server with a database."""

    admin: str
    socket: Path
    port: int

    def url(self, user: str = "clerk", host: str = "", password: str = PASSWORD) -> str:
        """The address of a user; by default of the box's socket."""
        return f"postgresql://{user}:{password.replace('%', '%25').replace('/', '%2F')}@{host}:{self.port}/shop"

    def here(self, user: str = "clerk") -> str:
        """The address on this side of the box."""
        return f"{self.url(user)}?host={self.socket.parent}"

    def count(self) -> int:
        with psycopg.connect(self.admin) as connection:
            ((number,),) = connection.execute("SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM customers)")
            return int(number)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with sockets.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with server(port) as url:
        with psycopg.connect(url % "postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        with psycopg.connect(url % "shop", autocommit=True) as connection:
            connection.execute(SHOP.encode())
        folder = Path(parse_qs(urlsplit(url % "x").query)["host"][0])
        yield Shop(url % "shop", folder / f".s.PGSQL.{port}", port)


@pytest.fixture
def here(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The tools' functions in this process, as the clerk."""
    monkeypatch.setenv("POSTGRES_URL", shop.here())
    return shop


def agent(shop: Shop, script: list[Reply], **settings: object) -> Agent:
    settings = {"services": [socket(shop.socket)], "secrets": {"POSTGRES_URL": shop.url()}, **settings}
    return Agent(model=ScriptedModel(script), tools=tools(write=True), store=False, **settings)  # type: ignore[arg-type]


def test_writing_must_be_asked_for() -> None:
    """By default no tool can change the database; crash recovery and policies rely on the marks."""
    assert [(tool.name, tool.effect, tool.untrusted, tool.where) for tool in tools()] == [
        (name, "pure", True, "sandbox")
        for name in ("list_postgres_tables", "describe_postgres_table", "query_postgres")
    ]
    assert [(tool.name, tool.effect) for tool in tools(write=True)[3:]] == [("execute_postgres", "once")]
    with pytest.raises(ConfigError, match="no socket of PostgreSQL"):
        socket("/run/other.sock")


@pytest.mark.anyio
async def test_an_agent_works_with_the_database_from_the_sandbox(shop: Shop) -> None:
    """The socket is not in the box, the secret not in the call, or a change is not there for the next call."""
    script = [
        call("list_postgres_tables"),
        call("describe_postgres_table", table="orders"),
        call("execute_postgres", sql="INSERT INTO orders (customer, note) VALUES (2, 'second')"),
        call("query_postgres", sql="SELECT name, rating, o.id FROM customers c JOIN orders o ON customer = c.id"),
        call("execute_postgres", sql="DELETE FROM orders WHERE note = 'second'"),
        say("done"),
    ]
    policy = Policy((Rule("allow", tool="execute_postgres"),))  # rows are untrusted: else a person would be asked
    result = await agent(shop, script, policy=policy).run("x")
    assert [r.value for r in result.results] == [
        {"tables": ['"Back Room".shelves', "customers", "names", "orders"]},
        {
            "columns": [
                "id bigint not null default nextval('orders_id_seq'::regclass)",
                "customer integer",
                "note text",
            ],
            "rows": 1,
            "constraints": [
                "UNIQUE (note)",
                "PRIMARY KEY (id)",
                "FOREIGN KEY (customer) REFERENCES customers(id)",
            ],
        },
        {"changed_rows": 1},
        {"columns": ["name", "rating", "id"], "rows": [["Ann", 4.5, 1], ['Bob "B"', None, 2]]},
        {"changed_rows": 1},
    ]


@pytest.mark.anyio
async def test_writing_is_asked_about(shop: Shop) -> None:
    """Rows are what strangers wrote: after reading some, no change is made on their word alone."""
    script = [
        call("query_postgres", sql="SELECT 1"),
        call("execute_postgres", sql="DELETE FROM orders"),
        say("done"),
    ]
    result = await agent(shop, script).run("x")
    assert result.results[1].error is not None and result.results[1].error.kind == "denied"
    assert shop.count() == 3


@pytest.mark.anyio
async def test_the_network_leads_there_through_the_proxy(shop: Shop) -> None:
    """libpq knows no proxy: without the tunnel no server is reached; and what is not on the list is still denied."""
    place, seen = f"127.0.0.1:{shop.port}", []
    settings = {"services": [], "secrets": {"POSTGRES_URL": shop.url(host="127.0.0.1")}}
    for net in ([place], ["127.0.0.1:1"]):
        script = [call("query_postgres", sql="SELECT current_user, inet_server_port()"), say("done")]
        async for event in agent(shop, script, net=net, **settings).stream("x"):
            if isinstance(event, NetworkAttempt | ToolFinished):
                seen.append(event)
    values = [event.result for event in seen if isinstance(event, ToolFinished)]
    assert values[0].value == {"columns": ["current_user", "inet_server_port"], "rows": [["clerk", shop.port]]}
    assert values[1].error is not None and "not on the agent's net list" in values[1].error.message
    attempts = [event for event in seen if isinstance(event, NetworkAttempt)]
    assert [(each.port, each.allowed) for each in attempts] == [(shop.port, True), (shop.port, False)]


@pytest.mark.anyio
async def test_nobody_sees_the_address(shop: Shop) -> None:
    """A wrong password, a server that is not there and an address that is none are errors; events hold no secret."""
    addresses = {
        "authentication failed": shop.url(password="wrong/password%"),
        "no connection": f"postgresql://clerk:{'wrong-password'}@/shop?host=/nowhere",
        "no connection to the database": shop.url(host="db.example.com", password="wrong-password"),
        "is no address": "postgresql://clerk:wrong-password@host:port:port/[",
        "is no address:": "host=/nowhere password=wrong-password",
    }
    for message, address in addresses.items():
        text, results = "", []
        script = [call("query_postgres", sql="SELECT 1"), say("done")]
        async for event in agent(shop, script, secrets={"POSTGRES_URL": address}).stream("x"):
            text += repr(event)
            results += [event.result] if isinstance(event, ToolFinished) else []
        (result,) = results
        assert isinstance(result, ToolResult) and result.error is not None and message in result.error.message
        assert not re.search("wrong.{,3}password", text), text
    assert isinstance(event, RunFinished)


@pytest.mark.parametrize("user", ["root", "mighty"])
def test_a_mighty_user_is_refused(shop: Shop, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SELECT of a superuser reads any file of the server, whatever the transaction."""
    monkeypatch.setenv("POSTGRES_URL", shop.here(user))
    for ask in (list_postgres_tables, lambda: query_postgres("SELECT 1"), lambda: execute_postgres("SELECT 1")):
        with pytest.raises(DatabaseError, match="fewer rights"):
            ask()


def test_values_keep_their_types(here: Shop) -> None:
    """A number that comes as text would be compared as text; what JSON lacks must not end the call."""
    got = query_postgres(
        "SELECT 1, 2.50, 1e400::numeric, 0.1234567890123456789, 'x', NULL, '\\x0001'::bytea, 'infinity'::float8, "
        "'NaN'::numeric, true, '{1,2}'::int[], '{\"a\": 1}'::jsonb, 'infinity'::date, '0044-03-15 BC'::timestamp, "
        "interval '1 day', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, int4range(1, 3), sum(5::bigint)"
    )
    (row,) = got["rows"]
    assert row[:2] == [1, 2.5] and row[2].startswith("1000") and row[3] == "0.1234567890123456789"
    assert row[4:10] == ["x", None, "[2 bytes]", "inf", "NaN", True]
    assert row[10:15] == [[1, 2], '{"a": 1}', "infinity", "0044-03-15 00:00:00 BC", "1 day"]
    assert row[15:] == ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "[1, 3)", 5]
    to_json("query_postgres", got)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO customers(id, name) VALUES (9, 'x')",
        "UPDATE customers SET name = 'x' RETURNING id",
        "WITH x AS (DELETE FROM orders RETURNING id) SELECT * FROM x",
        "WITH x AS (SELECT 1) DELETE FROM orders",
        "SELECT * INTO copy FROM customers",
        "SELECT * FROM customers FOR UPDATE",
        "SELECT nextval('orders_id_seq')",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT set_config('default_transaction_read_only', 'off', false), nextval('orders_id_seq')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT * FROM private.safe",
        "SELECT 1; DELETE FROM orders",
        "SELECT 1; COMMIT; DELETE FROM orders",
        "SELECT 1; SET transaction_read_only = off",
        "/* */ ; DELETE FROM orders",
        "TABLE orders; ROLLBACK",
        "SET default_transaction_read_only = off",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET ROLE postgres",
        "COMMIT",
        "BEGIN READ WRITE",
        "COPY orders TO PROGRAM 'touch /tmp/stolen'",
        "COPY orders TO STDOUT",
        "COPY (SELECT 1) TO '/tmp/stolen'",
        "DO $$ BEGIN DELETE FROM orders; END $$",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "CREATE TEMP TABLE t (x int)",
        "VACUUM",
        "LISTEN x",
        "",
        "-- nothing",
        "nonsense",
        "SELECT '\0",
        "SELECT '\ud800'",
    ],
)
def test_a_query_cannot_change_or_open_anything(here: Shop, sql: str) -> None:
    """Each is answered with an error, and the tables stay as they are."""
    assert list(query_postgres(sql)) == ["error"]
    if not sql.startswith("COPY"):  # without the check of the first word the server refuses, too
        with pytest.raises(connection.Refusal), connection.connect() as database:
            list(database.read(sql)[1])
    assert here.count() == 3 and not Path("/tmp/stolen").exists()


def test_what_a_query_does_beside_is_taken_back(here: Shop) -> None:
    """Servers before PostgreSQL 16 make large objects in a read-only transaction."""
    query_postgres("SELECT lo_create(0)")
    with psycopg.connect(here.admin) as admin:
        assert admin.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone() == (0,)


def test_the_server_keeps_a_query_from_writing(here: Shop) -> None:
    """Were the cursor's declaration passed by, the transaction would still be read-only, and every later one, too."""
    with pytest.raises(connection.Refusal, match="read-only transaction"), connection.connect() as database:
        database.run("DELETE FROM orders")
    with pytest.raises(connection.Refusal, match="must be set before any query"), connection.connect() as database:
        database.run("SET TRANSACTION READ WRITE")
    with connection.connect() as database:
        assert database.run("SHOW default_transaction_read_only").fetchone() == ("on",)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DELETE FROM orders; DELETE FROM customers", "multiple commands"),
        ("COMMIT", "one transaction of its own"),
        ("ROLLBACK", "one transaction of its own"),
        ("COPY orders TO PROGRAM 'touch /tmp/stolen'", "pg_execute_server_program"),
        ("COPY orders FROM PROGRAM 'echo 1'", "pg_execute_server_program"),
        ("DO $$ BEGIN DELETE FROM orders; COMMIT; END $$", "invalid transaction termination"),
        ("DROP TABLE private.safe", "permission denied"),
        ("SET ROLE root", "permission denied"),
        ("VACUUM", "cannot run inside a transaction block"),
        ("COPY orders TO STDOUT", ""),
    ],
)
def test_execute_is_one_statement_with_the_users_rights(here: Shop, sql: str, says: str) -> None:
    """A second statement, half a transaction, or a program on the server."""
    answer = execute_postgres(sql)
    assert list(answer) == ["error"] and says in answer["error"]
    assert here.count() == 3 and not Path("/tmp/stolen").exists()


def test_a_statement_changes_all_or_nothing(here: Shop) -> None:
    """A failure in its middle leaves no half; RETURNING gives its rows; tables come and go."""
    failed = execute_postgres("INSERT INTO customers(id, name) VALUES (3, 'Cy'), (1, 'again')")
    assert "duplicate key" in failed["error"] and here.count() == 3
    assert "still referenced" in execute_postgres("DELETE FROM customers")["error"]
    assert execute_postgres("UPDATE customers SET rating = 4.5 WHERE id = 1 RETURNING id, rating") == {
        "changed_rows": 1,
        "columns": ["id", "rating"],
        "rows": [[1, 4.5]],
    }
    assert execute_postgres("CREATE TABLE extra (x int)") == {"changed_rows": 0}
    assert "extra" in list_postgres_tables()["tables"]
    assert execute_postgres("DROP TABLE extra") == {"changed_rows": 0}


def test_errors_say_what_there_is(here: Shop) -> None:
    """A model guesses names; the answer has to end the guessing."""
    missing = query_postgres("SELECT * FROM customer")["error"]
    assert missing == ('relation "customer" does not exist; tables: "Back Room".shelves, customers, names, orders')
    assert "customers (id, name, rating, photo)" in query_postgres("SELECT zzz FROM customers")["error"]
    assert describe_postgres_table("x")["error"].startswith("no table x; tables: ")
    assert describe_postgres_table('"back room".SHELVES') == {"columns": ["id integer"], "rows": 0}
    assert describe_postgres_table("names") == {"columns": ["name text"]}
    assert "reading only" in query_postgres("DELETE FROM orders")["error"]


def test_results_are_capped_and_say_so(here: Shop) -> None:
    """Neither many rows nor wide ones nor one long value may fill the context."""
    many = query_postgres("SELECT generate_series(1, 100000000)")
    assert len(many["rows"]) == 50 and "only the first 50 rows" in many["note"]
    wide = query_postgres("SELECT i, repeat('x', 400) FROM generate_series(1, 1000) i", 500)
    assert len(json.dumps(wide)) < 1.5 * MAX_CHARS and "note" in wide
    (((value,),)) = query_postgres("SELECT repeat('x', 1000000)")["rows"]
    assert value.endswith("[cut, 1000000 characters]")
    (((values,),)) = query_postgres("SELECT array_agg(i) FROM generate_series(1, 100000) i")["rows"]
    assert values.endswith("[cut, 100000 values]")


def test_a_statement_without_end_is_ended_by_the_server(here: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the query takes its own limit away, or waits for a lock that another holds."""
    monkeypatch.setattr(connection, "STATEMENT_SECONDS", 0.5)
    for sql in (
        "SELECT pg_sleep(60)",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(0.02) FROM generate_series(1, 4000)",
    ):
        started = time.monotonic()
        assert query_postgres(sql, 500)["error"] == "no end after 0.5 s: ask for less"
        assert time.monotonic() - started < 5
    with psycopg.connect(here.admin) as other:
        other.execute("LOCK TABLE orders")
        assert list(query_postgres("SELECT * FROM orders")) == ["error"]
        assert list(execute_postgres("DELETE FROM orders")) == ["error"]
    assert here.count() == 3


@pytest.mark.anyio
async def test_one_huge_value_ends_the_call_and_not_the_agent(shop: Shop) -> None:
    """What no row limit can hold off fills the box's memory: an error of this call, and the next one works."""
    script = [
        call("query_postgres", sql="SELECT repeat('x', 800000000)"),
        call("query_postgres", sql="SELECT 1"),
        say("done"),
    ]
    result = await agent(shop, script, limits=Limits(memory_bytes=256 * MiB)).run("x")
    assert result.results[0].error is not None and result.results[0].error.kind == "out_of_memory"
    assert result.results[1].value == {"columns": ["?column?"], "rows": [[1]]}
