"""How much may be tried again, of whom."""

import pytest

from gateway.retry_budget import LEAST_EACH, LEAST_OF_ALL, SHARE, WINDOW_SECONDS, RetryBudget


class Time:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def budget(time):
    return RetryBudget(time)


def retries(budget, user, asked):
    """How many of so many retries are allowed."""
    return sum(budget.take(user) for _ in range(asked))


def call(budget, user, times):
    for _ in range(times):
        budget.note_call(user)


def test_a_share_of_the_calls_may_be_tried_again(budget):
    call(budget, 1, 1000)
    assert retries(budget, 1, 2000) == LEAST_EACH + SHARE * 1000


def test_few_calls_may_all_be_tried_again(budget):
    call(budget, 1, 5)
    assert retries(budget, 1, 10) == 10


def test_who_fails_all_the_time_does_not_spend_what_others_need(budget):
    call(budget, 1, 10_000)
    assert retries(budget, 1, 20_000) == LEAST_EACH + SHARE * 10_000
    call(budget, 2, 1)
    assert retries(budget, 2, 2) == 2


def test_all_together_have_a_share_too(budget):
    for user in range(1000):
        call(budget, user, 1)
    assert sum(retries(budget, user, 2) for user in range(1000)) == LEAST_OF_ALL + SHARE * 1000


def test_what_is_past_counts_no_more(budget, time):
    call(budget, 1, 1000)
    most = retries(budget, 1, 2000)
    time.now += WINDOW_SECONDS
    assert retries(budget, 1, 1) == 0  # that was the window before
    time.now += WINDOW_SECONDS
    assert retries(budget, 1, 2000) == LEAST_EACH
    call(budget, 1, 1000)
    time.now += 2 * WINDOW_SECONDS
    call(budget, 1, 1000)
    assert retries(budget, 1, 2000) == most
