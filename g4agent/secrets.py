"""Secrets: values that a tool needs and that nobody else may see, neither the model nor what is kept of a run.

A tool names its secrets, `@tool(secrets=["API_KEY"])`, and reads them with `g4agent.secret("API_KEY")`; the agent has a
source of values. A value reaches the environment of the calls of the tools that name it, and nothing else. Wherever it
comes back, in a result, in printed text or in an error, `[secret API_KEY]` stands instead; also for
the password in a value that is an address, such as `postgresql://user:password@host/database`.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias
from urllib.parse import parse_qs, quote, quote_plus, unquote, urlsplit

from g4agent.errors import SecretMissingError, ToolDefinitionError
from g4agent.messages import JsonValue

SecretSource: TypeAlias = Mapping[str, str] | Callable[[str], str | None]
"""Values by name, or what looks one up; None where there is none."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MIN_CHARS = 6
"""A shorter value stands in too many texts by chance to be masked."""
MIN_LINE = 16
"""Lines of a longer value (a key file) that are masked by themselves have at least so many characters."""

_granted: ContextVar[Mapping[str, str] | None] = ContextVar("g4agent_secrets", default=None)


def secret(name: str) -> str:
    """The value of a secret, in a tool that names it. Outside a run, the environment variable of that name.

    Raises:
        SecretMissingError: The tool does not name it, or, outside a run, there is no such variable.
    """
    granted = _granted.get()
    value = (os.environ if granted is None else granted).get(name)
    if value is None:
        raise SecretMissingError(
            f"there is no secret {name} here", hint=f'Name it where the tool is defined: @tool(secrets=["{name}"]).'
        )
    return value


def check_names(tool: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names of a tool's secrets. Raises ToolDefinitionError."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if not NAME.fullmatch(name):
            raise ToolDefinitionError(
                f"{tool} has a secret called {name!r}",
                hint="A secret is called like an environment variable: ASCII letters, digits and underscores.",
            )
    return names


class Secrets:
    """The values that a session's tools need, looked up once. Its text form names them and does not show them.

    Args:
        names: What the tools name.
        source: Where the values come from; None: this process's environment variables.

    Raises:
        SecretMissingError: The source lacks one, or it is empty or too short to be masked.
    """

    def __init__(self, names: Iterable[str] = (), source: SecretSource | None = None) -> None:
        self._values = {name: _look_up(name, source) for name in dict.fromkeys(names)}
        forms: dict[str, str] = {}
        for name, value in self._values.items():
            for part in (value, *_passwords(value)):
                forms |= {form: name for form in _forms(part) if form not in forms}
        self._names = forms
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._values)})"

    def values(self, names: Iterable[str]) -> Mapping[str, str]:
        """The values that a tool with these names is given."""
        return {name: self._values[name] for name in names}

    @contextmanager
    def granted(self, names: Iterable[str]) -> Iterator[None]:
        """What `secret` finds in the block: these, and no others."""
        token = _granted.set(self.values(names))
        try:
            yield
        finally:
            _granted.reset(token)

    def mask(self, text: str) -> str:
        """The text with `[secret NAME]` for every value, plain, or as Base64, hexadecimal, URL or JSON have it."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[secret {self._names[found[0]]}]", text)

    def mask_json(self, value: JsonValue) -> JsonValue:
        """The same for every text in a JSON document, keys included."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, list):
            return [self.mask_json(each) for each in value]
        if isinstance(value, dict):
            return {self.mask(key): self.mask_json(each) for key, each in value.items()}
        masked = self.mask(text := json.dumps(value))
        return value if masked == text else masked  # a number may be the value of a secret


def _look_up(name: str, source: SecretSource | None) -> str:
    where = "the agent's secrets" if source is not None else "the environment"
    values: SecretSource = os.environ if source is None else source
    value = values.get(name) if isinstance(values, Mapping) else values(name)
    hint = f'Set the variable {name}, or give Agent(secrets={{"{name}": …}}).'
    if value is None:
        raise SecretMissingError(f"a tool needs the secret {name}, and {where} has none of that name", hint=hint)
    if not isinstance(value, str) or len(value.strip()) < MIN_CHARS or "\0" in value:
        raise SecretMissingError(
            f"the secret {name} cannot be used: it is no text of {MIN_CHARS} characters or more", hint=hint
        )
    return value


def _passwords(value: str) -> set[str]:
    """The password in a value that is an address, as it is written there and as it is meant."""
    try:
        address = urlsplit(value)
        written = [address.password or "", *parse_qs(address.query).get("password", [])] if address.scheme else []
    except ValueError:  # brackets that are no IPv6 address: no address at all
        return set()
    return {form for each in written for form in (each, unquote(each)) if len(form) >= MIN_CHARS}


def _forms(value: str) -> set[str]:
    """How a value may stand in a text."""
    data = value.encode()
    forms = {value, value.strip(), data.hex(), data.hex().upper(), repr(value)[1:-1]}
    forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    forms |= quoted | {re.sub("%..", lambda found: found[0].lower(), each) for each in quoted}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(data).decode()
        forms |= {whole, whole.rstrip("=")}
        forms |= {_inner(encode, data, offset) for offset in range(3)}
    lines = value.splitlines()
    forms |= {line for line in lines if len(lines) > 1 and len(line) >= MIN_LINE}
    return forms


def _inner(encode: Callable[[bytes], bytes], data: bytes, offset: int) -> str:
    """What Base64 makes of the data wherever it begins in a longer text, such as `user:password`: the characters that
    do not depend on what stands before and after it."""
    coded = encode(bytes(offset) + data).decode().rstrip("=")
    first = -(-8 * offset // 6)
    return coded[first : 8 * (offset + len(data)) // 6]
