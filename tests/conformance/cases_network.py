"""Cases for a box with network by permission: `Agent.net` names two of the servers of `Upstream`, not the third.

Each runs in a box that was opened as a session opens it. The docstring says what a failing sandbox lets through.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import anyio
from network_upstream import Upstream

from g4agent.egress.destinations import parse_destinations
from g4agent.egress.service import BOX_SOCKET, Egress
from g4agent.events import NetworkAttempt
from g4agent.ports.sandbox import Box, BoxSpec, ExecResult, Sandbox

NetworkCase = Callable[[Box, Upstream, Egress], Awaitable[None]]
NETWORK_CASES: dict[str, NetworkCase] = {}


def case(run: NetworkCase) -> NetworkCase:
    """Registers a case under its function's name."""
    NETWORK_CASES[run.__name__] = run
    return run


@contextlib.asynccontextmanager
async def box_with_network(
    sandbox: Sandbox, spec: BoxSpec, servers: Upstream, allowed: tuple[str, ...] | None = None
) -> AsyncIterator[tuple[Box, Egress]]:
    """An open box whose programs may reach `allowed`, the first two servers by default."""
    egress = Egress(parse_destinations(servers.allowed if allowed is None else allowed))
    servers.visitors.clear()
    with egress.served() as sockets:
        box = await sandbox.open(replace(spec, sockets=sockets, ports=egress.ports, env=egress.environment))
        try:
            await box.write_file("authority.pem", servers.authority.read_bytes())
            yield box, egress
        finally:
            await box.close()


async def fetch(box: Box, url: str, how: str = "") -> ExecResult:
    """What Python's own client gets from a URL, by the proxy that the environment names; `how` comes first."""
    script = f"""
import ssl, urllib.request
{how}
context = ssl.create_default_context(cafile="authority.pem")
print(urllib.request.urlopen({url!r}, timeout=10, context=context).read().decode())
"""
    return await box.exec(["python3", "-c", script], timeout=20)


async def tunnel(box: Box, target: str, first: str = "GET / HTTP/1.0\\r\\n\\r\\n", *, unix: bool = False) -> bytes:
    """The answer to a hand-written CONNECT, and to what is sent after it: at the loopback port or the socket itself."""
    address = repr(BOX_SOCKET) if unix else '("127.0.0.1", 3128)'
    script = f"""
import socket
s = socket.socket(socket.AF_UNIX if {unix} else socket.AF_INET)
s.settimeout(10)
s.connect({address})
s.sendall(b"CONNECT {target} HTTP/1.1\\r\\n\\r\\n{first}")
data = b""
try:
    while chunk := s.recv(65536):
        data += chunk
except ConnectionResetError:
    pass
print(data.decode(errors="replace"))
"""
    return (await box.exec(["python3", "-c", script], timeout=20)).stdout


def denied(attempts: list[NetworkAttempt]) -> list[tuple[str, int]]:
    """Where the denied attempts wanted to go."""
    return [(each.host, each.port) for each in attempts if not each.allowed]


@case
async def n08a_allowed(box: Box, servers: Upstream, egress: Egress) -> None:
    """What was permitted cannot be reached, or is not told."""
    result = await fetch(box, f"https://localhost:{servers.tls_port}/page")
    assert result.stdout == b"hello tls\n", result.stderr
    assert servers.visitors == ["tls /page"]
    assert egress.take_attempts() == [NetworkAttempt("localhost", servers.tls_port, True)]
    result = await box.exec(["sh", "-c", f"curl -sS --cacert authority.pem https://localhost:{servers.tls_port}/"])
    assert result.stdout == b"hello tls" or b"not found" in result.stderr, result


@case
async def n08b_without_the_proxy(box: Box, servers: Upstream, egress: Egress) -> None:
    """A program that does not ask the proxy has a way around it."""
    around = 'import os; os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"'
    result = await fetch(box, f"http://127.0.0.1:{servers.plain_port}/", around)
    assert result.exit_code == 1 and b"refused" in result.stderr, result
    result = await fetch(box, "http://93.184.215.14/", around)
    assert result.exit_code == 1 and b"unreachable" in result.stderr, result
    names = await box.exec(["sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route"])
    assert names.stdout.split() == [b"lo"]
    assert servers.visitors == [] and egress.take_attempts() == []


@case
async def n08c_raw_connect(box: Box, servers: Upstream, egress: Egress) -> None:
    """A hand-written CONNECT to what is not listed goes through, at the port or at the socket."""
    for unix in (False, True):
        assert b" 403 not on the agent's net list" in await tunnel(box, f"127.0.0.1:{servers.other_port}", unix=unix)
        assert b"hello plain" in await tunnel(box, f"127.0.0.1:{servers.plain_port}", unix=unix)
    assert servers.visitors == ["plain /", "plain /"]
    assert denied(egress.take_attempts()) == [("127.0.0.1", servers.other_port)]


@case
async def n08d_spellings_of_addresses(box: Box, servers: Upstream, egress: Egress) -> None:
    """Another spelling of an address, a decimal or mapped one, is not seen as what it is."""
    for host in ("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "localhost.", "0.0.0.0"):
        assert b" 403 " in await tunnel(box, f"{host}:{servers.plain_port}")
    assert servers.visitors == [] and len(denied(egress.take_attempts())) == 7


@case
async def n08e_redirect(box: Box, servers: Upstream, egress: Egress) -> None:
    """A permitted server sends the program on to one that is not permitted."""
    target = f"https://localhost:{servers.other_port}/inner"
    result = await fetch(box, f"https://localhost:{servers.tls_port}/to/{target}")
    assert result.exit_code == 1 and b"403 not on the agent's net list" in result.stderr, result.stderr
    assert servers.visitors == [f"tls /to/{target}"]
    assert denied(egress.take_attempts()) == [("localhost", servers.other_port)]


@case
async def n08f_relayed_connect(box: Box, servers: Upstream, egress: Egress) -> None:
    """A tunnel to a permitted host carries a request for another one."""
    answer = await tunnel(box, f"localhost:{servers.plain_port}", "CONNECT evil.example:443 HTTP/1.1\\r\\n\\r\\n")
    assert answer.strip() == b"HTTP/1.1 200 Connection established"
    assert servers.visitors == [] and denied(egress.take_attempts()) == [("localhost", servers.plain_port)]


@case
async def n08g_another_server_name(box: Box, servers: Upstream, egress: Egress) -> None:
    """Through a tunnel to a permitted host, TLS is spoken to another one on the same server (domain fronting)."""
    script = f"""
import socket, ssl
s = socket.create_connection(("127.0.0.1", 3128), 10)
s.sendall(b"CONNECT localhost:{servers.tls_port} HTTP/1.1\\r\\n\\r\\n")
s.recv(1000)
context = ssl.create_default_context(cafile="authority.pem")
context.check_hostname = False
context.wrap_socket(s, server_hostname="evil.example")
"""
    result = await box.exec(["python3", "-c", script], timeout=20)
    assert result.exit_code == 1
    (attempt,) = egress.take_attempts()
    assert not attempt.allowed and "evil.example" in attempt.reason


@case
async def n08h_plain_requests(box: Box, servers: Upstream, egress: Egress) -> None:
    """A plain request by way of the proxy, which no tunnel holds to its host, is passed on."""
    how = 'import os; os.environ["NO_PROXY"] = os.environ["no_proxy"] = ""'
    result = await fetch(box, f"http://127.0.0.1:{servers.plain_port}/", how)
    assert result.exit_code == 1 and b"only CONNECT" in result.stderr, result.stderr
    assert servers.visitors == [] and len(denied(egress.take_attempts())) == 1


@case
async def n08i_killed_forwarder(box: Box, servers: Upstream, egress: Egress) -> None:
    """A tool that kills what it can takes the network from the calls after it, or listens in the forwarder's place."""
    script = """
import os, signal, socket
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) not in (1, os.getpid(), os.getppid()):
        try:
            os.kill(int(name), signal.SIGKILL)
        except OSError:
            pass
try:
    socket.socket().bind(("127.0.0.1", 3128))
    print("PWNED")
except OSError as error:
    print(error.strerror)
"""
    result = await box.exec(["python3", "-c", script], timeout=20)
    assert result.stdout == b"Address already in use\n", result
    assert b"hello plain" in await tunnel(box, f"127.0.0.1:{servers.plain_port}")


@case
async def n08j_load(box: Box, servers: Upstream, egress: Egress) -> None:
    """Connections at the same time, or large answers, are cut or mixed up."""
    answers: list[bytes] = []

    async def one() -> None:
        answers.append(await tunnel(box, f"127.0.0.1:{servers.plain_port}"))

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(one)
    assert len(answers) == 6 and all(b"hello plain" in answer for answer in answers)
    assert sum(attempt.count for attempt in egress.take_attempts()) == 6
