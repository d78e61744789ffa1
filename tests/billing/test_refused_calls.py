"""No refusal in silence: each has a row that its request id finds, or is in a sum; and a flood costs neither log nor others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from billing import journal as usage_journal
from billing import refused_calls
from billing.journal import UsageJournal
from billing.ledger import UsageLedger
from billing.refused_calls import MOST_ROWS, MOST_SUMS, RefusedCalls
from db import Database
from foundation.counts import Counts
from tables import refusal_sums, usage_ledger
from tests.support.billing import user_of
from tests.support.gateway import Gateway, wait_for
from tests.support.movable_clock import MovableClock
from tests.support.quota_world import caller
from tests.support.scripted_upstream import ScriptedUpstream, json_answer

ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
WHY = {"error_type": "invalid_request", "error_message": "no"}


@pytest.fixture
def refused(db: Database, clock: MovableClock, tmp_path: Path) -> Iterator[RefusedCalls]:
    journal = UsageJournal(tmp_path / "journal", "me")
    journal.check()
    journal.open()
    yield RefusedCalls(db, journal, clock, Counts())
    journal.close()


def rows_of(db: Database, refused: RefusedCalls, clock: MovableClock) -> list[Any]:
    ledger = UsageLedger(db, clock)
    refused.write_rows()
    for segment in refused._journal.take():
        ledger.apply("me", usage_journal.read(segment, []))
        segment.unlink()
    with db.reading() as tx:
        return list(tx.execute(sa.select(usage_ledger)))


def sums(db: Database) -> dict[tuple[str, str], int]:
    with db.reading() as tx:
        return {(row.caller, row.error_type): row.refusals for row in tx.execute(sa.select(refusal_sums))}


def note(refused: RefusedCalls, clock: MovableClock, user_id: int, number: int) -> None:
    request_id = f"{int(clock.now().timestamp() * 1000):012x}{user_id:010x}{number:010x}"
    refused.note(request_id, caller(user_id, 3), 400, WHY)


def test_of_a_flood_some_have_rows_and_the_rest_is_counted_and_others_keep_theirs(refused, db, clock):
    for number in range(500):
        note(refused, clock, 1, number)
    note(refused, clock, 2, 1)
    refused.write_sums()
    rows = rows_of(db, refused, clock)
    assert [sum(row.user_id == user_id for row in rows) for user_id in (1, 2)] == [MOST_ROWS, 1]
    assert {(row.state, row.outcome, row.http_status, row.error_message) for row in rows} == {
        ("void", "refused", 400, "no")
    }
    assert sums(db) == {("user/1", "invalid_request"): 500 - MOST_ROWS}
    clock.advance(minutes=1)
    note(refused, clock, 1, 1000)
    assert len(rows_of(db, refused, clock)) == MOST_ROWS + 2


def test_strangers_from_ever_new_addresses_take_no_more_memory_and_no_more_rows(refused, db, clock):
    for number in range(MOST_SUMS + 1000):
        refused.note_stranger(f"10.0.{number // 250}.{number % 250}", WHY)
        if number % 500 == 0:  # however often they are written
            refused.write_sums()
    refused.write_sums()
    found = sums(db)
    assert len(found) == MOST_SUMS + 1
    assert found["others", "invalid_request"] == 1000
    refused.note_stranger("10.0.0.0", WHY)
    refused.write_sums()
    assert sums(db)["address/10.0.0.0", "invalid_request"] == 2
    [first, second, *_] = refused_calls.latest(db, clock.now().replace(minute=0), 10)
    assert (first["caller"], first["refusals"], second["caller"]) == ("others", 1000, "address/10.0.0.0")
    refused_calls.delete_old(db, clock.now().replace(minute=0))
    assert sums(db) != {}
    clock.advance(hours=2)
    refused_calls.delete_old(db, clock.now().replace(minute=0))
    assert sums(db) == {}


def test_what_could_not_be_written_is_counted_still(refused, db, clock):
    refused.note_stranger("10.0.0.1", WHY)
    db.is_shut = True
    with pytest.raises(Exception, match="not answered"):
        refused.write_sums()
    db.is_shut = False
    refused.write_sums()
    assert sums(db) == {("address/10.0.0.1", "invalid_request"): 1}


# ── over HTTP


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def gateway(start: Callable[..., Gateway], upstream: ScriptedUpstream) -> Gateway:
    keys = ",".join(f"sk-or-v1-{digit * 64}" for digit in "ab")
    return start(OPENROUTER_API_URL=upstream.url, OPENROUTER_API_KEYS=keys, ADMIN_TOKEN=ADMIN_TOKEN, LOG_LEVEL="INFO")


def shown(gateway: Gateway, answer: requests.Response, token: str = ADMIN_TOKEN) -> dict[str, Any]:
    """What is known of the request that this answers, once it is over in the ledger too."""
    path = "/admin/logs" if token == ADMIN_TOKEN else "/api/usage/logs"

    def find() -> dict[str, Any] | None:
        found = gateway.get(f"{path}/{answer.headers['X-Request-Id']}", token)
        return found.json() if found.ok and found.json()["outcome"] else None

    return wait_for(find)


def test_each_kind_of_refusal_is_found_by_its_request_id_and_says_why(gateway, upstream):
    token, other = gateway.new_user(), gateway.new_user()
    fields = {"name": "x", "scopes": ["embeddings"], "rpm": 1}
    key = gateway.post("/api/api-keys", fields, token).json()["key"]
    refusal = b'{"error":{"code":400,"message":"sandbox says no","metadata":{"error_type":"invalid_request"}}}'
    upstream.play("no", json_answer("400 Bad Request", refusal))
    chat = {"model": "no", "messages": [{"role": "user", "content": "hi"}]}
    kinds = [
        (gateway.post("/v1/chat/completions", {"model": 7}, token), 400, "invalid_request"),
        (gateway.post("/v1/chat/completions", chat, key), 403, "permission_denied"),
        (gateway.post("/v1/embeddings", {"model": "m", "input": "x"}, key), 429, "rate_limit_exceeded"),
        (gateway.post("/v1/chat/completions", chat, token, headers={"X-Upstream": "nowhere"}), 400, "invalid_request"),
        (gateway.post("/v1/chat/completions", chat, token), 400, "invalid_request"),
    ]
    for answer, status, word in kinds:
        assert answer.status_code == status, answer.text
        for asker in (ADMIN_TOKEN, token):
            found = shown(gateway, answer, asker)
            assert (found["status"], found["error_type"], found["outcome"]) == (status, word, "refused"), found
            assert found["error_message"] == answer.json()["error"]["message"]
        assert gateway.get(f"/api/usage/logs/{answer.headers['X-Request-Id']}", other).status_code == 404
    assert found["error_message"] == "sandbox says no"


def test_a_try_that_another_one_followed_says_why_to_operators_alone(gateway, upstream):
    token = gateway.new_user()
    limited = b'{"error":{"code":429,"message":"Rate limit exceeded","metadata":{"error_type":"rate_limit_exceeded"}}}'
    whole = b'{"id":"gen-7","choices":[{"message":{"content":"hi"}}],"usage":{"cost":0.000007}}'
    limit, answers = json_answer("429 Too Many Requests", limited), json_answer("200 OK", whole)
    upstream.play_in_turn("later", [limit], [answers])
    answer = gateway.post(
        "/v1/chat/completions", {"model": "later", "messages": [{"role": "user", "content": "hi"}]}, token
    )
    assert answer.status_code == 200, answer.text
    found = shown(gateway, answer)
    first, second = found["attempts"]
    assert (found["tries"], found["error_type"]) == (2, None)
    assert (first["status"], first["error_message"], first["state"]) == (429, "Rate limit exceeded", "void")
    assert first["pool_key"] != second["pool_key"]
    assert (second["generation_id"], second["cost_nano"]) == ("gen-7", 7000)
    own = shown(gateway, answer, token)
    assert [set(one) for one in own["attempts"]] == [
        {"attempt", "state", "source", "cost_nano", "cost_usd", "generation_id"}
    ] * 2
    assert "pool_key" not in own
    assert "user_id" not in own


def test_strangers_are_counted_by_address_and_not_in_the_log(gateway):
    token = gateway.new_user()
    for _ in range(20):
        assert gateway.chat("sk-auto-" + "x" * 43).status_code == 401

    def counted() -> bool:
        items = gateway.get("/admin/refusals", ADMIN_TOKEN).json()["items"]
        return any(
            (row["caller"], row["error_type"]) == ("address/127.0.0.1", "authentication_error")
            and row["refusals"] >= 20
            for row in items
        )

    wait_for(counted)
    logged = gateway.get("/admin/logs?page_size=100", ADMIN_TOKEN).json()["items"]
    assert all(item["status"] != 401 for item in logged)
    assert gateway.get("/admin/refusals", token).status_code in {401, 403}
    assert user_of(token)
