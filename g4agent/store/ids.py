"""Session ids: short, and sorted by the time of creation."""

from __future__ import annotations

import secrets

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case, which is in ASCII order and leaves out i, l, o and u."""

TIME_DIGITS = 9
RANDOM_DIGITS = 3


def session_id(milliseconds: int) -> str:
    """Nine digits of Unix time in milliseconds (good until the year 3084), then three random ones."""
    digits = [ALPHABET[milliseconds >> shift & 31] for shift in range(5 * (TIME_DIGITS - 1), -1, -5)]
    return "".join(digits) + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_DIGITS))
