"""The calls of the last minute: how many there were, and why some failed. Counted in this process, in memory."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from billing.records import NO_ERROR

SECONDS = 60
NEVER_SENT = "never-sent"  # refused here: by a quota or a limit, or for want of a usable key


class LatestCalls:
    """Seconds of calls, each with counts by reason; the reason of what did not fail is "". monotonic: the time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seconds: deque[tuple[int, Counter[str]]] = deque()
        self._lock = threading.Lock()

    def note(self, outcome: str, tries: Sequence[Mapping[str, Any]]) -> None:
        """A call is over. outcome: as the log has it; tries: each with its `kind`."""
        why = "" if outcome in NO_ERROR else NEVER_SENT
        if why and tries:
            kind = str(tries[-1]["kind"])
            why = outcome if kind in {"answered", "unfinished"} else kind
        second = int(self._monotonic())
        with self._lock:
            if not self._seconds or self._seconds[-1][0] != second:
                self._seconds.append((second, Counter()))
                self._forget(second)
            self._seconds[-1][1][why] += 1

    def told(self) -> dict[str, Any]:
        """{"last_minute": calls that ended, "failed": of these, "why": {"provider-limited": 3, ...}}."""
        with self._lock:
            self._forget(int(self._monotonic()))
            why = sum((counts for _, counts in self._seconds), Counter[str]())
        total = why.total()
        del why[""]
        return {"last_minute": total, "failed": why.total(), "why": dict(why.most_common())}

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - SECONDS:
            self._seconds.popleft()
