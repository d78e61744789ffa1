"""What metrics cost for each call: on its path, and in the background.

python -m bench.metrics
"""

from __future__ import annotations

import timeit

from billing.call_counts import MOST_WAITING, CallCounts
from foundation.counts import Counts

CALLS = MOST_WAITING
ROUNDS = 20


def measure() -> tuple[float, float]:
    """Microseconds for each call: on its path, and counted later; the best of some rounds."""
    calls = CallCounts(Counts())
    usage = {"prompt_tokens": 812, "completion_tokens": 304}
    ending = {"outcome": "complete", "http_status": 200, "first_byte_ms": 410, "total_ms": 2900, "is_last": True}
    on_path, later = [], []
    for _ in range(ROUNDS):
        leave = timeit.Timer(lambda: calls.ended.append(("openai/gpt-4o-mini", ending, usage, 304_000)))
        on_path.append(leave.timeit(CALLS) / CALLS * 1e6)
        later.append(timeit.timeit(calls.count, number=1) / CALLS * 1e6)
    return min(on_path), min(later)


if __name__ == "__main__":
    print("microseconds a call: {:.2f} on its path, {:.2f} in the background".format(*measure()))
