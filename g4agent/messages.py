"""What a model asks for and what it gets back: calls, errors and results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""Any JSON document. Integers and floats are kept apart, as the native syntax and JSON Schema keep them apart."""

ToolErrorKind = Literal[
    "malformed_call",
    "unknown_tool",
    "invalid_arguments",
    "denied",
    "exception",
    "timeout",
    "out_of_memory",
    "sandbox",
    "cancelled",
]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as the model made it, parsed but not yet validated."""

    id: str
    """Unique within the session: `s<step>c<index>`."""
    name: str
    arguments: Mapping[str, JsonValue]


def call_identity(name: str, arguments: Mapping[str, JsonValue]) -> tuple[str, str]:
    """Equal for calls that ask for the same thing, whatever their ids and the order of their arguments."""
    return name, json.dumps(arguments, sort_keys=True)


@dataclass(frozen=True, slots=True)
class ToolError:
    """Why a call has no value. The model sees `message`; people and policies also see `kind`."""

    kind: ToolErrorKind
    message: str
    detail: str | None = None
    """For people only: a trimmed traceback or the raw text of a malformed call. Never shown to the model."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The one result that every call gets: a value or an error."""

    call_id: str
    name: str
    value: JsonValue = None
    error: ToolError | None = None

    def response(self) -> dict[str, JsonValue]:
        """What the model reads: the value itself if it is an object, else `{value: …}`, or `{error: …}`."""
        if self.error is not None:
            return {"error": self.error.message}
        return dict(self.value) if isinstance(self.value, dict) else {"value": self.value}
