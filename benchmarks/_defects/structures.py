"""Linked lists, nested lists and a cache."""

from __future__ import annotations

from _defects.defect import Defect

STRUCTURES = (
    Defect(
        "loops",
        "length",
        """
def length(node):
    count, current = 0, node
    while current:
        count += 1
        current = node[1]
    return count
""",
        "current = node[1]",
        "current = current[1]",
        ("length((1, (2, (3, None)))) == 3", "length(None) == 0"),
    ),
    Defect(
        "loops",
        "is_circle",
        """
def is_circle(after, first):
    slow, fast = first, after.get(first)
    while fast is not None:
        if slow == fast:
            return True
        slow, fast = after[slow], after.get(fast)
    return False
""",
        "after.get(fast)",
        "after.get(after.get(fast))",
        (
            "is_circle({1: 2, 2: 3, 3: 1}, 1)",
            "not is_circle({1: 2, 2: 3}, 1)",
            "is_circle({1: 2, 2: 3, 3: 4, 4: 2}, 1)",
            "not is_circle({}, 1)",
        ),
    ),
    Defect(
        "recurses",
        "flatten",
        """
def flatten(nested):
    flat = []
    for part in nested:
        if isinstance(part, list):
            flat.extend(flatten(nested))
        else:
            flat.append(part)
    return flat
""",
        "flatten(nested))",
        "flatten(part))",
        ("flatten([1, [2, [3, []]], 4]) == [1, 2, 3, 4]", "flatten([]) == []"),
    ),
    Defect(
        "wrong",
        "kept",
        """
def kept(keys, room):
    cache = {}
    for key in keys:
        cache.pop(key, None)
        cache[key] = True
        if len(cache) > room:
            cache.popitem()
    return list(cache)
""",
        "cache.popitem()",
        "del cache[next(iter(cache))]",
        ("kept('abac', 2) == ['a', 'c']", "kept('abc', 3) == ['a', 'b', 'c']", "kept('aab', 1) == ['b']"),
    ),
)
