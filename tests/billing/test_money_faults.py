"""The fault grid: whatever breaks, wherever in an answer, each call upstream has one row, and the money is OpenRouter's.

Six places of an answer against six faults. All places of a fault go through one gateway at once, for two users, as
streams and, where it makes a difference, as plain answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from billing.ledger import UsageLedger
from billing.quotas.rows import Quotas
from billing.records import State
from config.settings import Config
from tables import quotas, usage_rollups
from tests.billing.test_ledger import answered, dispatched, left, new_id, rows, settled
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, refusal_of, wait_for
from tests.support.mariadb import DatabaseServer
from tests.support.money_world import PLACES, PLAIN_PLACES, Expected, World, is_whole

MakeWorld = Callable[..., World]
PAUSE_MS = 2000
CANT_WRITE = "The service can't keep accounts at this moment; try again shortly"

# What is expected, by place and stream: the state and the source of each try's row, and how the request ended.
BY_NAME, STREAM, BODY = "settled generation", "settled stream", "settled body"


def all_places(stream: tuple[str, ...], plain: tuple[str, ...]) -> Expected:
    return {(place, True): stream for place in PLACES} | {(place, False): plain for place in PLAIN_PLACES}


LEFT = all_places((BY_NAME, "client_gone"), (BY_NAME, "client_gone"))  # nobody reads a plain answer to its end
LEFT |= {("headers", stream): ("unknown", "client_gone") for stream in (True, False)}
LEFT |= {(place, True): (STREAM, "client_gone") for place in ("done", "end")}

RESET: Expected = {
    ("headers", True): ("unknown", "unknown", "failed"),
    ("body", True): (BY_NAME, BY_NAME, BY_NAME, "failed"),
    ("middle", True): (BY_NAME, "cut"),
    ("usage", True): (BY_NAME, "cut"),
    ("done", True): (STREAM, "cut"),
    ("end", True): (STREAM, "complete"),
    ("headers", False): ("unknown", "unknown", "failed"),
    ("body", False): (BY_NAME, BY_NAME, BY_NAME, "failed"),
    ("middle", False): (BY_NAME, "failed"),
    ("done", False): (BY_NAME, "failed"),
}
HUNG = all_places((BY_NAME, "stalled"), (BY_NAME, "failed"))
HUNG |= {("headers", True): ("unknown", "failed"), ("headers", False): ("unknown", "failed")}
HUNG |= {("body", True): (BY_NAME, "failed"), ("done", True): (STREAM, "stalled"), ("end", True): (STREAM, "complete")}

LOST = all_places((BY_NAME, "lost"), (BY_NAME, "lost"))
LOST |= {("headers", stream): ("unknown", "lost") for stream in (True, False)}

UNHARMED = all_places((STREAM, "complete"), (BODY, "complete"))


@pytest.fixture
def make_world(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], stand_in: Running, tmp_path: Path
) -> Iterator[MakeWorld]:
    worlds: list[World] = []

    def make(database: str | DatabaseServer, **settings: Any) -> World:
        if database == "mariadb":
            database = request.getfixturevalue("mariadb")
        url = f"sqlite:///{tmp_path}/money.db" if isinstance(database, str) else database.new_database()
        worlds.append(World(start, stand_in, url, tmp_path, **settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def test_clients_who_leave_pay_what_was_generated(make_world):
    world = make_world("mariadb")
    calls = world.calls("stall", LEFT)
    world.wait_for_breaks(calls)
    world.wait_for_names(calls)
    for call in calls:
        if call.stream and call.place in {"done", "end"}:
            call.read_until(b"[DONE]" if call.place == "end" else b'"usage"')
        call.connection.close()
    world.check(calls)


def test_what_the_upstream_resets_is_billed_as_far_as_it_came(make_world):
    world = make_world("sqlite")
    calls = world.calls("reset", RESET)
    world.read(calls)
    world.check(calls)


def test_what_hangs_is_billed_as_far_as_it_came(make_world):
    world = make_world("mariadb", UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS=4, UPSTREAM_IDLE_TIMEOUT_SECONDS=1)
    calls = world.calls("stall", HUNG)
    world.read(calls)
    world.check(calls)


def test_a_killed_workers_calls_are_settled_by_its_successor(make_world):
    world = make_world("sqlite", SERVER="gunicorn")
    calls = world.calls("stall", LOST)
    world.wait_for_breaks(calls)
    world.wait_for_names(calls)
    world.kill_workers()
    world.read(calls)
    assert world.gateway.get("/api/health").ok  # gunicorn's workers begin to work when they are first asked
    world.check(calls)


@pytest.mark.parametrize(("server", "database"), [("granian", "sqlite"), ("gunicorn", "mariadb")])
def test_a_gateway_that_is_told_to_stop_lets_calls_finish_and_settles_them_itself(make_world, server, database):
    world = make_world(database, SERVER=server)
    calls = world.calls("pause", UNHARMED, break_ms=PAUSE_MS)
    world.wait_for_breaks(calls)
    assert world.gateway.stop() == 0
    assert all(map(is_whole, world.read(calls).values()))
    world.check(calls)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A database server that may be stopped."""
    server = DatabaseServer(tmp_path_factory.mktemp("stopped"))
    yield server
    server.stop()


def test_a_database_that_is_down_costs_no_call_and_no_row(make_world, own_server):
    world = make_world(own_server)
    calls = world.calls("pause", UNHARMED, break_ms=PAUSE_MS)
    world.wait_for_breaks(calls)
    down_at = datetime.now(UTC)
    own_server.stop()
    assert all(map(is_whole, world.read(calls).values()))
    own_server.start()
    world.check(calls)
    assert any(row["settled_at"] > down_at for row in world.rows())


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_a_full_disk_costs_no_call_that_was_let_in_and_lets_no_other_in(make_world, server):
    """What ends meanwhile is answered, waits in memory, and is paid when there is room."""
    world = make_world("mariadb", SERVER=server)
    calls = world.calls("pause", UNHARMED, break_ms=PAUSE_MS)
    world.wait_for_breaks(calls)
    limits = {worker: worker.rlimit(psutil.RLIMIT_FSIZE) for worker in world.workers()}
    for worker, (_, most) in limits.items():
        worker.rlimit(psutil.RLIMIT_FSIZE, (0, most))
    assert all(map(is_whole, world.read(calls).values()))
    wait_for(lambda: world.gateway.get("/api/health").json()["ledger"]["status"] == "unwritable")
    assert world.gateway.get("/api/health").status_code == 503
    sent = len(world.received())
    for token in world.tokens.values():
        answer = world.gateway.post(
            "/v1/chat/completions",
            {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]},
            token,
        )
        assert (answer.status_code, refusal_of(answer)) == (503, CANT_WRITE)
    assert len(world.received()) == sent
    for worker, limit in limits.items():
        worker.rlimit(psutil.RLIMIT_FSIZE, limit)
    wait_for(lambda: world.gateway.get("/api/health").json()["status"] == "ok")
    world.check(calls)


def test_what_a_gateway_carried_and_what_it_could_not_store_is_settled_by_the_next_one(make_world, own_server):
    """Killed while the database is down: some calls are at every place, others are over, but only in the journal."""
    world = make_world(own_server)
    carried, over = world.calls("stall", LOST), world.calls("pause", UNHARMED, break_ms=PAUSE_MS)
    world.wait_for_breaks(carried + over)
    own_server.stop()
    assert all(map(is_whole, world.read(over).values()))
    world.wait_for_names(carried)
    world.kill()
    own_server.start()
    world.read(carried)
    world.start()
    world.check(carried + over)


def test_a_gateway_that_stops_while_the_database_is_down_leaves_its_journal_to_the_next_one(make_world, own_server):
    world = make_world(own_server)
    calls = world.calls("pause", UNHARMED, break_ms=PAUSE_MS)
    world.wait_for_breaks(calls)
    own_server.stop()
    assert world.gateway.stop() == 0
    assert all(map(is_whole, world.read(calls).values()))
    own_server.start()
    world.start()
    world.check(calls)


# ── the border of a window


MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize("old_first", [True, False])
def test_a_cost_belongs_to_the_window_in_which_its_request_came(db, clock, old_first):
    """Requests of the last and the first millisecond of a day, whose costs come, and come again, after midnight."""
    limits = Quotas(db, clock, Config())
    quota_id = limits.set("user/1", 10**9, None, "day", "reset").id
    ledger = UsageLedger(db, clock)
    begin = {"user_quota_id": quota_id, "reserved_nano": 100}
    clock.time = MIDNIGHT - timedelta(milliseconds=1)
    old, pending = new_id(clock.now()), new_id(clock.now())
    ledger.apply(
        "me", [dispatched(old, **begin), dispatched(pending, **begin), answered(pending, "gen-1"), left(pending)]
    )
    clock.time = MIDNIGHT
    new = new_id(clock.now())
    ledger.apply("me", [dispatched(new, **begin)])
    clock.advance(seconds=5)
    ends = [lambda: ledger.apply("me", [settled(old, 30)]), lambda: ledger.apply("me", [settled(new, 40)])]
    late = [lambda: ledger.settle((pending, 1), state=State.SETTLED, source="generation", cost_nano=50)]
    for end in (ends + late if old_first else ends[::-1] + late) * 2:
        end()
    [quota] = rows(db, quotas)
    assert (quota["spent_nano"], quota["window_start"]) == (40, MIDNIGHT)
    assert quota["reserved_nano"] == 0
    sums = [row for row in rows(db, usage_rollups) if (row["period"], row["user_id"]) == ("d", 1)]
    assert {row["start"]: row["cost_nano"] for row in sums} == {MIDNIGHT - timedelta(days=1): 80, MIDNIGHT: 40}
    found = limits.find("user/1")
    assert found
    assert found.spent_nano == 40
