"""A database that answers but refuses: health says why, the log once, and all is well when it takes writes again."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

import pymysql
import pytest
from sqlalchemy.engine import make_url

from tests.support.gateway import wait_for

PATIENCE_SECONDS = 9  # less than a statement may take: whoever waits so long waits for nothing


def test_a_read_only_database_is_said_once_and_calls_are_billed_when_it_takes_writes(start, stand_in, mariadb):
    url = mariadb.new_database()
    mariadb.execute("CREATE OR REPLACE USER reader@'127.0.0.1'")
    mariadb.execute("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP ON *.* TO reader@'127.0.0.1'")
    gateway = start(
        DATABASE_URL=url.replace("root@", "reader@"),
        OPENROUTER_API_URL=stand_in.address,
        OPENROUTER_API_KEYS=stand_in.new_key()["key"],
    )
    token = gateway.new_user()
    assert gateway.chat(token).status_code == 200
    wait_for(lambda: gateway.get("/api/health").json()["status"] == "ok")
    mariadb.execute("SET GLOBAL read_only = 1")
    try:
        wait_for(lambda: gateway.get("/api/health").json()["database"]["reason"] == "read-only")
        health = gateway.get("/api/health").json()
        assert (health["status"], health["database"]["status"]) == ("degraded", "refusing")
        assert gateway.chat(token).status_code == 200
    finally:
        mariadb.execute("SET GLOBAL read_only = 0")
    wait_for(lambda: gateway.get("/api/health").json()["status"] == "ok")
    name = url.rpartition("/")[2]
    wait_for(lambda: mariadb.execute("SELECT COUNT(*) FROM usage_ledger WHERE state = 'settled'", name) == ((2,),))
    said = [line for line in gateway.log().splitlines() if "database_refuses" in line]
    assert 1 <= len(said) <= 2  # of the report, and of the ledger
    assert all("read-only" in line for line in said)


def lock(url: str) -> Callable[[], object]:
    """Have somebody else hold the whole database, which may be read; returns what lets go of it."""
    where = make_url(url)
    if where.drivername == "sqlite":
        file = sqlite3.connect(str(where.database), isolation_level=None)
        file.execute("BEGIN IMMEDIATE")
        return file.close
    server = pymysql.connect(host=where.host, port=where.port or 3306, user=where.username)
    server.cursor().execute("FLUSH TABLES WITH READ LOCK")
    return server.close


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
def test_a_locked_database_is_told_and_holds_no_call_for_long(start, stand_in, request, tmp_path, kind):
    """Whoever has no quota goes on; whoever needs a lease is told to come again, and neither waits for a time-out."""
    url = request.getfixturevalue("mariadb").new_database() if kind == "mariadb" else f"sqlite:///{tmp_path}/x.db"
    gateway = start(
        DATABASE_URL=url, OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=stand_in.new_key()["key"]
    )
    token, other = gateway.new_user(), gateway.new_user()
    made = gateway.post("/api/api-keys", {"name": "one", "budget": {"limit_usd": 5}}, other)
    client_key = made.json()["key"]
    assert gateway.chat(token).status_code == 200
    wait_for(lambda: gateway.get("/api/health").json()["status"] == "ok")
    release = lock(url)
    try:
        begun = time.monotonic()
        assert gateway.chat(client_key).status_code == 503
        assert time.monotonic() - begun < PATIENCE_SECONDS
        assert gateway.chat(token).status_code == 200
        wait_for(lambda: gateway.get("/api/health").json()["database"]["reason"] == "locked")
        begun = time.monotonic()
        assert gateway.chat(client_key).status_code == 503
        assert time.monotonic() - begun < 1
    finally:
        release()
    wait_for(lambda: gateway.get("/api/health").json()["status"] == "ok")
    wait_for(lambda: gateway.chat(client_key).status_code == 200)
