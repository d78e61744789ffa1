"""Who spent what: the sums of the rows, by whatever is asked, and of one user never anybody else's."""

from __future__ import annotations

from datetime import timedelta

import pytest

from accounts.users import Users
from billing.reports.shares import MOST_ITEMS, MOST_SERIES, read_shares
from billing.reports.shares_asked import By, Metric, SharesAsked
from tests.support.usage_rows import NOON, random_rows, row, store

pytestmark = pytest.mark.mysql

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIDNIGHT = NOON.replace(hour=0)
MONTH = (MIDNIGHT - 20 * DAY, MIDNIGHT + DAY)


def subject_of(one, by):
    """What a row counts under, by the words that are shown of it."""
    provider, slash, _ = one["model"].partition("/")
    carrier = "openrouter" if one["pool_key_id"] else one["upstream_id"] and f"#{one['upstream_id']}"
    return {
        By.USER: str(one["user_id"]),
        By.KEY: one["client_key_id"],
        By.MODEL: one["model"] or None,
        By.PROVIDER: provider if slash else None,
        By.UPSTREAM: carrier or None,
    }[by]


def amounts_of(rows):
    """Requests, errors, tokens and cost, added up the obvious way."""
    last = [one for one in rows if one["is_last"]]
    billed = [one for one in rows if one["state"] in {"settled", "estimated"}]
    tokens = sum((one["prompt_tokens"] or 0) + (one["completion_tokens"] or 0) for one in billed)
    errors = sum(one["outcome"] not in {"complete", "client_gone"} for one in last)
    return len(last), errors, tokens, sum(one["cost_nano"] for one in billed)


def told(sums):
    return sums.requests, sums.errors, sums.prompt_tokens + sums.completion_tokens, sums.cost_nano


@pytest.mark.parametrize("by", By)
@pytest.mark.parametrize("metric", [one for one in Metric if not one.is_time])
def test_shares_are_the_sums_of_the_rows_and_add_up_to_all_of_them(db, by, metric):
    rows = [one for one in random_rows(5, 300, 50) if one["is_last"]]
    store(db, rows)
    asked = SharesAsked(by, metric, *MONTH)
    found = read_shares(db, asked)
    within = [one for one in rows if asked.start <= one["created_at"] < asked.end]
    earlier = [one for one in rows if asked.before <= one["created_at"] < asked.start]
    assert min(len(within), len(earlier)) > 10
    assert (told(found.totals.sums), told(found.before.sums)) == (amounts_of(within), amounts_of(earlier))
    names = {subject_of(one, by) for one in within}
    named = {(item.id if by is By.KEY else item.name): item for item in found.items}
    assert set(named) == names
    assert len(found.items) == len(names)
    assert found.is_whole
    for name, item in named.items():
        assert told(item.now.sums) == amounts_of([one for one in within if subject_of(one, by) == name]), name
        assert told(item.before.sums) == amounts_of([one for one in earlier if subject_of(one, by) == name]), name
    order = [metric.of(item.now.sums) for item in found.items]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("by", By)
def test_what_is_drawn_adds_up_at_every_time(db, by):
    rows = [
        row(number, MIDNIGHT + number % 24 * HOUR, user_id=1 + number % 11, client_key_id=1 + number % 13)
        for number in range(200)
    ]
    store(db, rows)
    for start, end, step in ((MIDNIGHT, MIDNIGHT + DAY, HOUR), (*MONTH, DAY)):
        asked = SharesAsked(by, Metric.CALLS, start, end)
        found = read_shares(db, asked)
        assert asked.times == [start + number * step for number in range((end - start) // step)]
        assert len(found.series) == min(MOST_SERIES, len(found.items))
        for place, time in enumerate(asked.times):
            drawn = [series[place] for series in found.series]
            assert sum(drawn) + found.others[place] == sum(time <= one["created_at"] < time + step for one in rows)
        for item, series in zip(found.items, found.series, strict=False):
            assert sum(series) == item.now.sums.requests


def test_what_no_user_pays_has_a_share_of_its_own(db):
    first = row(1, NOON, is_last=False, cost_nano=5, outcome="failed")
    store(db, [first, row(1, NOON, attempt=2, cost_nano=7)])
    for by in (By.USER, By.KEY):
        found = read_shares(db, SharesAsked(by, Metric.COST, *MONTH))
        assert sorted((item.name, item.now.sums.cost_nano) for item in found.items if item.name) == (
            [("1", 7)] if by is By.USER else []
        )
        assert sorted(item.now.sums.cost_nano for item in found.items) == [5, 7]
        assert found.totals.sums.cost_nano == 12


def test_one_user_is_told_of_their_own_calls_alone(db):
    rows = [one for one in random_rows(6, 300, 30) if one["is_last"]]
    store(db, rows)
    mine = [one for one in rows if one["user_id"] == 2 and MONTH[0] <= one["created_at"] < MONTH[1]]
    for by in (By.KEY, By.MODEL, By.PROVIDER, By.UPSTREAM):
        found = read_shares(db, SharesAsked(by, Metric.COST, *MONTH, user_id=2))
        assert told(found.totals.sums) == amounts_of(mine)
        assert {item.id if by is By.KEY else item.name for item in found.items} >= {subject_of(one, by) for one in mine}
        assert sum(map(sum, found.series)) + sum(found.others) == found.totals.sums.cost_nano


def test_refused_and_failed_calls_are_errors(db):
    outcomes = ["complete", "client_gone", "refused", "failed", "error", "broken", "cut", "stalled", "lost"]
    store(db, [row(number, NOON, outcome=outcome, user_id=7) for number, outcome in enumerate(outcomes)])
    [item] = read_shares(db, SharesAsked(By.USER, Metric.ERRORS, *MONTH)).items
    assert (item.now.sums.requests, item.now.sums.errors) == (9, 7)


def test_users_are_called_as_operators_call_them(db, clock):
    users = Users(db, b"k" * 32, clock)
    labelled, plain = (users.create(f"{name}@example.com", "hash") for name in ("a", "b"))
    users.change(labelled, label="marketing")
    store(db, [row(number, NOON, user_id=user_id) for number, user_id in enumerate((labelled, plain))])
    found = read_shares(db, SharesAsked(By.USER, Metric.COST, *MONTH))
    assert {item.name for item in found.items} == {f"{labelled} marketing", str(plain)}


def test_a_key_without_a_name_is_told_by_its_number(db):
    store(db, [row(1, NOON, user_id=7, client_key_id=4711), row(2, NOON, user_id=7)])
    for user_id in (None, 7):
        found = read_shares(db, SharesAsked(By.KEY, Metric.COST, *MONTH, user_id=user_id))
        assert {(item.id, item.name) for item in found.items} == {(4711, "#4711"), (None, None)}


def test_nothing_is_nothing(db):
    found = read_shares(db, SharesAsked(By.USER, Metric.COST, *MONTH)).to_dict()
    assert (found["items"], found["series"], found["is_whole"], set(found["others"])) == ([], [], True, {0})
    assert found["totals"]["requests"] == 0


@pytest.mark.parametrize("by", [By.USER, By.KEY])
def test_of_very_many_the_greatest_are_listed_and_all_are_in_the_sums(db, by):
    several = [row(n, NOON, user_id=n, client_key_id=n, cost_nano=n) for n in range(1, MOST_ITEMS + 6)]
    store(db, several)
    found = read_shares(db, SharesAsked(by, Metric.COST, *MONTH))
    assert [item.id for item in found.items] == list(range(MOST_ITEMS + 5, 5, -1))
    assert (found.is_whole, found.totals.sums.requests) == (False, MOST_ITEMS + 5)
    assert sum(map(sum, found.series)) + sum(found.others) == sum(one["cost_nano"] for one in several)
