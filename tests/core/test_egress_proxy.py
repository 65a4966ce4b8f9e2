"""The proxy between a box and the network, spoken to on its own socket, with real servers behind it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from network_upstream import Upstream, upstream

from g4agent.egress import proxy
from g4agent.egress.client_hello import Unclear, server_name
from g4agent.egress.destinations import is_public, parse_destinations
from g4agent.egress.service import MAX_DIFFERENT, Egress
from g4agent.errors import ConfigError
from g4agent.events import NetworkAttempt

PUBLIC = "93.184.215.14"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with upstream(tmp_path_factory.mktemp("upstream")) as servers:
        yield servers


@contextlib.contextmanager
def serving(*allowed: str) -> Iterator[tuple[Egress, Path]]:
    egress = Egress(parse_destinations(allowed))
    with egress.served() as sockets:
        (path,) = sockets.values()
        yield egress, path


def dial(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(path))
    return connection


def ask(path: Path, request: str | bytes) -> bytes:
    """The status line that a request gets, and no tunnel is left open."""
    with dial(path) as connection:
        connection.sendall(request if isinstance(request, bytes) else request.encode())
        return read_head(connection)


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        chunk = connection.recv(1)
        if not chunk:
            break
        data += chunk
    return data.partition(b"\r\n")[0]


def connect(path: Path, target: str) -> socket.socket:
    """An open tunnel."""
    connection = dial(path)
    connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert read_head(connection) == b"HTTP/1.1 200 Connection established"
    return connection


def rest(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            data += chunk
    return data


def greeting(name: str | None) -> bytes:
    """A real TLS client's first message."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def attempts(egress: Egress, number: int = 1) -> list[NetworkAttempt]:
    """What was tried, once `number` of them are decided: the end of a tunnel is noticed a little later."""
    found: list[NetworkAttempt] = []
    deadline = time.monotonic() + 5
    while sum(each.count for each in found) < number and time.monotonic() < deadline:
        found += egress.take_attempts()
        time.sleep(0.005)
    return found


def test_an_allowed_server_is_reached(servers: Upstream) -> None:
    """What was permitted does not work, or is not told."""
    with serving(*servers.allowed) as (egress, path):
        context = ssl.create_default_context(cafile=servers.authority)
        tunnel = connect(path, f"LocalHost:{servers.tls_port}")
        with context.wrap_socket(tunnel, server_hostname="localhost") as secure:
            secure.sendall(b"GET /a HTTP/1.0\r\n\r\n")
            assert rest(secure).endswith(b"hello tls")
        with connect(path, f"127.0.0.1:{servers.plain_port}") as plain:
            plain.sendall(b"GET /b HTTP/1.0\r\n\r\n")
            assert rest(plain).endswith(b"hello plain")
        assert attempts(egress, 2) == [
            NetworkAttempt("localhost", servers.tls_port, True),
            NetworkAttempt("127.0.0.1", servers.plain_port, True),
        ]


@pytest.mark.parametrize(
    "target",
    [
        "example.org:443",
        "127.0.0.1:@OTHER",
        "127.0.0.1:22",
        "2130706433:@PLAIN",
        "0x7f000001:@PLAIN",
        "0177.0.0.1:@PLAIN",
        "127.1:@PLAIN",
        "127.0.0.1.:@PLAIN",
        "localhost.:@PLAIN",
        "[::ffff:127.0.0.1]:@PLAIN",
        "[::ffff:7f00:1]:@PLAIN",
        "[0:0:0:0:0:0:0:1]:@PLAIN",
        "[[::1]]:@PLAIN",
        "::1:@PLAIN",
        "[127.0.0.1]:@PLAIN",
        "user@127.0.0.1:@PLAIN",
        "127.0.0.1#:@PLAIN",
        "127.0.0.1%00:@PLAIN",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0@PLAIN",
        "127.0.0.1:+@PLAIN",
        "127.0.0.1:99999",
        ":@PLAIN",
        "http://127.0.0.1:@PLAIN/",
    ],
)
def test_everything_else_is_denied(servers: Upstream, target: str) -> None:
    """Another host, another port, or another spelling of an address gets through, or is not told."""
    target = target.replace("@PLAIN", str(servers.plain_port)).replace("@OTHER", str(servers.other_port))
    servers.visitors.clear()
    with serving(*servers.allowed) as (egress, path):
        answer = ask(path, f"CONNECT {target} HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n")
        assert answer.split()[1] in (b"400", b"403"), answer
        (attempt,) = attempts(egress)
        assert not attempt.allowed and attempt.reason
    assert servers.visitors == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET http://127.0.0.1:@PLAIN/ HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"CONNECT 127.0.0.1:@PLAIN HTTP/2.0\r\n\r\n", b"400"),
        (b"CONNECT  127.0.0.1:@PLAIN HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT 127.0.0.1:@PLAIN\tHTTP/1.1\r\n\r\n", b"400"),
        (b"connect 127.0.0.1:@PLAIN HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT 127.0.0.1:@PLAIN HTTP/1.1\n\nx\r\n\r\n", b"400"),
        (b"\0\xff\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"CONNECT 127.0.0.1:@PLAIN HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"x" * 40_000, b"431"),
    ],
)
def test_unclear_requests_are_denied(servers: Upstream, request_bytes: bytes, status: bytes) -> None:
    """A request that two programs could read in two ways is served."""
    with serving(*servers.allowed) as (egress, path):
        answer = ask(path, request_bytes.replace(b"@PLAIN", str(servers.plain_port).encode()))
        assert answer.split()[1] == status
        assert [attempt.allowed for attempt in attempts(egress)] == [False]


def test_an_empty_list_allows_nothing(servers: Upstream) -> None:
    """No rules are taken for no restriction."""
    with serving() as (_, path):
        assert b" 403 " in ask(path, f"CONNECT 127.0.0.1:{servers.plain_port} HTTP/1.1\r\n\r\n")


def test_the_list_is_taken_once(servers: Upstream) -> None:
    """Who changes the list later, or makes it an iterator, changes what is allowed."""
    allowed = [f"127.0.0.1:{servers.tls_port}"]
    egress = Egress(parse_destinations(iter(allowed)))
    allowed.append(f"127.0.0.1:{servers.plain_port}")
    with egress.served() as sockets:
        for _ in range(2):
            assert b" 403 " in ask(next(iter(sockets.values())), f"CONNECT {allowed[1]} HTTP/1.1\r\n\r\n")


def resolving_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Has names resolve to one list of addresses after another; gives the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [(f, socket.SOCK_STREAM, 6, "", (a, port)) for f, a in zip(families, addresses, strict=True)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.7"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["fe80::1%lo"],
        ["fd00::1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [],
    ],
)
def test_names_of_inner_addresses_are_denied(
    servers: Upstream, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    """A permitted name leads into the host's own network, by whoever owns the name."""
    resolving_to(monkeypatch, addresses)
    with serving(f"shop.example:{servers.other_port}") as (egress, path):
        answer = ask(path, f"CONNECT shop.example:{servers.other_port} HTTP/1.1\r\n\r\n")
        assert answer.split()[1] in (b"403", b"502")
        assert [attempt.allowed for attempt in attempts(egress)] == [False]


def test_the_address_that_was_checked_is_connected_to(servers: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that has another address at the second look (DNS rebinding) leads to that one."""
    asked = resolving_to(monkeypatch, ["127.0.0.1"], ["127.0.0.99"])
    with serving(f"shop.example:{servers.plain_port}", f"127.0.0.1:{servers.plain_port}") as (egress, path):
        with connect(path, f"shop.example:{servers.plain_port}") as tunnel:
            tunnel.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert rest(tunnel).endswith(b"hello plain")
        assert asked == ["shop.example"]
        assert b" 403 " in ask(path, f"CONNECT shop.example:{servers.plain_port} HTTP/1.1\r\n\r\n")
        assert [attempt.allowed for attempt in attempts(egress, 2)] == [True, False]


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (greeting("evil.example"), "for evil.example"),
        (greeting(None), "names no server"),
        (greeting("evil.example")[:40], "ended in its first bytes"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n", "a CONNECT inside"),
        (b"\x16\x03\x01\x00\x00", "does not begin"),
        (b"\x16\x03\x01\x00\x04\x02\0\0\0", "does not begin"),
    ],
    ids=["another host", "no host", "cut", "CONNECT", "empty", "no hello"],
)
def test_what_goes_through_the_tunnel_is_for_its_host(servers: Upstream, first: bytes, reason: str) -> None:
    """A tunnel to a permitted host is used to ask its server for another one."""
    servers.visitors.clear()
    with serving(*servers.allowed) as (egress, path):
        with connect(path, f"localhost:{servers.plain_port}") as tunnel:
            with contextlib.suppress(BrokenPipeError):  # denied as soon as enough is read
                for byte in first:
                    tunnel.sendall(bytes([byte]))
                tunnel.shutdown(socket.SHUT_WR)
            assert rest(tunnel) == b""
        (attempt,) = attempts(egress)
        assert not attempt.allowed and reason in attempt.reason
    assert servers.visitors == []


def test_ports_of_tls_carry_nothing_else(servers: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """On such a port, what is no greeting could be for any host."""
    monkeypatch.setattr(proxy, "TLS_PORTS", frozenset({servers.plain_port}))
    servers.visitors.clear()
    with serving(*servers.allowed) as (egress, path):
        with connect(path, f"localhost:{servers.plain_port}") as tunnel:
            tunnel.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert rest(tunnel) == b""
        (attempt,) = attempts(egress)
        assert not attempt.allowed and "does not begin with a TLS greeting" in attempt.reason
    assert servers.visitors == []


def test_an_address_has_no_server_name(servers: Upstream) -> None:
    """A tunnel to a permitted address is used with the name of any of its hosts."""
    with serving(*servers.allowed) as (egress, path):
        context = ssl.create_default_context(cafile=servers.authority)
        with context.wrap_socket(connect(path, f"127.0.0.1:{servers.tls_port}"), server_hostname="127.0.0.1") as secure:
            secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert rest(secure).endswith(b"hello tls")
        with connect(path, f"127.0.0.1:{servers.tls_port}") as tunnel:
            tunnel.sendall(greeting("localhost"))
            assert rest(tunnel) == b""
        assert [attempt.allowed for attempt in attempts(egress, 2)] == [True, False]


def test_slow_and_silent_programs_are_cut_off(servers: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program holds connections open for ever without saying where to."""
    monkeypatch.setattr(proxy, "HEAD_SECONDS", 0.1)
    with serving(*servers.allowed) as (egress, path):
        assert b" 408 " in ask(path, "CONNECT 127.0.0.1")
        with connect(path, f"localhost:{servers.plain_port}") as tunnel:
            tunnel.sendall(greeting("localhost")[:20])
            assert rest(tunnel) == b""
        assert [attempt.allowed for attempt in attempts(egress, 2)] == [False, False]


def test_floods_are_bounded(servers: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program fills the host's memory with attempts, takes all its descriptors, or puts control characters in its
    events."""
    monkeypatch.setattr(proxy, "MAX_TUNNELS", 4)
    with serving(*servers.allowed) as (egress, path), contextlib.ExitStack() as stack:
        for number in range(MAX_DIFFERENT + 50):
            assert b" 403 " in ask(path, f"CONNECT host{number}:443 HTTP/1.1\r\n\r\n")
        found = attempts(egress, MAX_DIFFERENT + 50)
        assert len(found) == MAX_DIFFERENT + 1 and found[-1].count == 50
        ask(path, b"CONNECT \x1b[31m" + b"x" * 1000 + b":443 HTTP/1.1\r\n\r\n")
        (attempt,) = attempts(egress)
        assert attempt.host.startswith("?[31mxx") and len(attempt.host) == 253
        for _ in range(4):
            stack.enter_context(connect(path, f"127.0.0.1:{servers.plain_port}"))
        with dial(path) as one_too_many:
            assert b" 503 " in read_head(one_too_many)


def test_an_open_tunnel_does_not_keep_the_session_open(servers: Upstream) -> None:
    """A tunnel that a program left open holds up the end, or outlives it."""
    with serving(*servers.allowed) as (_, path):
        tunnel = connect(path, f"127.0.0.1:{servers.plain_port}")
        started = time.monotonic()
    assert time.monotonic() - started < 2
    with tunnel:
        assert rest(tunnel) == b""


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: b"\x16\x03\x01\x00\xc0\x01\0\0\xbc" + data))
def test_any_bytes_are_a_greeting_or_not(data: bytes) -> None:
    """Bytes that a program makes up end in an error that nobody expects."""
    with contextlib.suppress(Unclear):
        assert server_name(data) is None or isinstance(server_name(data), str)


@given(st.integers(0, 600), st.integers(1, 300))
def test_a_greeting_in_pieces(cut: int, size: int) -> None:
    """A name is missed where the greeting comes in several reads or records."""
    whole = greeting("shop.example")
    assert server_name(whole) == "shop.example"
    assert server_name(whole[: min(cut, len(whole) - 1)]) is None
    message = whole[5:]
    pieces = [message[i : i + size] for i in range(0, len(message), size)]
    records = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)
    assert server_name(records) == "shop.example"


@pytest.mark.parametrize(
    "text",
    [
        *("", "shop.example", "shop.example:", "shop.example:https", "shop.example:0443", "shop.example.:443"),
        *("*.example:443", "http://shop.example:443", "büro.example:443", "shop_.example:443", "-a.example:443"),
        *("a b:443", "127.1:80", "0x7f.1:80", "2130706433:80", "[::ffff:1.2.3.4]:80", "[::0:1]:80", "1.2.3.4.5:80"),
    ],
)
def test_rules_that_could_mean_something_else(text: str) -> None:
    """A rule that programs read in different ways is taken."""
    with pytest.raises(ConfigError):
        parse_destinations([text])
    with pytest.raises(ConfigError):
        parse_destinations("shop.example:443")


def test_public_addresses() -> None:
    """The open internet is taken for an inner network."""
    from ipaddress import ip_address

    assert is_public(ip_address(PUBLIC)) and is_public(ip_address("2606:2800:220:1::1"))
