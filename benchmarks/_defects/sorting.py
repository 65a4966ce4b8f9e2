"""Sorting and merging."""

from __future__ import annotations

from _defects.defect import Defect

SORTING = (
    Defect(
        "loops",
        "merge",
        """
def merge(left, right):
    merged = []
    while left and right:
        smaller = left if left[0] <= right[0] else right
        merged.append(smaller[0])
    return merged + left + right
""",
        "merged.append(smaller[0])",
        "merged.append(smaller.pop(0))",
        ("merge([1, 3], [2, 4]) == [1, 2, 3, 4]", "merge([], [1]) == [1]"),
    ),
    Defect(
        "wrong",
        "by_insertion",
        """
def by_insertion(items):
    items = list(items)
    for end in range(1, len(items)):
        at = end
        while at > 1 and items[at - 1] > items[at]:
            items[at - 1], items[at] = items[at], items[at - 1]
            at -= 1
    return items
""",
        "while at > 1 and",
        "while at > 0 and",
        ("by_insertion([3, 1, 2]) == [1, 2, 3]", "by_insertion([2, 1]) == [1, 2]", "by_insertion([]) == []"),
    ),
    Defect(
        "wrong",
        "by_pivot",
        """
def by_pivot(items):
    if not items:
        return []
    pivot, rest = items[0], items[1:]
    below = [item for item in rest if item < pivot]
    above = [item for item in rest if item > pivot]
    return by_pivot(below) + [pivot] + by_pivot(above)
""",
        "if item > pivot]",
        "if item >= pivot]",
        ("by_pivot([3, 1, 3, 2]) == [1, 2, 3, 3]", "by_pivot([1, 1]) == [1, 1]"),
    ),
    Defect(
        "wrong",
        "by_heap",
        """
def by_heap(items):
    heap = list(items)
    for end in range(len(heap), 0, -1):
        for at in range(end // 2 - 1, -1, -1):
            child = 2 * at + 1
            if child + 1 < len(heap) and heap[child + 1] > heap[child]:
                child += 1
            if heap[child] > heap[at]:
                heap[at], heap[child] = heap[child], heap[at]
        heap[0], heap[end - 1] = heap[end - 1], heap[0]
    return heap
""",
        "if child + 1 < len(heap) and",
        "if child + 1 < end and",
        ("by_heap([3, 1, 2]) == [1, 2, 3]", "by_heap([5, 2, 9, 1, 4, 4]) == [1, 2, 4, 4, 5, 9]", "by_heap([]) == []"),
    ),
    Defect(
        "loops",
        "by_gaps",
        """
def by_gaps(items):
    items, gap = list(items), len(items) // 2
    while gap:
        for end in range(gap, len(items)):
            at = end
            while at >= gap and items[at - gap] > items[at]:
                items[at - gap], items[at] = items[at], items[at - gap]
                at -= gap
        gap = max(1, gap // 2)
    return items
""",
        "gap = max(1, gap // 2)",
        "gap = gap // 2",
        ("by_gaps([4, 3, 2, 1]) == [1, 2, 3, 4]", "by_gaps([7, 1, 5]) == [1, 5, 7]", "by_gaps([]) == []"),
    ),
)
