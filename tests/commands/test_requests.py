"""`flask --app app requests`: which calls there were, one of them, and what was refused without a row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing.reports.statistics import UsageFilter
from services import Services
from tests.support.operator_commands import lines, refusal
from tests.support.rows import each_row
from tests.support.usage_rows import MODELS, row, store

NOW = datetime.now(UTC)


@pytest.fixture
def services(services: Services) -> Services:
    """With a request every minute; the fifth was refused, the sixth was slow and dear, the last is two days old."""
    more = {5: {"http_status": 429, "outcome": "refused", "error_type": "rate_limit_exceeded"}}
    more |= {6: {"total_ms": 40_000, "cost_nano": 2 * 10**9, "user_id": 2, "model": MODELS[1]}}
    rows = [row(number, NOW - timedelta(minutes=number), **more.get(number, {})) for number in range(10)]
    store(services.db, [*rows, row(10, NOW - timedelta(hours=50))])
    return services


@each_row(
    "options, numbers",
    [
        ("", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("--hours 60 --count 100", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("--status 4xx", [5]),
        ("--status error", [5]),
        ("--status ok --count 2", [0, 1]),
        ("--outcome refused --error-type rate_limit_exceeded", [5]),
        ("--min-cost 1.5", [6]),
        ("--min-ms 40000", [6]),
        ("--user 2", [6]),
        ("--model CLAUDE", [6]),
        ("--sort cost --count 1", [6]),
        ("--upstream openrouter --count 1", [0]),
    ],
)
def test_requests_are_listed(services, command, options, numbers):
    found = lines(command("requests", "list", *options.split()))
    assert [int(one["request_id"][12:], 16) for one in found] == numbers


def test_one_is_found_by_its_id_however_old(services, command):
    wanted = row(10, NOW - timedelta(hours=50))["request_id"]
    for text in (wanted, wanted[:12]):
        [found] = lines(command("requests", "list", "--id", text))
        assert found["request_id"] == wanted


@each_row(
    "options",
    [
        "--status fine",
        "--id 12",
        "--outcome fine",
        "--sort price",
        "--nobody 1",
        "--user 0",
        "--min-cost -1",
        "--hours x",
    ],
)
def test_a_filter_that_is_not_understood_is_refused(services, command, options):
    assert command("requests", "list", *options.split()).exit_code == 2


def test_what_is_not_there_is_named(services, command):
    assert "There is no upstream mine" in refusal(command("requests", "list", "--upstream", "mine"))
    assert "There is no pool key mine" in refusal(command("requests", "list", "--pool-key", "mine"))
    assert "no client key 4711" in refusal(command("requests", "list", "--key", "4711")).lower()


def test_on_a_terminal_of_100_columns_no_line_is_longer(services, on_screen):
    store(
        services.db,
        [row(11, NOW, model="a-provider/a-model-with-a-name-that-is-very-long-indeed:extended-" + "x" * 60)],
    )
    seen = on_screen("requests", "list", COLUMNS="100").stdout
    assert "429" in seen
    assert max(len(line) for line in seen.splitlines()) <= 100


def test_a_request_is_shown_with_its_tries_and_one_that_is_not_there_is_named(services, command):
    [newest, *_] = services.usage_log.page(UsageFilter(), 1, 1).items
    shown = command("requests", "show", newest.request_id)
    [found] = lines(shown)
    assert (found["request_id"], len(found["attempts"])) == (newest.request_id, 1)
    missing = command("requests", "show", "nobodys")
    assert missing.exit_code == 1
    assert "There is no request nobodys here" in missing.stderr


def test_refusals_without_a_row_are_shown_by_caller(services, command):
    services.refused_calls.note_stranger("203.0.113.7", {"error_type": "authentication_error"})
    services.refused_calls.write_sums()
    [found] = lines(command("requests", "refused"))
    assert (found["caller"], found["refusals"]) == ("address/203.0.113.7", 1)
