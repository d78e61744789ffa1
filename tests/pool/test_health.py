"""Breakers: rests that double, one call at a time after them; outages, in which no verdict counts."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pool.health import MAX_REST_SECONDS, Breaker, Outage, Questions


def rested(breaker, now):
    """For how long the breaker rests from now on."""
    return breaker.until - now


def test_a_breaker_is_closed_until_something_fails():
    breaker = Breaker()
    assert breaker.lets(0)
    breaker.open(100, 5, "limited", 429, again=False)
    assert (breaker.lets(104.9), breaker.lets(105)) == (False, True)
    assert (breaker.reason, breaker.status) == ("limited", 429)
    breaker.close()
    assert (breaker.until, breaker.failures, breaker.reason) == (0, 0, "")


def test_while_half_open_one_call_at_a_time_goes_through():
    breaker = Breaker()
    breaker.open(100, 5, "limited", 429, again=False)
    breaker.is_trying = True
    assert not breaker.lets(200)
    breaker.is_trying = False
    assert breaker.lets(200)


def test_each_failure_of_a_try_doubles_the_rest_up_to_the_cap_and_a_success_starts_anew():
    breaker, now, rests = Breaker(), 100.0, []
    for _ in range(12):
        breaker.open(now, 5, "limited", 429, again=bool(rests))
        rests.append(rested(breaker, now))
        now = breaker.until
    assert rests[:5] == [5, 10, 20, 40, 80]
    assert rests[-1] == MAX_REST_SECONDS == 900
    breaker.close()
    breaker.open(now, 5, "limited", 429, again=False)
    assert rested(breaker, now) == 5


def test_what_openrouter_asks_for_is_honoured_beyond_the_cap():
    breaker = Breaker()
    for again in (False, True, True):
        now = breaker.until + 1
        breaker.open(now, 3600, "limited", 429, again=again)
        assert rested(breaker, now) == 3600


def test_calls_that_fail_together_count_once_and_the_longest_rest_stands():
    breaker = Breaker()
    for _ in range(20):
        breaker.open(100, 5, "limited", 429, again=False)
    assert (rested(breaker, 100), breaker.failures) == (5, 1)
    breaker.open(101, 60, "no-credit", 402, again=False)
    breaker.open(102, 5, "limited", 429, again=False)
    assert (breaker.until, breaker.reason, breaker.status) == (161, "no-credit", 402)


def test_a_rest_without_end_is_ended_by_what_get_key_says():
    breaker = Breaker()
    breaker.open(100, math.inf, "key-refused", 502, again=False)
    assert not breaker.lets(1e9)
    breaker.half_open(200)
    assert breaker.lets(200)
    breaker.open(201, math.inf, "key-refused", 502, again=True)
    assert breaker.failures == 2


def test_questions_come_after_5_10_20_40_and_then_every_60_seconds():
    questions, now, pauses = Questions(math.inf), 0.0, []
    questions.begin(now, failures=1)
    for _ in range(7):
        pauses.append(questions.at - now)
        now = questions.at
        questions.go_on(now, 60)
    assert pauses == [5, 10, 20, 40, 60, 60, 60]
    questions.end()
    assert questions.at == math.inf


def test_a_key_that_is_refused_although_get_key_accepts_it_is_asked_about_ever_later():
    questions = Questions(math.inf)
    pauses = []
    for failures in (1, 2, 3, 20):
        questions.begin(1000, failures)
        pauses.append(questions.at - 1000)
    assert pauses == [5, 10, 20, MAX_REST_SECONDS]


# ── outages


def outage_after(refused, known, at=0.0):
    outage = Outage()
    for key in refused:
        outage.note_refused(key, known, at)
    return outage


def test_an_outage_is_three_keys_that_are_half_of_all():
    assert outage_after([1, 2, 3], 6).is_on
    assert not outage_after([1, 2, 3], 7).is_on
    assert not outage_after([1, 2], 2).is_on
    assert not outage_after([1, 1, 1, 2, 2], 3).is_on


def test_old_refusals_make_no_outage():
    outage = outage_after([1, 2], 5, at=0)
    outage.note_refused(3, 5, 60)
    assert not outage.is_on
    outage.note_refused(1, 5, 61)
    outage.note_refused(2, 5, 61)
    assert outage.is_on


def test_an_outage_is_over_when_its_minute_is_quiet():
    outage = outage_after([1, 2, 3, 4, 5], 5, at=0)
    outage.look(5, 59.9)
    assert outage.is_on
    outage.look(5, 60)
    assert not outage.is_on


def test_an_outage_is_over_when_the_keys_succeed_again():
    outage = outage_after([1, 2, 3, 4], 5)
    outage.note_success(1, 5, 1)
    assert outage.is_on
    outage.note_success(2, 5, 1)
    assert not outage.is_on


def test_successes_of_other_keys_say_that_not_everybody_is_refused():
    outage = outage_after([1, 2, 3], 5)
    assert not outage.is_refuted(1)
    outage.note_success(4, 5, 1)
    assert outage.is_on
    assert outage.is_refuted(10.9)
    assert not outage.is_refuted(11)
    outage.note_convicted(1, 5, 2)
    assert not outage.is_on


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0, 20)), max_size=60))
def test_an_outage_is_on_exactly_while_half_of_the_keys_have_failed_within_a_minute(events):
    outage, now, last = Outage(), 0.0, {}
    for succeeded, key, pause in events:
        now += pause
        if succeeded:
            last.pop(key, None)
            outage.note_success(key, 10, now)
        else:
            last[key] = now
            outage.note_refused(key, 10, now)
        assert outage.is_on == (sum(now - at < 60 for at in last.values()) >= 5)
