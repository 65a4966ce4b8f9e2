"""Tools for reading documents: text, CSV, JSON and PDF. They run in the sandbox and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g4agent.tools import Tool


def tools() -> Sequence[Tool]:
    """The pack's tools, in the order in which a model should read them."""
    from g4agent_files.json_files import read_json
    from g4agent_files.listing import list_documents
    from g4agent_files.pdf import read_pdf
    from g4agent_files.tables import count_csv, read_csv
    from g4agent_files.text import read_text

    return [list_documents, read_text, read_csv, count_csv, read_json, read_pdf]


__all__ = ["tools"]
