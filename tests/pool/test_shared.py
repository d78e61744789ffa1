"""The keys that all share: which of them a call gets, at what cost, and what is told if it gets none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import AppError, Busy, PaymentRequired, TooManyRequests
from pool.choice import PoolKey
from tests.support.memory_pool import DEAD, LIMITED, SPENT, Memory, picks
from tests.support.movable_clock import MovableClock
from upstream.refusals import Other


def test_every_usable_key_is_picked_about_equally_often(clock):
    pool = Memory(clock, 10)
    for number in range(5):
        pool.refuse(number, *LIMITED)
    counted = Counter(pool.pick().id for _ in range(10_000))
    assert set(counted) == set(range(5, 10))
    assert all(1600 < times < 2400 for times in counted.values())


def test_keys_with_more_left_are_picked_more_often(clock):
    pool = Memory(clock, 2)
    pool.keys[0].remaining_nano, pool.keys[1].remaining_nano = 3 * 10**9, 9 * 10**9
    counted = Counter(pool.pick().id for _ in range(10_000))
    assert 2.3 < counted[1] / counted[0] < 3.9


def test_a_key_that_was_tried_is_not_picked_again(clock):
    pool = Memory(clock, 3)
    tried: list[PoolKey] = []
    for _ in range(3):
        tried.append(pool.pick(tried))
    assert len(set(tried)) == 3
    with pytest.raises(Busy):
        pool.pick(tried)


def test_another_account_is_another_account(clock):
    pool = Memory(clock, 5, "aaabb")
    key = next(key for key in iter(pool.pick, None) if key.id == 0)
    assert picks(pool, tried=[key], other=Other.ACCOUNT) == {3, 4}
    assert picks(pool, tried=[key], other=Other.KEY) == {1, 2, 3, 4}
    with pytest.raises(Busy):
        pool.pick([pool.keys[0], pool.keys[4]], Other.ACCOUNT)


def test_a_key_of_unknown_account_is_its_own_account(clock):
    assert picks(Memory(clock, 2), tried=[], other=Other.ACCOUNT) == {0, 1}
    pool = Memory(clock, 2)
    assert picks(pool, tried=[pool.keys[0]], other=Other.ACCOUNT) == {1}


def test_a_sticky_text_keeps_its_key_while_that_is_usable(clock):
    pool = Memory(clock, 10)
    [mine] = picks(pool, sticky="user 1")
    pool.refuse(mine, *LIMITED)
    [stand_in] = picks(pool, sticky="user 1")
    assert stand_in != mine
    clock.advance(seconds=5)
    assert pool.call().id is not None
    for _ in range(200):
        pool.call()  # until the key has been tried, and works
    assert picks(pool, sticky="user 1") == {mine}
    assert len({next(iter(picks(pool, 1, sticky=f"user {n}"))) for n in range(200)}) == 10


class CountingTries(Collection):
    """Nothing was tried; but it counts how many keys were considered."""

    def __init__(self) -> None:
        self.looks = 0

    def __contains__(self, _: object) -> bool:
        self.looks += 1
        return False

    def __iter__(self):
        return iter(())

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("count", [10, 10_000])
@pytest.mark.parametrize("resting", [0.0, 0.5, 0.9])
def test_a_pick_considers_one_key_however_many_there_are_and_rest(clock, count, resting):
    pool, tried = Memory(clock, count), CountingTries()
    for number in range(int(count * resting)):
        pool.refuse(number, *LIMITED)
    pool.usable_count()
    for _ in range(100):
        pool.release(pool.pick(tried))
    assert tried.looks == 100


def test_keys_that_come_to_rest_are_not_looked_for_one_by_one(clock):
    """All but one rest after the table was made: one look over all of them, and the next picks are cheap again."""
    pool, tried = Memory(clock, 10_000), CountingTries()
    pool.usable_count()
    for number in range(1, 10_000):
        pool.refuse(number, *LIMITED)
    for _ in range(100):
        assert pool.pick(tried).id == 0
    assert tried.looks < 300


def test_a_key_carries_no_more_calls_than_it_may(clock):
    pool = Memory(clock, 2, max_in_flight=3)
    held = [pool.pick() for _ in range(6)]
    assert Counter(key.id for key in held) == {0: 3, 1: 3}
    with pytest.raises(TooManyRequests) as raised:
        pool.pick()
    assert raised.value.headers["Retry-After"] == "1"
    pool.release(held[0])
    assert pool.pick() == held[0]


@given(st.lists(st.sampled_from(["usable", "resting", "expired", "tried"]), max_size=12))
def test_whatever_the_state_of_the_keys_only_a_usable_one_is_picked(states):
    clock = MovableClock()
    pool = Memory(clock, len(states))
    for key, state in zip(pool.keys, states, strict=True):
        if state == "resting":
            pool.refuse(key, *LIMITED)
        if state == "expired":
            key.expires_at = clock.timestamp()
    tried = [key for key, state in zip(pool.keys, states, strict=True) if state == "tried"]
    assert pool.usable_count() == states.count("usable") + states.count("tried")
    assert pool.known_count() == len(states) - states.count("expired")
    try:
        assert states[pool.pick(tried).id] == "usable"
    except AppError as error:
        assert "usable" not in states
        assert isinstance(error, TooManyRequests if "resting" in states else Busy)


def test_an_empty_pool_is_busy_for_a_moment(clock):
    with pytest.raises(Busy) as raised:
        Memory(clock, 0).pick()
    assert raised.value.headers == {"Retry-After": "5"}


@pytest.mark.parametrize(
    ("waits", "told"), [(("30", "12.2"), "13"), (("7.01",), "8"), (("3600", "1800"), "60"), (("1",), "5")]
)
def test_a_pool_that_rests_tells_when_the_first_key_is_back(clock, waits, told):
    pool = Memory(clock, len(waits))
    for number, wait in enumerate(waits):
        pool.refuse(number, *LIMITED, retry_after=wait)
    with pytest.raises(TooManyRequests) as raised:
        pool.pick()
    assert raised.value.headers == {"Retry-After": told}


def test_a_pool_of_suspects_tells_when_they_are_asked_about(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *DEAD)
    pool.convict(0)
    clock.advance(seconds=2)
    with pytest.raises(TooManyRequests) as raised:
        pool.pick()
    assert raised.value.headers == {"Retry-After": "3"}


def test_a_pool_whose_limits_are_spent_asks_for_its_operator_and_not_for_patience(clock):
    pool = Memory(clock, 2)
    for number in range(2):
        pool.refuse(number, *SPENT)
        pool.convict(number)
    with pytest.raises(PaymentRequired, match="operator has to raise limits"):
        pool.pick()
    pool.keys[0].rest.close()
    pool.refuse(0, *LIMITED, retry_after="60")
    with pytest.raises(TooManyRequests):
        pool.pick()


def test_a_key_whose_limit_is_spent_does_not_hide_a_usable_one(clock):
    pool = Memory(clock, 2)
    pool.refuse(0, *SPENT)
    pool.convict(0)
    assert picks(pool) == {1}
    with pytest.raises(PaymentRequired):
        pool.pick([pool.keys[1]])


@pytest.mark.parametrize("sticky", [None, "user 1"])
def test_what_is_told_of_a_pool_without_keys_does_not_depend_on_how_they_are_looked_for(clock, sticky):
    pool = Memory(clock, 3)
    pool.usable_count()
    for number in range(3):
        pool.refuse(number, *SPENT)
        pool.convict(number)
    with pytest.raises(PaymentRequired):
        pool.pick(sticky=sticky)


def test_while_the_only_key_is_being_tried_others_wait_a_second(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *LIMITED)
    clock.advance(seconds=5)
    trial = pool.pick()
    with pytest.raises(TooManyRequests) as raised:
        pool.pick()
    assert raised.value.headers == {"Retry-After": "1"}
    pool.note_success(trial)
    assert picks(pool) == {0}


def test_a_ring_is_made_once_for_the_same_keys(clock):
    pool = Memory(clock, 5)
    picks(pool, 3, sticky="x")
    ring = pool._shared._ring
    picks(pool, 3, sticky="y")
    assert pool._shared._ring is ring
