"""How this process is at this moment, from memory and its disk: to ask costs no query, and works without a database."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from api_key_manager import ApiKeyManager
from billing.drain import UsageDrain
from billing.journal import SEGMENT, UsageJournal
from billing.quotas.slices import QuotaSlices
from config.settings import Config
from foundation.clock import Clock
from foundation.counts import Key
from foundation.money import NANO
from gateway.destinations import Destinations
from replicas.revisions import RevisionWatcher


class Gauges:
    """Reads what the parts of this process know of themselves.

    lanes: by name, how many requests are in each, and how many it has room for; whoever has lanes puts them here.
    """

    def __init__(
        self,
        pool: ApiKeyManager,
        config: Config,
        destinations: Destinations,
        journal: UsageJournal,
        drain: UsageDrain,
        slices: QuotaSlices,
        watcher: RevisionWatcher,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._pool_size = config.pool_size
        self._destinations = destinations
        self._journal = journal
        self._drain = drain
        self._slices = slices
        self._watcher = watcher
        self._clock = clock
        self.lanes: Mapping[str, Callable[[], tuple[int, int]]] = {}

    def read(self) -> dict[Key, float]:
        """Every number by its family and labels. Raises OSError."""
        return {**dict(self._requests()), **dict(self._keys()), **dict(self._surroundings()), **dict(self._ledger())}

    def _requests(self) -> Iterator[tuple[Key, float]]:
        for name, lane in self.lanes.items():
            inside, room = lane()
            yield ("requests_in_flight", name), inside
            yield ("requests_limit", name), room
        yield ("threads",), threading.active_count()
        yield ("processes",), 1

    def _keys(self) -> Iterator[tuple[Key, float]]:
        usable, known, refused = self._pool.usable_count(), self._pool.known_count(), self._pool.refused_count()
        yield ("pool_keys", "usable"), usable
        yield ("pool_keys", "refused"), refused
        yield ("pool_keys", "resting"), max(0, known - usable - refused)
        yield ("pool_size",), self._pool_size
        if (left := self._pool.first_expiry() - self._clock.timestamp()) < math.inf:
            yield ("pool_expires_in_seconds",), max(0.0, left)

    def _surroundings(self) -> Iterator[tuple[Key, float]]:
        yield ("openrouter_up",), not self._destinations.openrouter.reach.is_away
        yield ("database_up",), self._watcher.database_is_up
        yield ("clock_skew_seconds",), self._clock.skew_seconds

    def _ledger(self) -> Iterator[tuple[Key, float]]:
        folder: Path = self._journal.folder
        sizes = list(_sizes(folder.glob(f"*{SEGMENT}")))
        yield ("journal_bytes",), sum(sizes)
        yield ("journal_segments",), len(sizes)
        yield ("journal_writable",), self._journal.fault is None
        yield ("journal_set_aside",), self._drain.set_aside
        yield ("journal_behind_seconds",), self._drain.behind_seconds
        yield ("data_free_bytes",), shutil.disk_usage(folder).free
        yield ("quota_leased_usd",), self._slices.held_nano() / NANO


def _sizes(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        with suppress(FileNotFoundError):  # the drain has just removed it
            yield path.stat().st_size
