"""Dynamic programming, and searches that try all choices."""

from __future__ import annotations

from _defects.defect import Defect

DYNAMIC = (
    Defect(
        "wrong",
        "edits",
        """
def edits(one, other):
    before = list(range(len(other) + 1))
    for row, sign in enumerate(one, 1):
        now = [row]
        for column, wanted in enumerate(other, 1):
            changed = before[column] + (sign != wanted)
            now.append(min(changed, before[column] + 1, now[-1] + 1))
        before = now
    return before[-1]
""",
        "changed = before[column] + (sign != wanted)",
        "changed = before[column - 1] + (sign != wanted)",
        ("edits('table', 'cable') == 1", "edits('', 'abc') == 3", "edits('same', 'same') == 0"),
    ),
    Defect(
        "wrong",
        "common",
        """
def common(one, other):
    best = {}
    for i in range(len(one)):
        for j in range(len(other)):
            if one[i] == other[j]:
                best[i, j] = best.get((i - 1, j), "") + one[i]
            else:
                best[i, j] = max(best.get((i - 1, j), ""), best.get((i, j - 1), ""), key=len)
    return best.get((len(one) - 1, len(other) - 1), "")
""",
        'best.get((i - 1, j), "") + one[i]',
        'best.get((i - 1, j - 1), "") + one[i]',
        ("common('aa', 'a') == 'a'", "common('bread', 'bead') == 'bead'", "common('', 'a') == ''"),
    ),
    Defect(
        "wrong",
        "best_load",
        """
def best_load(items, room):
    worth = [0] * (room + 1)
    for weight, price in items:
        for free in range(weight, room + 1):
            worth[free] = max(worth[free], worth[free - weight] + price)
    return worth[room]
""",
        "in range(weight, room + 1):",
        "in range(room, weight - 1, -1):",
        ("best_load([(2, 3)], 6) == 3", "best_load([(1, 1), (3, 4), (4, 5)], 7) == 9", "best_load([], 5) == 0"),
    ),
    Defect(
        "recurses",
        "reaches",
        """
def reaches(numbers, total):
    if total == 0:
        return True
    if not numbers or total < 0:
        return False
    return reaches(numbers[1:], total - numbers[0]) or reaches(numbers, total)
""",
        "or reaches(numbers, total)",
        "or reaches(numbers[1:], total)",
        ("reaches([3, 5, 8], 13)", "not reaches([3, 5], 7)", "reaches([], 0)"),
    ),
)
