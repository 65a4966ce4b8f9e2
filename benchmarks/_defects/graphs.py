"""Graphs, as dictionaries of what follows each node, and grids."""

from __future__ import annotations

from _defects.defect import Defect

GRAPHS = (
    Defect(
        "loops",
        "distance",
        """
def distance(graph, start, goal):
    seen, border, steps = {start}, [start], 0
    while border:
        if goal in border:
            return steps
        border = [node for each in border for node in graph[each] if node not in border]
        seen.update(border)
        steps += 1
    return None
""",
        "if node not in border]",
        "if node not in seen]",
        (
            "distance({1: [2], 2: [1, 3], 3: []}, 1, 3) == 2",
            "distance({1: [2], 2: [3], 3: [1], 4: []}, 1, 4) is None",
            "distance({1: []}, 1, 1) == 0",
        ),
    ),
    Defect(
        "wrong",
        "cheapest",
        """
from heapq import heappop, heappush


def cheapest(roads, start, goal):
    queue, done = [(0, start)], set()
    while queue:
        cost, place = heappop(queue)
        if place == goal:
            return cost
        if place not in done:
            done.add(place)
            for neighbour, price in roads.get(place, {}).items():
                heappush(queue, (price, neighbour))
    return None
""",
        "heappush(queue, (price, neighbour))",
        "heappush(queue, (cost + price, neighbour))",
        (
            "cheapest({'a': {'b': 4, 'c': 1}, 'c': {'b': 2}}, 'a', 'b') == 3",
            "cheapest({'a': {'b': 1}}, 'b', 'a') is None",
            "cheapest({}, 'a', 'a') == 0",
        ),
    ),
    Defect(
        "wrong",
        "order",
        """
def order(needs):
    done = []
    waiting = dict(needs)
    while waiting:
        ready = sorted(task for task, wanted in waiting.items() if any(each in done for each in wanted) or not wanted)
        if not ready:
            return None
        done.extend(ready)
        for task in ready:
            del waiting[task]
    return done
""",
        "if any(each in done for each in wanted) or not wanted)",
        "if all(each in done for each in wanted))",
        (
            "order({'a': ['b', 'c'], 'c': ['b'], 'b': []}) == ['b', 'c', 'a']",
            "order({'a': ['b'], 'b': ['a']}) is None",
            "order({'y': [], 'x': []}) == ['x', 'y']",
        ),
    ),
    Defect(
        "recurses",
        "groups",
        """
def groups(count, pairs):
    above = list(range(count))

    def head(item):
        return item if above[item] == item else head(item)

    for one, other in pairs:
        above[head(one)] = head(other)
    return len({head(item) for item in range(count)})
""",
        "else head(item)\n",
        "else head(above[item])\n",
        ("groups(4, [(0, 1), (1, 2)]) == 2", "groups(3, []) == 3", "groups(3, [(0, 1), (1, 0)]) == 2"),
    ),
    Defect(
        "wrong",
        "between_all",
        """
def between_all(lengths):
    far = [list(row) for row in lengths]
    nodes = range(len(far))
    for via in nodes:
        for start in nodes:
            for end in nodes:
                far[start][end] = min(far[start][end], far[start][via] + far[end][via])
    return far
""",
        "far[start][via] + far[end][via])",
        "far[start][via] + far[via][end])",
        (
            "between_all([[0, 1, 9], [9, 0, 1], [9, 9, 0]]) == [[0, 1, 2], [9, 0, 1], [9, 9, 0]]",
            "between_all([[0]]) == [[0]]",
        ),
    ),
    Defect(
        "recurses",
        "islands",
        """
def islands(grid):
    land = {(x, y) for y, row in enumerate(grid) for x, cell in enumerate(row) if cell == "#"}

    def sink(x, y):
        if (x, y) in land:
            land.discard((y, x))
            for near in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
                sink(*near)
            return 1
        return 0

    return sum(sink(x, y) for x, y in sorted(land))
""",
        "land.discard((y, x))",
        "land.discard((x, y))",
        ("islands(['.##']) == 1", "islands(['##.', '..#']) == 2", "islands(['..']) == 0"),
    ),
)
