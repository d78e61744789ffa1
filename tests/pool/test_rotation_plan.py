"""The plan of a pass as a pure function: each row of its table, and what must hold whatever rows and keys there are."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.choice import EXPIRY_MARGIN
from pool.life import BEFORE, PoolKeyRow, PoolKeySource, PoolKeyState
from pool.rotation_plan import (
    MAX_DEDICATED,
    MAX_PENDING,
    MAX_TAKEN_IN,
    MIN_LIMIT_NANO,
    Dedicated,
    Do,
    Situation,
    Step,
    Timing,
    plan,
    unknown_keys,
)
from upstream.openrouter.management_api import RemoteKey

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PREFIX = "gw/ours/"
TIMING = Timing()
SEEN = [source for source in PoolKeySource if source is not PoolKeySource.CONNECTED]  # those of `PoolKeys.operated`
OVER = PoolKeyState.ABANDONED, PoolKeyState.DEAD, PoolKeyState.DELETED
GENTLE = {Do.TAKE_IN, Do.CHECK_MISSING, Do.QUARANTINE, Do.ACTIVATE, Do.LIMIT, Do.MINT}  # what stops no key that we know


def row(number: int, state: PoolKeyState = PoolKeyState.ACTIVE, age_hours: float = 1, **fields: Any) -> PoolKeyRow:
    """A minted key's row, an hour old."""
    values: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(PoolKeyRow))
    at = NOW - timedelta(hours=age_hours)
    values |= {"id": number, "name": f"{PREFIX}{number:032x}", "state": state, "source": PoolKeySource.MINTED}
    values |= {
        "api_key_hash": None if state is PoolKeyState.INTENT else f"hash {number}",
        "enabled": True,
        "use_count": 0,
    }
    values |= {"created_at": at, "updated_at": at, "expires_at": at + timedelta(hours=72)}
    return PoolKeyRow(**values | fields)


def key(number: int, age_hours: float = 1, **fields: Any) -> RemoteKey:
    """The key of the row with this number, as OpenRouter lists it."""
    values: dict[str, Any] = {"name": f"{PREFIX}{number:032x}", "hash": f"hash {number}", "disabled": False}
    values |= {"created_at": NOW - timedelta(hours=age_hours), "limit_nano": None}
    values |= {"limit_reset": None, "remaining_nano": None}
    return RemoteKey(**values | {"usage_nano": 0} | fields)


def situation(rows: list[PoolKeyRow], remote: list[RemoteKey], **fields: Any) -> Situation:
    values: dict[str, Any] = {"in_use": lambda _: False, "unreadable": set(), "deletions_held_until": None}
    values |= {"prefix": PREFIX, "pool_size": 0, "renew_after": timedelta(hours=24), "timing": TIMING, "now": NOW}
    return Situation(**values | {"dedicated": Dedicated(), "rows": rows, "remote": remote} | fields)


def steps(rows: list[PoolKeyRow], remote: list[RemoteKey], **fields: Any) -> list[tuple[Do, str]]:
    """What is planned, and for which key."""
    return [(step.do, step.key_name) for step in plan(situation(rows, remote, **fields))]


def name(number: int) -> str:
    return f"{PREFIX}{number:032x}"


# ── the table, row by row


def test_nothing_is_done_about_nothing():
    assert steps([], []) == []


def test_a_full_and_fresh_pool_needs_no_step():
    assert steps([row(1), row(2)], [key(1), key(2)], pool_size=2) == []


@pytest.mark.parametrize(("minutes", "planned"), [(4.99, []), (5, [(Do.ABANDON, name(1))])])
@pytest.mark.parametrize("remote", [[], [key(1)]], ids=["no key", "a key"])
def test_an_intent_is_abandoned_when_no_answer_can_come_any_more(minutes, planned, remote):
    assert steps([row(1, PoolKeyState.INTENT, minutes / 60)], remote) == planned


def test_the_key_of_an_abandoned_intent_is_named_to_be_deleted():
    [step] = plan(situation([row(1, PoolKeyState.INTENT)], [key(1), key(2, name="foreign")]))
    assert step.remote == key(1)
    [step] = plan(situation([row(1, PoolKeyState.INTENT)], []))
    assert step.remote is None


@pytest.mark.parametrize(("minutes", "planned"), [(4.99, []), (5, [(Do.TAKE_IN, name(1))])])
def test_an_unknown_key_is_taken_in_when_it_is_nobodys_new_one(minutes, planned):
    assert steps([], [key(1, minutes / 60)]) == planned


def test_of_many_unknown_keys_few_are_taken_in_a_pass():
    at = situation([], [key(number) for number in range(9)])
    assert len(unknown_keys(at)) == 9
    assert [step.do for step in plan(at)] == [Do.TAKE_IN] * MAX_TAKEN_IN


@pytest.mark.parametrize("other", ["mine", "gw/theirs/" + "0" * 32, "gw/ours", "GW/OURS/x", " gw/ours/x", "xgw/ours/"])
def test_a_key_with_another_name_is_nobody_of_ours(other):
    assert steps([], [key(1, name=other)]) == []


def test_a_key_that_was_renamed_is_known_by_its_hash():
    assert steps([row(1)], [key(1, name=PREFIX + "renamed")], pool_size=1) == []


@pytest.mark.parametrize("state", OVER)
def test_a_key_whose_row_is_over_is_swept(state):
    assert steps([row(1, state)], [key(1)]) == [(Do.SWEEP, name(1))]
    assert steps([row(1, state)], []) == []


def test_a_key_that_was_made_after_all_is_swept_by_its_name():
    assert steps([row(1, PoolKeyState.ABANDONED, api_key_hash=None)], [key(1)]) == [(Do.SWEEP, name(1))]


def test_a_second_key_of_a_minted_ones_name_is_swept():
    twin = key(1, hash="another")
    [step] = plan(situation([row(1)], [twin, key(1)], pool_size=1))
    assert (step.do, step.remote) == (Do.SWEEP, twin)


def test_a_second_key_of_an_unknown_ones_name_is_unknown():
    known = row(1, PoolKeyState.QUARANTINED, source=PoolKeySource.UNKNOWN)
    [step] = plan(situation([known], [key(1, disabled=True), key(1, hash="another")]))
    assert (step.do, step.remote) == (Do.TAKE_IN, key(1, hash="another"))


@pytest.mark.parametrize("state", [PoolKeyState.STORED, PoolKeyState.ACTIVE, PoolKeyState.DRAINING])
def test_a_key_that_is_missing_is_asked_first(state):
    assert steps([row(1, state)], [], pool_size=1 if state is PoolKeyState.ACTIVE else 0) == [
        (Do.CHECK_MISSING, name(1))
    ]


def test_a_disabled_key_that_is_missing_is_over():
    assert steps([row(1, PoolKeyState.DISABLED)], []) == [(Do.FORGET, name(1))]


@pytest.mark.parametrize("state", [PoolKeyState.STORED, PoolKeyState.ACTIVE, PoolKeyState.DRAINING])
@pytest.mark.parametrize("remote", [[key(1)], []], ids=["listed", "missing"])
def test_a_damaged_text_is_quarantined(state, remote):
    assert steps([row(1, state)], remote, unreadable={1}) == [(Do.QUARANTINE, name(1))]


@pytest.mark.parametrize("source", SEEN)
def test_a_damaged_text_is_quarantined_whoever_brought_it_and_made_up_for(source):
    planned = steps([row(1, source=source)], [key(1)], unreadable={1}, pool_size=1)
    assert planned == [(Do.QUARANTINE, name(1)), (Do.MINT, "")]


def test_a_damaged_key_is_never_deleted():
    assert steps([row(1, PoolKeyState.QUARANTINED, age_hours=60)], [key(1)]) == []


def test_a_stored_key_is_activated():
    assert steps([row(1, PoolKeyState.STORED)], [key(1)], pool_size=1) == [(Do.ACTIVATE, name(1))]


@pytest.mark.parametrize(
    ("seconds", "used", "planned"),
    [(-1, False, []), (0, False, [(Do.DISABLE, name(1))]), (0, True, []), (-7200, True, [])],
)
def test_a_draining_key_is_disabled_when_its_time_is_over_and_nobody_uses_it(seconds, used, planned):
    draining = row(1, PoolKeyState.DRAINING, drain_until=NOW - timedelta(seconds=seconds), drain_revision=7)
    assert steps([draining], [key(1)], in_use=lambda asked: used and asked == draining) == planned


@pytest.mark.parametrize(("minutes", "planned"), [(59, []), (60, [(Do.DELETE, name(1))])])
def test_a_disabled_key_is_deleted_after_an_hour(minutes, planned):
    disabled = row(1, PoolKeyState.DISABLED, updated_at=NOW - timedelta(minutes=minutes))
    assert steps([disabled], [key(1, disabled=True)]) == planned


@pytest.mark.parametrize(("hours", "planned"), [(23.9, []), (24, [(Do.DELETE, name(1))])])
def test_an_unknown_key_is_deleted_after_a_day(hours, planned):
    known = row(1, PoolKeyState.QUARANTINED, hours, source=PoolKeySource.UNKNOWN)
    assert steps([known], [key(1, disabled=True)]) == planned


def test_an_unknown_key_that_works_again_is_stopped_again_and_one_that_is_gone_is_over():
    known = row(1, PoolKeyState.QUARANTINED, 60, source=PoolKeySource.UNKNOWN)
    assert steps([known], [key(1)]) == [(Do.TAKE_IN, name(1))]
    assert steps([known], []) == [(Do.FORGET, name(1))]


# ── what is not needed any more


@pytest.mark.parametrize(
    ("changed", "remote"),
    [
        ({"expires_at": NOW + EXPIRY_MARGIN}, {}),
        ({}, {"disabled": True}),
        ({"enabled": False, "age_hours": 25}, {}),
        ({"enabled": False, "renew_at": NOW}, {}),
    ],
    ids=str,
)
def test_a_key_that_nobody_can_use_is_drained_and_replaced(changed, remote):
    assert steps([row(1, **changed)], [key(1, **remote)], pool_size=1) == [(Do.DRAIN, name(1)), (Do.MINT, "")]


def test_a_key_that_an_operator_disabled_is_replaced_and_kept():
    assert steps([row(1, enabled=False)], [key(1)], pool_size=1) == [(Do.MINT, "")]


def test_due_keys_are_renewed_one_for_one():
    rows = [row(1, age_hours=24), row(2, age_hours=23.9), row(3, renew_at=NOW)]
    planned = steps(rows, [key(1), key(2), key(3)], pool_size=3)
    assert planned == [(Do.MINT, name(1)), (Do.MINT, name(3))]


def test_due_keys_that_are_too_many_are_drained_without_successor_oldest_first():
    rows = [row(number, age_hours=30) for number in (1, 2, 3)]
    planned = steps(rows, [key(1), key(2), key(3)], pool_size=2)
    assert planned == [(Do.DRAIN, name(1)), (Do.MINT, name(2)), (Do.MINT, name(3))]
    assert steps([row(1), row(2)], [key(1), key(2)], pool_size=1) == []


@pytest.mark.parametrize(
    "changed",
    [{"name": "gw/theirs/x"}, {"source": PoolKeySource.OPERATOR}, {"source": PoolKeySource.ENVIRONMENT}],
    ids=str,
)
def test_a_key_that_this_deployment_did_not_mint_is_never_due(changed):
    assert steps([row(1, age_hours=30, renew_at=NOW, **changed)], [], pool_size=1) == []
    assert steps([row(1, age_hours=80, **changed)], [], pool_size=1) == [(Do.MINT, "")]


def test_a_key_that_does_not_work_any_more_makes_no_other_superfluous():
    rows = [row(1, source=PoolKeySource.OPERATOR), row(2, age_hours=30)]
    assert steps(rows, [key(1, disabled=True), key(2)], pool_size=1) == [(Do.MINT, name(2))]


@pytest.mark.parametrize("state", [PoolKeyState.INTENT, PoolKeyState.STORED])
def test_nothing_is_renewed_while_another_key_is_on_its_way(state):
    rows = [row(1, age_hours=30), row(2, state, 0.01)]
    planned = steps(rows, [key(1), key(2)], pool_size=1)
    assert Do.MINT not in {do for do, _ in planned}


def test_missing_keys_are_minted_and_those_on_their_way_into_use_count():
    assert steps([], [], pool_size=3) == [(Do.MINT, "")] * 3
    rows = [row(1, PoolKeyState.STORED), row(2, PoolKeyState.INTENT, 0.01)]
    assert steps(rows, [key(1)], pool_size=3) == [(Do.ACTIVATE, name(1)), *[(Do.MINT, "")] * 2]
    replacing = row(1, PoolKeyState.STORED, replaces_id=7)
    assert steps([replacing], [key(1)], pool_size=1) == [(Do.ACTIVATE, name(1)), (Do.MINT, "")]


def test_after_some_lost_answers_no_more_keys_are_asked_for():
    rows = [row(number, PoolKeyState.INTENT, 0.01) for number in range(MAX_PENDING)]
    assert steps(rows, [], pool_size=9) == []


# ── keys of users' own

DOLLAR = 10**9
OWN = Dedicated(limit_nano=5 * DOLLAR, limit_reset="monthly", renew_after=timedelta(days=60))
MONTH_BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def own_row(
    number: int, owner: int, state: PoolKeyState = PoolKeyState.ACTIVE, age_hours: float = 1, **fields: Any
) -> PoolKeyRow:
    return row(number, state, age_hours, **{"owner_id": owner, "expires_at": NOW + timedelta(days=30)} | fields)


def own_key(number: int, age_hours: float = 1, **fields: Any) -> RemoteKey:
    return key(number, age_hours, **{"limit_nano": 5 * DOLLAR, "limit_reset": "monthly"} | fields)


def own_steps(rows: list[PoolKeyRow], remote: list[RemoteKey], own: Dedicated = OWN, **fields: Any) -> list[Any]:
    """What is planned, for which key, and for whom."""
    planned = plan(situation(rows, remote, dedicated=own, **fields))
    return [(step.do, step.key_name, step.whose) for step in planned]


def lacking(*owners: int) -> Dedicated:
    return dataclasses.replace(OWN, lacking=owners)


def withdrawn(*owners: int) -> Dedicated:
    return dataclasses.replace(OWN, withdrawn=owners)


def test_users_without_a_key_get_one_after_the_shared_pool_has_what_it_needs():
    planned = own_steps([], [], lacking(8, 7), pool_size=2)
    assert planned == [(Do.MINT, "", None), (Do.MINT, "", None), (Do.MINT, "", 7), (Do.MINT, "", 8)]


def test_a_users_key_is_none_of_the_shared_ones():
    assert own_steps([own_row(1, 7)], [own_key(1)], pool_size=1) == [(Do.MINT, "", None)]
    shared, own = row(1, age_hours=25), own_row(2, 7)
    assert own_steps([shared, own], [key(1), own_key(2)], pool_size=1) == [(Do.MINT, name(1), None)]
    assert situation([shared, own], [key(1), own_key(2)]).usable == [shared]


def test_a_users_key_is_as_good_as_new_for_weeks_and_then_renewed_one_for_one():
    for days, planned in ((59, []), (60, [(Do.MINT, name(1), 7)])):
        assert own_steps([own_row(1, 7, age_hours=days * 24)], [own_key(1)]) == planned
    assert own_steps([own_row(1, 7, renew_at=NOW)], [own_key(1)]) == [(Do.MINT, name(1), 7)]


@pytest.mark.parametrize(
    ("changed", "remote"),
    [({"expires_at": NOW + EXPIRY_MARGIN}, {}), ({}, {"disabled": True}), ({"enabled": False}, {})],
    ids=str,
)
def test_a_users_key_that_cannot_be_used_is_replaced(changed, remote):
    planned = own_steps([own_row(1, 7, **changed)], [own_key(1, **remote)])
    drained = [] if changed.get("enabled") is False else [(Do.DRAIN, name(1), 7)]
    assert planned == [*drained, (Do.MINT, "", 7)]


def test_a_damaged_key_of_a_user_is_quarantined_and_replaced():
    planned = own_steps([own_row(1, 7)], [own_key(1)], unreadable={1})
    assert planned == [(Do.QUARANTINE, name(1), 7), (Do.MINT, "", 7)]


@pytest.mark.parametrize("state", [PoolKeyState.INTENT, PoolKeyState.STORED])
def test_while_a_users_key_is_on_its_way_no_other_is_made_for_them(state):
    rows = [own_row(1, 7, renew_at=NOW), own_row(2, 7, state, 0.01)]
    rows += [own_row(3, 9, expires_at=NOW), own_row(4, 9, state, 0.01)]
    planned = own_steps(rows, [own_key(number) for number in range(1, 5)], lacking(8))
    assert [whose for do, _, whose in planned if do is Do.MINT] == [8]


def test_lost_answers_stop_the_minting_of_users_keys_before_that_of_shared_ones():
    rows = [own_row(number, number, PoolKeyState.INTENT, 0.01) for number in range(MAX_PENDING)]
    assert own_steps(rows, [], lacking(7), pool_size=1) == [(Do.MINT, "", None)]
    rows = [row(number, PoolKeyState.INTENT, 0.01) for number in range(MAX_PENDING)]
    assert own_steps(rows, [], lacking(7), pool_size=1) == []


@pytest.mark.parametrize("enabled", [True, False])
def test_who_may_have_no_key_any_more_loses_it_and_gets_no_other(enabled):
    rows = [own_row(1, 7, enabled=enabled), own_row(2, 8, age_hours=70 * 24)]
    assert own_steps(rows, [own_key(1), own_key(2)], withdrawn(7, 8)) == [
        (Do.DRAIN, name(1), 7),
        (Do.DRAIN, name(2), 8),
    ]
    draining = own_row(3, 7, PoolKeyState.DRAINING, drain_until=NOW)
    disabled = own_row(4, 7, PoolKeyState.DISABLED)
    planned = own_steps([draining, disabled], [own_key(3), own_key(4, disabled=True)], withdrawn(7))
    assert planned == [(Do.DISABLE, name(3), 7), (Do.DELETE, name(4), 7)]


def test_of_two_usable_keys_of_a_user_the_older_one_goes():
    rows = [own_row(1, 7), own_row(2, 7), own_row(3, 8)]
    at = situation(rows, [own_key(1), own_key(2), own_key(3)], dedicated=OWN)
    assert at.own == {7: rows[1], 8: rows[2]}
    assert [(step.do, step.row) for step in plan(at)] == [(Do.DRAIN, rows[0])]


def test_of_many_users_a_pass_serves_some_in_every_way_and_the_shared_pool_first():
    count = 3 * MAX_DEDICATED
    rows = [own_row(number, number) for number in range(count)]
    rows += [own_row(count + number, 0, PoolKeyState.DISABLED) for number in range(count)]
    remote = [own_key(number) for number in range(2 * count)]
    own = dataclasses.replace(OWN, withdrawn=range(count), lacking=range(count, 2 * count))
    planned = own_steps([*rows, row(9999, PoolKeyState.DISABLED)], [*remote, key(9999)], own, pool_size=1)
    assert planned[:2] == [(Do.DELETE, name(9999), None), (Do.MINT, "", None)]
    kinds = [do for do, *_ in planned[2:]]
    assert {do: kinds.count(do) for do in kinds} == dict.fromkeys((Do.DRAIN, Do.DELETE, Do.MINT), MAX_DEDICATED)


def first_limit(*rows: PoolKeyRow, remote: tuple[RemoteKey, ...] = (), reset: str = "monthly") -> int | None:
    own = dataclasses.replace(OWN, limit_reset=reset, lacking=[7])
    [mint] = [step for step in plan(situation(list(rows), list(remote), dedicated=own)) if step.do is Do.MINT]
    return mint.limit_nano


BEFORE_MONTH = (NOW - MONTH_BEGAN) / timedelta(hours=1) + 1


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"remaining_nano": 2 * DOLLAR}, 2 * DOLLAR),  # made in this period
        ({"remaining_nano": 2 * DOLLAR, "age_hours": BEFORE_MONTH, "last_used": MONTH_BEGAN}, 2 * DOLLAR),
        ({"remaining_nano": 2 * DOLLAR, "age_hours": BEFORE_MONTH}, 5 * DOLLAR),  # what it spent, it spent before
        ({"remaining_nano": 0}, MIN_LIMIT_NANO),
        ({"remaining_nano": 9 * DOLLAR}, 5 * DOLLAR),  # the setting was more once
        ({"remaining_nano": None, "limit_nano": 3 * DOLLAR}, 3 * DOLLAR),  # nothing was ever told of it
        ({"remaining_nano": None}, 5 * DOLLAR),
    ],
    ids=str,
)
def test_a_new_keys_first_limit_is_what_the_last_one_left_in_this_period(fields, limit):
    assert first_limit(own_row(1, 7, **{"state": PoolKeyState.DEAD} | fields)) == limit
    lost = own_row(2, 7, PoolKeyState.ABANDONED)
    others = own_row(3, 8, PoolKeyState.DEAD, remaining_nano=DOLLAR)
    assert first_limit(own_row(1, 7, **{"state": PoolKeyState.DEAD} | fields), lost, others) == limit


def test_what_openrouter_lists_counts_more_than_what_was_noted_and_the_last_key_counts():
    old = own_row(1, 7, PoolKeyState.DEAD, remaining_nano=4 * DOLLAR)
    due = own_row(2, 7, renew_at=NOW, remaining_nano=3 * DOLLAR)
    assert first_limit(old, due, remote=(own_key(2, remaining_nano=DOLLAR),)) == DOLLAR


@pytest.mark.parametrize(
    ("reset", "began"),
    [
        ("daily", datetime(2026, 11, 21, tzinfo=UTC)),
        ("weekly", datetime(2026, 11, 16, tzinfo=UTC)),
        ("monthly", MONTH_BEGAN),
        ("none", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_periods_begin_at_midnight_of_the_day_of_monday_and_of_the_first(reset, began):
    assert Dedicated(limit_reset=reset).period_began(NOW) == began
    assert Dedicated(limit_reset=reset).period_began(began if reset != "none" else NOW) == began


@pytest.mark.parametrize(
    ("age_hours", "remote", "reset", "planned"),
    [
        (BEFORE_MONTH, {"limit_nano": DOLLAR}, "monthly", True),
        (BEFORE_MONTH, {"limit_reset": "daily"}, "monthly", True),
        (BEFORE_MONTH, {}, "monthly", False),
        (1, {"limit_nano": DOLLAR}, "monthly", False),  # what its predecessor had left
        (BEFORE_MONTH, {"limit_nano": DOLLAR, "limit_reset": None}, "none", False),
    ],
    ids=str,
)
def test_from_its_second_period_on_a_key_has_the_limit_of_the_settings(age_hours, remote, reset, planned):
    own = dataclasses.replace(OWN, limit_reset=reset)
    found = own_steps([own_row(1, 7, age_hours=age_hours)], [own_key(1, **remote)], own)
    assert found == ([(Do.LIMIT, name(1), 7)] if planned else [])
    theirs = own_row(1, 7, age_hours=age_hours, name="gw/theirs/x")
    assert own_steps([theirs], [own_key(1, **remote)], own) == []


# ── deletions on hold


HELD = {"deletions_held_until": NOW + timedelta(seconds=1)}


@pytest.mark.parametrize("why", ["held", "an unknown key"])
def test_nothing_is_deleted_while_the_database_is_in_doubt(why):
    rows = [
        row(1, PoolKeyState.DISABLED, 60),
        row(2, PoolKeyState.DEAD),
        row(3, PoolKeyState.INTENT),
        row(4, PoolKeyState.QUARANTINED, 60, source=PoolKeySource.UNKNOWN),
        row(5, PoolKeyState.INTENT),
    ]
    remote = [key(1, disabled=True), key(2), key(3), key(4, disabled=True), key(2, hash="twin")]
    before = [Do.DELETE, Do.ABANDON, Do.ABANDON, Do.SWEEP, Do.SWEEP, Do.DELETE]
    assert [do for do, _ in steps(rows, remote)] == before
    if why == "held":
        assert steps(rows, remote, **HELD) == [(Do.ABANDON, name(5))]
    else:
        assert steps(rows, [*remote, key(9)]) == [(Do.TAKE_IN, name(9)), (Do.ABANDON, name(5))]


def test_a_hold_ends_at_its_time():
    assert steps([row(1, PoolKeyState.DEAD)], [key(1)], deletions_held_until=NOW) == [(Do.SWEEP, name(1))]


# ── whatever there is


def hours_ago(most: int = 100) -> st.SearchStrategy[datetime]:
    return st.integers(0, most * 12).map(lambda fives: NOW - timedelta(minutes=5 * fives))


USERS = (1, 2, 3)


@st.composite
def any_row(draw: st.DrawFn, number: int) -> PoolKeyRow:
    state, source = draw(st.sampled_from(PoolKeyState)), draw(st.sampled_from(SEEN))
    created_at = draw(hours_ago())
    return row(
        number,
        state,
        name=draw(st.sampled_from([PREFIX, "gw/theirs/", ""])) + f"{number:032x}",
        source=source,
        owner_id=draw(st.none() | st.sampled_from(USERS)) if source is PoolKeySource.MINTED else None,
        last_used=draw(st.none() | hours_ago()),
        remaining_nano=draw(st.none() | st.integers(0, 9 * DOLLAR)),
        enabled=draw(st.booleans()),
        created_at=created_at,
        updated_at=draw(hours_ago(30)),
        expires_at=draw(st.none() | st.just(created_at + timedelta(hours=72))),
        renew_at=draw(st.none() | st.just(NOW)),
        replaces_id=draw(st.none() | st.integers(0, 6)),
        drain_until=draw(st.none() | hours_ago(2)) if state is not PoolKeyState.DRAINING else draw(hours_ago(2)),
        drain_revision=draw(st.integers(0, 9)),
    )


@st.composite
def any_situation(draw: st.DrawFn) -> Situation:
    rows = [draw(any_row(number)) for number in range(draw(st.integers(0, 7)))]
    remote = [key(each.id, name=each.name, disabled=draw(st.booleans())) for each in rows if draw(st.booleans())]
    for number in range(draw(st.integers(0, 5))):
        prefix = draw(st.sampled_from([PREFIX, "gw/theirs/", ""]))
        remote.append(key(100 + number, name=f"{prefix}{100 + number}", created_at=draw(hours_ago(1))))
    if rows and draw(st.booleans()):
        remote.append(key(0, name=rows[0].name, hash="twin"))
    ids = st.sets(st.integers(0, 7))
    used = draw(ids)
    return situation(
        rows,
        remote,
        in_use=lambda each: each.id in used,
        unreadable=draw(ids) if draw(st.booleans()) else set(),
        deletions_held_until=draw(st.none() | st.just(NOW - timedelta(hours=1)) | st.just(NOW + timedelta(hours=1))),
        pool_size=draw(st.integers(0, 6)),
        dedicated=Dedicated(
            lacking=draw(st.sets(st.sampled_from(USERS))),
            withdrawn=draw(st.sets(st.sampled_from(USERS))),
            limit_nano=5 * DOLLAR,
            limit_reset=draw(st.sampled_from(["daily", "weekly", "monthly", "none"])),
            renew_after=timedelta(hours=draw(st.integers(24, 100))),
        ),
    )


@given(any_situation())
def test_keys_of_people_and_of_other_deployments_are_left_alone(at):
    for step in plan(at):
        if step.row and (
            step.row.source in {PoolKeySource.OPERATOR, PoolKeySource.ENVIRONMENT} or not_ours(step.row.name)
        ):
            assert step.do is Do.QUARANTINE  # which touches our copy of the text only
        if step.remote and step.row is None:
            assert not not_ours(step.remote.name)


def not_ours(key_name: str) -> bool:
    return not key_name.startswith(PREFIX)


@given(any_situation())
def test_a_key_in_use_is_never_stopped(at):
    for step in plan(at):
        if step.row and step.row.state is PoolKeyState.DRAINING and at.in_use(step.row):
            assert step.do in GENTLE
        if step.row and step.row.state in {PoolKeyState.ACTIVE, PoolKeyState.STORED}:
            assert step.do in GENTLE | {Do.DRAIN}
        if step.do is Do.SWEEP and step.remote:
            hashes = {each.api_key_hash: each.state for each in at.rows}
            assert hashes.get(step.remote.hash) in {None, *OVER}


@given(any_situation())
def test_no_more_is_minted_than_is_missing_or_due(at):
    mints = [step for step in plan(at) if step.do is Do.MINT and step.whose is None]
    new = [step for step in mints if step.row is None]
    assert len(new) <= max(at.pool_size - len(at.usable), 0)
    replaced = [step.row.id for step in mints if step.row]
    assert len(replaced) == len(set(replaced)) <= at.pool_size
    assert not new or not replaced
    assert all(step.row in at.usable for step in mints if step.row)


@given(any_situation())
def test_a_users_key_is_minted_once_for_who_may_have_one_within_the_limit(at):
    mints = [step for step in plan(at) if step.do is Do.MINT and step.whose is not None]
    owners = [step.whose for step in mints]
    assert len(owners) == len(set(owners))
    assert set(owners).isdisjoint(at.dedicated.withdrawn)
    for step in mints:
        assert MIN_LIMIT_NANO <= step.limit_nano <= at.dedicated.limit_nano
        assert at.own.get(step.whose) is step.row
        on_the_way = {PoolKeyState.INTENT, PoolKeyState.STORED}
        assert not any(each.state in on_the_way and each.owner_id == step.whose for each in at.rows)


@given(any_situation())
def test_with_deletions_on_hold_nothing_is_deleted(at):
    planned = plan(at)
    if at.deletions_are_held or any(step.do is Do.TAKE_IN for step in planned):
        assert {Do.DELETE, Do.SWEEP} & {step.do for step in planned} == set()
        assert all(step.remote is None for step in planned if step.do is Do.ABANDON)


@given(any_situation())
def test_draining_leaves_as_many_usable_keys_as_the_pool_has_to_hold(at):
    drained = [step.row for step in plan(at) if step.do is Do.DRAIN and step.row in at.usable]
    assert not drained or len(at.usable) - len(drained) >= at.pool_size


@given(any_situation())
def test_at_most_one_step_is_planned_for_a_row_and_each_starts_from_a_state_it_can(at):
    reached = {Do.DISABLE: PoolKeyState.DISABLED, Do.DELETE: PoolKeyState.DELETED, Do.FORGET: PoolKeyState.DELETED}
    reached |= {Do.ABANDON: PoolKeyState.ABANDONED, Do.QUARANTINE: PoolKeyState.QUARANTINED}
    for step in plan(at):
        if step.row and step.do in reached:
            assert step.row.state in BEFORE[reached[step.do]]
        if step.do is Do.DRAIN:
            assert step.row.state is PoolKeyState.ACTIVE
        if step.do in {Do.DISABLE, Do.DELETE, Do.SWEEP, Do.ACTIVATE, Do.TAKE_IN}:
            assert step.remote


# ── to rest, on a model of both sides


class Model:
    """A database and an account in memory. Steps are carried out as the rotation does, at once or not at all."""

    def __init__(self, at: Situation) -> None:
        self.at, self.now = at, at.now
        self.rows = {each.id: each for each in at.rows}
        self.remote = {each.hash: each for each in at.remote}
        self.held = at.deletions_held_until
        self.active = {*at.dedicated.lacking} - {*at.dedicated.withdrawn}
        self.number = 1000

    def situation(self) -> Situation:
        fields = {"rows": list(self.rows.values()), "remote": list(self.remote.values()), "now": self.now}
        more = {"in_use": lambda _: False, "unreadable": set(), "deletions_held_until": self.held}
        begun = PoolKeyState.INTENT, PoolKeyState.STORED, PoolKeyState.ACTIVE
        have = {each.owner_id for each in self.rows.values() if each.state in begun}
        people = {"lacking": self.active - have, "withdrawn": set(USERS) - self.active}
        more["dedicated"] = dataclasses.replace(self.at.dedicated, **people)
        return dataclasses.replace(self.at, **fields | more)

    def run(self) -> list[Step]:
        planned = plan(self.situation())
        for step in planned:
            before = len(self.situation().usable)
            getattr(self, step.do.name.lower())(step)
            if step.do is not Do.CHECK_MISSING:  # what is gone is gone
                assert len(self.situation().usable) >= min(before, self.at.pool_size)
        return planned

    def change(self, each: PoolKeyRow, **fields: Any) -> None:
        self.rows[each.id] = dataclasses.replace(each, updated_at=self.now, **fields)

    def stop(self, each: RemoteKey) -> None:
        self.remote[each.hash] = dataclasses.replace(each, disabled=True)

    def take_in(self, step: Step) -> None:
        if step.row is None:
            self.held = self.now + TIMING.hold_deletions
            self.number += 1
            new = row(self.number, PoolKeyState.QUARANTINED, name=step.remote.name, source=PoolKeySource.UNKNOWN)
            self.rows[new.id] = dataclasses.replace(new, api_key_hash=step.remote.hash, updated_at=self.now)
        self.stop(step.remote)

    def abandon(self, step: Step) -> None:
        if step.remote:
            del self.remote[step.remote.hash]
        self.change(step.row, state=PoolKeyState.ABANDONED)

    def sweep(self, step: Step) -> None:
        del self.remote[step.remote.hash]

    def check_missing(self, step: Step) -> None:
        over = PoolKeyState.DELETED if step.row.state is PoolKeyState.DRAINING else PoolKeyState.DEAD
        self.change(step.row, state=over)

    def quarantine(self, step: Step) -> None:
        raise AssertionError("no text is damaged here")

    def drain(self, step: Step) -> None:
        self.change(step.row, state=PoolKeyState.DRAINING, drain_until=self.now + TIMING.drain_grace)

    def limit(self, step: Step) -> None:
        own = self.at.dedicated
        reset = None if own.limit_reset == "none" else own.limit_reset
        limited = {"limit_nano": own.limit_nano, "limit_reset": reset}
        self.remote[step.remote.hash] = dataclasses.replace(step.remote, **limited)

    def disable(self, step: Step) -> None:
        self.stop(step.remote)
        self.change(step.row, state=PoolKeyState.DISABLED)

    def delete(self, step: Step) -> None:
        del self.remote[step.remote.hash]
        self.change(step.row, state=PoolKeyState.DELETED)

    def forget(self, step: Step) -> None:
        self.change(step.row, state=PoolKeyState.DELETED)

    def activate(self, step: Step) -> None:
        if step.remote.disabled:
            del self.remote[step.remote.hash]
            self.change(step.row, state=PoolKeyState.ABANDONED)
        else:
            self.switch(step.row)

    def switch(self, each: PoolKeyRow) -> None:
        self.change(each, state=PoolKeyState.ACTIVE)
        old = self.rows.get(each.replaces_id) if each.replaces_id is not None else None
        if old and old.state is PoolKeyState.ACTIVE:
            self.change(old, state=PoolKeyState.DRAINING, drain_until=self.now + TIMING.drain_grace)

    def mint(self, step: Step) -> None:
        self.number += 1
        new = row(self.number, PoolKeyState.STORED, 0, replaces_id=step.row.id if step.row else None)
        new = dataclasses.replace(new, created_at=self.now, expires_at=self.now + timedelta(hours=72))
        new = dataclasses.replace(new, owner_id=step.whose, limit_nano=step.limit_nano)
        self.remote[new.api_key_hash] = key(self.number, created_at=self.now, limit_nano=step.limit_nano)
        self.switch(new)


POSSIBLE = {
    PoolKeySource.MINTED: list(PoolKeyState),
    PoolKeySource.OPERATOR: [PoolKeyState.ACTIVE, PoolKeyState.QUARANTINED],
    PoolKeySource.ENVIRONMENT: [PoolKeyState.ACTIVE, PoolKeyState.QUARANTINED],
    PoolKeySource.UNKNOWN: [PoolKeyState.QUARANTINED, PoolKeyState.DELETED],
}


@st.composite
def possible_situation(draw: st.DrawFn) -> Situation:
    """What a rotation can come upon: rows of ours and of people, each key with its row's hash."""
    at = draw(any_situation())
    rows = []
    for each in at.rows:
        # The rotation replaces keys of its own only.
        replaced = next((other for other in at.rows if other.id == each.replaces_id), None)
        mine = replaced and replaced.source is PoolKeySource.MINTED and not not_ours(replaced.name)
        states = POSSIBLE[each.source]
        state = each.state if each.state in states else states[0]
        fields = {"state": state, "api_key_hash": None if state is PoolKeyState.INTENT else f"hash {each.id}"}
        # What another deployment had begun is dead since this one claimed the database.
        owner = None if not_ours(each.name) and state in {PoolKeyState.INTENT, PoolKeyState.STORED} else each.owner_id
        fields |= {"owner_id": owner, "replaces_id": each.replaces_id if mine else None}
        rows.append(dataclasses.replace(each, **fields))
    return dataclasses.replace(at, rows=rows, unreadable=set())


@given(possible_situation())
def test_passes_come_to_rest_with_a_full_pool_and_no_key_left_behind(at):
    model = Model(at)
    for _ in range(200):
        if not model.run() and model.now > at.now + timedelta(hours=30):
            break
        model.now += timedelta(minutes=20)
    else:
        raise AssertionError("it never rests")
    end = model.situation()
    assert len(end.usable) >= at.pool_size
    assert set(end.own) == model.active
    ours = {each.hash for each in end.remote if not not_ours(each.name)}
    known = {each.api_key_hash for each in end.rows}
    assert ours <= known


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 60))
def test_from_nothing_the_pool_is_exactly_full_and_stays_so_for_days(size, people, minutes):
    rows = [row(number, source=PoolKeySource.OPERATOR, expires_at=None) for number in range(people)]
    model = Model(situation(rows, [], pool_size=size))
    model.run()
    wanted = max(size, people)
    for _ in range(60):
        assert len(model.situation().usable) == wanted
        model.now += timedelta(minutes=97 * minutes % 700)
        model.run()
    for _ in range(4):
        model.now += timedelta(minutes=61)
        planned = model.run()
    assert planned == [] or {step.do for step in planned} <= {Do.MINT, Do.DISABLE, Do.DELETE}
    alive = [each for each in model.remote.values() if not each.disabled]
    states = [each.state for each in model.rows.values()]
    assert len(alive) <= max(size - people, 0) + states.count(PoolKeyState.DRAINING)
    assert {each.hash for each in model.remote.values()} <= {each.api_key_hash for each in model.rows.values()}
