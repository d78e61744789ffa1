"""The space of schedules: what happens to a rotation, and when, as an address that can be typed in again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields

STEPS = 140  # an undisturbed rotation of three keys has this many points, or a few less
DEDICATED_STEPS = 200  # one in which users have keys of their own
CREATES = (0, 1, 2, 3)  # which create after the pool was full loses its answer; 0 for none
HOLDERS = ("none", "stream")
STAGES = ("full", "minted", "disabled", "deleted")
CALLS = ("list", "create", "ask", "disable", "delete")
# A scenario of the stand-in; "after": the call does its work first; "slow": the answer comes after the time-out.
FAULTS = ("429c", "500", "502-html", "drop", "drop-after", "slow", "slow-after")


@dataclass(frozen=True)
class Schedule:
    """One course of events.

    kills: points at which the rotator kills itself, counted since the pool was first full.
    lost: this create is done by OpenRouter, and its answer lost.
    holder: a gateway process that has a call on the oldest key: none, stream (of half an hour), silent (it does not
    even report any more), or own (a stream on the key of the user who goes).
    fault: SCENARIO:CALL:FIRST:TIMES. two: two rotators in every tick; what is counted, is counted in the first.
    stop: POINT:SECONDS; there the rotator stops for so long, while another one takes over, and goes on then.
    cut: before:N or after:N; at its Nth COMMIT the connection to the database ends, before the server sees it or after.
    restore: OLD:NEW; at stage NEW the database is put back to what it was at stage OLD.
    clone: STAGE:refuse or STAGE:claim; then another deployment works on a copy of the database.
    dedicated: some users have keys of their own; while the keys are due, one comes, one goes, and one stays.
    """

    database: str = "sqlite"
    kills: tuple[int, ...] = ()
    lost: int = 0
    holder: str = "none"
    fault: str = ""
    two: bool = False
    stop: str = ""
    cut: str = ""
    restore: str = ""
    clone: str = ""
    dedicated: bool = False

    @property
    def address(self) -> str:
        """The schedule as text: sqlite/kills=12,40/lost=2."""
        parts = [self.database]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                parts.append(f"{field.name}={text}")
        return "/".join(parts)

    @classmethod
    def parse(cls, address: str) -> Schedule:
        """The schedule of an address. Raises ValueError or TypeError if it is none."""
        database, *parts = address.split("/")
        values: dict[str, object] = dict(part.split("=", 1) for part in parts)
        if "kills" in values:
            values["kills"] = tuple(int(point) for point in str(values["kills"]).split(","))
        if "lost" in values:
            values["lost"] = int(str(values["lost"]))
        for flag in {"two", "dedicated"} & set(values):
            values[flag] = values[flag] == "True"
        return cls(database, **values)  # type: ignore[arg-type]


def kills() -> Iterator[tuple[int, ...]]:
    """None, one at each point, and two at some hundreds of pairs of points."""
    yield ()
    yield from ((point,) for point in range(1, STEPS + 1))
    yield from ((first, second) for first in range(1, 110, 3) for second in range(first + 1, first + 40, 4))


def killed() -> Iterator[Schedule]:
    """Every choice of kills, with every lost create, with and without a stream; one in ten on MariaDB."""
    for number, (holder, lost, points) in enumerate(itertools.product(HOLDERS, CREATES, kills())):
        yield Schedule("sqlite" if number % 10 else "mariadb", points, lost, holder)


def others() -> Iterator[Schedule]:
    """Everything else that can happen."""
    for scenario, call, first in itertools.product(FAULTS, CALLS, (1, 2, 3)):
        for times, points in ((1, ()), (5, ()), (1, (20 * first,))):
            yield Schedule(kills=points, fault=f"{scenario}:{call}:{first}:{times}")
    for point in range(1, STEPS, 5):
        yield Schedule(kills=(point,), holder="silent")
        yield Schedule(kills=(point,), two=True)
        yield Schedule("mariadb", kills=(point,), two=True)
    for point, seconds in itertools.product(range(1, STEPS, 2), (100, 400)):
        yield Schedule(stop=f"{point}:{seconds}")
    for point in range(1, STEPS, 8):
        yield Schedule("mariadb", stop=f"{point}:100")
    for when, number in itertools.product(("before", "after"), range(1, 70)):
        yield Schedule("mariadb", cut=f"{when}:{number}")
    for old, new in itertools.combinations(STAGES, 2):
        for points in ((), (4,), (15,), (30,)):
            yield Schedule(kills=points, restore=f"{old}:{new}")
    yield from (Schedule(clone=f"{stage}:{what}") for stage in STAGES for what in ("refuse", "claim"))


def with_dedicated() -> Iterator[Schedule]:
    """What can happen where users have keys of their own."""
    yield Schedule(dedicated=True)
    for point in range(1, DEDICATED_STEPS + 1):
        yield Schedule("sqlite" if point % 10 else "mariadb", (point,), dedicated=True)
    for point, lost in itertools.product(range(5, DEDICATED_STEPS, 15), range(1, 6)):
        yield Schedule(kills=(point, point + 20), lost=lost, dedicated=True)
    for scenario, call, first in itertools.product(FAULTS, CALLS, (1, 4)):
        yield Schedule(fault=f"{scenario}:{call}:{first}:1", dedicated=True)
    for point in range(1, DEDICATED_STEPS, 10):
        yield Schedule(kills=(point,), holder="own", dedicated=True)
        yield Schedule(kills=(point,), two=True, dedicated=True)
        yield Schedule(stop=f"{point}:100", dedicated=True)
    for when, number in itertools.product(("before", "after"), range(1, 120, 4)):
        yield Schedule("mariadb", cut=f"{when}:{number}", dedicated=True)
    for old, new in itertools.combinations(STAGES, 2):
        yield Schedule(restore=f"{old}:{new}", dedicated=True)
    yield from (Schedule(clone=f"{stage}:claim", dedicated=True) for stage in STAGES)


def all_schedules() -> list[Schedule]:
    """The whole space, always in the same order."""
    return [*others(), *with_dedicated(), *killed()]
