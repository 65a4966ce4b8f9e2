"""Which server, and under what conditions: in code, or from the `mcpServers` file that other programs use as well."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g4agent.errors import ConfigError
from g4agent.ports.sandbox import Limits

START_SECONDS = 60.0
CALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conditions:
    prefix: str = ""
    """Goes before every tool's name, so that two servers may have tools of the same name."""
    tools: frozenset[str] | None = None
    """The server's own names of the tools to take; None takes all."""
    timeout: float = CALL_SECONDS
    """Seconds per call."""
    start_timeout: float = START_SECONDS
    """Seconds until the server must have named its tools."""
    trust_hints: bool = False
    """Believe the server that a tool only reads, or may be repeated. Else every effect is `once`."""
    untrusted: bool = False
    """Mark its results as what strangers may have written; see `Tool.untrusted`."""
    files: Path | None = None
    """Where images and other files in results go; by default `files` in the folder of the default store, as
    the sessions that name them last, too. The model reads their paths."""


@dataclass(frozen=True, slots=True)
class StdioServer(_Conditions):
    """A program that speaks MCP on its standard input and output."""

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    sandbox: str | None = "bubblewrap"
    """The box that it runs in, with an empty workspace of its own. None: it runs on the host, with all your rights."""
    net: Sequence[str] = ()
    """Where it may connect to from the box, each as "host:port": by a proxy, for programs that heed `HTTPS_PROXY`.
    Empty: no network."""
    folders: Sequence[Path] = ()
    """Folders of the host that the box shows, read-only, at the same place: where the program lies. The box has a user
    of its own, to whom they must be readable."""
    limits: Limits = field(default_factory=Limits)
    """Of the box."""

    @property
    def name(self) -> str:
        return " ".join(self.command)


@dataclass(frozen=True, slots=True)
class HttpServer(_Conditions):
    """A server that is reached by streamable HTTP."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For example `Authorization`."""

    @property
    def name(self) -> str:
        return self.url


def read_servers(file: Path, **conditions: Any) -> dict[str, StdioServer | HttpServer]:
    """The servers of an `mcp.json`: `{"mcpServers": {NAME: {"command", "args", "env"} or {"url", "headers"}}}`.

    `${NAME}` in a value of `env` or `headers` stands for this process's variable. Each server's name is its prefix.

    Args:
        file: The JSON file.
        conditions: For all of them, as `StdioServer` and `HttpServer` take them; of a sandbox only for the former.

    Raises:
        ConfigError: The file is not there, has another form, or a variable is not set.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["mcpServers"]
        return {name: _server(name, entry, conditions) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = 'Write {"mcpServers": {"name": {"command": "…", "args": []}}}, or {"url": "…"}.'
        raise ConfigError(f"{file} names no MCP servers: {type(error).__name__}: {error}", hint=hint) from error


def _server(name: str, entry: Mapping[str, Any], conditions: Mapping[str, Any]) -> StdioServer | HttpServer:
    own = {"prefix": f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}_", **conditions}
    if "url" in entry:
        shared = {key: value for key, value in own.items() if key not in ("sandbox", "net", "folders", "limits")}
        return HttpServer(entry["url"], _filled(entry.get("headers", {})), **shared)
    return StdioServer([entry["command"], *entry.get("args", [])], _filled(entry.get("env", {})), **own)


def _filled(values: Mapping[str, str]) -> dict[str, str]:
    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigError(f"the variable {match[1]} is not set", hint="A server's entry in the file asks for it.")
        return os.environ[match[1]]

    return {key: re.sub(r"\$\{(\w+)\}", value, text) for key, text in values.items()}
