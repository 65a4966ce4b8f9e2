"""Searching in lists and texts."""

from __future__ import annotations

from _defects.defect import Defect

SEARCHING = (
    Defect(
        "loops",
        "position",
        """
def position(items, wanted):
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if items[middle] < wanted:
            low = middle
        else:
            high = middle
    return low
""",
        "low = middle\n",
        "low = middle + 1\n",
        ("position([1, 3, 5], 3) == 1", "position([1, 3, 5], 6) == 3", "position([], 1) == 0"),
    ),
    Defect(
        "wrong",
        "last_below",
        """
def last_below(items, bound):
    found, low, high = None, 0, len(items) - 1
    while low <= high:
        middle = (low + high) // 2
        if items[middle] < bound:
            found, low = items[middle], middle + 1
        else:
            high = middle - 1
    return low
""",
        "return low",
        "return found",
        ("last_below([1, 3, 5, 7], 6) == 5", "last_below([4], 4) is None", "last_below([2, 4], 9) == 4"),
    ),
    Defect(
        "wrong",
        "smallest",
        """
def smallest(items, k):
    pivot = items[len(items) // 2]
    below = [item for item in items if item < pivot]
    above = [item for item in items if item > pivot]
    equal = len(items) - len(below) - len(above)
    if k <= len(below):
        return smallest(below, k)
    if k <= len(below) + equal:
        return pivot
    return smallest(above, k - len(below))
""",
        "smallest(above, k - len(below))",
        "smallest(above, k - len(below) - equal)",
        ("smallest([7, 1, 5, 3], 1) == 1", "smallest([7, 1, 5, 3], 4) == 7", "smallest([2, 2, 9, 2, 4], 4) == 4"),
    ),
    Defect(
        "loops",
        "lowest",
        """
def lowest(rotated):
    low, high = 0, len(rotated) - 1
    while low < high:
        middle = (low + high) // 2
        if rotated[middle] > rotated[high]:
            low = middle
        else:
            high = middle
    return rotated[low]
""",
        "low = middle\n",
        "low = middle + 1\n",
        ("lowest([4, 5, 1, 2]) == 1", "lowest([2, 1]) == 1", "lowest([3]) == 3"),
    ),
    Defect(
        "loops",
        "borders",
        """
def borders(text):
    table, length = [0], 0
    for at in range(1, len(text)):
        while length and text[at] != text[length]:
            length = table[length]
        if text[at] == text[length]:
            length += 1
        table.append(length)
    return table
""",
        "length = table[length]",
        "length = table[length - 1]",
        ("borders('aab') == [0, 1, 0]", "borders('abab') == [0, 0, 1, 2]", "borders('aabaaac')[-2:] == [2, 0]"),
    ),
    Defect(
        "loops",
        "occurrences",
        """
def occurrences(text, part):
    found, at = [], text.find(part)
    while at >= 0:
        found.append(at)
        at = text.find(part, at)
    return len(found)
""",
        "text.find(part, at)",
        "text.find(part, at + 1)",
        ("occurrences('banana', 'ana') == 2", "occurrences('banana', 'x') == 0"),
    ),
)
