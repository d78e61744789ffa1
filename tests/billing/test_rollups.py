"""Roll-ups: four rows for each change, always the sums of what was added, whoever adds at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import product

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from billing import rollups
from billing.rollups import ANY_POOL_KEY, NO_TEAM, Bucket, UsageSums, bucket_of
from db import DatabaseError
from storage.many_rows import ROWS_AT_ONCE
from tables import team_rollups
from tables import usage_rollups as table
from tests.support.usage_rows import row as ledger_row

pytestmark = pytest.mark.mysql

HOUR = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = HOUR.replace(hour=0)


def stored(db, of=table, key_columns: int = 6) -> dict[tuple, tuple]:
    with db.reading() as tx:
        rows = [tuple(row) for row in tx.execute(sa.select(of))]
    return {row[:key_columns]: row[key_columns:] for row in rows}


def count(sums_of: dict[tuple, list[int]], key: tuple, sums: UsageSums) -> None:
    before = sums_of.get(key, [0] * 6)
    sums_of[key] = [a + b for a, b in zip(before, sums.amounts(), strict=True)]


def add(db, changes) -> None:
    db.transact(lambda tx: rollups.add(tx, changes))


def test_a_change_counts_for_its_hour_and_its_day_for_its_owner_and_for_everybody(db):
    add(db, {Bucket(7, 3, 5, "openai/gpt-4o", HOUR): UsageSums(1, 0, 10, 20, 30, 0)})
    add(db, {Bucket(8, None, None, "", HOUR): UsageSums(requests=1, errors=1)})
    assert stored(db) == {
        ("h", 7, HOUR, 3, ANY_POOL_KEY, "openai/gpt-4o"): (1, 0, 10, 20, 30, 0),
        ("d", 7, DAY, 3, ANY_POOL_KEY, "openai/gpt-4o"): (1, 0, 10, 20, 30, 0),
        ("h", 0, HOUR, 0, 5, "openai/gpt-4o"): (1, 0, 10, 20, 30, 0),
        ("d", 0, DAY, 0, 5, "openai/gpt-4o"): (1, 0, 10, 20, 30, 0),
        ("h", 8, HOUR, 0, 0, ""): (1, 1, 0, 0, 0, 0),
        ("d", 8, DAY, 0, 0, ""): (1, 1, 0, 0, 0, 0),
        ("h", 0, HOUR, 0, 0, ""): (1, 1, 0, 0, 0, 0),
        ("d", 0, DAY, 0, 0, ""): (1, 1, 0, 0, 0, 0),
    }


def test_what_is_taken_back_is_gone_and_nothing_is_written_for_nothing(db):
    key = Bucket(7, None, 5, "m", HOUR)
    add(db, {key: UsageSums(unknown=1)})
    add(db, {key: UsageSums(unknown=-1, cost_nano=2**62)})
    assert set(stored(db).values()) == {(0, 0, 0, 0, 2**62, 0)}
    add(db, {Bucket(9, None, 5, "m", HOUR): UsageSums()})
    add(db, {})
    assert not any(row[1] == 9 for row in stored(db))


def test_hours_and_days_are_those_of_utc(db):
    at = datetime(2026, 11, 22, 1, 30, tzinfo=timezone(timedelta(hours=5)))
    add(db, {bucket_of(ledger_row(1, HOUR) | {"created_at": at}): UsageSums(1)})
    starts = {(row[0], row[2]) for row in stored(db)}
    assert starts == {("h", datetime(2026, 11, 21, 20, tzinfo=UTC)), ("d", DAY)}


def test_models_that_differ_in_case_alone_are_two(db):
    add(db, {Bucket(7, None, 1, model, HOUR): UsageSums(1) for model in ("a/B", "a/b", "o'c:free%s?")})
    assert sorted(row[5] for row in stored(db) if row[:2] == ("h", 7)) == ["a/B", "a/b", "o'c:free%s?"]


amounts = st.integers(-(10**12), 10**12)
keys = st.builds(
    Bucket,
    st.integers(1, 3),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 4, 5]),
    st.sampled_from(["", "openai/gpt-4o", "x-ai/grok-4:free"]),
    st.integers(0, 4).map(lambda hours: datetime(2026, 11, 20, 22, tzinfo=UTC) + timedelta(hours=hours)),
    st.booleans(),
    st.sampled_from([NO_TEAM, 6]),
)


@given(st.lists(st.dictionaries(keys, st.builds(UsageSums, *[amounts] * 6), max_size=8), max_size=5))
def test_roll_ups_are_the_sums_of_all_that_was_added(db, calls):
    for each in (table, team_rollups):
        db.transact(lambda tx, each=each: tx.execute(each.delete()))
    expected: dict[tuple, list[int]] = {}
    of_teams: dict[tuple, list[int]] = {}
    for changes in calls:
        add(db, changes)
        for (user, client, pool, model, at, user_pays, team), sums in changes.items():
            for (period, cut), owner in product((("h", 13), ("d", 10)), ((user, client or 0), (0, 0))):
                start = datetime.fromisoformat(at.isoformat()[:cut] + "T00:00:00"[cut - 10 :]).replace(tzinfo=UTC)
                carrier = ANY_POOL_KEY if owner[0] and pool and not user_pays else pool or 0
                count(expected, (period, owner[0], start, owner[1], carrier, model), sums)
                if owner[0] and team:
                    count(of_teams, (period, team, start, user), sums)
    for found, wanted in ((stored(db), expected), (stored(db, team_rollups, 4), of_teams)):
        assert {key: list(row) for key, row in found.items() if any(row)} == {k: v for k, v in wanted.items() if any(v)}


def test_more_changes_than_one_statement_takes_are_all_added(db):
    changes = {Bucket(user, None, 1, "m", HOUR): UsageSums(1, 0, 1, 1, 1, 0) for user in range(1, 3001)}
    assert len(changes) * 2 > ROWS_AT_ONCE
    add(db, changes)
    found = stored(db)
    assert len(found) == 3000 * 2 + 2
    assert found["d", 0, DAY, 0, 1, "m"][0] == 3000


def test_what_is_added_at_the_same_time_is_all_counted(db):
    """Each thread has the keys in another order, as processes have."""
    faults = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                users = [(place * (number * 2 + 1) + turn) % 32 + 1 for place in range(32)]
                add(db, {Bucket(user, None, 1, "m", HOUR): UsageSums(1) for user in users})
        except DatabaseError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert faults == []
    counts = Counter({row[1]: sums[0] for row, sums in stored(db).items() if row[0] == "d"})
    assert counts == dict.fromkeys(range(1, 33), 40) | {0: 1280}


def test_a_change_that_does_not_commit_counts_nothing(db):
    def work(tx) -> None:
        rollups.add(tx, {Bucket(7, None, 1, "m", HOUR): UsageSums(1)})
        raise KeyError

    with pytest.raises(KeyError):
        db.transact(work)
    assert stored(db) == {}


def test_pool_keys_that_are_renewed_daily_make_no_rows_of_users(db):
    """Three days of 40 users with 20 calls an hour through 10 keys, all new each day: rows for everybody alone tell them."""
    for day in range(3):
        at = HOUR + timedelta(days=day)
        for hour in range(24):
            calls = {
                Bucket(user, None, 1 + 10 * day + user % 10, "m", at + timedelta(hours=hour)): UsageSums(20)
                for user in range(1, 41)
            }
            add(db, calls)
    found = stored(db)
    of_users = [row for row in found if row[1]]
    assert len(of_users) == 40 * (72 + 4)
    assert {row[4] for row in of_users} == {ANY_POOL_KEY}
    assert {row[4] for row in found if not row[1]} == set(range(1, 31))
    assert len(found) / (3 * 24 * 40 * 20) < 0.2


def test_keys_of_users_own_accounts_are_told_apart(db):
    add(db, {Bucket(7, None, 5, "m", HOUR, user_pays=True): UsageSums(1), Bucket(7, None, -2, "m", HOUR): UsageSums(1)})
    assert {row[4] for row in stored(db)} == {5, -2}
