"""The daily check against the stand-in: exact figures agree, whatever is doctored shows, failures wait and stop nobody."""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from billing import daily_check_rows
from billing.daily_check import CHECK_AT, UsageCheck
from billing.daily_check_rows import Check, Verdict
from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes
from pool.keys import PoolKeys
from pool.life import PoolKeySource, PoolKeyState
from replicas.lease import LeaseLost, RotationLease
from tables import usage_rollups
from tests.conftest import ENCRYPTION_KEY
from tests.sandbox.conftest import Running
from tests.support.gateway import run, wait_for
from tests.support.movable_clock import MovableClock
from tests.support.rotor import DEPLOYMENT, PREFIX, Account
from tests.test_key_rotation import Service, settings_of
from upstream.openrouter.management_api import ManagementApi, ManagementError

numbers = itertools.count()
CENT = 10_000_000


class Books:
    """A pool with its sums, an account at the stand-in, and the check between them; one clock for all."""

    def __init__(self, db: Database, envelopes: Envelopes, stand_in: Running, clock: MovableClock) -> None:
        self.db, self.stand_in, self.clock = db, stand_in, clock
        self.at("2031-03-09T12:00:00")
        self.account = Account(stand_in)
        self.keys = PoolKeys(db, envelopes, clock)
        self.api = ManagementApi(stand_in.address, self.account.management_key)
        self.check = self.another()

    def another(self) -> UsageCheck:
        """The check of a process that has just started."""
        return UsageCheck(self.db, self.keys, self.api, RotationLease(self.db, self.clock, DEPLOYMENT), self.clock)

    def at(self, text: str) -> None:
        self.clock.time = datetime.fromisoformat(text).replace(tzinfo=UTC)
        self.stand_in.set_time(text)

    def minted(self) -> Any:
        """A key in use that the rotation has minted: its text, hash and row id."""
        name = f"{PREFIX}{next(numbers):032x}"
        key = self.account.make(name)
        row_id = self.keys.intend(name, self.clock.now() + timedelta(days=90), None, None)
        self.keys.store(row_id, key["key"])
        self.keys.switch(row_id, self.clock.now(), None)
        return {"key": key["key"], "hash": key["data"]["hash"], "id": row_id, "name": name}

    def brought(self, key: Any) -> Any:
        row_id = self.keys.add(key["key"], f"brought {next(numbers)}", PoolKeySource.OPERATOR)
        return {**key, "id": row_id}

    def spend(self, key: Any, calls: int = 1) -> int:
        """Call models with a key; returns what OpenRouter charged."""
        before = self.stand_in.spent(key["hash"])
        for number in range(calls):
            assert self.stand_in.chat(key["key"], "openai/gpt-4o-mini", max_tokens=10 + number).status_code == 200
        return self.stand_in.spent(key["hash"]) - before

    def count(self, key: Any, cost_nano: int, requests: int = 1, unknown: int = 0) -> None:
        """Add to our sums of today."""
        start = self.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        place = {"period": "d", "user_id": 0, "start": start, "client_key_id": 0, "pool_key_id": key["id"]}
        sums = {"requests": requests, "cost_nano": cost_nano, "unknown": unknown}
        zero = dict.fromkeys(["errors", "prompt_tokens", "completion_tokens"], 0)
        values = place | zero | sums | {"model": f"m/{next(numbers)}"}
        self.db.transact(lambda tx: tx.execute(usage_rollups.insert().values(values)))

    def use(self, key: Any, calls: int = 1) -> int:
        """Spend, and count it as we should. Returns the cost."""
        cost = self.spend(key, calls)
        self.count(key, cost, calls)
        return cost

    def doctor(self, key: Any, nano: int) -> None:
        """Change what we counted for the key on its first day."""
        mine = usage_rollups.c.pool_key_id == key["id"]
        with self.db.reading() as tx:
            model = tx.scalar(sa.select(usage_rollups.c.model).where(mine).order_by(usage_rollups.c.start).limit(1))
        change = usage_rollups.update().where(mine, usage_rollups.c.model == model)
        self.db.transact(lambda tx: tx.execute(change.values(cost_nano=usage_rollups.c.cost_nano + nano)))

    def found(self) -> dict[tuple[str, int], Check]:
        rows, _ = daily_check_rows.page(self.db, 1, 1000)
        return {(f"{row.day:%m-%d}", row.pool_key_id): row for row in rows}

    def asked(self) -> int:
        return self.account.calls("GET", "/activity")


@pytest.fixture
def books(db: Database, envelopes: Envelopes, stand_in: Running, clock: MovableClock) -> Iterator[Books]:
    yield Books(db, envelopes, stand_in, clock)
    stand_in.control("DELETE", "faults")
    stand_in.control("POST", "settings", clock_offset_seconds=0)


def told(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    return Counter(record.getMessage() for record in caplog.records if record.name == "usage_check")


def figures(check: Check) -> tuple[int | None, ...]:
    return check.our_nano, check.activity_nano, check.our_total_nano, check.usage_nano


def test_exact_sums_agree_day_by_day_and_in_all(books, caplog):
    first, second = books.minted(), books.minted()
    monday = books.use(first, 3)
    books.at("2031-03-10T09:00:00")
    tuesday, others = books.use(first, 2), books.use(second)
    assert books.check.run_and_show()
    assert figures(books.found()["03-09", first["id"]]) == (monday, monday, monday, monday)
    assert figures(books.found()["03-09", second["id"]]) == (0, 0, 0, 0)
    books.at("2031-03-11T01:00:00")
    books.use(first)  # of a day that is not over: neither side counts it
    books.check.run_if_due()
    assert figures(books.found()["03-10", first["id"]]) == (tuesday, tuesday, monday + tuesday, monday + tuesday)
    assert figures(books.found()["03-10", second["id"]]) == (others, others, others, others)
    assert {check.verdict for check in books.found().values()} == {Verdict.EQUAL}
    assert len(books.found()) == 4
    assert told(caplog) == {}


def test_each_day_is_checked_once_and_not_before_one_o_clock(books):
    key = books.minted()
    books.use(key)
    books.at("2031-03-10T00:59:59")
    books.check.run_if_due()
    assert books.found() == {}
    books.at("2031-03-10T01:00:00")
    books.check.run_if_due()
    assert set(books.found()) == {("03-09", key["id"])}
    asked = books.asked()
    for check in (books.check, books.another()):
        check.run_if_due()
        check.run()
    books.clock.advance(hours=22)
    books.check.run_if_due()
    assert books.asked() == asked == 1
    books.at("2031-03-11T01:00:00")
    books.check.run_if_due()
    assert books.asked() == asked + 1


def test_a_doctored_sum_shows_as_a_difference_and_is_told_once(books, caplog):
    key = books.minted()
    cost = books.use(key, 2)
    books.at("2031-03-10T02:00:00")
    books.check.run_if_due()
    books.doctor(key, -2 * CENT)
    assert not books.check.run_and_show()
    check = books.found()["03-09", key["id"]]
    assert figures(check) == (cost - 2 * CENT, cost, cost - 2 * CENT, cost)
    assert (check.verdict, check.difference_nano, check.total_difference_nano) == (Verdict.DIFFERS, 2 * CENT, 2 * CENT)
    [record] = [record for record in caplog.records if record.getMessage() == "usage_differs"]
    assert record.levelno == logging.WARNING
    assert record.fields["difference_usd"] == record.fields["total_difference_usd"] == 0.02
    books.check.run()
    for day in (11, 12):
        books.at(f"2031-03-{day}T02:00:00")
        books.use(key)
        books.check.run_if_due()
    assert books.found()["03-11", key["id"]].total_difference_nano == 2 * CENT  # never hidden
    assert told(caplog) == {"usage_differs": 1}
    books.doctor(key, 2 * CENT)
    books.another().run_if_due()
    assert {check.verdict for check in books.found().values()} == {Verdict.EQUAL}


def test_what_others_spend_with_a_minted_key_shows_even_if_we_never_used_it(books, caplog):
    used, leaked = books.minted(), books.minted()
    books.use(used)
    stolen = books.spend(leaked, 400)
    assert stolen > 10_000
    books.at("2031-03-10T02:00:00")
    books.check.run_if_due()
    assert figures(books.found()["03-09", leaked["id"]]) == (0, stolen, 0, stolen)
    assert books.found()["03-09", leaked["id"]].verdict is Verdict.DIFFERS
    assert books.found()["03-09", used["id"]].verdict is Verdict.EQUAL
    assert told(caplog) == {"usage_differs": 1}


def test_a_key_that_was_brought_is_used_elsewhere_too_without_alarm(books, caplog):
    key = books.brought(books.stand_in.new_key(account=books.account.id))
    ours, theirs = books.use(key), books.spend(key, 400)
    books.at("2031-03-10T02:00:00")
    books.check.run_if_due()
    check = books.found()["03-09", key["id"]]
    assert figures(check) == (ours, ours + theirs, ours, ours + theirs)
    assert check.verdict is Verdict.ELSEWHERE
    assert told(caplog) == {}


def test_a_key_of_a_users_own_account_is_nobodys_business(books, caplog):
    key = books.stand_in.new_key(account=books.account.id)  # the operator's own account, even
    row_id = books.db.transact(lambda tx: books.keys.add_connected(tx, 7, key["key"], None))
    books.use(books.minted())
    books.use(key | {"id": row_id})
    books.spend(key)
    books.at("2031-03-10T02:00:00")
    books.check.run_if_due()
    assert row_id not in {row for _, row in books.found()}
    assert len(books.found()) == 1
    assert told(caplog) == {}


def test_a_key_of_another_account_is_not_known(books, caplog):
    key = books.brought(books.stand_in.new_key())
    ours = books.use(key)
    books.at("2031-03-10T02:00:00")
    books.check.run_if_due()
    assert figures(books.found()["03-09", key["id"]]) == (ours, None, ours, None)
    assert (books.asked(), told(caplog)) == (0, {})


def test_what_openrouter_does_not_know_yet_is_asked_again_on_the_next_days(books, caplog):
    key = books.minted()
    cost = books.use(key)
    books.at("2031-03-10T02:00:00")
    books.stand_in.set_time("2031-03-09T23:00:00")  # its day is not over: it refuses to tell of it
    books.check.run_if_due()
    check = books.found()["03-09", key["id"]]
    assert (check.activity_nano, check.verdict) == (None, Verdict.NOT_KNOWN)
    books.clock.advance(hours=3)
    books.check.run_if_due()
    assert books.asked() == 1
    books.at("2031-03-11T02:00:00")
    books.check.run_if_due()
    assert figures(books.found()["03-09", key["id"]])[:2] == (cost, cost)
    assert books.found()["03-09", key["id"]].day_verdict is Verdict.EQUAL
    assert told(caplog) == {}


def test_no_rows_of_a_day_on_which_we_spent_are_no_figure_of_nothing(books):
    key = books.minted()
    books.count(key, 5000)
    books.at("2031-03-10T02:00:00")
    books.check.run_if_due()
    assert figures(books.found()["03-09", key["id"]]) == (5000, None, 5000, 0)
    assert books.found()["03-09", key["id"]].day_verdict is Verdict.NOT_KNOWN


def test_days_further_back_than_openrouter_tells_of_are_left(books):
    key = books.minted()
    books.use(key)
    books.at("2031-04-09T02:00:00")
    books.check.run()
    assert set(books.found()) == {
        (f"{datetime(2031, 3, 9, tzinfo=UTC) + timedelta(days=n):%m-%d}", key["id"]) for n in range(1, 31)
    }
    assert books.found()["04-08", key["id"]].verdict is Verdict.EQUAL
    assert books.found()["04-08", key["id"]].our_total_nano > 0


def test_a_key_that_is_gone_keeps_its_last_usage_and_is_compared_up_to_its_end(books):
    key = books.minted()
    monday = books.use(key)
    books.at("2031-03-10T00:30:00")
    tuesday = books.use(key)
    [listed] = books.api.list_keys()
    assert (listed.usage_nano, listed.usage_today_nano) == (monday + tuesday, tuesday)
    books.keys.set_usage({key["id"]: listed.usage_nano})
    books.api.delete(key["hash"])
    books.keys.drain(key["id"], books.clock.now())
    books.keys.move(key["id"], PoolKeyState.DELETED)
    books.at("2031-03-10T02:00:00")
    books.check.run_if_due()
    assert figures(books.found()["03-09", key["id"]]) == (monday, monday, monday + tuesday, monday + tuesday)
    books.at("2031-03-12T02:00:00")
    books.check.run_if_due()
    assert set(books.found()) == {("03-09", key["id"]), ("03-10", key["id"])}
    assert books.found()["03-10", key["id"]].verdict is Verdict.EQUAL


def test_what_was_spent_before_we_counted_is_not_ours_to_explain(books, caplog):
    old = books.minted()
    books.spend(old, 400)
    books.at("2031-03-10T12:00:00")
    books.spend(old, 400)
    books.use(old)
    new = books.minted()
    books.use(new)
    books.at("2031-03-11T12:00:00")
    cost = books.use(old)
    books.at("2031-03-12T02:00:00")
    books.check.run_if_due()
    assert set(books.found()) == {("03-10", new["id"]), ("03-11", new["id"]), ("03-11", old["id"])}
    check = books.found()["03-11", old["id"]]
    assert (check.our_nano, check.activity_nano, check.usage_nano) == (cost, cost, None)
    assert {check.verdict for check in books.found().values()} == {Verdict.EQUAL}
    assert told(caplog) == {}


@pytest.mark.parametrize(("unknown", "is_told"), [(1, False), (2, True)])
def test_more_than_one_unknown_cost_in_a_thousand_calls_is_an_error(books, caplog, unknown, is_told):
    key = books.minted()
    books.count(key, books.spend(key), requests=900, unknown=unknown)
    books.count({"id": 0}, 0, requests=100)
    books.count({"id": -1}, 0, requests=100, unknown=100)  # another upstream, which never tells
    for day in (10, 11):
        books.at(f"2031-03-{day}T02:00:00")
        books.check.run_if_due()
    errors = [record for record in caplog.records if record.getMessage() == "too_many_costs_unknown"]
    assert len(errors) == is_told
    assert all(record.levelno == logging.ERROR for record in errors)
    assert all(record.fields == {"day": "2031-03-09", "unknown": 2, "requests": 1000} for record in errors)


# ── failures


@pytest.mark.parametrize(
    ("path", "scenario"), [("/activity", "500"), ("/activity", "429c"), ("/keys", "502-html"), ("/activity", "drop")]
)
def test_a_failure_of_openrouter_is_told_and_tried_again_later_and_less_often(books, caplog, path, scenario):
    key = books.minted()
    books.use(key)
    books.at("2031-03-10T02:00:00")
    books.account.fail(scenario, path=path, method="GET", times=2)
    books.check.run_if_due()
    books.check.run_if_due()
    assert told(caplog) == {"usage_check_failed": 1}
    books.clock.advance(seconds=60)
    books.check.run_if_due()
    books.clock.advance(seconds=61)
    books.check.run_if_due()
    assert (told(caplog), books.found()) == ({"usage_check_failed": 2}, {})
    books.clock.advance(seconds=60)
    books.check.run_if_due()
    assert books.found()["03-09", key["id"]].verdict is Verdict.EQUAL


def test_what_was_compared_before_a_failure_stays(books):
    keys = [books.minted() for _ in range(3)]
    books.use(keys[0])
    books.at("2031-03-10T02:00:00")
    rule = {"scenario": "500", "path": "/activity", "method": "GET", "account": books.account.id}
    books.check.run_if_due()
    books.at("2031-03-11T02:00:00")
    books.stand_in.control("POST", "faults", **rule)
    with pytest.raises(ManagementError):
        books.check.run()
    books.stand_in.control("DELETE", "faults")
    assert len(books.found()) == 3
    books.another().run_if_due()
    assert len(books.found()) == 6


@pytest.mark.parametrize("scenario", ["404a", "400"])
def test_a_refusal_to_tell_of_one_key_does_not_keep_the_others_from_being_compared(books, scenario):
    first, second = books.minted(), books.minted()
    books.use(first), books.use(second)
    books.at("2031-03-10T02:00:00")
    books.account.fail(scenario, path="/activity", method="GET")
    books.check.run_if_due()
    verdicts = [books.found()["03-09", key["id"]].day_verdict for key in (first, second)]
    assert verdicts == [Verdict.NOT_KNOWN, Verdict.EQUAL]


def test_a_database_that_is_away_stops_nobody(books, caplog):
    books.use(books.minted())
    books.at("2031-03-10T02:00:00")
    books.db.close()
    transact = books.db.transact

    def fail(work):
        raise usage_checks_error

    usage_checks_error = sa.exc.OperationalError("x", None, Exception("away"))
    books.db.transact = fail
    books.check.run_if_due()
    books.db.transact = transact
    assert told(caplog) == {"usage_check_failed": 1}
    books.clock.advance(minutes=2)
    books.check.run_if_due()
    assert len(books.found()) == 1


def test_a_fault_of_our_own_stops_nobody(books, caplog):
    books.use(books.minted())
    books.at("2031-03-10T02:00:00")

    def fail(*_):
        raise KeyError("a fault")

    books.api.activity_nano = fail
    books.check.run_if_due()
    assert told(caplog) == {"background_fault": 1}


class TickingClock(MovableClock):
    """Four seconds go by whenever somebody looks."""

    def monotonic(self) -> float:
        self.advance(seconds=4)
        return super().monotonic()


def test_a_pass_leaves_what_takes_long_to_the_next(books):
    keys = [books.minted() for _ in range(7)]
    books.use(keys[0])
    books.at("2031-03-10T02:00:00")
    clock = TickingClock()
    clock.time = books.clock.time
    check = UsageCheck(books.db, books.keys, books.api, RotationLease(books.db, clock, DEPLOYMENT), clock)
    found = []
    for _ in range(4):
        check.run_if_due()
        found.append(len(books.found()))
    assert found == [3, 6, 7, 7]
    assert books.asked() == 7


def test_while_another_process_rotates_nothing_is_compared(books):
    books.use(books.minted())
    books.at("2031-03-10T02:00:00")
    lease = RotationLease(books.db, books.clock, DEPLOYMENT)
    assert lease.take()
    books.check.run_if_due()
    with pytest.raises(LeaseLost):
        books.check.run()
    assert books.found() == {}
    lease.release()
    books.check.run_if_due()
    assert len(books.found()) == 1
    assert lease.take()  # it was given back


# ── the program


@pytest.fixture
def yesterday(empty_database_url: str, envelopes: Envelopes, stand_in: Running, tmp_path: Path) -> Iterator[Any]:
    """Books of the latest day that is checked, by the real clock, with a key that was used; and the environment of
    key_rotation.py.
    """
    db = Database(database_url(Config(database_url=empty_database_url)))
    db.upgrade()
    clock = MovableClock()
    books = Books(db, envelopes, stand_in, clock)
    books.at(f"{datetime.now(UTC) - CHECK_AT - timedelta(days=1):%Y-%m-%d}T12:00:00")
    books.key = books.minted()
    books.cost = books.use(books.key, 2)
    stand_in.control("POST", "settings", clock_offset_seconds=0)
    books.program = settings_of(empty_database_url, books.account, tmp_path) | {"POOL_SIZE": 1}
    books.program["ENCRYPTION_KEY"] = ENCRYPTION_KEY
    yield books
    db.close()


def test_the_command_compares_shows_and_ends_with_0_if_nothing_differs(yesterday):
    ended = run("key_rotation.py", "--check-usage", **yesterday.program)
    assert ended.returncode == 0, ended.stderr
    [line] = map(json.loads, ended.stdout.splitlines())
    assert (line["verdict"], line["key"]) == ("equal", yesterday.key["name"])
    assert round(line["our_usd"] * 1e9) == round(line["activity_usd"] * 1e9) == yesterday.cost > 0
    assert (run("key_rotation.py", "--check-usage", **yesterday.program).stdout, ended.returncode) == ("", 0)
    yesterday.doctor(yesterday.key, 3 * CENT)
    ended = run("key_rotation.py", "--check-usage", **yesterday.program)
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["difference_usd"] == -0.03
    assert ended.stderr.count("usage_differs") == 1
    assert "sk-or-v1" not in ended.stdout + ended.stderr


def test_the_command_ends_with_1_and_one_clear_line_when_openrouter_fails(yesterday):
    yesterday.account.fail("500", path="/activity", method="GET")
    ended = run("key_rotation.py", "--check-usage", **yesterday.program | {"LOG_LEVEL": "ERROR"})
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "OpenRouter's management API failed: GET /activity: status 500\n"


def test_the_service_checks_by_itself_and_a_failing_check_costs_no_pass(yesterday, tmp_path):
    yesterday.account.fail("500", path="/activity", method="GET", times=1)
    service = Service(tmp_path / "log", yesterday.program | {"POOL_SIZE": 2})
    try:
        wait_for(lambda: "usage_check_failed" in service.log())
        assert "key_active" in service.log()  # the pass came first
        assert service.end() == 0
        assert "Traceback" not in service.log()
        service = Service(tmp_path / "log", yesterday.program)
        wait_for(lambda: "usage_checked" in service.log())
        assert service.end() == 0
    finally:
        service.process.kill()
        service.process.wait()
    assert {check.verdict for check in yesterday.found().values()} == {Verdict.EQUAL}
