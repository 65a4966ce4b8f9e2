"""Prose for measuring language models, which the measured ones can't know by heart.

It is the running text of the documentation that pydantic-ai (a development dependency, pinned in constraints-dev.txt)
ships with its code: written in 2026, years after the last texts that Gemma 3 270M and SmolLM2 were trained on. A famous
book would measure recall of weights, which no cache can spoil. Code blocks, tables and headings are left out.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

SHORTEST = 200
"""Characters of a paragraph that is worth reading."""


def paragraphs() -> list[str]:
    """About 90,000 tokens in 1,000 paragraphs, each once."""
    spec = find_spec("pydantic_ai")
    assert spec is not None and spec.origin is not None
    found: dict[str, None] = {}
    for file in sorted(Path(spec.origin).parent.rglob("*.md")):
        text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
        for block in re.split(r"\n\s*\n", text):
            words = " ".join(block.split())
            if len(words) >= SHORTEST and words[0] not in "|#<-":
                found[words] = None
    return list(found)
