"""Recovery codes: ten, each good once, however it is typed; only their hashes are stored."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from accounts.recovery_codes import ALPHABET, RecoveryCodes
from accounts.users import Users
from foundation.errors import Unauthorized
from tables import recovery_codes as table


@pytest.fixture
def codes(db, clock):
    return RecoveryCodes(db, clock)


@pytest.fixture
def ann(db, clock):
    return Users(db, b"k" * 32, clock).create("ann", "x")


@pytest.fixture
def bob(db, clock):
    return Users(db, b"k" * 32, clock).create("bob", "x")


def use(db, codes, user_id, code):
    db.transact(lambda tx: codes.use(tx, user_id, code))


def test_there_are_ten_and_each_is_good_once_and_for_its_owner_alone(db, codes, clock, ann, bob):
    assert codes.left(ann) == (0, None)
    made = codes.renew(ann)
    others = codes.renew(bob)
    assert len(set(made)) == 10
    assert all(len(code) == 23 and set(code) <= set(ALPHABET + "-") for code in made)
    assert codes.left(ann) == (10, clock.now())
    for code in (others[0], "", "x" * 64, "é", made[0][:-1]):
        assert not codes.is_good(ann, code)
        with pytest.raises(Unauthorized):
            use(db, codes, ann, code)
    assert codes.is_good(ann, made[0])
    use(db, codes, ann, made[0])
    assert not codes.is_good(ann, made[0])
    with pytest.raises(Unauthorized):
        use(db, codes, ann, made[0])
    assert (codes.left(ann)[0], codes.left(bob)[0]) == (9, 10)
    assert not codes.is_good(None, made[1])
    with db.reading() as tx:
        stored = str(tx.execute(sa.select(table)).all())
    assert not any(code in stored or code.replace("-", "") in stored for code in made)


def test_a_code_is_read_as_people_write_it(codes, ann):
    code = next(code for code in iter(lambda: codes.renew(ann)[0], None) if {"0", "1"} & set(code))
    for typed in (code.lower(), code.replace("-", ""), code.replace("-", " "), f" {code} "):
        assert codes.is_good(ann, typed)
    assert codes.is_good(ann, code.replace("0", "O").replace("1", "l"))


def test_new_codes_end_the_old_ones_and_nobody_elses(codes, ann, bob):
    old, others = codes.renew(ann), codes.renew(bob)
    new = codes.renew(ann)
    assert not any(codes.is_good(ann, code) for code in old)
    assert all(codes.is_good(ann, code) for code in new)
    assert all(codes.is_good(bob, code) for code in others)


def test_of_many_at_once_one_uses_a_code_and_one_set_of_new_ones_stays(db, codes, ann):
    code = codes.renew(ann)[0]

    def race(_: int) -> bool:
        try:
            use(db, codes, ann, code)
        except Unauthorized:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(race, range(6))) == 1
        list(pool.map(lambda _: codes.renew(ann), range(6)))
    assert codes.left(ann)[0] == 10
