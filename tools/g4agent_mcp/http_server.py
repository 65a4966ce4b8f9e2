"""An agent's server by streamable HTTP, for clients that have its token, and for no web page.

A page in a browser can send requests to 127.0.0.1, also by a name of its own that it lets point there. So every request
needs the token, a `Host` that this server is known by, and no `Origin`, which browsers add and programs leave out.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from g4agent.errors import ConfigError

if TYPE_CHECKING:
    from mcp.server.auth.provider import AccessToken

    from g4agent.agent import Agent

TOKEN = "G4AGENT_MCP_TOKEN"
"""The environment variable with the token."""
MIN_TOKEN = 20
"""Characters of a token that is given: what can be guessed lets anybody run the agent."""
DEFAULT_HOST = "127.0.0.1"
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
CLOSE_SECONDS = 1
"""For answers under way when the server is to end; then their calls are cancelled."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that listens, and who may use it."""

    socket: socket.socket
    token: str = field(repr=False)
    generated: bool
    """The token was made here, and has to be told."""
    names: tuple[str, ...]
    """What the `Host` of a request may be, each with or without a port."""

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/mcp"


def listen(address: str, allowed: Sequence[str] = ()) -> Listening:
    """Takes the address, and refuses what would let strangers in.

    Args:
        address: `HOST:PORT`, or a port of 127.0.0.1. Port 0 is any that is free.
        allowed: More names that clients reach the server by, as a proxy passes them on.

    Raises:
        ConfigError: It is no address, is taken, or not of this machine; the token is too short; or others can reach
            the address, and no token or name was given on purpose.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or DEFAULT_HOST
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{address!r} is no address to listen on", hint="Write --http HOST:PORT, or --http PORT.")
    try:
        family, *_, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"there is no host {host}: {error.strerror}") from error
    given = os.environ.get(TOKEN, "")
    if given and len(given) < MIN_TOKEN:
        raise ConfigError(f"the token in {TOKEN} has fewer than {MIN_TOKEN} characters", hint="openssl rand -hex 32")
    here = ip_address(place[0])
    if not here.is_loopback and not given:
        raise ConfigError(
            f"other machines can reach {address}, and {TOKEN} is not set",
            hint=f"Set it to a token of your own (openssl rand -hex 32), or listen on {DEFAULT_HOST}.",
        )
    if here.is_unspecified and not allowed:
        raise ConfigError(
            f"{address} is every address of this machine", hint="Say what clients call it: --allow-host NAME."
        )
    own = LOCAL_NAMES if here.is_loopback else () if here.is_unspecified else (host, str(here))
    try:
        listener = socket.create_server(place[:2], family=family)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {error.strerror}", hint="Name another port.") from error
    names = tuple(f"[{name}]" if name.count(":") > 1 and name[0] != "[" else name for name in (*own, *allowed))
    return Listening(listener, given or secrets.token_urlsafe(32), not given, names)


async def serve_http(agent: Agent, listening: Listening) -> None:
    """Serves until SIGINT or SIGTERM. Runs under way are stopped where they can be resumed."""
    import uvicorn
    from mcp.server.auth.settings import AuthSettings
    from mcp.server.transport_security import TransportSecuritySettings
    from pydantic import AnyHttpUrl

    from g4agent_mcp.agent_server import agent_server

    app = agent_server(agent).streamable_http_app(
        transport_security=TransportSecuritySettings(
            allowed_hosts=[form for name in listening.names for form in (name, f"{name}:*")]
        ),
        # no OAuth: the SDK asks for an issuer where tokens are checked, and tells it to nobody
        auth=AuthSettings(issuer_url=AnyHttpUrl(listening.url), resource_server_url=None),
        token_verifier=_OneToken(listening.token),
    )
    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws="none", lifespan="on", timeout_graceful_shutdown=CLOSE_SECONDS
    )
    server = uvicorn.Server(config)
    # once it is to end, calls that are cut off are no errors
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
    print(f"MCP server: {listening.url}", file=sys.stderr)
    if listening.generated:
        print(f"header:     Authorization: Bearer {listening.token}", file=sys.stderr)
    sys.stderr.flush()
    async with agent:
        with _signals_kept():
            await server.serve(sockets=[listening.socket])


@contextmanager
def _signals_kept() -> Iterator[None]:
    """uvicorn ends at a signal, and then raises it again: the agent has still to be closed."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _OneToken:
    """All clients have the same token."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def verify_token(self, token: str) -> AccessToken | None:
        from mcp.server.auth.provider import AccessToken

        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        return AccessToken(token=token, client_id="g4agent", scopes=[])
