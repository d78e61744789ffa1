"""What each process has counted, in files under DATA_DIR/metrics: whichever process is asked can tell of all.

A process takes the first slot that no other holds, goes on from the numbers that it finds there, and writes them anew
every few seconds. So sums never fall, however often processes end, and there are as many files as there ever were
processes at once. A process that is killed loses its last seconds: these are statistics, money is in the ledger.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from foundation.counts import BUCKETS, Counts, Key, Row
from foundation.logs import event

log = logging.getLogger("metrics")

LOCK = ".lock"


@dataclass(frozen=True)
class Snapshot:
    """One process: what it has counted, and how it was when it wrote that down; nothing of the latter if it is gone."""

    counted: dict[Key, Row]
    gauges: dict[Key, float]


class Slots:
    """This process's slot, and a look into those of others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: Path | None = None
        self._holder = -1
        self._is_unwritable = False

    def take(self, counts: Counts) -> None:
        """Take a slot, in the process that serves; its numbers join these. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in itertools.count():
            lock = self._folder / f"{number}{LOCK}"
            holder = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            if _is_held(holder):
                os.close(holder)
                continue
            self._holder, self._own = holder, lock.with_suffix(".json")
            counts.add_all(_read(self._own).counted)
            return

    def write(self, snapshot: Snapshot) -> None:
        """Write down how this process is, for the others. A disk that takes nothing is told of once."""
        if self._own is None:
            return
        new = self._own.with_suffix(".new")
        text = {"buckets": BUCKETS, "counted": [*snapshot.counted.items()], "gauges": [*snapshot.gauges.items()]}
        try:
            new.write_bytes(orjson.dumps(text))
            new.replace(self._own)
        except OSError as error:
            if not self._is_unwritable:
                event(log, "metrics_unwritable", logging.WARNING, reason=error.strerror)
            self._is_unwritable = True
            return
        self._is_unwritable = False

    def others(self) -> Iterator[Snapshot]:
        """All slots but this process's own."""
        for lock in self._folder.glob(f"*{LOCK}"):
            path = lock.with_suffix(".json")
            if path != self._own:
                found = _read(path)
                yield found if _is_alive(lock) else Snapshot(found.counted, {})


def _is_held(holder: int) -> bool:
    """Whether another process has this slot; if none has, it is ours from now on."""
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _is_alive(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _read(path: Path) -> Snapshot:
    """What is in a file; nothing if it is not there or damaged, or its times were counted in other buckets."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        text: dict[str, Any] = orjson.loads(path.read_bytes())
        counted = {tuple(key): row for key, row in text["counted"]} if text["buckets"] == [*BUCKETS] else {}
        return Snapshot(counted, {tuple(key): value for key, value in text["gauges"]})
    return Snapshot({}, {})
