"""Short names of pool keys, and which key somebody means by a part of a name."""

from __future__ import annotations

import pytest

from db import Database
from foundation.clock import Clock
from foundation.crypto import Envelopes
from foundation.errors import BadRequest, NotFound
from pool.keys import PoolKeys
from pool.life import PoolKeySource, PoolKeyState
from pool.names import get_whole_name, short_name, short_subject
from tables import pool_keys
from tests.support.rows import each_row

LONG = "gw/eecc3617-5e8a-4f0b-9f43-1f6a5d0a9b11/0123456789abcdef0123456789ab"
ONE, OTHER = f"{LONG}70f9", f"{LONG}8a01"


@pytest.fixture
def named(db: Database, envelopes: Envelopes) -> Database:
    """A database with pool keys of several names."""
    keys = PoolKeys(db, envelopes, Clock())
    for number, name in enumerate((ONE, OTHER, "env/0a1b2c3d70f9", "a%b", "laptop", "laptop 3")):
        keys.add(f"sk-or-v1-{number:064x}", name, PoolKeySource.OPERATOR)
    return db


@each_row(
    ("name", "short"),
    [
        (ONE, "k-70f9"),
        ("env/0a1b2c3d4e5f", "env/0a1b2c3d4e5f"),
        ("x" * 20, "x" * 20),
        ("x" * 21, "k-xxxx"),
        ("a long name that ends in (2)", "a long name that ends in (2)"),
        ("", ""),
    ],
)
def test_only_long_names_have_a_short_one(name: str, short: str) -> None:
    assert short_name(name) == short


def test_any_part_that_one_key_alone_has_means_it(named: Database) -> None:
    meant = {"k-70f9": ONE, "8a01": OTHER, ONE: ONE, "0a1b": "env/0a1b2c3d70f9", "%": "a%b", "laptop": "laptop"}
    assert {part: get_whole_name(named, part) for part in meant} == meant


def test_of_several_keys_none_is_meant_and_the_answer_names_them(named: Database) -> None:
    with pytest.raises(BadRequest, match="Several pool keys match '70f9'") as caught:
        get_whole_name(named, "70f9")
    assert ONE in caught.value.message
    assert "env/0a1b2c3d70f9" in caught.value.message
    with pytest.raises(BadRequest, match="and more"):
        get_whole_name(named, "")


def test_a_part_that_nobody_has_means_none(named: Database) -> None:
    for part in ("k-0000", "k-4e5f", "_", "laptop 4"):
        with pytest.raises(NotFound):
            get_whole_name(named, part)


def test_a_key_that_is_gone_is_meant_only_where_no_other_is(named: Database) -> None:
    gone = pool_keys.update().where(pool_keys.c.name == ONE).values(state=PoolKeyState.DELETED)
    named.transact(lambda tx: tx.execute(gone))
    assert get_whole_name(named, "70f9") == "env/0a1b2c3d70f9"
    assert get_whole_name(named, "k-70f9") == ONE


def test_the_audit_log_calls_a_pool_key_by_its_short_name_and_all_else_as_it_is():
    assert short_subject(f"pool/{ONE}") == "pool/k-70f9"
    for other in ("pool/laptop", "user/7", f"upstream/{ONE}", ""):
        assert short_subject(other) == other
