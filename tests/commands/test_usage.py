"""`flask --app app logs` and `usage`: what is written, deleted and repaired, and nothing that should not be."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from app import create_command_line
from billing import daily_check_rows
from billing.daily_check_rows import Check
from billing.reports.log_items import LogItem
from billing.reports.request_log import UsageLog
from billing.reports.statistics import UsageFilter
from config.settings import Config
from pool.life import PoolKeySource
from services import Services, build
from tables import usage_ledger
from tests.billing.test_ledger import dispatched, settled
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.usage_rows import row, store

DAY = timedelta(days=1)
NOW = datetime.now(UTC) + timedelta(hours=12)  # so that no hour that ends meanwhile makes a row too old
Command = Callable[..., Result]


@pytest.fixture
def services(services: Services) -> Services:
    """With a request every ten days."""
    store(services.db, [row(number, NOW - 10 * number * DAY) for number in range(20)])
    return services


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def count(services: Services) -> int:
    with services.db.reading() as tx:
        return tx.scalar(sa.select(sa.func.count()).select_from(usage_ledger))


def day(ago: int) -> str:
    return (NOW - ago * DAY).date().isoformat()


def test_the_log_goes_to_standard_output(command):
    written = command("logs", "export", "--format", "jsonl")
    assert written.exit_code == 0
    found = lines(written.stdout)
    assert len(found) == 20
    assert [one["created_at"] for one in found] == sorted(one["created_at"] for one in found)
    assert found[0]["user_id"] == 1


def test_days_limit_it_and_both_are_included(command):
    written = command("logs", "export", "--format", "csv", "--start", day(50), "--end", day(20))
    names, *rows = csv.reader(io.StringIO(written.stdout, newline=""))
    assert [one[names.index("created_at")][:10] for one in rows] == [day(ago) for ago in (50, 40, 30, 20)]


def test_a_file_is_written_whole_for_its_owner_alone_and_never_over_another(command, tmp_path):
    path = tmp_path / "log.csv"
    assert lines(command("logs", "export", "--format", "csv", "--output", path).stdout) == [{"exported": str(path)}]
    assert len(path.read_text().splitlines()) == 21
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    again = command("logs", "export", "--format", "csv", "--output", path)
    assert (again.exit_code, path.read_bytes()) == (1, before)
    assert "exists; name a new file" in again.stderr
    assert list(tmp_path.glob("*.partial")) == []


def test_bad_options_are_refused(command, tmp_path):
    assert command("logs", "export").exit_code == 2
    assert command("logs", "export", "--format", "xml").exit_code == 2
    assert command("logs", "export", "--format", "csv", "--start", "yesterday").exit_code == 2
    assert command("logs", "cleanup", "--days", 0).exit_code == 2
    refused = command("logs", "cleanup", "--export-to", tmp_path / "x.txt")
    assert (refused.exit_code, "ends with .csv or .jsonl" in refused.stderr) == (1, True)


def test_a_cleanup_deletes_what_is_older_than_the_setting_or_the_option(command, services):
    assert lines(command("logs", "cleanup").stdout)[0]["deleted"] == 10
    assert count(services) == 10
    assert lines(command("logs", "cleanup", "--days", 25).stdout)[0]["deleted"] == 7
    assert count(services) == 3


def test_a_cleanup_exports_before_it_deletes(command, services, tmp_path):
    path = tmp_path / "old.jsonl"
    open_one = row(100, NOW - 300 * DAY, state="pending", cost_nano=None)
    store(services.db, [open_one])
    assert command("logs", "cleanup", "--days", 45, "--export-to", path).exit_code == 0
    exported = lines(path.read_text())
    assert len(exported) == 16
    assert {one["created_at"][:10] for one in exported} >= {day(ago) for ago in range(50, 200, 10)}
    assert count(services) == 6  # with the open one, which is in the file too


class SettledMeanwhile(UsageLog):
    """A log in which open rows are settled just after they were read."""

    def walk(self, asked: UsageFilter) -> Iterator[list[LogItem]]:
        yield from super().walk(asked)
        settle = usage_ledger.update().where(usage_ledger.c.state == "pending").values(state="settled", cost_nano=5)
        self._db.transact(lambda tx: tx.execute(settle))


def test_what_was_still_open_in_the_export_is_not_deleted_though_it_was_settled_since(command, services, tmp_path):
    store(services.db, [row(100, NOW - 300 * DAY, state="pending", cost_nano=None)])
    services.usage_log = SettledMeanwhile(services.db, services.clock)
    path = tmp_path / "old.jsonl"
    assert command("logs", "cleanup", "--export-to", path).exit_code == 0
    assert [one["cost_nano"] for one in lines(path.read_text())] == [None] + [1000] * 10
    assert count(services) == 10 + 1
    assert lines(command("logs", "cleanup", "--export-to", tmp_path / "rest.jsonl").stdout)[0]["deleted"] == 1
    [rest] = lines((tmp_path / "rest.jsonl").read_text())
    assert rest["cost_nano"] == 5


def test_a_failed_export_deletes_nothing(command, services, tmp_path):
    taken = tmp_path / "old.csv"
    taken.write_text("mine")
    for path in (taken, tmp_path / "no such folder" / "x.csv", Path("/dev/full/x.csv")):
        refused = command("logs", "cleanup", "--export-to", path)
        assert refused.exit_code == 1
        assert count(services) == 20
    assert taken.read_text() == "mine"


def test_a_disk_that_is_full_deletes_nothing(command, services, tmp_path):
    (tmp_path / "old.csv.partial").symlink_to("/dev/full")
    refused = command("logs", "cleanup", "--export-to", tmp_path / "old.csv")
    assert (refused.exit_code, count(services)) == (1, 20)
    assert "No space left on device" in refused.stderr
    assert not (tmp_path / "old.csv").exists()


def test_nothing_is_old_without_a_limit(empty_database_url):
    found = build(
        Config(
            database_url=empty_database_url, encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY, log_retention_days=0
        )
    )
    store(found.db, [row(1, NOW - 3000 * DAY)])
    refused = create_command_line(found).test_cli_runner().invoke(args=["logs", "cleanup"])
    assert (refused.exit_code, "give --days N" in refused.stderr, count(found)) == (1, True, 1)
    found.db.close()


def test_a_terminal_gets_a_bar_and_no_data(services, on_screen, tmp_path):
    refused = on_screen("logs", "export", "--format", "csv")
    assert (refused.returncode, "Give --output FILE" in refused.stdout) == (1, True)
    seen = on_screen("logs", "export", "--format", "csv", "--output", str(tmp_path / "x.csv")).stdout
    assert "Exporting" in seen
    assert "100%" in seen
    seen = on_screen("logs", "cleanup", "--days", "100", "--json").stdout
    assert "Deleting" not in seen
    assert json.loads(seen)["deleted"] == 9
    seen = on_screen("logs", "cleanup", "--days", "90").stdout
    assert "Deleting" in seen
    assert count(services) == 10


def test_the_daily_checks_are_shown_newest_first(command, services):
    services.pool_keys.add("sk-or-v1-" + "a1b2" * 16, "mine", PoolKeySource.OPERATOR)
    assert lines(command("usage", "checks").stdout) == []
    for day in (1, 2, 3):
        midnight = datetime(2026, 11, day, tzinfo=UTC)
        found = Check(
            midnight, 1, "mine", PoolKeySource.OPERATOR, 10**9, None if day == 3 else 10**9, 0, None, midnight
        )
        daily_check_rows.note(services.db, found, lambda _tx: None)
    shown = lines(command("usage", "checks", "--count", "2").stdout)
    assert [(line["day"], line["key"], line["verdict"]) for line in shown] == [
        ("2026-11-03", "mine", "not known yet"),
        ("2026-11-02", "mine", "equal"),
    ]
    assert len(lines(command("usage", "checks").stdout)) == 3
    assert command("usage", "checks", "--count", "0").exit_code == 2


def test_a_repair_applies_what_is_mended_and_shows_what_is_not(services, command):
    """Of two calls of two people one record each can't be applied; the one that is mended counts, the other waits."""
    mine, others = "01a1fb67180000000000000000000001", "01a1fb67180000000000000000000002"
    for user_id, request_id in ((71, mine), (72, others)):
        services.ledger.apply("p", [dispatched(request_id, user_id=user_id)])
    file = services.journal.folder / "p.1.damaged"
    broken = [settled(mine, 150) | {"cost_nano": "150"}, settled(others, 70) | {"cost_nano": []}]
    file.write_text("".join(f"{json.dumps(record)}\n" for record in broken))
    first = command("usage", "repair")
    assert first.exit_code == 1
    counted, *left = lines(first.stdout)
    assert counted == {"applied": 0, "left": 2}
    assert [each["line"] for each in left] == [1, 2]
    assert all("cost_nano" in each["reason"] for each in left)
    file.write_text("".join(f"{json.dumps(record)}\n" for record in [settled(mine, 150), broken[1]]))
    second = command("usage", "repair")
    assert (second.exit_code, lines(second.stdout)[0]) == (1, {"applied": 1, "left": 1})
    costs = sa.select(usage_ledger.c.request_id, usage_ledger.c.cost_nano).where(usage_ledger.c.user_id > 70)
    with services.db.reading() as tx:
        assert {row.request_id: row.cost_nano for row in tx.execute(costs)} == {mine: 150, others: None}
    file.write_text(f"{json.dumps(settled(others, 70))}\n")
    third = command("usage", "repair")
    assert (third.exit_code, lines(third.stdout)) == (0, [{"applied": 1, "left": 0}])
    assert not file.exists()
    assert command("usage", "repair").exit_code == 0


def test_who_spent_what_is_shown_beside_the_time_before(command, services):
    today = datetime.now(UTC)
    rows = [row(100, today, user_id=7, cost_nano=3), row(101, today, user_id=8, cost_nano=5, outcome="refused")]
    store(services.db, [*rows, row(102, today - DAY, user_id=7, cost_nano=4)])
    found = [json.loads(line) for line in command("usage", "by-user", "--days", 1).stdout.splitlines()]
    shown = {(one["id"], one["cost_nano"], one["errors"], one["before"]["cost_nano"]) for one in found}
    assert shown >= {(8, 5, 1, 0), (7, 3, 0, 4)}
    by_errors = command("usage", "by-user", "--days", 1, "--metric", "errors", "--count", 1).stdout
    assert [json.loads(line)["id"] for line in by_errors.splitlines()] == [8]
    by_provider = [json.loads(line) for line in command("usage", "shares", "--by", "provider").stdout.splitlines()]
    assert {one["name"] for one in by_provider} == {"openai"}
    for words in (["--by", "team"], ["--days", 0], ["--metric", "joy"]):
        assert command("usage", "shares", *words).exit_code == 2


def test_how_fast_calls_are_answered_is_shown_by_whom_and_how_far_back(command, services):
    now = datetime.now(UTC)
    slow = {"model": "a/slow", "first_byte_ms": 9000, "total_ms": 9000, "is_stream": False}
    store(services.db, [row(500 + n, now, model="a/fast", pool_key_id=3) for n in range(2)] + [row(510, now, **slow)])
    fast, slow = lines(command("usage", "latency", "--last", "hour").stdout)
    assert (fast["name"], fast["calls"], slow["name"]) == ("a/fast", 2, "a/slow")
    assert 270 < fast["first_byte_ms"]["p95"] < 330 and 8000 < slow["total_ms"]["p50"] < 10_000
    assert lines(command("usage", "latency", "--by", "pool_key", "--last", "30d").stdout)[-1]["name"] == "#3"
    for words in (["--by", "user"], ["--last", "year"]):
        assert command("usage", "latency", *words).exit_code == 2


def test_a_person_sees_times_in_seconds_and_the_most_frequent_error(services, on_screen):
    error = {"outcome": "error", "error_type": "overloaded"}
    store(services.db, [row(500, datetime.now(UTC), model="a/b"), row(501, datetime.now(UTC), model="a/b", **error)])
    shown = on_screen("usage", "latency", COLUMNS=160).stdout
    [line] = [line for line in shown.splitlines() if "a/b" in line]
    assert "overloaded" in line
    assert line.split("│")[4].strip() == "0.29"  # 0.3 within 10 %
