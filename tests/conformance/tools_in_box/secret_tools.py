"""Tools that are given a secret and let it slip wherever they can."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from g4agent import command_tool, secret, tool


@tool(effect="pure", secrets=["API_KEY"])
def careless(how: str) -> Any:
    """Uses a key, and gives it away.

    Args:
        how: In which way.
    """
    key = secret("API_KEY")
    print("printing", key, file=sys.stderr if how == "stderr" else sys.stdout)
    basic = base64.b64encode(f"user:{key}".encode()).decode()
    match how:
        case "raise":
            raise RuntimeError(f"401 for key {key} ({basic})")
        case "document":
            return {key: [key, {"quoted": quote(key, safe=""), "basic": basic, "hex": key.encode().hex()}]}
        case "file":
            Path("key.txt").write_text(key)
            return None
        case "environment":
            return dict(os.environ)
        case _:
            return f"<{key}>"


@tool(effect="pure")
def curious() -> list[str]:
    """Looks for a key that it is not given."""
    found = [value for name, value in os.environ.items() if name == "API_KEY"]
    try:
        found.append(secret("API_KEY"))
    except Exception as error:
        found.append(type(error).__name__)
    return found


careless_command = command_tool(
    "careless_command",
    ["sh", "-c", 'echo "out $API_KEY"; echo "err $API_KEY" >&2; head -c 30000 /dev/zero | tr "\\0" x; test {code} = 0'],
    description="Prints a key.",
    parameters={"properties": {"code": {"type": "integer"}}, "required": ["code"]},
    effect="pure",
    secrets=["API_KEY"],
)
