"""The proxy itself: HTTP's CONNECT and nothing else, to listed destinations and nowhere else.

It resolves names by itself, checks every address that a name has, and connects to the very address that it checked. On
the way out it reads the first bytes: where they are a TLS greeting, the server named there must be the one asked for.
What cannot be told for sure is denied.

Source: RFC 9110, 9.3.6 (CONNECT).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

from g4agent.egress.client_hello import Unclear, server_name
from g4agent.egress.destinations import MAX_NAME, Destination, is_public, split
from g4agent.events import NetworkAttempt

MAX_HEAD = 16 * 1024
HEAD_SECONDS = 10.0
"""For a request's head, and again for the first bytes after it."""
RESOLVE_SECONDS = 10.0
CONNECT_SECONDS = 10.0
"""Per address."""
LINGER_SECONDS = 30.0
"""How long one direction of a tunnel may go on after the other has ended."""
MAX_TUNNELS = 64
CHUNK = 64 * 1024
TLS_PORTS = frozenset({443, 465, 636, 853, 989, 990, 993, 995, 5061, 5986, 6443, 8443, 9443})
"""Ports on which everything but a TLS greeting is denied; on others it is denied that a greeting names another host."""
REQUEST = re.compile(rb"([A-Z]{1,20}) (\S{1,2000}) HTTP/1\.[01]")
RELAYED = b"CONNECT "


class Denied(Exception):
    """An attempt that is refused, and why."""

    def __init__(self, status: int, host: str, port: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.attempt = NetworkAttempt(_shown(host), port, False, reason)


class Proxy:
    """Serves connections on an asyncio loop.

    Args:
        allowed: Where a tunnel may lead.
        report: Told of every attempt, once, as soon as it is decided.
    """

    def __init__(self, allowed: Collection[Destination], report: Callable[[NetworkAttempt], None]) -> None:
        self._allowed = frozenset(allowed)
        self._addresses = {(each.address, each.port) for each in self._allowed if each.address is not None}
        self._report = report
        self._open = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from the box, to its end."""
        self._open += 1
        try:
            asked = await self._read_request(reader)
            there = await self._connect(asked)
            try:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await self._tunnel(asked, (reader, writer), there)
            finally:
                there[1].close()
        except Denied as denied:
            self._report(denied.attempt)
            writer.write(_refusal(denied))
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.drain(), HEAD_SECONDS)
        except OSError:
            pass  # the program in the box has gone
        finally:
            self._open -= 1
            writer.close()

    async def _read_request(self, reader: asyncio.StreamReader) -> Destination:
        if self._open > MAX_TUNNELS:
            raise Denied(503, "", 0, f"more than {MAX_TUNNELS} connections at a time")
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
        except asyncio.LimitOverrunError:
            raise Denied(431, "", 0, f"the request's head has more than {MAX_HEAD} bytes") from None
        except TimeoutError:
            raise Denied(408, "", 0, f"no whole request within {HEAD_SECONDS:g} s") from None
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                raise ConnectionResetError from None  # somebody looked whether the port is open
            raise Denied(400, "", 0, "the request is malformed") from None
        request = REQUEST.fullmatch(head.partition(b"\r\n")[0])
        if request is None:
            raise Denied(400, "", 0, "the request is malformed")
        target = request[2].decode("latin-1")
        if request[1] != b"CONNECT":
            raise Denied(405, target, 0, "only CONNECT is spoken here: use https, or a tunnel")
        asked = split(target)
        if asked is None:
            raise Denied(400, target, 0, "the target is no host and port")
        if asked not in self._allowed:
            raise Denied(403, asked.host, asked.port, "not on the agent's net list")
        return asked

    async def _connect(self, asked: Destination) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        trouble = "no address answered"
        for address in await self._addresses_of(asked):
            try:
                connecting = asyncio.open_connection(str(address), asked.port, limit=CHUNK)
                return await asyncio.wait_for(connecting, CONNECT_SECONDS)
            except TimeoutError:
                trouble = f"no answer within {CONNECT_SECONDS:g} s"
            except OSError as error:
                trouble = error.strerror or str(error)
        raise Denied(502, asked.host, asked.port, f"cannot be reached: {trouble}")

    async def _addresses_of(self, asked: Destination) -> list[IPv4Address | IPv6Address]:
        """All addresses of a host, each of them public or itself on the list; a name with any other has none."""
        if asked.address is not None:
            return [asked.address]
        loop = asyncio.get_running_loop()
        try:
            resolving = loop.getaddrinfo(asked.host, asked.port, type=socket.SOCK_STREAM)
            found = await asyncio.wait_for(resolving, RESOLVE_SECONDS)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise Denied(502, asked.host, asked.port, "the name has no address") from error
        addresses = list(dict.fromkeys(ip_address(str(entry[4][0])) for entry in found))
        for address in addresses:
            if not is_public(address) and (address, asked.port) not in self._addresses:
                place = Destination(str(address), asked.port)
                raise Denied(403, asked.host, asked.port, f"its address is not public; list {place} to allow it")
        return addresses

    async def _tunnel(
        self,
        asked: Destination,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        directions = {
            asyncio.create_task(self._outgoing(asked, here[0], there[1])),
            asyncio.create_task(_copy(there[0], here[1])),
        }
        try:
            done, waiting = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if waiting and not any(task.exception() for task in done):
                await asyncio.wait(waiting, timeout=LINGER_SECONDS)
        finally:
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _outgoing(self, asked: Destination, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the box to the network, once the first bytes are found to be in order. The attempt is decided here."""
        attempt = NetworkAttempt(asked.host, asked.port, True)
        try:
            first = await _first_bytes(asked, reader)
        except Denied as denied:
            attempt = denied.attempt
            raise
        finally:
            self._report(attempt)
        writer.write(first)
        await _copy(reader, writer)


async def _first_bytes(asked: Destination, reader: asyncio.StreamReader) -> bytes:
    """What the program in the box sends first: all of a TLS greeting, or enough to see that it is none."""

    def denied(reason: str) -> Denied:
        return Denied(403, asked.host, asked.port, reason)

    data = await reader.read(CHUNK)
    if not data:
        return data
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            while RELAYED.startswith(data[: len(RELAYED)].upper()) and len(data) < len(RELAYED):
                data += await _more(reader)
            if data[0] != 0x16 and asked.port not in TLS_PORTS:
                if data.upper().startswith(RELAYED):
                    raise denied("a CONNECT inside the tunnel")
                return data
            while (name := server_name(data)) is None:
                data += await _more(reader)
    except (Unclear, TimeoutError) as problem:
        raise denied(str(problem) or f"no whole TLS greeting within {HEAD_SECONDS:g} s") from None
    if name != ("" if asked.address is not None else asked.host):
        raise denied(f"its TLS greeting is for {_shown(name)}" if name else "its TLS greeting names no server")
    return data


async def _more(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(CHUNK)
    if not data:
        raise Unclear("it ended in its first bytes")
    return data


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _refusal(denied: Denied) -> bytes:
    """The answer, with the reason where clients show it: in the status line."""
    reason = denied.attempt.reason.encode("ascii", errors="replace")
    return b"HTTP/1.1 %d %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % (denied.status, reason)


def _shown(host: str) -> str:
    """A host as text that is safe to print, whatever a program in the box made of it."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in host[:MAX_NAME])
