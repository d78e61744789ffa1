"""What goes wrong during a soak, one thing after another, spread evenly over its time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.money_soak.engines import Server, Sqlite
from tests.money_soak.hosts import Replica, compiler

KILL_EVERY_SECONDS = 60
TOO_LATE = 26 * 3600
HOLD_SECONDS = 9.0  # as long as a statement may take, nearly


@dataclass(frozen=True)
class Fault:
    """name: for people. happens: lasts as long as the context does."""

    name: str
    happens: Callable[[], AbstractContextManager[None]]


def all_faults(engine: Sqlite | Server, replicas: Sequence[Replica], seconds: float) -> list[Fault]:
    """Those that can be had, in their order: a kill of a replica each minute, and once what happens once."""
    second = replicas[1]
    once = {
        "database stopped": engine.stopped,
        "clock 26 h ahead": lambda: wrong_clock(second, TOO_LATE),
        "database locked": engine.locked,
        "disk full": lambda: full_disk(second),
        "clock 26 h behind": lambda: wrong_clock(second, -TOO_LATE),
        "database read-only": engine.read_only,
    }
    lacking = missing(engine, replicas)
    others = [Fault(name, happens) for name, happens in once.items() if name not in lacking]
    kills = [
        Fault("kill -9", lambda number=number: killed(replicas[number % 2]))
        for number in range(max(2, round(seconds / KILL_EVERY_SECONDS)))
    ]
    # Each kind evenly over the time: kills, and the others between them.
    places = [((place + 0.5) / len(faults), fault) for faults in (kills, others) for place, fault in enumerate(faults)]
    return [fault for _, fault in sorted(places, key=lambda pair: pair[0])]


def missing(engine: Sqlite | Server, replicas: Sequence[Replica]) -> list[str]:
    """The names of those that can't be had here."""
    found = list(engine.missing)
    if not compiler():
        found += ["clock 2 minutes off", "clock 26 h ahead", "clock 26 h behind"]
    if not replicas[1].disk.is_limited:
        found.append("disk full")
    return found


def run(faults: Sequence[Fault], seconds: float, told: Callable[[str], None]) -> None:
    """Have them happen, one at a time, within this time."""
    share, pause = seconds / len(faults), threading.Event()
    hold = min(HOLD_SECONDS, share * 0.6)
    for fault in faults:
        told(fault.name)
        with fault.happens():
            pause.wait(hold)
        told("")
        pause.wait(share - hold)


@contextmanager
def killed(replica: Replica) -> Iterator[None]:
    """Another one begins on its disk at once, as a supervisor would have it."""
    replica.kill()
    replica.start()
    yield


@contextmanager
def wrong_clock(replica: Replica, seconds: int) -> Iterator[None]:
    assert replica.clock
    replica.clock.set_ahead(seconds)
    yield
    replica.clock.set_ahead(0)


@contextmanager
def full_disk(replica: Replica) -> Iterator[None]:
    replica.disk.fill()
    yield
    replica.disk.free()
