"""What gateways report about themselves: a key may be stopped only when nobody can be using it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import requests

from config.settings import Config
from db import Database, Transaction, database_url
from replicas.processes import (
    SILENT_IS_DEAD,
    GatewayProcess,
    ProcessReport,
    beaten_at,
    forget_dead,
    is_silent,
    reports,
)
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, wait_for
from tests.support.movable_clock import MovableClock
from tests.support.rows import each_row


@pytest.fixture
def process(db: Database, clock: MovableClock) -> GatewayProcess:
    return GatewayProcess(db, clock)


def report(keys_revision: int = 7, **keys: dict[str, object]) -> ProcessReport:
    return ProcessReport("x", datetime.now(UTC), keys_revision, {name.strip("_"): told for name, told in keys.items()})


@each_row(
    ("told", "may_use"),
    [
        (report(6), True),  # it may not know of the switch
        (report(6, _1={"in_flight": 0}), True),
        (report(6, _1={"in_flight": 2}), True),
        (report(7), False),
        (report(8), False),
        (report(7, _1={"in_flight": 0}), False),
        (report(7, _1={}), False),
        (report(7, _2={"in_flight": 2}), False),
        (report(7, _1={"in_flight": 1}), True),
        (report(8, _1={"in_flight": 1}), True),
        (report(0), True),
    ],
)
def test_a_process_may_use_a_key_until_it_knows_better_and_has_no_call_on_it(told, may_use):
    assert told.may_use(1, since_revision=7) is may_use


def test_a_report_is_read_as_it_was_written_and_replaces_the_one_before(db, clock, process):
    process.beat(3, {"1": {"in_flight": 2}})
    clock.advance(seconds=5)
    process.beat(4, {"1": {"in_flight": 0}, "2": {"in_flight": 1, "rests": 9.5}})
    keys = {"1": {"in_flight": 0}, "2": {"in_flight": 1, "rests": 9.5}}
    assert reports(db, clock.now()) == [ProcessReport(process.id, clock.now(), 4, keys)]


def test_a_report_may_be_about_thousands_of_keys(db, clock, process):
    keys = {str(number): {"in_flight": number} for number in range(5000)}
    process.beat(1, keys)
    assert reports(db, clock.now())[0].keys == keys


def test_every_process_has_a_row_of_its_own(db, clock, process):
    other = GatewayProcess(db, clock)
    process.beat(1, {})
    other.beat(2, {})
    assert {each.id: each.keys_revision for each in reports(db, clock.now())} == {process.id: 1, other.id: 2}
    process.leave()
    process.leave()
    assert [each.id for each in reports(db, clock.now())] == [other.id]


def test_a_process_counts_until_it_has_been_silent_for_longer_than_any_answer_takes(db, clock, process):
    process.beat(1, {})
    clock.advance(seconds=SILENT_IS_DEAD.total_seconds() - 1)
    forget_dead(db, clock.now())
    assert len(reports(db, clock.now())) == 1
    clock.advance(seconds=1)
    assert reports(db, clock.now()) == []


def test_a_process_that_is_found_silent_can_not_report_before_what_follows_from_that_is_done(db, clock, process):
    """Else it would go on to use what is taken from it in that moment."""
    process.beat(1, {})
    other = GatewayProcess(db, clock)
    other.beat(1, {})
    clock.advance(minutes=1)
    reporting = threading.Thread(target=process.beat, args=(2, {}))

    def take_away(tx: Transaction) -> None:
        assert is_silent(tx, process.id, clock.now())
        if reporting.ident is None:
            reporting.start()
        reporting.join(0.2)  # it can't come to its end, however long one waits
        assert reporting.is_alive()

    db.transact(take_away)
    reporting.join()
    with db.reading() as tx:
        assert beaten_at(tx, process.id) == clock.now()
    assert not db.transact(lambda tx: is_silent(tx, process.id, clock.now()))
    assert db.transact(lambda tx: is_silent(tx, other.id, clock.now()))


def test_only_the_rows_of_the_dead_are_removed(db, clock, process):
    other = GatewayProcess(db, clock)
    process.beat(1, {})
    begun = clock.now()
    clock.advance(seconds=1)
    other.beat(1, {})
    forget_dead(db, begun + SILENT_IS_DEAD)
    assert [each.id for each in reports(db, begun)] == [other.id]


# ── of running gateways


@pytest.fixture
def gateway_on(start: Callable[..., Gateway], stand_in: Running) -> Callable[..., Gateway]:
    def begin(url: str, **settings: object) -> Gateway:
        return start(
            DATABASE_URL=url,
            ENCRYPTION_KEY=ENCRYPTION_KEY,
            SECRET_KEY=SECRET_KEY,
            OPENROUTER_API_URL=stand_in.address,
            OPENROUTER_API_KEYS=stand_in.new_key()["key"],
            **settings,
        )

    return begin


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/gateway.db"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """What the rotation sees."""
    opened = Database(database_url(Config(database_url=url)))
    opened.upgrade()
    yield opened
    opened.close()


def rows(database: Database) -> dict[str, ProcessReport]:
    return {each.id: each for each in reports(database, datetime.now(UTC))}


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_a_gateway_is_known_before_its_first_call_reports_on_and_leaves_at_its_end(gateway_on, url, database, server):
    gateway = gateway_on(url, SERVER=server)  # has answered once: from then on it may be sent calls
    [first] = rows(database).values()
    assert first.keys_revision > 0
    later = wait_for(lambda: [each for each in rows(database).values() if each.beat_at > first.beat_at])
    assert [each.id for each in later] == [first.id]
    assert gateway.stop(signal.SIGTERM) == 0
    assert rows(database) == {}


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_each_worker_of_a_gateway_has_a_row(gateway_on, url, database, server):
    gateway = gateway_on(url, SERVER=server, SERVER_WORKERS=2)

    def both_are_known() -> bool:
        with requests.Session() as fresh:  # a worker serves, and reports, from its first call on
            fresh.get(f"{gateway.url}/api/health", timeout=30)
        return len(rows(database)) == 2

    wait_for(both_are_known)
    assert gateway.stop() == 0
    assert rows(database) == {}


def test_a_gateway_that_was_killed_counts_until_it_must_be_dead(gateway_on, url, database):
    gateway = gateway_on(url, SERVER="granian")
    family = [psutil.Process(gateway.process.pid), *psutil.Process(gateway.process.pid).children(recursive=True)]
    [row] = rows(database).values()
    for member in family:
        os.kill(member.pid, signal.SIGKILL)
    psutil.wait_procs(family[1:], 10)
    gateway.process.wait(60)
    [left] = rows(database).values()
    assert left.id == row.id
    assert left.may_use(1, left.keys_revision + 1)
    assert reports(database, left.beat_at + SILENT_IS_DEAD - timedelta(seconds=1))
    assert not reports(database, left.beat_at + SILENT_IS_DEAD)
