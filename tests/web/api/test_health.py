"""Health: able to work, working from memory, or not able to; without a query for whoever asks."""

from __future__ import annotations

import subprocess
import sys

import sqlalchemy as sa

from config.settings import Config
from config.version import VERSION
from db import Database, database_url
from tables import pool_keys
from tests.support.gateway import ROOT, check_headers, new_derived_key, refusal_of, wait_for


def test_a_gateway_with_keys_and_a_database_is_ok(gateway, pool_keys):
    answer = gateway.get("/api/health")
    assert answer.status_code == 200
    keys = len(pool_keys)
    assert answer.json() == {
        "status": "ok",
        "version": VERSION,
        "database": {"status": "ok", "reason": None, "kind": "sqlite"},
        "ledger": {"status": "ok", "reason": None, "behind_seconds": 0, "set_aside": 0},
        "cache": {"status": "off"},
        "clock": {"status": "ok", "skew_seconds": 0.0},
        "pool": {"status": "ok", "usable": keys, "known": keys, "refused": 0},
        "openrouter": {"status": "ok"},
        "calls": {"last_minute": 0, "failed": 0, "why": {}},
    }
    check_headers(answer)


def test_nobody_needs_a_token_to_ask_and_nobody_learns_a_name(gateway, pool_keys):
    text = gateway.get("/api/health").text
    assert "sk-or" not in text
    assert "env/" not in text


def test_a_gateway_without_keys_is_unavailable_until_it_gets_one(start, stand_in):
    gateway = start(OPENROUTER_API_URL=stand_in.address)
    answer = gateway.get("/api/health")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unavailable",
        "version": VERSION,
        "database": {"status": "ok", "reason": None, "kind": "sqlite"},
        "ledger": {"status": "ok", "reason": None, "behind_seconds": 0, "set_aside": 0},
        "cache": {"status": "off"},
        "clock": {"status": "ok", "skew_seconds": 0.0},
        "pool": {"status": "empty", "usable": 0, "known": 0, "refused": 0},
        "openrouter": {"status": "ok"},
        "calls": {"last_minute": 0, "failed": 0, "why": {}},
    }
    check_headers(answer)
    call = gateway.chat(gateway.new_user())
    assert call.status_code == 503
    assert "No OpenRouter key is available" in refusal_of(call)
    command = [sys.executable, "-m", "flask", "--app", "app", "pool", "add"]
    key = stand_in.new_key()["key"]
    subprocess.run(command, check=True, cwd=ROOT, env=gateway.settings, input=key, text=True, capture_output=True)
    wait_for(lambda: gateway.get("/api/health").status_code == 200)


def test_without_its_database_a_gateway_is_degraded_and_goes_on_from_memory(start, stand_in, mariadb):
    url = mariadb.new_database()
    key = stand_in.new_key()
    gateway = start(DATABASE_URL=url, OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=key["key"])
    token = gateway.new_user()
    account = {"username": "ann@example.com", "derived_key": new_derived_key()}
    assert gateway.post("/register", account).status_code == 201
    refresh_token = gateway.post("/login", account).json()["refresh_token"]
    assert gateway.chat(token).status_code == 200
    mariadb.stop()
    try:
        wait_for(lambda: gateway.get("/api/health").json()["status"] == "degraded")
        health = gateway.get("/api/health")
        assert health.status_code == 200
        assert health.json()["database"] == {"status": "unreachable", "reason": None, "kind": "mysql"}
        assert health.json()["pool"] == {"status": "ok", "usable": 1, "known": 1, "refused": 0}
        for _ in range(3):
            assert gateway.chat(token).status_code == 200
        for path, body in (
            ("/login", {"username": "x", "derived_key": "x"}),
            (
                "/register",
                {"username": "x", "derived_key": "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdEfGhIjKlMnOpQrStUvWxYz"},
            ),
            ("/api/auth/refresh", {"refresh_token": refresh_token}),
        ):
            answer = gateway.post(path, body)
            assert answer.status_code == 503
            assert refusal_of(answer) == "The database can't be reached; try again shortly"
            assert answer.headers["Retry-After"] == "5"
    finally:
        mariadb.start()
    wait_for(lambda: gateway.get("/api/health").json()["status"] == "ok")
    assert gateway.chat(token).status_code == 200
    assert gateway.new_user()
    gateway.stop()
    db = Database(database_url(Config(database_url=url)))
    with db.reading() as tx:
        assert tx.scalar(sa.select(pool_keys.c.use_count)) == 5
    db.close()
    assert gateway.log().count("database_unreachable") == gateway.log().count("database_reachable_again") >= 1
    assert "Traceback" not in gateway.log()


def test_live_is_who_answers_and_ready_is_who_can_carry_calls(gateway, start, stand_in):
    for path, body in (("/livez", {"status": "ok"}), ("/readyz", {"status": "ready", "reason": None})):
        answer = gateway.get(path)
        assert (answer.status_code, answer.json()) == (200, body)
        check_headers(answer)
    keyless = start(OPENROUTER_API_URL=stand_in.address)
    assert keyless.get("/livez").status_code == 200
    answer = keyless.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not_ready", "reason": "unavailable"})
