"""Numbers that only grow, counted in memory: a few of them for each family and each set of labels.

A histogram's row has a number for each of its buckets, one for what is beyond them all, and the sum. Labels that others
may choose are bounded: once a family has MOST_LABELS rows, what is new counts as "other".
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds, at most
HISTOGRAM = len(BUCKETS) + 2
MOST_LABELS = 100  # of each family
OTHER = "other"

Key = tuple[str, ...]
"""A family's name, and its labels."""
Row = list[float]


class Counts:
    """What this process has counted. lock: to be held while a row is looked up or changed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._rows: dict[Key, Row] = {}
        self._of_family: Counter[str] = Counter()

    def add(self, *key: str) -> None:
        """Count one, by labels that others may have chosen."""
        with self.lock:
            self.add_one(*key)

    def add_one(self, *key: str) -> None:
        """The same, for who holds the lock."""
        self.row(*(key if self.has_room(*key, most=MOST_LABELS) else (key[0], *[OTHER] * (len(key) - 1))))[0] += 1

    def observe(self, seconds: float, *key: str) -> None:
        """Count a time in a histogram."""
        with self.lock:
            note_seconds(self.row(*key, size=HISTOGRAM), seconds)

    def has_room(self, *key: str, most: int) -> bool:
        """True if there is such a row, or there are fewer than so many of its family."""
        return key in self._rows or self._of_family[key[0]] < most

    def row(self, *key: str, size: int = 1) -> Row:
        """The row of these labels, which stays the same object."""
        found = self._rows.get(key)
        if found is None:
            found = self._rows[key] = [0.0] * size
            self._of_family[key[0]] += 1
        return found

    def copy(self) -> dict[Key, Row]:
        """All rows as they are at this moment."""
        with self.lock:
            return {key: row[:] for key, row in self._rows.items()}

    def add_all(self, rows: Mapping[Key, Row]) -> None:
        """Add what was counted elsewhere; what has another shape by now is left out."""
        with self.lock:
            for key, row in rows.items():
                known = self.row(*key, size=len(row))
                if len(known) == len(row):
                    known[:] = [one + other for one, other in zip(known, row, strict=True)]


def note_seconds(row: Row, seconds: float) -> None:
    """Count a time in a histogram's row. The caller holds the lock."""
    row[bisect_left(BUCKETS, seconds)] += 1
    row[-1] += seconds
