"""Forty small programs of ours, each a classic algorithm with one defect in one line, in the manner of QuixBugs."""

from __future__ import annotations

from _defects.defect import Defect
from _defects.dynamic import DYNAMIC
from _defects.graphs import GRAPHS
from _defects.numbers import NUMBERS
from _defects.parsing import PARSING
from _defects.searching import SEARCHING
from _defects.sorting import SORTING
from _defects.structures import STRUCTURES

DEFECTS = (*NUMBERS, *SEARCHING, *SORTING, *STRUCTURES, *GRAPHS, *PARSING, *DYNAMIC)

__all__ = ["DEFECTS", "Defect"]
