"""Weights and hashes: fuller keys get more, none starves, texts keep their keys, and size costs nothing."""

import math
from collections import Counter

import pytest

from pool import choice as key_choice
from pool.choice import Choice, PoolKey, Ring, Trial


def pool_of(count, **values):
    keys = [PoolKey(number, f"key {number}", f"sk-or-v1-{number:064x}", math.inf) for number in range(count)]
    for key in keys:
        for name, value in values.items():
            setattr(key, name, value)
    return keys


def shares(keys, draws=20_000):
    """What part of the draws each key gets."""
    choice = Choice(keys, False, 0, 0)
    counted = Counter(choice.draw().id for _ in range(draws))
    return [counted[key.id] / draws for key in keys]


def test_keys_without_limits_are_drawn_equally():
    assert all(0.08 < share < 0.12 for share in shares(pool_of(10)))


def test_a_key_with_more_left_is_drawn_more_often():
    keys = pool_of(3)
    for key, left in zip(keys, (30, 60, None), strict=True):
        key.remaining_nano = left
    low, full, unlimited = shares(keys)
    assert 0.17 < low < 0.23
    assert 0.36 < full < 0.44
    assert 0.36 < unlimited < 0.44


@pytest.mark.parametrize("left", [0, -5, 1])
def test_no_key_starves(left):
    keys = pool_of(2)
    keys[0].remaining_nano, keys[1].remaining_nano = left, 10**12
    assert 0.03 < shares(keys)[0] < 0.07
    keys[1].remaining_nano = None
    assert shares(keys)[0] < 0.07 or left == 1


def test_what_was_too_small_is_drawn_less():
    keys = pool_of(3)
    keys[0].is_low = True
    keys[1].account.is_low = True
    low, of_low_account, other = shares(keys)
    assert low < 0.13
    assert of_low_account < 0.13
    assert other > 0.75


def test_what_rests_or_has_expired_is_not_among_the_keys():
    keys = pool_of(5)
    keys[0].rest.open(0, 30, "limited", 429, again=False)
    keys[1].rest.open(0, 20, "key-limit", 402, again=False)
    keys[2].account.free.open(0, 10, "free-per-day", 429, again=False)
    keys[3].expires_at = 5.0
    choice = Choice(keys, False, 1, 5)
    assert [key.id for key in choice.keys] == [2, 4]
    assert (choice.known, choice.resting, choice.back_at, choice.stale_at) == (4, 2, 20, 20)
    assert not choice.are_spent
    free = Choice(keys, True, 1, 4)
    assert [key.id for key in free.keys] == [3, 4]
    assert (free.back_at, free.stale_at) == (10, 2)  # at 2 the fourth expires


def test_a_key_that_is_being_tried_is_not_among_the_keys():
    [key] = pool_of(1)
    key.rest.open(0, 5, "limited", 429, again=False)
    assert Choice([key], False, 5, 0).keys == [key]
    key.rest.is_trying = True
    assert Choice([key], False, 5, 0).keys == []


def test_the_next_question_about_a_suspect_is_when_it_may_be_back():
    [key] = pool_of(1)
    key.rest.open(0, math.inf, "key-refused", 502, again=False)
    key.questions.go_on(0, 60)
    assert Choice([key], False, 1, 0).back_at == 5


def test_every_draw_of_a_large_pool_is_one_look_at_one_key(monkeypatch):
    """The weights are summed once; a draw then costs a search by halves."""
    looks = Counter()
    monkeypatch.setattr(PoolKey, "weight", lambda key, most: looks.update(["weight"]) or 1.0)
    choice = Choice(pool_of(10_000), False, 0, 0)
    assert looks["weight"] == 10_000
    for _ in range(1000):
        choice.draw()
    assert looks["weight"] == 10_000


def test_a_table_of_a_large_pool_lasts_long_enough_to_be_worth_making():
    keys = pool_of(10_000)
    keys[0].rest.open(0, 0.001, "limited", 429, again=False)
    assert Choice(keys, False, 0, 0).stale_at == pytest.approx(10_000 * key_choice.SECONDS_PER_KEY)


# ── the ring


TEXTS = [f"user {number}" for number in range(3000)]


def owners(keys):
    ring = Ring(keys)
    return {text: next(ring.walk(text)).id for text in TEXTS}


def test_a_text_has_the_same_key_in_every_process():
    assert owners(pool_of(20)) == owners(list(reversed(pool_of(20))))


def test_all_keys_have_texts():
    counted = Counter(owners(pool_of(10)).values())
    assert len(counted) == 10
    assert max(counted.values()) < 5 * 300


def test_a_key_that_goes_moves_only_its_own_texts():
    keys = pool_of(20)
    before, after = owners(keys), owners(keys[:7] + keys[8:])
    assert {text for text in TEXTS if before[text] != after[text]} == {text for text in TEXTS if before[text] == 7}


def test_a_key_that_comes_takes_texts_and_moves_none_between_others():
    keys = pool_of(21)
    before, after = owners(keys[:20]), owners(keys)
    moved = {text for text in TEXTS if before[text] != after[text]}
    assert moved
    assert {after[text] for text in moved} == {20}
    assert len(moved) < len(TEXTS) / 5


def test_a_walk_meets_other_keys_and_ends():
    walked = list(Ring(pool_of(20)).walk("someone"))
    assert len({key.id for key in walked}) > 5
    assert len(walked) <= key_choice.RING_STEPS
    assert len(list(Ring(pool_of(1)).walk("half of a pair: \ud800"))) == key_choice.POINTS_PER_KEY
    assert list(Ring([]).walk("someone")) == []


# ── keys


def test_a_key_shows_nothing_of_its_text():
    [key] = pool_of(1)
    assert key.authorization == f"Authorization: Bearer sk-or-v1-{0:064x}\r\n".encode()
    assert "sk-or" not in f"{key!r} {key} {Trial(key, [])!r}"


def test_a_trial_is_its_key_wherever_keys_are_compared():
    one, other = pool_of(2)
    trial = Trial(one, [])
    assert trial == one
    assert one in [trial]
    assert trial in {one}
    assert trial not in [other]
    assert (trial.name, trial.authorization, trial.account) == (one.name, one.authorization, one.account)
