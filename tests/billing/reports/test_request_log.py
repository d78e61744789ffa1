"""The request log: each page is the same slice of a plain sorted list, and no query reads more than it needs."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa

from billing.reports import request_log
from billing.reports.request_log import UsageLog
from billing.reports.retention import LogRetention
from billing.reports.statistics import POOL, UsageFilter
from tables import log_retention, usage_ledger
from tests.support.database_plans import plans
from tests.support.examples import examples
from tests.support.usage_rows import MODELS, NOON, random_rows, row, store

DAY = timedelta(days=1)
FINE = {"complete", "client_gone"}


@pytest.fixture
def log(db, clock) -> UsageLog:
    return UsageLog(db, clock)


def plain(rows: list[dict[str, Any]], asked: UsageFilter) -> list[str]:
    """The ids that a page-free log would show, newest first: the obvious way."""

    def fits(one: dict[str, Any]) -> bool:
        wanted = {"user_id": asked.user_id, "client_key_id": asked.client_key_id}
        wanted |= {"model": asked.model, "pool_key_id": asked.pool_key_id}
        wanted["upstream_id"] = asked.upstream_id or None
        return (
            one["is_last"]
            and all(value is None or one[name] == value for name, value in wanted.items())
            and (asked.upstream_id != POOL or one["pool_key_id"] is not None)
            and asked.is_error in {None, one["outcome"] not in FINE}
            and (asked.start is None or one["created_at"] >= asked.start)
            and (asked.end is None or one["created_at"] < asked.end)
        )

    return sorted((one["request_id"] for one in rows if fits(one)), reverse=True)


FILTERS = [
    UsageFilter(),
    UsageFilter(1),
    UsageFilter(2),
    UsageFilter(99),
    UsageFilter(model=MODELS[0]),
    UsageFilter(model=MODELS[2]),
    UsageFilter(model=""),
    UsageFilter(model="no/such"),
    UsageFilter(pool_key_id=2),
    UsageFilter(is_error=True),
    UsageFilter(is_error=False),
    UsageFilter(1, client_key_id=7),
    UsageFilter(3, model=MODELS[1]),
    UsageFilter(1, pool_key_id=2, is_error=True),
    UsageFilter(model=MODELS[2], is_error=True),
    UsageFilter(model=MODELS[1], pool_key_id=1),
    UsageFilter(2, 8, MODELS[0], 1, False),
    UsageFilter(upstream_id=POOL),
    UsageFilter(upstream_id=1),
    UsageFilter(1, upstream_id=2, is_error=False),
    UsageFilter(2, upstream_id=POOL),
    UsageFilter(model=MODELS[0], upstream_id=1),
    UsageFilter(upstream_id=99),
]


def ranged(dice: random.Random, asked: UsageFilter) -> UsageFilter:
    start = NOON - timedelta(hours=dice.randrange(24 * 12))
    end = start + timedelta(hours=dice.randrange(1, 24 * 5))
    return replace(asked, start=dice.choice([None, start]), end=dice.choice([None, end]))


@pytest.mark.hypothesis
@pytest.mark.parametrize("skip_at_most", [0, 3, 500])
@pytest.mark.parametrize("seed", range(examples(1, 4)))
def test_pages_are_slices_of_a_plain_sorted_list(db, log, seed, skip_at_most, monkeypatch):
    monkeypatch.setattr(request_log, "SKIP_AT_MOST", skip_at_most)  # so that few rows need all the ways there are
    rows, dice = random_rows(seed, 400, 10), random.Random(seed)
    store(db, rows)
    for asked in [*FILTERS, *(ranged(dice, asked) for asked in FILTERS[:: examples(4, 1)])]:
        expected, size = plain(rows, asked), dice.choice([1, 3, 7, 20, 100])
        pages = range(1, len(expected) // size + 3)
        for number in {*pages[:1], *dice.sample(pages, min(len(pages), examples(1, 9))), *pages[-2:]}:
            found = log.page(asked, number, size)
            shown = [item.request_id for item in found.items]
            assert (shown, found.total) == (expected[(number - 1) * size : number * size], len(expected)), asked
        assert log.count(asked) == len(expected)


@pytest.mark.mysql
def test_a_walk_finds_everything_once_oldest_first(db, log, monkeypatch):
    monkeypatch.setattr(request_log, "WALK_ROWS", 5)
    rows, dice = random_rows(7, 150, 10), random.Random(3)
    store(db, rows)
    for one in [*FILTERS, *(ranged(dice, asked) for asked in FILTERS)]:
        lists = list(log.walk(one))
        assert [item.request_id for items in lists for item in items] == plain(rows, one)[::-1]
        assert all(len(items) <= 5 for items in lists)


def test_an_empty_log_has_empty_pages(log):
    assert log.page(UsageFilter(), 1, 20) == request_log.LogPage([], 0)
    assert log.page(UsageFilter(1), 1_000_000, 100) == request_log.LogPage([], 0)
    assert list(log.walk(UsageFilter())) == []


def test_rows_that_arrive_do_not_move_the_pages_of_a_past_range(db, log):
    rows = random_rows(1, 100, 3)
    store(db, rows)
    past = UsageFilter(end=NOON - DAY)
    first = [item.request_id for item in log.page(past, 1, 10).items]
    store(db, [row(10_000 + number, NOON + timedelta(minutes=number)) for number in range(25)])
    later = [item.request_id for page in range(1, 12) for item in log.page(past, page, 10).items]
    assert later[:10] == first
    assert later == plain(rows, past)
    assert log.page(UsageFilter(), 1, 20).items[0].request_id == row(10_024, NOON + timedelta(minutes=24))["request_id"]


def test_requests_that_are_still_running_are_not_shown(db, log):
    store(db, [row(1, NOON), row(2, NOON, is_last=False, state="streaming", cost_nano=None, outcome=None)])
    found = log.page(UsageFilter(), 1, 20)
    assert ([item.request_id[-1] for item in found.items], found.total) == (["1"], 1)


def test_counts_of_deleted_rows_are_left_out(db, log):
    rows = [row(number, NOON - timedelta(hours=number)) for number in range(100)]
    store(db, rows)
    deleted = usage_ledger.c.request_id < rows[29]["request_id"]
    db.transact(lambda tx: tx.execute(usage_ledger.delete().where(deleted)))
    for asked in (UsageFilter(), UsageFilter(1), UsageFilter(1, model=MODELS[0])):
        assert log.page(asked, 1, 100).total == 30
        assert [item.request_id for item in log.page(asked, 2, 20).items] == [one["request_id"] for one in rows[20:30]]


def test_an_old_row_that_is_left_open_does_not_bring_back_the_counts_of_those_around_it(db, clock, log):
    rows = [row(number, NOON - timedelta(days=number)) for number in range(100)]
    rows[95] |= {"state": "pending", "cost_nano": None, "prompt_tokens": None}
    store(db, rows)
    retention = LogRetention(db, clock, 90)
    assert sum(retention.delete_before(retention.cutoff(90), lambda _: None)) == 8
    assert log.page(UsageFilter(), 1, 100).total == 91
    assert [item.request_id for items in log.walk(UsageFilter()) for item in items] == [
        rows[95]["request_id"],
        *(one["request_id"] for one in rows[90::-1]),
    ]


# ── no query reads the table


@pytest.mark.mysql
@pytest.mark.hypothesis
def test_no_page_and_no_walk_scans_a_table(db, log):
    store(db, random_rows(5, 1500, 30))
    if db.kind == "mysql":
        db.transact(lambda tx: tx.exec_driver_sql("ANALYZE TABLE usage_ledger, usage_rollups").all())
    for number, asked in enumerate(FILTERS):
        both = (asked, replace(asked, start=NOON - 20 * DAY, end=NOON - 2 * DAY))
        for one in examples(both[number % 2 :][:1], both):
            last = max(1, log.count(one) // 20)
            seen = plans(db, log.page, one, 1, 20) + plans(db, log.page, one, last // 2 + 1, 20)
            seen += plans(db, log.page, one, last, 20) + plans(db, lambda asked: list(islice(log.walk(asked), 2)), one)
            assert len(seen) >= 4
            for statement, steps in seen:
                for step in steps:
                    check_step(db, one, statement, step)


def check_step(db, asked: UsageFilter, statement: str, step: Any) -> None:
    is_page = "is_last =" in statement and "usage_ledger.request_id >=" in statement
    if db.kind == "sqlite":
        detail = step["detail"]
        assert "SCAN usage_" not in detail or "min(" in statement, (statement, step)
        if is_page and "usage_ledger" in detail:
            equal = [name for name in ("user_id", "model", "pool_key_id") if getattr(asked, name) is not None]
            begins = [f"({name}=? AND request_id>? AND request_id<?)" for name in equal] or ["(request_id>? AND "]
            assert any(begin in detail for begin in begins), (statement, step)
    elif step["table"] in {"usage_ledger", "usage_rollups"}:
        assert step["type"] in {"range", "ref", "eq_ref", "const"}, (statement, step)
        if is_page:  # by both: what is asked for, and the bounds of the range
            assert (step["key"], step["type"]) == (request_log._index(asked), "range"), (statement, step)


@pytest.mark.mysql
def test_of_rows_that_an_index_does_not_tell_apart_only_the_hours_with_matching_ones_are_read(db, log):
    """One call in three hundred is looked for, in a month of a user's calls."""
    hours = [NOON - timedelta(hours=number) for number in range(600)]
    rows = [row(number, at, model=MODELS[1] if number % 300 == 5 else MODELS[0]) for number, at in enumerate(hours)]
    store(db, rows)
    seen = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        if "usage_ledger.is_last =" in statement:
            values = parameters.values() if isinstance(parameters, dict) else parameters
            seen.extend(value for value in values if re.fullmatch("0[0-9a-f]{11}", str(value)))

    sa.event.listen(db._engine, "before_cursor_execute", note)
    found = log.page(UsageFilter(1, model=MODELS[1]), 1, 20)
    sa.event.remove(db._engine, "before_cursor_execute", note)
    assert [item.request_id for item in found.items] == [rows[5]["request_id"], rows[305]["request_id"]]
    bounds = [request_log.request_id_at(at) for number in (5, 305) for at in (hours[number], hours[number - 1])]
    assert sorted(seen) == sorted(bounds)


def test_ids_sort_by_time(db):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert (
        request_log.request_id_at(at)
        <= row(0, at)["request_id"]
        < request_log.request_id_at(at + timedelta(milliseconds=1))
    )
    with db.reading() as tx:
        assert tx.scalar(sa.select(log_retention.c.deleted_before)) is None
