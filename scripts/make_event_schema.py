"""Writes docs/events.schema.json: what a line of `g4agent run --json` is, as JSON Schema, from the events' dataclasses.

python scripts/make_event_schema.py
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import ConfigDict, JsonValue, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from g4agent import events, messages, verdict

TARGET = Path(__file__).parents[1] / "docs/events.schema.json"


class Plain(GenerateJsonSchema):
    """Without a title for every field, which would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def event_schema() -> dict[str, Any]:
    """One of the events, each with its `type`; their parts stand in `$defs`."""
    messages.JsonValue = JsonValue  # pydantic cannot follow our alias, which is recursive by a string
    config = ConfigDict(use_attribute_docstrings=True, json_schema_serialization_defaults_required=True)
    for module in (events, messages, verdict):
        for _, cls in inspect.getmembers(module, dataclasses.is_dataclass):
            cls.__pydantic_config__ = config
    kinds = get_args(events.Event)
    adapters = [(kind, "serialization", TypeAdapter(kind)) for kind in kinds]
    parts = TypeAdapter.json_schemas(adapters, schema_generator=Plain)[1]["$defs"]
    for kind in kinds:
        schema = parts[kind.__name__]
        schema["properties"] = {"type": {"const": kind.type}, **schema["properties"]}
        schema["required"] = ["type", *schema.get("required", [])]
    parts["RunStarted"]["properties"]["schema"]["const"] = events.EVENT_SCHEMA_VERSION
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "g4agent events",
        "description": f"A line of `g4agent run --json`. Version {events.EVENT_SCHEMA_VERSION}, as in `run_started`.",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": parts,
    }


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.write_text(json.dumps(event_schema(), indent=1) + "\n")
