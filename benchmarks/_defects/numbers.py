"""Number theory and bits."""

from __future__ import annotations

from _defects.defect import Defect

NUMBERS = (
    Defect(
        "loops",
        "gcd",
        """
def gcd(a, b):
    while b:
        a, b = a % b, b
    return a
""",
        "a, b = a % b, b",
        "a, b = b, a % b",
        ("gcd(12, 18) == 6", "gcd(7, 3) == 1", "gcd(5, 0) == 5"),
    ),
    Defect(
        "loops",
        "bitcount",
        """
def bitcount(n):
    count = 0
    while n:
        n ^= n - 1
        count += 1
    return count
""",
        "n ^= n - 1",
        "n &= n - 1",
        ("bitcount(127) == 7", "bitcount(128) == 1", "bitcount(0) == 0"),
    ),
    Defect(
        "loops",
        "root",
        """
def root(x, error):
    guess = x / 2
    while abs(x - guess) > error:
        guess = 0.5 * (guess + x / guess)
    return guess
""",
        "abs(x - guess) > error",
        "abs(x - guess * guess) > error",
        ("abs(root(2, 0.01) - 1.414) < 0.01", "abs(root(9, 0.01) - 3) < 0.01"),
    ),
    Defect(
        "loops",
        "collatz",
        """
def collatz(n):
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 else 3 * n + 1
        steps += 1
    return steps
""",
        "n // 2 if n % 2 else",
        "n // 2 if n % 2 == 0 else",
        ("collatz(6) == 8", "collatz(1) == 0"),
    ),
    Defect(
        "loops",
        "digits",
        """
def digits(number, base):
    found = []
    while number > 0:
        found.append(number % base)
        number = number % base
    return found[::-1]
""",
        "number = number % base",
        "number = number // base",
        ("digits(11, 2) == [1, 0, 1, 1]", "digits(255, 16) == [15, 15]"),
    ),
    Defect(
        "loops",
        "ceiling",
        """
def ceiling(n):
    power = 1
    while power < n:
        power = power ^ 2
    return power
""",
        "power ^ 2",
        "power * 2",
        ("ceiling(5) == 8", "ceiling(1) == 1", "ceiling(64) == 64"),
    ),
    Defect(
        "loops",
        "factors",
        """
def factors(n):
    found, divisor = [], 2
    while n > 0:
        if n % divisor:
            divisor += 1
        else:
            found.append(divisor)
            n //= divisor
    return found
""",
        "while n > 0:",
        "while n > 1:",
        ("factors(12) == [2, 2, 3]", "factors(13) == [13]", "factors(1) == []"),
    ),
    Defect(
        "wrong",
        "primes",
        """
def primes(limit):
    crossed = set()
    found = []
    for n in range(2, limit + 1):
        if n not in crossed:
            found.append(n)
            crossed.update(range(n * n, limit, n))
    return found
""",
        "range(n * n, limit, n)",
        "range(n * n, limit + 1, n)",
        ("primes(9) == [2, 3, 5, 7]", "primes(25)[-1] == 23", "primes(1) == []"),
    ),
    Defect(
        "recurses",
        "power",
        """
def power(base, exponent):
    if exponent == 1:
        return base
    half = power(base, exponent // 2)
    return half * half * (base if exponent % 2 else 1)
""",
        "if exponent == 1:\n        return base",
        "if exponent == 0:\n        return 1",
        ("power(2, 10) == 1024", "power(3, 5) == 243", "power(7, 0) == 1"),
    ),
    Defect(
        "wrong",
        "moves",
        """
def moves(disks, source, target, spare):
    if disks == 0:
        return []
    before = moves(disks - 1, source, target, spare)
    after = moves(disks - 1, spare, target, source)
    return [*before, (source, target), *after]
""",
        "before = moves(disks - 1, source, target, spare)",
        "before = moves(disks - 1, source, spare, target)",
        (
            "moves(2, 'a', 'c', 'b') == [('a', 'b'), ('a', 'c'), ('b', 'c')]",
            "len(moves(5, 'a', 'c', 'b')) == 31",
        ),
    ),
)
