"""The places that a box may reach: exactly a host and a port each, and what an address must be to be connected to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from g4agent.errors import ConfigError

MAX_NAME = 253
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*")
NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
"""A name whose last part is one of these is read as an address by some programs: `127.1`, `2130706433`, `0x7f.1`."""
GLOBAL_UNICAST = IPv6Network("2000::/3")
HINT = 'Write "host:port", such as "api.example.com:443", "10.0.0.5:8080" or "[2001:db8::1]:443"; no patterns.'


@dataclass(frozen=True, slots=True)
class Destination:
    """A host and a port. The host is a lower-case name, or an address in its one canonical spelling."""

    host: str
    port: int

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The host, where it is an address."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_destinations(texts: Iterable[str]) -> tuple[Destination, ...]:
    """The destinations of `Agent(net=…)`.

    Raises:
        ConfigError: A text is no host and port, or a host that programs read in different ways.
    """
    if isinstance(texts, str):
        raise ConfigError(f"net is the text {texts!r}, not a list", hint=HINT)
    return tuple(dict.fromkeys(_parse(text) for text in texts))


def _parse(text: str) -> Destination:
    found = split(text)
    if found is None:
        raise ConfigError(f"{text!r} is no place in the network", hint=HINT)
    host = found.host
    address = found.address
    if address is not None:
        if str(address) != host or (isinstance(address, IPv6Address) and _embedded(address)):
            raise ConfigError(f"the address in {text!r} is not in its plain spelling", hint=f"Write {address}.")
    elif len(host) > MAX_NAME or not NAME.fullmatch(host) or NUMBER.fullmatch(host.rpartition(".")[2]):
        raise ConfigError(
            f"{host!r} in {text!r} is no host name",
            hint="Write a full name in ASCII (xn--… for others), without a pattern and without a dot at its end.",
        )
    return found


def split(text: str) -> Destination | None:
    """`host:port` or `[address]:port` in lower case, with any text as host; None where it is neither."""
    host, colon, port = text.lower().rpartition(":")
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    if (":" in host) != bracketed:
        return None
    host = host[1:-1] if bracketed else host
    return Destination(host, int(port)) if host else None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the open internet: not private, loopback, link-local, multicast or reserved, and
    not an IPv6 address that stands for an IPv4 one."""
    if isinstance(address, IPv6Address) and (address not in GLOBAL_UNICAST or _embedded(address)):
        return False
    return address.is_global and not address.is_multicast


def _embedded(address: IPv6Address) -> bool:
    return address.ipv4_mapped is not None or address.sixtofour is not None or address.teredo is not None
