"""Operators' view of the pool and changes to it, each of them written down."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from accounts.audit_log import AuditLog
from db import Database
from foundation.clock import Clock
from foundation.crypto import Envelopes, sha256_hex
from pool.keys import PoolKeys
from replicas.processes import GatewayProcess
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import ADMIN_TOKEN, Gateway, check_headers, refusal_of, wait_for
from tests.support.usage_rows import row as usage_row
from tests.support.usage_rows import store

FIELDS = {
    "status",
    "last_hour",
    "last_day",
    "points",
    "last_error",
    "name",
    "state",
    "enabled",
    "health",
    "reason",
    "until",
    "limit_usd",
    "remaining_usd",
    "used",
    "in_flight",
}
FIELDS |= {"expires_at", "last_used", "created_at", "source", "owner_id", "owner_label", "hash"}
CHANGES = ["/admin/pool/enable", "/admin/pool/disable", "/admin/pool/rotate"]


@pytest.fixture(scope="module")
def texts(stand_in: Any) -> list[str]:
    account = stand_in.new_account(balance=1000)["id"]
    return [stand_in.new_key(account=account)["key"] for _ in range(3)]


@pytest.fixture(scope="module")
def gateway_settings(texts: list[str]) -> dict[str, Any]:
    """Three keys."""
    return {"POOL_SIZE": 4, "OPENROUTER_API_KEYS": ",".join(texts)}


@pytest.fixture
def keys(database: Database) -> PoolKeys:
    return PoolKeys(database, Envelopes([ENCRYPTION_KEY]), Clock())


def pool(gateway: Gateway, query: str = "") -> dict[str, Any]:
    answer = gateway.get(f"/admin/pool{query}", ADMIN_TOKEN)
    assert answer.status_code == 200, answer.text
    check_headers(answer)
    return answer.json()


def name_of(text: str) -> str:
    return f"env/{sha256_hex(text)[:12]}"


def item(gateway: Gateway, name: str) -> dict[str, Any]:
    [found] = [one for one in pool(gateway, "?page_size=100&all=true")["items"] if one["name"] == name]
    return found


# ── who may


@pytest.mark.parametrize(
    "header", [f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN, f"Bearer  {ADMIN_TOKEN}", f"Token {ADMIN_TOKEN}"]
)
def test_the_token_counts_only_as_a_bearer_token(administered, header):
    answer = requests.get(f"{administered.url}/admin/pool", headers={"Authorization": header}, timeout=30)
    assert answer.status_code == 401


def test_the_operators_token_is_no_access_token(administered):
    assert administered.chat(ADMIN_TOKEN).status_code == 401


# ── the view


def test_the_pool_is_shown_without_the_keys_texts(administered, texts):
    found = pool(administered)
    assert set(found) == {"items", "total", "page", "page_size", "usable", "pool_size", "processes"}
    assert [found[name] for name in ("total", "page", "page_size", "usable", "pool_size")] == [3, 1, 20, 3, 4]
    assert [one["name"] for one in found["items"]] == [name_of(text) for text in reversed(texts)]
    for one in found["items"]:
        assert set(one) == FIELDS
        assert (one["state"], one["enabled"], one["source"]) == ("active", True, "environment")
    for text in texts:
        assert text not in json.dumps(found)
        assert sha256_hex(text) not in json.dumps(found)


def test_what_processes_report_is_merged_into_it(administered, database, keys, texts):
    [row] = [row for row in keys.rows() if row.name == name_of(texts[1])]
    process = GatewayProcess(database, Clock())
    told = {"in_flight": 2, "health": "resting", "reason": "429a", "until": "2026-11-21T12:00:00+00:00"}
    process.beat(1, {str(row.id): told})
    found = item(administered, row.name)
    assert {name: found[name] for name in told} == told
    [reported] = [one for one in pool(administered)["processes"] if one["id"] == process.id[:8]]
    assert (reported["silent"], reported["in_flight"]) == (False, 2)
    assert pool(administered)["usable"] == 2
    process.leave()
    assert pool(administered)["usable"] == 3


def test_a_key_says_in_one_word_how_it_is(administered, database, keys, texts):
    [row] = [row for row in keys.rows() if row.name == name_of(texts[2])]
    assert item(administered, row.name)["status"] == "ok"
    keys.set_enabled(row.name, False)
    assert item(administered, row.name)["status"] == "off"
    keys.set_enabled(row.name, True)


def test_a_key_tells_its_last_hour_and_day_and_its_last_error_and_another_key_none(administered, database, keys, texts):
    first, other = (next(row for row in keys.rows() if row.name == name_of(text)) for text in texts[:2])
    now = datetime.now(UTC)
    told = {"outcome": "error", "error_type": "overloaded", "http_status": 529, "error_message": "Busy; try again"}
    rows = [usage_row(number, now, pool_key_id=first.id) for number in range(3)]
    old = usage_row(4, now - timedelta(hours=20), pool_key_id=first.id)
    store(database, [*rows, old, usage_row(5, now, pool_key_id=first.id, **told)])
    found = item(administered, first.name)
    assert (found["last_hour"]["calls"], found["last_day"]["calls"], found["last_day"]["errors"]) == (4, 5, 1)
    assert (found["points"][-1]["calls"], len(found["points"])) == (4, 25)
    assert {name: found["last_error"][name] for name in ("status", "error_type", "message")} == {
        "status": 529,
        "error_type": "overloaded",
        "message": "Busy; try again",
    }
    assert (item(administered, other.name)["last_day"]["calls"], item(administered, other.name)["last_error"]) == (
        0,
        None,
    )


def test_pages_are_cut_as_asked(administered, texts):
    newest_first = [name_of(text) for text in reversed(texts)]
    for page, size, shown in ((1, 2, newest_first[:2]), (2, 2, newest_first[2:]), (3, 2, []), (1, 100, newest_first)):
        found = pool(administered, f"?page={page}&page_size={size}")
        assert [one["name"] for one in found["items"]] == shown
        assert (found["total"], found["page"], found["page_size"]) == (3, page, size)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "٣", "1e3", "+1", "%20", "9" * 5000])
@pytest.mark.parametrize("name", ["page", "page_size"])
def test_a_bad_number_is_a_400_that_names_it(administered, name, text):
    answer = administered.get(f"/admin/pool?{name}={text}", ADMIN_TOKEN)
    assert answer.status_code == 400
    assert refusal_of(answer).startswith(name)


def test_other_odd_queries_are_400s(administered):
    for query in ("page_size=101", "all=1", "owner=me", "owner=-1", "owner=", "owner=1&owner=2", "with_gone=true"):
        answer = administered.get(f"/admin/pool?{query}", ADMIN_TOKEN)
        assert answer.status_code == 400
        refusal_of(answer)


def test_keys_that_are_over_are_shown_only_if_asked_for(administered, keys):
    name = f"gw/1/{administered.port}"
    row_id = keys.intend(name, datetime.now(UTC) + timedelta(days=1), None, None)
    assert item(administered, name)["state"] == "intent"
    keys.move(row_id, "abandoned")
    assert item(administered, name)["state"] == "abandoned"
    assert name not in json.dumps(pool(administered))
    assert pool(administered)["total"] == 3


# ── changes


def test_a_disabled_key_is_not_picked_until_it_is_enabled_again(administered, database, texts):
    def usable() -> int:
        return administered.get("/api/health").json()["pool"]["usable"]

    name = name_of(texts[2])
    answer = administered.post("/admin/pool/disable", {"name": name}, ADMIN_TOKEN)
    assert (answer.status_code, answer.json()) == (200, {"name": name, "enabled": False})
    assert item(administered, name)["enabled"] is False
    wait_for(lambda: usable() == 2)
    answer = administered.post("/admin/pool/enable", {"name": name}, ADMIN_TOKEN)
    assert (answer.status_code, answer.json()) == (200, {"name": name, "enabled": True})
    wait_for(lambda: usable() == 3)
    for event in ("pool_key_disabled", "pool_key_enabled"):
        assert f"{event} request_id=" in administered.log()
        assert f"actor=admin-token subject=pool/{name}" in administered.log()
    entries, _ = AuditLog(database, Clock()).page(1, 2)
    assert [(entry.action, entry.actor, entry.subject, entry.details) for entry in entries] == [
        (action, "admin-token", f"pool/{name}", {}) for action in ("pool_key_enabled", "pool_key_disabled")
    ]


def test_a_minted_key_is_put_down_for_rotation_and_no_other(administered, keys, texts):
    name = f"gw/2/{administered.port}"
    row_id = keys.intend(name, datetime.now(UTC) + timedelta(days=1), None, None)
    keys.store(row_id, f"sk-or-v1-{administered.port:064x}")
    keys.switch(row_id, datetime.now(UTC), None)
    answer = administered.post("/admin/pool/rotate", {"name": name}, ADMIN_TOKEN)
    assert (answer.status_code, answer.json()) == (202, {"name": name, "rotation": "requested"})
    assert [row.name for row in keys.rows() if row.renew_at] == [name]
    keys.move(row_id, "dead")
    refused = administered.post("/admin/pool/rotate", {"name": name_of(texts[0])}, ADMIN_TOKEN)
    assert refused.status_code == 404
    assert "no minted key in use" in refusal_of(refused)


@pytest.mark.parametrize("path", CHANGES)
def test_an_unknown_name_is_a_404(administered, path):
    refused = administered.post(path, {"name": "nobody/'; --"}, ADMIN_TOKEN)
    assert refused.status_code == 404
    assert "nobody" in refusal_of(refused)


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": 7}, {"name": None}, {"name": ["x"]}, {"name": "x" * 191}])
def test_what_is_no_name_is_a_400(administered, path, body):
    refused = administered.post(path, body, ADMIN_TOKEN)
    assert refused.status_code == 400
    assert refusal_of(refused).startswith("name")


def test_a_body_that_is_not_json_is_refused(administered):
    answer = administered.post("/admin/pool/disable", data=b"name=x", token=ADMIN_TOKEN)
    assert answer.status_code == 415
