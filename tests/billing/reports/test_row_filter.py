"""Searches of the log for what no sum counts: the same rows as a plain search finds, in the order that is asked for."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from billing.reports import request_log
from billing.reports.request_log import UsageLog
from billing.reports.row_filter import Ending, Order, RowFilter, statuses_of
from billing.reports.statistics import UsageFilter
from tests.support.rows import each_row
from tests.support.usage_rows import MODELS, NOON, Row, random_rows, row, store

HOUR = timedelta(hours=1)


@pytest.fixture
def log(db, clock) -> UsageLog:
    return UsageLog(db, clock)


def various(count: int) -> list[Row]:
    dice = random.Random(11)
    rows = random_rows(11, count, 6)
    for one in rows:
        one["http_status"] = dice.choice([200, 200, 429, 403, 502, None])
        one["error_type"] = dice.choice([None, "rate_limit_exceeded", "server"])
        one["total_ms"], one["first_byte_ms"] = dice.choice([None, dice.randrange(9000)]), dice.randrange(900)
    return rows


def value(one: Row, order: Order) -> Any:
    if order is Order.TOKENS:
        return (one["prompt_tokens"] or 0) + (one["completion_tokens"] or 0)
    name = {Order.COST: "cost_nano", Order.DURATION: "total_ms", Order.FIRST_BYTE: "first_byte_ms"}[order]
    return -1 if one[name] is None else one[name]


def plain(rows: list[Row], asked: UsageFilter) -> list[str]:
    wanted = asked.rows
    assert wanted

    def fits(one: Row) -> bool:
        low, high = wanted.statuses or (0, 999)
        return (
            one["is_last"]
            and (asked.user_id is None or one["user_id"] == asked.user_id)
            and (asked.model_part is None or asked.model_part in one["model"])
            and (wanted.statuses is None or low <= (one["http_status"] or -1) <= high)
            and (wanted.outcome is None or one["outcome"] == wanted.outcome)
            and (wanted.error_type is None or one["error_type"] == wanted.error_type)
            and (wanted.over_nano is None or (one["cost_nano"] or -1) >= wanted.over_nano)
            and (wanted.over_ms is None or (one["total_ms"] or -1) >= wanted.over_ms)
        )

    found = sorted((one for one in rows if fits(one)), key=lambda one: one["request_id"], reverse=True)
    if wanted.order is not Order.NEWEST:
        found.sort(key=lambda one: value(one, wanted.order), reverse=True)
    return [one["request_id"] for one in found]


WANTED = [
    RowFilter(statuses=(429, 429)),
    RowFilter(statuses=(400, 499)),
    RowFilter(outcome=Ending.REFUSED),
    RowFilter(error_type="server", order=Order.COST),
    RowFilter(over_nano=500_000_000),
    RowFilter(over_ms=4000, order=Order.TOKENS),
    RowFilter(order=Order.DURATION),
    RowFilter(order=Order.FIRST_BYTE, outcome=Ending.COMPLETE),
    RowFilter(outcome=Ending.STALLED),
]


def test_a_search_finds_what_a_plain_one_finds_in_the_same_order(db, log):
    rows = various(300)
    store(db, rows)
    for wanted, whose in product(WANTED, [UsageFilter(), UsageFilter(1), UsageFilter(2, model_part="openai")]):
        asked = replace(whose, rows=wanted)
        expected = plain(rows, asked)
        for page in (1, 2, len(expected) // 20 + 1, len(expected) // 20 + 2):
            found = log.page(asked, page, 20)
            assert [item.request_id for item in found.items] == expected[20 * page - 20 : 20 * page], asked
            assert (found.total, found.searched_since) == (len(expected), None)
        walked = [item.request_id for items in log.walk(asked) for item in items]
        assert walked == sorted(expected)  # a file: oldest first


def test_a_model_is_found_by_any_part_of_its_name_and_counted_by_the_sums(db, log):
    rows = [row(number, NOON - number * HOUR, model=MODELS[number % 4]) for number in range(40)]
    rows.append(row(40, NOON - 50 * HOUR, model="openai/GPT-5_1%"))
    store(db, rows)
    for part, expected in {"gpt-4o": 10, "gpt": 11, "claude": 10, "_": 1, "1%": 1, "x%i": 0, "/": 31}.items():
        found = log.page(UsageFilter(model_part=part), 1, 100)
        assert (len(found.items), found.total) == (expected, expected), part


def test_a_request_is_found_by_its_id_or_the_begin_of_it(db, log):
    rows = [row(number, NOON - number * HOUR) for number in range(30)]
    store(db, rows)
    for length in (12, 20, 32):
        found = log.page(UsageFilter(rows=RowFilter(request_id=rows[7]["request_id"][:length])), 1, 20)
        assert [item.request_id for item in found.items] == [rows[7]["request_id"]]
    assert log.page(UsageFilter(2, rows=RowFilter(request_id=rows[7]["request_id"])), 1, 20).total == 0


def test_a_search_reads_only_the_newest_rows_and_says_how_far_back_it_looked(db, log, monkeypatch):
    monkeypatch.setattr(request_log, "SEARCH_ROWS", 30)
    rows = [row(number, NOON - number * HOUR, user_id=1 + number % 2, http_status=429) for number in range(200)]
    store(db, rows)
    for whose, every in ((UsageFilter(), 1), (UsageFilter(2), 2), (UsageFilter(model=MODELS[0]), 1)):
        asked, seen = replace(whose, rows=RowFilter(statuses=(429, 429))), []
        while True:  # as somebody who looks further back, again and again
            found = log.page(asked, 1, 100)
            seen += [item.request_id for item in found.items]
            if found.searched_since is None:
                break
            assert found.total == 30, whose
            asked = replace(asked, end=found.searched_since)
        assert seen == [one["request_id"] for one in rows[every - 1 :: every]]


def test_an_hour_with_more_rows_than_a_search_reads_is_read_whole(db, log, monkeypatch):
    monkeypatch.setattr(request_log, "SEARCH_ROWS", 5)
    store(db, [row(number, NOON + timedelta(seconds=number)) for number in range(20)])
    store(db, [row(100, NOON - HOUR)])
    found = log.page(UsageFilter(rows=RowFilter(order=Order.COST)), 1, 100)
    assert (found.total, found.searched_since) == (20, NOON)


@each_row("text, expected", [("429", (429, 429)), ("4xx", (400, 499)), ("500", (500, 500)), ("1xx", (100, 199))])
def test_a_status_is_a_number_or_a_class(text, expected):
    assert statuses_of(text) == expected


@each_row("text", ["", "ok?", "42", "4290", "x29", "42x", "4XX", "600", "٤٢٩"])
def test_another_status_is_refused(text):
    with pytest.raises(ValueError, match="must be error, ok, a status such as 429"):
        statuses_of(text)
