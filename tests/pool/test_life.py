"""The life of a pool key: which states lead on, and that a row shows everything but its text."""

from __future__ import annotations

from pool.life import BEFORE, WITHOUT_TEXT, PoolKeyRow, PoolKeyState
from tables import pool_keys


def test_a_key_whose_text_is_gone_goes_nowhere_any_more():
    assert set().union(*BEFORE.values()) & WITHOUT_TEXT == set()


def test_every_state_but_those_of_new_keys_and_of_switches_is_reached_by_a_move():
    assert set(PoolKeyState) - set(BEFORE) == {
        PoolKeyState.INTENT,
        PoolKeyState.STORED,
        PoolKeyState.ACTIVE,
        PoolKeyState.DRAINING,
    }


def test_a_key_that_may_be_picked_is_drained_before_it_is_disabled_or_deleted():
    assert {state for state, before in BEFORE.items() if PoolKeyState.ACTIVE in before} == {
        PoolKeyState.DEAD,
        PoolKeyState.QUARANTINED,
    }


def test_a_row_shows_every_column_but_the_text():
    assert {*PoolKeyRow.__dataclass_fields__, "api_key"} == set(pool_keys.c.keys())
