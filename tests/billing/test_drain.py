"""From a call's first byte to its row: real gateways, the stand-in's bill, and journals that processes left behind."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from config.settings import Config
from db import Database, database_url
from tables import gateway_processes, usage_ledger, usage_rollups
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, read_all, wait_for


@pytest.fixture(params=["sqlite", "mariadb"])
def billed(request: pytest.FixtureRequest, start: Callable[..., Gateway], stand_in: Running, tmp_path: Any) -> Any:
    """Starts gateways that share a database and a DATA_DIR, over one key of their own."""
    url = f"sqlite:///{tmp_path}/billed.db"
    if request.param == "mariadb":
        url = request.getfixturevalue("mariadb").new_database()
    key = stand_in.new_key()

    def begin(**settings: Any) -> tuple[Gateway, Database, str]:
        gateway = start(
            OPENROUTER_API_URL=stand_in.address,
            OPENROUTER_API_KEYS=key["key"],
            DATABASE_URL=url,
            DATA_DIR=tmp_path / "data",
            SERVER_THREADS=32,
            **settings,
        )
        return gateway, Database(database_url(Config(database_url=url))), key["hash"]

    return begin


def rows(db: Database) -> list[Any]:
    with db.reading() as tx:
        return list(tx.execute(sa.select(usage_ledger).order_by(usage_ledger.c.request_id, usage_ledger.c.attempt)))


def is_at_rest(db: Database) -> list[Any]:
    """The rows, once none is open; empty before."""
    found = rows(db)
    return found if found and not any(row.next_check_at for row in found) else []


def bill_of(stand_in: Running, key_hash: str) -> int:
    bill: int = stand_in.control("GET", "bill")["keys"][key_hash]["nano"]
    return bill


def test_what_calls_cost_is_what_openrouter_bills(billed, stand_in):
    gateway, db, key_hash = billed()
    token = gateway.new_user()
    for fields in (
        {},
        {"stream": True},
        {"stream": True, "model": "sandbox/old-usage"},
        {"model": "sandbox/whitespace"},
    ):
        assert gateway.chat(token, **fields).content
    found = wait_for(lambda: (seen := is_at_rest(db)) and len(seen) == 4 and seen)
    assert {row.state for row in found} == {"settled"}
    assert {row.source for row in found} == {"body", "stream"}
    assert sum(row.cost_nano for row in found) == bill_of(stand_in, key_hash) > 0
    assert all(row.generation_id and row.is_last and row.outcome == "complete" for row in found)
    with db.reading() as tx:
        everybody = usage_rollups.c.user_id == 0, usage_rollups.c.period == "d"
        totals = tx.execute(
            sa.select(sa.func.sum(usage_rollups.c.requests), sa.func.sum(usage_rollups.c.cost_nano)).where(*everybody)
        ).one()
    assert totals == (4, bill_of(stand_in, key_hash))


def test_a_client_that_leaves_pays_what_was_generated(billed, stand_in):
    gateway, db, key_hash = billed()
    token = gateway.new_user()
    with gateway.open_chat(token, "sandbox/stream?chunks=500&pace_ms=20") as connection:
        while b"data:" not in connection.recv(4096):
            pass
    [row] = wait_for(lambda: is_at_rest(db))
    assert (row.state, row.source, row.outcome) == ("settled", "generation", "client_gone")
    assert row.cost_nano == bill_of(stand_in, key_hash) > 0


def test_a_refused_call_costs_nothing_and_each_try_has_its_row(billed, stand_in):
    gateway, db, key_hash = billed()
    stand_in.control("POST", "faults", row="502", key=key_hash, times=1)
    assert gateway.chat(gateway.new_user()).status_code == 200
    first, second = wait_for(lambda: (seen := is_at_rest(db)) and len(seen) == 2 and seen)
    assert (first.state, first.cost_nano, first.is_last, first.attempt) == ("void", None, False, 1)
    assert (second.state, second.cost_nano, second.is_last) == ("settled", bill_of(stand_in, key_hash), True)


def test_what_a_killed_gateway_was_carrying_is_settled_by_the_next_one(billed, stand_in):
    gateway, db, key_hash = billed()
    token = gateway.new_user()
    for _ in range(3):
        assert gateway.chat(token).status_code == 200
    with gateway.open_chat(token, "sandbox/stream?chunks=500&pace_ms=20") as connection:
        while b"data:" not in connection.recv(4096):
            pass
        [child] = _workers(gateway)
        gateway.stop(signal.SIGKILL)
        _kill(child)
        read_all(connection)
    following, _, _ = billed()
    found = wait_for(lambda: following.get("/api/health") and (seen := is_at_rest(db)) and len(seen) == 4 and seen)
    assert [row.state for row in found] == ["settled"] * 4
    assert (found[-1].source, found[-1].outcome) == ("generation", "lost")
    assert sum(row.cost_nano for row in found) == bill_of(stand_in, key_hash)
    with db.reading() as tx:
        assert found[0].process_id not in tx.scalars(sa.select(gateway_processes.c.id)).all()


def _workers(gateway: Gateway) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(gateway.process.pid).children()]


def _kill(pid: int) -> None:
    import os

    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test_a_gateway_that_ends_regularly_leaves_nothing_behind(billed, tmp_path):
    gateway, db, _ = billed()
    assert gateway.chat(gateway.new_user()).status_code == 200
    assert gateway.stop() == 0
    assert [row.state for row in rows(db)] == ["settled"]
    assert list((tmp_path / "data" / "journal").iterdir()) == []
