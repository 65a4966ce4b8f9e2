"""Finds products by the words of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping

LIMIT = 4
"""Most products in one answer: a small model has to read them all."""


def best_matches(query: str, prices: Mapping[str, int]) -> list[str]:
    """Names that contain at least half of the query's words, at most `LIMIT`.

    Best first: most words in common, then fewest words that were not asked for, then cheapest.

    Args:
        query: What the customer said; plural forms and capitals do not matter.
        prices: Price by product name.
    """
    wanted = _words(query)
    ranked = []
    for name, price in prices.items():
        words = _words(name)
        common = len(wanted & words)
        if common and 2 * common >= len(wanted):
            ranked.append((-common, len(words - wanted), price, name))
    return [name for *_, name in sorted(ranked)[:LIMIT]]


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall(r"[a-z0-9]+", text.lower())}
