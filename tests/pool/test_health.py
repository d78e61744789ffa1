"""Breakers: rests that double, one call at a time after them; questions, which come less and less often."""

import math

from pool.health import MAX_REST_SECONDS, Breaker, Questions


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


def test_a_try_that_fails_for_another_reason_is_the_first_failure_of_its_own_kind():
    breaker, now = Breaker(), 100.0
    for again in (False, True, True):
        breaker.open(now, 5, "limited", 429, again=again)
        now = breaker.until
    breaker.open(now, 5, "key-refused", 502, again=True)
    assert (rested(breaker, now), breaker.failures, breaker.reason) == (5, 1, "key-refused")


def test_the_first_question_comes_at_once_and_the_next_after_5_10_20_40_and_then_every_60_seconds():
    questions, now, pauses = Questions(math.inf), 0.0, []
    questions.begin(now)
    for _ in range(7):
        pauses.append(questions.at - now)
        now = questions.at
        questions.go_on(now, 60)
    assert pauses == [0, 5, 10, 20, 40, 60, 60]
    questions.end(now)
    assert questions.at == math.inf


def test_however_often_a_key_is_doubted_it_is_asked_about_every_five_seconds():
    questions = Questions(math.inf)
    questions.begin(100)
    questions.end(100)
    questions.begin(101)
    assert questions.at == 105
    questions.begin(104)
    assert questions.at == 105
