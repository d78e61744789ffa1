"""The memory that bodies in flight share: nobody fills it alone, and all of it comes back."""

import itertools
import random
import threading

import pytest

from foundation.errors import TooManyRequests
from gateway.bodies import BodyBudget, HeldBody


def fill(budget, user_id, size):
    """As many bodies of this size as one user gets."""
    bodies = []
    try:
        while True:
            body = budget.open(user_id)
            body.take(size)
            bodies.append(body)
    except TooManyRequests as refusal:
        assert int(refusal.headers["Retry-After"]) >= 1
        return bodies


def test_one_user_fills_a_half_and_others_still_find_room():
    budget = BodyBudget(1000)
    held = [fill(budget, user_id, 1) for user_id in range(1, 4)]
    assert [len(bodies) for bodies in held] == [500, 250, 125]
    innocent = budget.open(9)
    innocent.take(100)
    innocent.let_go()
    for body in itertools.chain(*held):
        body.let_go()
    assert budget.held == 0
    assert len(fill(budget, 1, 1)) == 500


def test_the_largest_body_fits_alone_in_one_piece_or_many():
    budget = BodyBudget(1000)
    for sizes in ([budget.largest], [1] * budget.largest, [7] * (budget.largest // 7)):
        body = budget.open(1)
        for size in sizes:
            body.take(size)
        body.let_go()
    assert budget.held == 0


def test_what_was_let_go_is_gone_and_given_back_once():
    budget = BodyBudget(1000)
    body, other = budget.open(1), budget.open(1)
    for one in (body, other):
        one.take(10)
        one.fill(bytearray(b"0123456789"))
    for _ in range(3):
        body.let_go()
    assert (body.data, body.size, budget.held) == (b"", 10, 10)
    other.let_go()
    assert budget.held == 0


def test_a_body_without_a_budget_is_held_too():
    body = HeldBody(b"text")
    body.take(4)
    body.let_go()
    assert (body.data, body.size) == (b"", 4)


def test_nothing_is_lost_among_many_threads():
    budget = BodyBudget(10_000)

    def work(user_id):
        chance = random.Random(user_id)
        for _ in range(300):
            body = budget.open(user_id % 3)
            try:
                for _ in range(chance.randrange(4)):
                    body.take(chance.randrange(1, 2000))
                    assert 0 <= budget.held <= budget.total
            except TooManyRequests:
                pass
            body.let_go()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.held == 0
    with pytest.raises(TooManyRequests):
        budget.open(1).take(10_001)
