"""What goes out: tried until it arrives, by one process at a time, the end after the beginning."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from alerts import messages
from alerts.messages import BEGAN, CLAIM, ENDED, MAX_TRIES, AlertMessages
from db import Database
from tests.support.movable_clock import MovableClock

pytestmark = pytest.mark.mysql


@pytest.fixture
def outbox(db: Database, clock: MovableClock) -> AlertMessages:
    return AlertMessages(db, clock)


def add(db: Database, clock: MovableClock, alert_id: int, says: str, *channels: str) -> None:
    db.transact(lambda tx: messages.add(tx, alert_id, says, channels, clock.now()))


def states(outbox: AlertMessages, *alert_ids: int) -> list[tuple[str, str, int, str | None]]:
    return [(one.says, one.state, one.tries, one.reason) for one in outbox.of(alert_ids)]


def test_a_message_is_taken_once_and_not_again_when_it_has_arrived(db, clock, outbox):
    add(db, clock, 1, BEGAN, "webhook", "email")
    taken = outbox.take("webhook")
    assert (taken.alert_id, taken.says, taken.channel, taken.tries) == (1, BEGAN, "webhook", 1)
    assert outbox.take("webhook") is None
    outbox.note_sent(taken)
    clock.advance(days=1)
    assert outbox.take("webhook") is None
    assert outbox.take("email").channel == "email"


def test_of_many_processes_one_takes_it(db, clock):
    add(db, clock, 1, BEGAN, "webhook")
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda box: box.take("webhook"), [AlertMessages(db, clock) for _ in range(4)]))
    assert sum(one is not None for one in taken) == 1


def test_a_process_that_dies_between_sending_and_noting_loses_nothing(db, clock, outbox):
    add(db, clock, 1, BEGAN, "webhook")
    lost = outbox.take("webhook")
    clock.advance(seconds=CLAIM.total_seconds())
    again = outbox.take("webhook")
    assert (again.id, again.tries) == (lost.id, 2)
    outbox.note_sent(again)
    outbox.note_failed(lost, "too late to say so")
    assert states(outbox, 1) == [(BEGAN, "sent", 2, None)]


def test_what_does_not_arrive_is_tried_again_ever_more_seldom_and_given_up_in_the_end(db, clock, outbox):
    add(db, clock, 1, BEGAN, "webhook")
    begun, pauses = clock.now(), []
    while message := outbox.take("webhook"):
        outbox.note_failed(message, "the receiver answered 500")
        [noted] = outbox.of([1])
        pauses.append(noted.next_at - clock.now())
        clock.time = noted.next_at
    assert pauses[:4] == [timedelta(seconds=10 * 2**number) for number in range(4)]
    assert max(pauses) == timedelta(hours=1)
    assert states(outbox, 1) == [(BEGAN, "given-up", MAX_TRIES, "the receiver answered 500")]
    assert timedelta(hours=18) < clock.now() - begun < timedelta(hours=36)


def test_an_end_waits_for_its_beginning_and_for_no_other(db, clock, outbox):
    add(db, clock, 1, BEGAN, "webhook")
    first = outbox.take("webhook")
    outbox.note_failed(first, "away")
    add(db, clock, 1, ENDED, "webhook")
    add(db, clock, 2, BEGAN, "webhook")
    assert outbox.take("webhook").alert_id == 2
    assert outbox.take("webhook") is None
    clock.advance(seconds=10)
    again = outbox.take("webhook")
    assert (again.alert_id, again.says) == (1, BEGAN)
    assert outbox.take("webhook") is None
    outbox.note_sent(again)
    assert outbox.take("webhook").says == ENDED


def test_long_reasons_are_cut(db, clock, outbox):
    add(db, clock, 1, BEGAN, "webhook")
    outbox.note_failed(outbox.take("webhook"), "x" * 1000)
    assert len(outbox.of([1])[0].reason) == 300
