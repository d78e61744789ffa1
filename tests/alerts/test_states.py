"""What rings: each step is made once, whoever of several processes comes first, and tells in the same transaction."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from alerts import states
from alerts.facts import Fact
from alerts.kinds import KINDS
from alerts.messages import AlertMessages
from alerts.states import Alert, AlertStates
from db import Database
from tests.support.movable_clock import MovableClock

pytestmark = pytest.mark.mysql

DISK = KINDS["disk-nearly-full"]
FULL = Fact("host/one", 5e8, {"host": "one", "free": "0.5 GB"})
CHANNELS = "webhook", "email"


@pytest.fixture
def known(db: Database, clock: MovableClock) -> AlertStates:
    return AlertStates(db, clock, CHANNELS)


def begun(known: AlertStates, fact: Fact = FULL) -> Alert:
    known.notice(DISK, fact)
    return next(alert for alert in known.open() if alert.subject == fact.subject)


def told(db: Database, clock: MovableClock, alert: Alert) -> list[tuple[str, str]]:
    return [(one.says, one.channel) for one in AlertMessages(db, clock).of([alert.id])]


def test_one_time_from_its_beginning_to_its_end(db, clock, known):
    alert = begun(known)
    assert (alert.kind, alert.subject, alert.details) == (DISK.name, "host/one", FULL.parts)
    assert (alert.began_at, alert.told_at, alert.ended_at) == (clock.now(), None, None)
    other = begun(known, Fact("host/two", 5e8, {"host": "two", "free": "0.5 GB"}))
    clock.advance(minutes=1)
    assert known.tell(alert)
    assert told(db, clock, alert) == [("began", "webhook"), ("began", "email")]
    clock.advance(minutes=1)
    known.see_clear(alert)
    [alert, _] = known.open()
    assert alert.clear_since == clock.now()
    known.see(alert, FULL)
    [alert, _] = known.open()
    assert alert.clear_since is None
    assert known.end(alert)
    assert told(db, clock, alert)[2:] == [("ended", "webhook"), ("ended", "email")]
    [over], total = known.page(1, 10)
    assert (over.id, over.ended_at, total) == (alert.id, clock.now(), 1)
    assert [one.id for one in known.open()] == [other.id]
    assert told(db, clock, other) == []
    again = begun(known)
    assert again.id > other.id


def test_what_did_not_last_leaves_nothing_and_what_was_told_is_not_forgotten(db, clock, known):
    alert = begun(known)
    known.forget(alert)
    assert (known.open(), known.page(1, 10)) == ([], ([], 0))
    alert = begun(known)
    known.tell(alert)
    known.forget(alert)
    assert [one.id for one in known.open()] == [alert.id]


def test_what_was_told_to_nobody_ends_without_a_message(db, clock, known):
    alert = begun(known)
    assert known.end(alert)
    assert told(db, clock, alert) == []
    assert known.page(1, 10)[1] == 1


def test_without_channels_nothing_counts_as_told(db, clock):
    deaf = AlertStates(db, clock, [])
    alert = begun(deaf)
    assert not deaf.tell(alert)
    assert deaf.open()[0].told_at is None


def test_many_processes_at_once_begin_tell_and_end_it_once(db, clock):
    processes = [AlertStates(db, clock, CHANNELS) for _ in range(4)]
    together = threading.Barrier(4)

    def live(process: AlertStates) -> tuple[bool, bool]:
        together.wait()
        process.notice(DISK, FULL)
        together.wait()
        [alert] = process.open()
        together.wait()
        was_told = process.tell(alert)
        together.wait()
        [alert] = process.open()
        together.wait()
        return was_told, process.end(alert)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(live, processes))
    assert sorted(told for told, _ in found) == [False, False, False, True]
    assert sorted(ended for _, ended in found) == [False, False, False, True]
    [over], total = processes[0].page(1, 10)
    assert total == 1
    assert told(db, clock, over) == [(says, channel) for says in ("began", "ended") for channel in CHANNELS]


def test_one_process_of_all_gets_the_round_and_the_next_one_later(db, clock):
    processes = [AlertStates(db, clock, CHANNELS) for _ in range(4)]
    for _ in range(3):  # the first one makes the row
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda process: process.take_round("facts", 20), processes))
        assert sum(found) == 1
        clock.advance(seconds=19)
        assert not processes[0].take_round("facts", 20)
        clock.advance(seconds=1)


def test_a_silence_is_one_however_often_it_is_set(db, clock, known):
    known.silence("pool-low", "user/1")
    known.silence("pool-low", "user/2")
    [(kind, silence)] = known.silences().items()
    assert (kind, silence.silenced_by, silence.silenced_at) == ("pool-low", "user/1", clock.now())
    known.unsilence("pool-low")
    known.unsilence("pool-low")
    assert known.silences() == {}


def test_what_is_over_is_kept_for_90_days_and_never_more_than_a_number(db, clock, known, monkeypatch):
    monkeypatch.setattr(states, "KEPT_ROWS", 2)
    ended = []
    for _ in range(3):
        alert = begun(known)
        known.tell(alert)
        known.end(known.open()[0])
        ended.append(alert.id)
        clock.advance(days=1)
    lasting = begun(known)
    known.delete_old()
    assert [one.id for one in known.page(1, 10)[0]] == [ended[2], ended[1]]
    assert AlertMessages(db, clock).of([ended[0]]) == []
    clock.advance(days=89)
    known.delete_old()
    assert [one.id for one in known.page(1, 10)[0]] == [ended[2]]
    clock.advance(days=100)
    known.delete_old()
    assert known.page(1, 10) == ([], 0)
    assert [one.id for one in known.open()] == [lasting.id]


def test_a_kind_that_only_another_version_knows_is_left_to_it(db, clock, known):
    known.notice(DISK, FULL)
    db.transact(lambda tx: tx.execute(states.table.update().values(kind="of-tomorrow")))
    assert known.open() == []
