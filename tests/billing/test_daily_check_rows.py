"""The rows of the daily check: what counts as a difference, pages of them, written down only by who may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import daily_check_rows
from billing.daily_check_rows import Check, CountedSums, Verdict
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tables import usage_rollups
from tests.support.rows import each_row

DAY = datetime(2026, 11, 20, tzinfo=UTC)
CENT = 10_000_000


def check(ours=0, theirs=0, *, total=0, usage=None, source=PoolKeySource.MINTED, day=DAY, key=1) -> Check:
    return Check(day, key, f"key {key}", source, ours, theirs, total, usage, DAY + timedelta(days=1, hours=1))


@each_row(
    ("ours", "theirs", "expected"),
    [
        (0, 0, Verdict.EQUAL),
        (5, 5, Verdict.EQUAL),
        (10**12, 10**12 + CENT, Verdict.SMALL),
        (10**12, 10**12 + CENT + 1, Verdict.DIFFERS),
        (10**12 + CENT + 1, 10**12, Verdict.DIFFERS),
        (99_000_000, 100_000_000, Verdict.SMALL),
        (98_999_999, 100_000_000, Verdict.DIFFERS),
        (100_000_000, 98_999_999, Verdict.DIFFERS),
        (0, 10_000, Verdict.SMALL),
        (0, 10_001, Verdict.DIFFERS),
        (10_001, 0, Verdict.DIFFERS),
        (7, None, Verdict.NOT_KNOWN),
    ],
)
def test_a_difference_counts_above_one_cent_or_one_percent(ours, theirs, expected):
    assert check(ours, theirs).verdict is expected
    if theirs is not None:
        assert check(total=ours, usage=theirs).verdict is expected


@pytest.mark.parametrize("source", [PoolKeySource.ENVIRONMENT, PoolKeySource.OPERATOR])
def test_a_key_that_was_brought_may_be_used_elsewhere_but_not_have_spent_less(source):
    assert check(0, CENT * 2, source=source).verdict is Verdict.ELSEWHERE
    assert check(CENT * 2, 0, source=source).verdict is Verdict.DIFFERS
    assert check(total=0, usage=CENT * 2, source=source).verdict is Verdict.ELSEWHERE
    assert check(0, CENT * 2, source=PoolKeySource.UNKNOWN).verdict is Verdict.DIFFERS


def test_the_worse_of_day_and_total_counts():
    assert check(0, 0, total=0, usage=CENT * 2).verdict is Verdict.DIFFERS
    assert check(0, None, total=0, usage=CENT * 2).verdict is Verdict.DIFFERS
    assert check(0, CENT * 2, total=5, usage=5).verdict is Verdict.DIFFERS
    assert check(0, None, total=5, usage=5).verdict is Verdict.NOT_KNOWN


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_every_difference_is_shown_to_the_nano_dollar_and_none_is_called_equal(ours, theirs):
    found = check(ours, theirs)
    assert found.difference_nano == theirs - ours
    assert (found.verdict is Verdict.EQUAL) == (ours == theirs)


@pytest.fixture
def keys(db, envelopes, clock) -> PoolKeys:
    made = PoolKeys(db, envelopes, clock)
    for number in range(3):
        made.add(f"sk-or-v1-{number:064x}", f"key {number + 1}", PoolKeySource.MINTED)
    return made


def allow(_tx) -> None:
    """Everybody may write."""


@pytest.mark.usefixtures("keys")
def test_checks_are_paged_newest_first_and_replaced(db):
    for day in range(2):
        for key in (1, 2, 3):
            daily_check_rows.note(db, check(day=DAY + timedelta(days=day), key=key), allow)
    daily_check_rows.note(db, check(7, None, total=9, usage=8, key=2), allow)
    first, total = daily_check_rows.page(db, 1, 4)
    last, _ = daily_check_rows.page(db, 2, 4)
    assert total == 6
    assert [(found.day.day, found.pool_key_id) for found in first + last] == [
        (day, key) for day in (21, 20) for key in (3, 2, 1)
    ]
    assert last[0] == check(7, None, total=9, usage=8, key=2)
    assert daily_check_rows.page(db, 3, 4) == ([], 6)
    assert set(daily_check_rows.since(db, DAY + timedelta(days=1))) == {
        (DAY + timedelta(days=1), key) for key in (1, 2, 3)
    }


@pytest.mark.usefixtures("keys")
def test_who_may_not_write_changes_nothing(db):
    daily_check_rows.note(db, check(1), allow)

    def refuse(_tx) -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        daily_check_rows.note(db, check(2), refuse)
    assert daily_check_rows.page(db, 1, 9) == ([check(1)], 1)


def test_an_empty_database_has_no_checks_and_no_sums(db):
    assert daily_check_rows.page(db, 1, 9) == ([], 0)
    assert daily_check_rows.first_counted_day(db) is None
    assert daily_check_rows.sums_by_day(db, DAY) == daily_check_rows.sums_before(db, DAY) == {}


def test_sums_are_everybodys_days(db):
    def rollup(period, user_id, days, key, model, **sums):
        start = DAY + timedelta(days=days)
        zero = dict.fromkeys(["requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown"], 0)
        place = {"period": period, "user_id": user_id, "start": start, "pool_key_id": key, "client_key_id": 0}
        db.transact(lambda tx: tx.execute(usage_rollups.insert().values(place | zero | {"model": model} | sums)))

    rollup("d", 0, 0, 1, "a", cost_nano=5, requests=2)
    rollup("d", 0, 0, 1, "b", cost_nano=2**53, requests=1, unknown=1)
    rollup("d", 0, 1, 1, "a", cost_nano=7)
    rollup("d", 0, -1, 1, "a", cost_nano=11)
    rollup("d", 0, -9, 2, "a", cost_nano=13)
    rollup("d", 3, -20, 1, "a", cost_nano=10**6)
    rollup("h", 0, -20, 1, "a", cost_nano=10**6)
    assert daily_check_rows.first_counted_day(db) == DAY - timedelta(days=9)
    assert daily_check_rows.sums_by_day(db, DAY) == {
        (DAY, 1): CountedSums(5 + 2**53, 3, 1),
        (DAY + timedelta(days=1), 1): CountedSums(7),
    }
    assert daily_check_rows.sums_before(db, DAY) == {1: CountedSums(11), 2: CountedSums(13)}


def test_what_people_see_is_in_dollars_and_null_while_unknown():
    assert check(1_500_000_000, None, total=3 * 10**9, usage=3 * 10**9 - 1).to_dict() == {
        "day": "2026-11-20",
        "key": "key 1",
        "source": "minted",
        "verdict": "not known yet",
        "our_usd": 1.5,
        "activity_usd": None,
        "difference_usd": None,
        "our_total_usd": 3.0,
        "usage_usd": 2.999999999,
        "total_difference_usd": -1e-09,
        "checked_at": "2026-11-21T01:00:00+00:00",
    }
