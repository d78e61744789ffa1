"""One scrape, and what is written down every few seconds for those that other processes answer."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from billing.call_counts import CallCounts
from foundation.counts import Counts, Key
from foundation.logs import event
from metrics.gauges import Gauges
from metrics.slots import Slots, Snapshot
from replicas.repeating import repeat

log = logging.getLogger("metrics")

WRITE_SECONDS = 5.0


class Metrics:
    """This process's part of them, and the sum of all."""

    def __init__(self, folder: Path, counts: Counts, calls: CallCounts, gauges: Gauges) -> None:
        self.gauges = gauges
        self._counts = counts
        self._calls = calls
        self._slots = Slots(folder)
        self._writing = threading.Lock()

    def start(self) -> None:
        """Go on counting where an earlier process has stopped, if the disk lets us."""
        try:
            self._slots.take(self._counts)
        except OSError as error:
            event(log, "metrics_unwritable", logging.WARNING, reason=error.strerror)

    def run(self, stopping: threading.Event) -> None:
        """Keep this process's numbers where others find them, until told to stop."""
        self.write()
        repeat(self.write, WRITE_SECONDS, stopping)

    def write(self) -> Snapshot:
        """Write down how this process is, and return it."""
        with self._writing:
            self._calls.count()
            snapshot = Snapshot(self._counts.copy(), self._gauges())
            self._slots.write(snapshot)
            return snapshot

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus gets, and its content type. accept: the header."""
        # Loaded by who is asked: it takes time and memory, and most processes never are.
        from metrics.families import exposition

        # Written down first: whoever is asked next must not know less, or sums would seem to fall.
        return exposition([self.write(), *self._slots.others()], accept)

    def _gauges(self) -> dict[Key, float]:
        try:
            return self.gauges.read()
        except OSError:  # the disk is gone: what was counted is worth telling all the same
            return {}
