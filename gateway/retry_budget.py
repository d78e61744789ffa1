"""How much may be tried again: a share of the calls of the last seconds, so that an outage doesn't triple the load.

Each user has a share of their own, by their own calls: who calls what always fails can't spend what others need.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

WINDOW_SECONDS = 10.0
SHARE = 0.2
# Retries that are allowed however few calls there are: of one user, and of all together.
LEAST_EACH, LEAST_OF_ALL = 10, 50


class RetryBudget:
    """Counts calls to one upstream, and retries: those of this window and of the one before."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._since = monotonic()
        self._calls = _Windows()
        self._retries = _Windows()

    def note_call(self, user_id: int | None) -> None:
        """Learn of a user's call. None: nobody's in particular."""
        with self._lock:
            self._turn()
            self._calls.add(user_id)

    def take(self, user_id: int | None) -> bool:
        """True if a call of this user may be tried again; it then counts as a retry."""
        with self._lock:
            self._turn()
            own_most = LEAST_EACH + SHARE * self._calls.of(user_id)
            most_of_all = LEAST_OF_ALL + SHARE * self._calls.total
            if self._retries.of(user_id) >= own_most or self._retries.total >= most_of_all:
                return False
            self._retries.add(user_id)
            return True

    def _turn(self) -> None:
        now = self._monotonic()
        if now - self._since >= WINDOW_SECONDS:
            has_paused = now - self._since >= 2 * WINDOW_SECONDS
            for windows in (self._calls, self._retries):
                windows.turn(has_paused)
            self._since = now


class _Windows:
    """What was counted by user in two windows."""

    def __init__(self) -> None:
        self._now: Counter[int | None] = Counter()
        self._before: Counter[int | None] = Counter()
        self.total = 0

    def add(self, user_id: int | None) -> None:
        self._now[user_id] += 1
        self.total += 1

    def of(self, user_id: int | None) -> int:
        return self._now[user_id] + self._before[user_id]

    def turn(self, has_paused: bool) -> None:
        self._before, self._now = Counter() if has_paused else self._now, Counter()
        self.total = self._before.total()
