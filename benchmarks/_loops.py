"""Ten small programs of ours, each with one bug that makes a loop never end, in the manner of QuixBugs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loop:
    """A function that does not return, the edit that mends it, and what it must give then."""

    name: str
    code: str
    old: str
    new: str
    examples: tuple[str, ...]
    """Expressions that are true of the right function."""


LOOPS = (
    Loop(
        "gcd",
        "def gcd(a, b):\n    while b:\n        a, b = a % b, b\n    return a\n",
        "a, b = a % b, b",
        "a, b = b, a % b",
        ("gcd(12, 18) == 6", "gcd(7, 3) == 1", "gcd(5, 0) == 5"),
    ),
    Loop(
        "bitcount",
        "def bitcount(n):\n    count = 0\n    while n:\n        n ^= n - 1\n        count += 1\n    return count\n",
        "n ^= n - 1",
        "n &= n - 1",
        ("bitcount(127) == 7", "bitcount(128) == 1", "bitcount(0) == 0"),
    ),
    Loop(
        "position",
        "def position(items, wanted):\n    low, high = 0, len(items)\n    while low < high:\n"
        "        middle = (low + high) // 2\n        if items[middle] < wanted:\n            low = middle\n"
        "        else:\n            high = middle\n    return low\n",
        "low = middle\n",
        "low = middle + 1\n",
        ("position([1, 3, 5], 3) == 1", "position([1, 3, 5], 6) == 3", "position([], 1) == 0"),
    ),
    Loop(
        "root",
        "def root(x, error):\n    guess = x / 2\n    while abs(x - guess) > error:\n"
        "        guess = 0.5 * (guess + x / guess)\n    return guess\n",
        "abs(x - guess) > error",
        "abs(x - guess * guess) > error",
        ("abs(root(2, 0.01) - 1.414) < 0.01", "abs(root(9, 0.01) - 3) < 0.01"),
    ),
    Loop(
        "length",
        "def length(node):\n    count, current = 0, node\n    while current:\n        count += 1\n"
        "        current = node[1]\n    return count\n",
        "current = node[1]",
        "current = current[1]",
        ("length((1, (2, (3, None)))) == 3", "length(None) == 0"),
    ),
    Loop(
        "collatz",
        "def collatz(n):\n    steps = 0\n    while n != 1:\n        n = n // 2 if n % 2 else 3 * n + 1\n"
        "        steps += 1\n    return steps\n",
        "n // 2 if n % 2 else",
        "n // 2 if n % 2 == 0 else",
        ("collatz(6) == 8", "collatz(1) == 0"),
    ),
    Loop(
        "occurrences",
        "def occurrences(text, part):\n    found, at = [], text.find(part)\n    while at >= 0:\n"
        "        found.append(at)\n        at = text.find(part, at)\n    return len(found)\n",
        "text.find(part, at)",
        "text.find(part, at + 1)",
        ("occurrences('banana', 'ana') == 2", "occurrences('banana', 'x') == 0"),
    ),
    Loop(
        "digits",
        "def digits(number, base):\n    found = []\n    while number > 0:\n        found.append(number % base)\n"
        "        number = number % base\n    return found[::-1]\n",
        "number = number % base",
        "number = number // base",
        ("digits(11, 2) == [1, 0, 1, 1]", "digits(255, 16) == [15, 15]"),
    ),
    Loop(
        "merge",
        "def merge(left, right):\n    merged = []\n    while left and right:\n"
        "        smaller = left if left[0] <= right[0] else right\n        merged.append(smaller[0])\n"
        "    return merged + left + right\n",
        "merged.append(smaller[0])",
        "merged.append(smaller.pop(0))",
        ("merge([1, 3], [2, 4]) == [1, 2, 3, 4]", "merge([], [1]) == [1]"),
    ),
    Loop(
        "ceiling",
        "def ceiling(n):\n    power = 1\n    while power < n:\n        power = power ^ 2\n    return power\n",
        "power ^ 2",
        "power * 2",
        ("ceiling(5) == 8", "ceiling(1) == 1", "ceiling(64) == 64"),
    ),
)
