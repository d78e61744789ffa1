"""A look at all facts: what begins is told once it lasts, what is over once it stays so, and nothing flaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from alerts.facts import Fact, Facts
from alerts.messages import AlertMessages
from alerts.rounds import MOST_OF_A_KIND, ROUND_SECONDS, AlertRounds
from alerts.states import AlertStates
from db import Database
from tests.support.movable_clock import MovableClock

ASKED = ("usable_keys", "usable_share", "refused_keys", "credit", "quotas_used", "drain_behind", "journal_faults")
ASKED += ("free_bytes", "clock_skew", "differences", "refused_log_ins")


class World:
    """One database, and facts as the test says that they are."""

    def __init__(self, db: Database, clock: MovableClock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = clock
        self.told: dict[str, list[Fact]] = {}
        self.broken: set[str] = set()
        self.states = AlertStates(db, clock, ["webhook"])
        self.messages = AlertMessages(db, clock)
        self.rounds = AlertRounds(self.states, clock, lambda: self)  # type: ignore[arg-type, return-value]
        for name in ASKED:
            kinds = [kind for kind in rounds_kinds() if kind.ask is getattr(Facts, name)]
            for kind in kinds:
                monkeypatch.setitem(kind.__dict__, "ask", lambda world, name=name: world.ask(name))

    def ask(self, name: str) -> Iterator[Fact]:
        if name in self.broken:
            raise ValueError(name)
        return iter(self.told.get(name, []))

    def be(self, name: str, *facts: tuple[str, float]) -> None:
        """From now on these are the facts."""
        filled: dict[str, Any] = {"host": "h", "free": "f", "seconds": "s", "account": "a", "percent": 1, "quota": "q"}
        self.told[name] = [Fact(subject, value, filled) for subject, value in facts]

    def pass_seconds(self, seconds: float) -> None:
        """With a round at each turn."""
        for _ in range(round(seconds / ROUND_SECONDS)):
            self.rounds.run_if_due()
            self.clock.advance(seconds=ROUND_SECONDS)

    def said(self) -> list[tuple[str, str]]:
        """Everything that was told, in order: kind or subject, and began or ended."""
        alerts = [*self.states.open(), *self.states.page(1, 100)[0]]
        by_id = {alert.id: alert for alert in alerts}
        return [(by_id[one.alert_id].subject, one.says) for one in self.messages.of(by_id)]


def rounds_kinds() -> Iterable[Any]:
    from alerts.kinds import KINDS

    return KINDS.values()


@pytest.fixture
def world(db: Database, clock: MovableClock, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(db, clock, monkeypatch)


def test_one_message_when_it_begins_and_one_when_it_is_over(world):
    world.be("free_bytes", ("host/one", 5e8), ("host/two", 9e9))
    world.pass_seconds(600)
    assert world.said() == [("host/one", "began")]
    world.be("free_bytes", ("host/one", 3e9), ("host/two", 9e9))
    world.pass_seconds(240)
    assert world.said() == [("host/one", "began")]
    world.pass_seconds(120)
    assert world.said() == [("host/one", "began"), ("host/one", "ended")]
    world.pass_seconds(600)
    assert len(world.said()) == 2


def test_what_does_not_last_is_told_to_nobody(world):
    for _ in range(5):
        world.be("free_bytes", ("host/one", 5e8))
        world.pass_seconds(40)
        world.be("free_bytes", ("host/one", 3e9))
        world.pass_seconds(40)
    assert (world.said(), world.states.page(1, 10)[1], world.states.open()) == ([], 0, [])


def test_what_goes_to_and_fro_rings_once(world):
    for value in (5e8, 1.5e9, 5e8, 1.9e9, 9e8, 3e9, 5e8, 3e9, 9e8):  # back above the end, but never for long
        world.be("free_bytes", ("host/one", value))
        world.pass_seconds(120)
    assert world.said() == [("host/one", "began")]


def test_between_the_bounds_nothing_begins(world):
    world.be("free_bytes", ("host/one", 1.5e9))
    world.pass_seconds(600)
    assert world.states.open() == []


def test_a_pause_of_all_processes_ends_nothing(world):
    """Such as an outage: what was not looked at was not over."""
    world.be("free_bytes", ("host/one", 5e8))
    world.pass_seconds(120)
    world.clock.advance(hours=3)
    world.be("free_bytes")  # its host has not reported yet
    world.pass_seconds(40)
    world.be("free_bytes", ("host/one", 5e8))
    world.pass_seconds(600)
    assert world.said() == [("host/one", "began")]


def test_a_silence_holds_back_beginnings_and_no_end(world):
    world.be("free_bytes", ("host/one", 5e8))
    world.pass_seconds(120)
    world.states.silence("disk-nearly-full", "user/1")
    world.be("free_bytes", ("host/two", 5e8), ("host/three", 5e8))
    world.pass_seconds(600)
    assert world.said() == [("host/one", "began"), ("host/one", "ended")]
    world.be("free_bytes", ("host/two", 5e8))
    world.pass_seconds(600)
    world.states.unsilence("disk-nearly-full")
    world.pass_seconds(40)
    assert world.said()[2:] == [("host/two", "began")]


def test_80_and_100_percent_of_a_quota_are_two(world):
    world.be("quotas_used", ("user/1", 0.85), ("user/2", 0.1))
    world.pass_seconds(60)
    world.be("quotas_used", ("user/1", 1.0), ("user/2", 0.1))
    world.pass_seconds(60)
    assert world.said() == [("user/1", "began"), ("user/1", "began")]
    world.be("quotas_used", ("user/1", 0.0))
    world.pass_seconds(600)
    assert world.said()[2:] == [("user/1", "ended"), ("user/1", "ended")]


def test_more_of_a_kind_than_anybody_reads_are_told_as_one(world):
    users = [(f"user/{number}", 0.85) for number in range(MOST_OF_A_KIND + 7)]
    world.be("quotas_used", *users)
    world.pass_seconds(600)
    said = world.said()
    assert len(said) == MOST_OF_A_KIND + 1
    assert said[-1] == ("others", "began")
    [others] = [alert for alert in world.states.open() if alert.subject == "others"]
    assert others.details == {"count": 7}
    world.be("quotas_used", *users[:MOST_OF_A_KIND])
    world.pass_seconds(600)
    assert world.said()[-1] == ("others", "ended")


def test_a_kind_that_cant_be_asked_stays_as_it_was_and_hinders_no_other(world):
    world.be("free_bytes", ("host/one", 5e8))
    world.pass_seconds(120)
    world.broken.add("free_bytes")
    world.be("clock_skew", ("host/one", 9.0))
    for _ in range(30):
        with pytest.raises(ValueError, match="free_bytes"):
            world.rounds.run_once()
        world.clock.advance(seconds=ROUND_SECONDS)
    assert world.said() == [("host/one", "began"), ("host/one", "began")]


def test_only_one_process_makes_each_round(world, db, clock):
    world.be("drain_behind", ("host/one", 400.0))
    other = AlertRounds(AlertStates(db, clock, ["webhook"]), clock, lambda: world)  # type: ignore[arg-type, return-value]
    for _ in range(20):
        world.rounds.run_if_due()
        other.run_if_due()
        clock.advance(seconds=5)
    assert world.said() == [("host/one", "began")]
