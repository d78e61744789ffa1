"""What GET /key's answers do to keys: doubted ones, those that are out, and those of which nothing was known for long."""

import logging
import math

import pytest

from pool.choice import Trial
from pool.verdicts import IDLE_ASK_SECONDS
from tests.support.memory_pool import DEAD, LIMITED, SPENT, Memory, picks

DAILY = (403, "Key limit exceeded (daily limit).")


def ask(pool):
    return [key.id for key in pool.verdicts.to_ask(9)]


def accept(pool, number, remaining_nano=None):
    pool.verdicts.note_confirmed(pool.keys[number], remaining_nano)


def deny(pool, number):
    pool.verdicts.note_denied(pool.keys[number])


def be_silent(pool, number):
    pool.verdicts.note_unanswered(pool.keys[number])


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "pool"]


# ── doubts


@pytest.mark.parametrize("refusal", [DEAD, SPENT, DAILY], ids=["refused", "spent", "spent for today"])
def test_a_refusal_that_get_key_does_not_confirm_takes_nothing_from_anybody(clock, refusal):
    pool = Memory(clock, 2)
    for second in range(100):
        pool.refuse(second % 2, *refusal)
        assert picks(pool) == {0, 1}
        for number in ask(pool):
            accept(pool, number, 7)
        clock.advance(seconds=1)
    clock.advance(seconds=5)
    for number in ask(pool):
        accept(pool, number, 7)
    assert (pool.usable_count(), pool.report()) == (2, {})


def test_a_doubted_key_is_asked_about_at_once_and_then_every_five_seconds(clock):
    pool, asked = Memory(clock, 1), []
    clock.advance(seconds=60)
    for second in range(20):
        pool.refuse(0, *DEAD)
        for number in ask(pool):
            asked.append(second)
            accept(pool, number)
        clock.advance(seconds=1)
    assert asked == [0, 5, 10, 15]


def test_a_call_that_is_answered_ends_a_doubt(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *DEAD)
    assert pool.usable_count() == 0  # nothing speaks for it
    pool.call()
    assert pool.usable_count() == 1
    pool.refuse(0, *DEAD)
    assert pool.usable_count() == 1  # it worked within the last minute
    clock.advance(seconds=60)
    assert pool.usable_count() == 0


def test_silence_settles_nothing_and_takes_nothing(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *DEAD)
    pauses = []
    for _ in range(7):
        before = clock.monotonic()
        be_silent(pool, 0)
        pauses.append(pool.keys[0].questions.at - before)
        clock.advance(seconds=pauses[-1])
        assert picks(pool) == {0}
    assert pauses == [5, 10, 20, 40, 60, 60, 60]
    assert pool.usable_count() == 0


# ── those that OpenRouter refuses


def test_a_key_that_get_key_refuses_is_out_and_asked_about_for_ever(clock):
    pool = Memory(clock, 2)
    pool.refuse(0, *DEAD)
    assert ask(pool) == [0]
    deny(pool, 0)
    for pause in (5, 10, 20, 40, 60, 60, 60):
        clock.advance(seconds=pause - 0.1)
        assert (ask(pool), picks(pool)) == ([], {1})
        clock.advance(seconds=0.1)
        assert ask(pool) == [0]
        deny(pool, 0)
    assert pool.report()["0"]["health"] == "suspect"
    accept(pool, 0)
    assert (picks(pool), pool.report(), ask(pool)) == ({0, 1}, {}, [])


def test_get_key_alone_takes_out_a_key_that_no_call_was_answered_with(clock):
    pool = Memory(clock, 2)
    deny(pool, 0)
    assert picks(pool) == {1}


def test_a_call_that_was_just_answered_says_more_than_get_key(clock):
    pool = Memory(clock, 1)
    pool.call()
    deny(pool, 0)
    assert picks(pool) == {0}
    clock.advance(seconds=10)
    assert ask(pool) == [0]
    deny(pool, 0)
    assert pool.usable_count() == 0


def test_a_refused_key_about_which_get_key_is_silent_is_tried_by_one_call_at_a_time(clock):
    pool = Memory(clock, 1)
    deny(pool, 0)
    be_silent(pool, 0)
    pool.call(*DEAD)
    assert pool.usable_count() == 0
    clock.advance(seconds=10)
    trial = pool.pick()
    assert isinstance(trial, Trial)
    pool.note_success(trial)
    pool.release(trial)
    assert pool.report() == {}


def test_what_get_key_says_does_not_end_a_rest_of_another_kind(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *LIMITED, retry_after="60")
    accept(pool, 0)
    assert pool.usable_count() == 0


def test_a_trial_that_is_refused_for_another_reason_does_not_lengthen_the_rest(clock):
    pool = Memory(clock, 1)
    for _ in range(4):
        pool.call(*LIMITED)
        clock.advance(seconds=pool.keys[0].rest.until - clock.monotonic())
    pool.call(*DEAD)
    assert pool.keys[0].rest.until <= clock.monotonic()
    accept(pool, 0)
    pool.call(*LIMITED)
    pool.keys[0].rest.failures = 3
    clock.advance(seconds=600)
    pool.keys[0].rest.reason = "something else"
    pool.call(*LIMITED)
    assert pool.keys[0].rest.until - clock.monotonic() == 5


# ── limits


def test_a_limit_that_get_key_calls_spent_rests_until_its_reset(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *DAILY)
    accept(pool, 0, 0)
    clock.advance(hours=11, minutes=59)
    assert pool.usable_count() == 0
    clock.advance(minutes=1)
    assert pool.usable_count() == 1


def test_a_spent_limit_is_asked_about_less_and_less_up_to_hourly_and_back_once_it_is_raised(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *SPENT)
    pauses = []
    for _ in range(12):
        accept(pool, 0, 0)
        assert pool.usable_count() == 0
        pauses.append(pool.keys[0].questions.at - clock.monotonic())
        clock.advance(seconds=pauses[-1])
    assert pauses[:3] == [5, 10, 20]
    assert pauses[-1] == 3600
    accept(pool, 0, 5)
    assert picks(pool) == {0}


def test_a_key_with_nothing_left_rests_only_if_calls_were_refused_for_it(clock):
    pool = Memory(clock, 1)
    accept(pool, 0, 0)
    assert picks(pool) == {0}


# ── whom to ask, and outages


def test_doubted_keys_are_asked_about_before_those_of_which_nothing_is_known(clock):
    pool = Memory(clock, 5)
    for key in pool.keys[:3]:
        key.questions.at = 0.0
    pool.refuse(4, *DEAD)
    assert [key.id for key in pool.verdicts.to_ask(2)] == [4, 0]


def test_a_key_of_which_nothing_is_known_for_ten_minutes_is_asked_about(clock):
    pool = Memory(clock, 2)
    clock.advance(seconds=IDLE_ASK_SECONDS / 2)
    while pool.call().id != 0:
        pass
    pool.keys[1].worked_at = -math.inf
    clock.advance(seconds=IDLE_ASK_SECONDS / 2)
    assert ask(pool) == [1]
    accept(pool, 1)
    assert ask(pool) == []


def test_a_pool_that_is_refused_as_a_whole_is_asked_about_every_five_seconds_and_back_as_a_whole(clock, caplog):
    caplog.set_level(logging.INFO)
    pool = Memory(clock, 5)
    for key in pool.keys:
        pool.refuse(key, *DEAD)
    for _ in range(400):
        for number in ask(pool):
            deny(pool, number)
        assert (pool.usable_count(), pool.refused_count()) == (0, 5)
        clock.advance(seconds=5)
    assert messages(caplog) == ["outage_suspected"]
    assert len(ask(pool)) == 5
    accept(pool, 0)
    assert ask(pool) == [1, 2, 3, 4]
    for number in ask(pool):
        accept(pool, number)
    assert (pool.usable_count(), pool.refused_count()) == (5, 0)
    assert messages(caplog) == ["outage_suspected", "outage_over"]


def test_some_bad_keys_are_no_outage(clock, caplog):
    pool = Memory(clock, 10)
    for number in range(4):
        deny(pool, number)
    few = Memory(clock, 2)
    for number in range(2):
        deny(few, number)
    assert "outage_suspected" not in messages(caplog)
    assert picks(pool) == set(range(4, 10))


def test_a_refused_pool_is_no_reason_to_use_what_rests_for_another(clock):
    pool = Memory(clock, 5)
    pool.refuse(4, *SPENT)
    accept(pool, 4, 0)
    for number in range(3):
        deny(pool, number)
    assert picks(pool) == {3}
