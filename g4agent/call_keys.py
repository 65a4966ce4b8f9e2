"""Idempotency keys: a name for one call of one session, the same when that very call is run again after a crash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from g4agent.errors import ConfigError
from g4agent.messages import JsonValue, call_identity

VARIABLE = "G4AGENT_CALL_KEY"
"""Environment variable that carries the key into a box."""

_present: ContextVar[str | None] = ContextVar("g4agent_call_key", default=None)


def call_key() -> str:
    """The idempotency key of the call that is running, for a tool to pass on to whoever must not do a thing twice.

    Raises:
        ConfigError: No call is running.
    """
    key = _present.get() or os.environ.get(VARIABLE)
    if key is None:
        raise ConfigError("no tool call is running, so there is no key", hint="Call it inside a tool.")
    return key


def make_key(session_id: str, call_id: str, name: str, arguments: Mapping[str, JsonValue]) -> str:
    """`<session>.<call>.<hash of name and arguments>`."""
    identity = "".join(call_identity(name, arguments))
    return f"{session_id}.{call_id}.{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """What `call_key` gives in the block."""
    token = _present.set(key)
    try:
        yield
    finally:
        _present.reset(token)
