"""A database that answers but refuses: health says why, the log once, and all is well when it takes writes again."""

from __future__ import annotations

from tests.support.gateway import wait_for


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
