"""Signing up, logging in, refreshing and logging out: exact answers, and refusals in force in every process."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from accounts.users import Users, UserState
from config.settings import Config
from db import Database, database_url
from foundation.clock import Clock
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import JSON, Gateway, check_headers, in_threads, new_derived_key, refusal_of, wait_for


@pytest.fixture
def account(gateway: Gateway) -> dict[str, str]:
    """Somebody who has just registered."""
    made = {"username": f"{time.monotonic_ns()}@example.com", "derived_key": new_derived_key()}
    assert gateway.post("/register", made).status_code == 201
    return made


def login(gateway: Gateway, account: dict[str, str]) -> dict[str, Any]:
    answer = gateway.post("/login", account)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(gateway: Gateway, token: str) -> tuple[int, str] | None:
    """How a call with this token is refused; None if it is only for its empty body."""
    answer = gateway.post("/v1/chat/completions", {}, token)
    return None if answer.status_code == 400 else (answer.status_code, refusal_of(answer))


# ── sign up and log in


def test_the_parameters_of_key_derivation_are_those_that_clients_expect(gateway):
    answer = gateway.get("/api/auth/kdf")
    assert answer.status_code == 200
    assert answer.json() == {
        "algorithm": "argon2id",
        "time_cost": 2,
        "memory_kib": 1953,
        "parallelism": 1,
        "hash_len": 64,
        "salt": {"algorithm": "blake2b", "digest_bytes": 16, "password_prefix_characters": 6},
        "encoding": "base64url",
        "length": 64,
        "domain": answer.json()["domain"],
    }


def test_a_registration_is_answered_to_the_byte(gateway):
    answer = gateway.post("/register", {"username": f"u{time.monotonic_ns()}", "derived_key": new_derived_key()})
    assert answer.status_code == 201
    assert answer.content == b'{"message":"User registered successfully"}'
    assert answer.headers["Content-Type"] == "application/json"
    check_headers(answer)


def test_a_taken_name_is_a_400_in_the_agreed_words(gateway, account):
    for key in (account["derived_key"], new_derived_key()):
        answer = gateway.post("/register", {"username": account["username"], "derived_key": key})
        assert answer.status_code == 400
        assert refusal_of(answer) == "Username already exists"
        assert answer.json()["error"]["type"] == "username_taken"
    assert login(gateway, account)


def test_a_login_has_the_agreed_fields_and_no_other(gateway, account):
    body = login(gateway, account)
    assert set(body) == {"message", "token", "access_token", "refresh_token", "token_type", "expires_in", "user"}
    assert (body["message"], body["token_type"], body["expires_in"]) == ("Login successful", "Bearer", 86_400)
    assert body["token"] == body["access_token"]
    claims = jwt.decode(body["token"], options={"verify_signature": False})
    assert body["user"] == {
        "id": int(claims["sub"]),
        "username": None,
        "display_name": None,
        "avatar_url": None,
        "trust_level": 0,
        "is_active": True,
        "is_silenced": False,
        "role": "user",
    }
    assert claims["exp"] - claims["iat"] == body["expires_in"]
    assert refusal(gateway, body["token"]) is None


def test_unknown_user_and_wrong_key_are_answered_with_the_same_bytes(gateway, account):
    attempts = [
        {"username": account["username"], "derived_key": new_derived_key()},
        {"username": "nobody@example.com", "derived_key": new_derived_key()},
        {"username": "nobody@example.com", "derived_key": account["derived_key"]},
        {"username": account["username"], "derived_key": "x"},
    ]
    answers = [gateway.post("/login", attempt) for attempt in attempts]
    for answer in answers:
        assert answer.status_code == 401
        assert refusal_of(answer) == "Invalid credentials"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert len({answer.content for answer in answers}) == 1
    varying = {"date", "x-request-id"}
    heads = [{name.lower(): value for name, value in answer.headers.items()} for answer in answers]
    assert len({str(sorted((name, one[name]) for name in one if name not in varying)) for one in heads}) == 1


@pytest.mark.parametrize("path", ["/register", "/login"])
def test_argon2s_encoded_text_is_a_400_that_says_what_to_send(gateway, path):
    encoded = "$argon2id$v=19$m=1953,t=2,p=1$Ov0Nk5+/2tRMZRCsM5QLsA$SVyABWBKeaJ"
    answer = gateway.post(path, {"username": "x", "derived_key": encoded})
    assert answer.status_code == 400
    assert "send base64url(Argon2id(...)) cut to 64 characters" in refusal_of(answer)


@pytest.mark.parametrize("missing", ["username", "derived_key"])
@pytest.mark.parametrize("path", ["/register", "/login"])
def test_a_missing_field_is_a_400_that_names_it(gateway, path, missing):
    body = {"username": "x", "derived_key": new_derived_key()}
    del body[missing]
    answer = gateway.post(path, body)
    assert answer.status_code == 400
    assert refusal_of(answer).startswith(missing)


def test_fields_that_nobody_asked_for_are_refused(gateway):
    account = {"username": f"u{time.monotonic_ns()}", "derived_key": new_derived_key()}
    for path, taken in (
        ("/register", "derived_key, invitation, username"),
        ("/login", "derived_key, second_factor, username"),
    ):
        for name, value in {"id": 1, "user_id": 1, "is_admin": True, "role": "admin", "key_hash": "x"}.items():
            refused = gateway.post(path, account | {name: value})
            assert refused.status_code == 400
            assert refusal_of(refused) == f"There is no field '{name}' here; this takes {taken}"
    assert gateway.post("/login", account).status_code == 401


# ── refresh and log out


def test_a_refresh_gives_new_tokens_and_uses_the_old_one_up(gateway, account):
    first = login(gateway, account)
    answer = gateway.post("/api/auth/refresh", {"refresh_token": first["refresh_token"]})
    assert answer.status_code == 200
    second = answer.json()
    assert set(second) == {"access_token", "refresh_token", "token_type", "expires_in", "user"}
    assert second["user"] == first["user"]
    assert refusal(gateway, second["access_token"]) is None
    third = gateway.post("/api/auth/refresh", {"refresh_token": second["refresh_token"]})
    assert third.status_code == 200
    again = gateway.post("/api/auth/refresh", {"refresh_token": first["refresh_token"]})
    assert again.status_code == 401
    assert "used before" in refusal_of(again)
    # Whose it is can't be told any more, so it is nobody's: the whole session is over, and its owner is told.
    assert refusal(gateway, third.json()["access_token"]) == (401, "The session has ended; log in again")
    assert gateway.post("/api/auth/refresh", {"refresh_token": third.json()["refresh_token"]}).status_code == 401
    events = gateway.get("/api/auth/events", login(gateway, account)["token"]).json()["items"]
    assert [event["action"] for event in events] == ["logged_in", "refresh_token_reused", "logged_in", "registered"]
    assert events[1]["address"] == "127.0.0.1"


def test_an_answer_that_got_lost_can_be_had_again(gateway, account):
    token = login(gateway, account)["refresh_token"]
    answers = [gateway.post("/api/auth/refresh", {"refresh_token": token}).json() for _ in range(2)]
    assert answers[0]["refresh_token"] == answers[1]["refresh_token"]
    assert gateway.post("/api/auth/refresh", {"refresh_token": answers[1]["refresh_token"]}).status_code == 200


def test_a_logout_ends_both_tokens_of_this_session_and_no_other(gateway, account):
    this, other = login(gateway, account), login(gateway, account)
    answer = gateway.post("/api/auth/logout", token=this["token"])
    assert (answer.status_code, answer.json()) == (200, {"message": "Logged out"})
    assert refusal(gateway, this["token"]) == (401, "The session has ended; log in again")
    for refused in (
        gateway.post("/api/auth/logout", token=this["token"]),
        gateway.post("/api/auth/refresh", {"refresh_token": this["refresh_token"]}),
    ):
        assert refused.status_code == 401
        refusal_of(refused)
    assert refusal(gateway, other["token"]) is None


def test_nobody_logs_out_without_a_token(gateway):
    answer = gateway.post("/api/auth/logout")
    assert answer.status_code == 401
    assert "Authorization: Bearer <token>" in refusal_of(answer)


def test_a_refresh_token_is_no_access_token(gateway, account):
    status, message = refusal(gateway, login(gateway, account)["refresh_token"])
    assert status == 401
    assert "send the one that /login returned" in message


# ── several processes


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def two(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Gateway, Gateway]:
    """Two gateways on one database, once of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('shared')}/x.db"
    else:
        url = request.getfixturevalue("mariadb").new_database()
    shared = {"DATABASE_URL": url, "SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY}
    return start(**shared, SERVER="granian"), start(**shared, SERVER="gunicorn")


def wait_for_refusal(gateway: Gateway, token: str, status: int, message: str) -> None:
    """Wait for calls with this token to be refused like this."""
    wait_for(lambda: refusal(gateway, token) == (status, message))


def test_logging_out_and_changes_of_state_are_in_force_in_every_process_within_two_seconds(two):
    here, there = two
    owner, teammate, stranger = (here.new_user() for _ in range(3))
    for token in (owner, teammate, stranger):
        assert refusal(there, token) is None
    db = Database(database_url(Config(database_url=here.settings["DATABASE_URL"])))
    users = Users(db, b"", Clock())
    teammates_id = int(jwt.decode(teammate, options={"verify_signature": False})["sub"])

    users.set_state(teammates_id, UserState.SILENCED)
    assert here.post("/api/auth/logout", token=owner).status_code == 200
    for gateway in two:
        wait_for_refusal(gateway, owner, 401, "The session has ended; log in again")
        wait_for_refusal(gateway, teammate, 403, "This account may not make calls at present")
        assert refusal(gateway, stranger) is None

    users.set_state(teammates_id, UserState.DISABLED)
    for gateway in two:
        wait_for_refusal(gateway, teammate, 403, "This account is disabled")
        assert gateway.post("/api/auth/logout", token=teammate).status_code == 403
        assert refusal(gateway, stranger) is None
    db.close()


def test_of_fifty_refreshes_at_once_in_two_processes_there_is_one_successor(two):
    here, there = two
    account = {"username": "owner", "derived_key": new_derived_key()}
    assert here.post("/register", account).status_code == 201
    first = login(there, account)
    turns = itertools.cycle(two)
    answers = in_threads(50, lambda: next(turns).post("/api/auth/refresh", {"refresh_token": first["refresh_token"]}))
    assert {answer.status_code for answer in answers} == {200}
    [successor] = {answer.json()["refresh_token"] for answer in answers}
    last = here.post("/api/auth/refresh", {"refresh_token": successor})
    assert last.status_code == 200
    # What was stolen before that ends the session in both, at the latest when its access token is looked at anew.
    assert there.post("/api/auth/refresh", {"refresh_token": first["refresh_token"]}).status_code == 401
    for gateway in two:
        assert gateway.post("/api/auth/refresh", {"refresh_token": last.json()["refresh_token"]}).status_code == 401
        wait_for_refusal(gateway, last.json()["access_token"], 401, "The session has ended; log in again")


# ── very many at once


def peak_bytes(gateway: Gateway) -> int:
    """The most memory that a gateway's processes have had, each at its own time."""
    found, total = [gateway.process.pid], 0
    for pid in found:
        status = Path(f"/proc/{pid}/status").read_text()
        total += 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return total


@pytest.mark.parametrize(("server", "threads"), [("granian", 8), ("gunicorn", 64)])
def test_two_hundred_log_ins_at_once_take_little_memory_and_keep_nobody_waiting(start, server, threads):
    """Argon2 takes 19 MiB each, 3.8 GiB if all ran together. Those that wait leave threads, which refuse the rest."""
    gateway = start(SERVER=server, SERVER_THREADS=threads)
    token, before = gateway.new_user(), peak_bytes(gateway)
    body = json.dumps({"username": "unknown@example.com", "derived_key": new_derived_key()})
    log_ins = [http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60) for _ in range(200)]
    for connection in log_ins:
        connection.connect()
    for connection in log_ins:
        connection.request("POST", "/login", body, JSON)
    sockets, others = [connection.sock for connection in log_ins], 0
    while len(select.select(sockets, [], [], 0)[0]) < len(sockets):
        assert gateway.get("/api/auth/sessions", token).status_code == 200
        others += len(select.select(sockets, [], [], 0)[0]) < len(sockets)
    assert others
    answers = [connection.getresponse() for connection in log_ins]
    assert {(answer.status, answer.headers["Retry-After"]) for answer in answers} == {(401, None), (503, "1")}
    assert [answer.status for answer in answers].count(503) > 100
    for connection in log_ins:
        connection.close()
    together = len(os.sched_getaffinity(0))
    assert peak_bytes(gateway) - before < together * 19 * 2**20 + 50 * 2**20
