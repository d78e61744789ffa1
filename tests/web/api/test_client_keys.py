"""A user's client keys over HTTP: right for the owner, as if they were not there for anybody else."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.billing import user_of
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown

PATH = "/api/api-keys"
LATER = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
LIMITED = {
    "name": "nightly report",
    "description": "reads mail",
    "scopes": ["chat", "embeddings"],
    "models": ["anthropic/*", "openai/gpt-4o-mini"],
    "upstreams": ["openrouter"],
    "addresses": ["127.0.0.1", "2001:db8::/32"],
    "rpm": 60,
    "expires_at": LATER.isoformat(),
}
BUDGET = {"limit_usd": 2.5, "period": "day", "recovery": "steady"}
FIELDS = {
    *LIMITED,
    "id",
    "user_id",
    "team_id",
    "key_hint",
    "state",
    "budget",
    "response_cache",
    "created_at",
    "updated_at",
    "last_used",
    "revoked_at",
}


@pytest.fixture(scope="module")
def served(modules_database_url: str, start: Callable[..., Gateway], stand_in: Any) -> Gateway:
    """A gateway with an operator, where a user may have five client keys; once on each kind of database."""
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    return start(
        DATABASE_URL=modules_database_url, OPENROUTER_API_URL=stand_in.address, MAX_CLIENT_KEYS_PER_USER=5, **secrets
    )


@pytest.fixture
def owner(served: Gateway) -> str:
    return served.new_user()


def make(gateway: Gateway, token: str, **fields: Any) -> dict[str, Any]:
    return shown(gateway.ask("POST", PATH, {"name": "k"} | fields, token), 201)


# ── the owner


def test_a_key_is_made_shown_changed_and_revoked(served, owner):
    made = make(served, owner, **LIMITED, budget=BUDGET)
    secret = made.pop("key")
    assert re.fullmatch(r"sk-auto-[\w-]{43}", secret)
    assert set(made) == FIELDS
    assert made["key_hint"] == f"{secret[:10]}****"
    assert (made["user_id"], made["state"], made["last_used"]) == (user_of(owner), "active", None)
    assert {name: made[name] for name in LIMITED if name != "expires_at"}.items() <= LIMITED.items()
    assert datetime.fromisoformat(made["expires_at"]) == LATER
    assert made["budget"].items() >= (BUDGET | {"spent_usd": 0.0}).items()
    path = f"{PATH}/{made['id']}"
    assert shown(served.ask("GET", path, token=owner)) == made
    page = shown(served.ask("GET", PATH, token=owner))
    assert page == {"items": [made], "total": 1, "page": 1, "page_size": 20}
    changed = shown(served.ask("PATCH", path, {"models": None, "name": "other", "budget": None}, owner))
    assert (changed["models"], changed["name"], changed["budget"]) == (None, "other", None)
    same = FIELDS - {"models", "name", "budget", "updated_at"}
    assert {name: changed[name] for name in same} == {name: made[name] for name in same}
    revoked = shown(served.ask("DELETE", path, token=owner))
    assert (revoked["state"], revoked["id"]) == ("revoked", made["id"])
    for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
        assert served.ask(method, path, body, owner).status_code == 404
    assert shown(served.ask("GET", PATH, token=owner))["total"] == 0


def test_the_secret_is_shown_once_and_never_logged(served, owner):
    secret = make(served, owner)["key"]
    assert served.get("/api/quota", secret).status_code == 200
    assert secret[8:] not in served.ask("GET", PATH, token=owner).text
    assert secret[8:] not in served.ask("GET", "/admin/keys", token=ADMIN_TOKEN).text
    assert secret[8:] not in served.log()


def test_pages_are_cut_newest_first(served, owner):
    made = [make(served, owner)["id"] for _ in range(3)]
    page = shown(served.ask("GET", f"{PATH}?page=2&page_size=1", token=owner))
    assert ([item["id"] for item in page["items"]], page["total"]) == ([made[1]], 3)
    for query in ("page=0", "page_size=101", "user_id=1", "state=active"):
        assert served.ask("GET", f"{PATH}?{query}", token=owner).status_code == 400


def test_a_user_has_a_bounded_number_of_keys(served, owner):
    made = [make(served, owner) for _ in range(5)]
    refused = served.ask("POST", PATH, {"name": "one more"}, owner)
    assert refused.status_code == 409
    assert "may have 5 client keys" in refusal_of(refused)
    served.ask("DELETE", f"{PATH}/{made[0]['id']}", token=owner)
    make(served, owner)


def test_every_change_is_audited_by_who_made_it(served, owner):
    made = make(served, owner, name="audited")
    served.ask("PATCH", f"{PATH}/{made['id']}", {"rpm": 5}, owner)
    served.ask("DELETE", f"{PATH}/{made['id']}", token=owner)
    subject = f"subject=client-key/{made['id']}"
    actions = [line for line in served.log().splitlines() if subject in line]
    assert [word for line in actions for word in ("made", "changed", "revoked") if f"client_key_{word}" in line] == [
        "made",
        "changed",
        "revoked",
    ]
    assert all(f"actor=user/{user_of(owner)}" in line for line in actions)


# ── others


def test_a_teammate_and_a_stranger_see_and_change_nothing(served, owner):
    made = make(served, owner, **LIMITED)
    path = f"{PATH}/{made['id']}"
    unknown = served.ask("GET", f"{PATH}/999999", token=owner)
    teammate = served.new_user()
    for method, body in (("GET", None), ("PATCH", {"name": "mine"}), ("DELETE", None)):
        refused = served.ask(method, path, body, teammate)
        assert refused.status_code == unknown.status_code == 404
        assert refusal_of(refused) == refusal_of(unknown).replace("999999", str(made["id"]))
        for stranger in (None, "sk-auto-" + "A" * 43, ADMIN_TOKEN):
            assert served.ask(method, path, body, stranger).status_code == 401
    assert shown(served.ask("GET", PATH, token=teammate))["items"] == []
    still = shown(served.ask("GET", path, token=owner))
    assert still == {name: value for name, value in made.items() if name != "key"}


def test_a_client_key_cannot_administer_keys(served, owner):
    made = make(served, owner)
    for method, path, body in (
        ("GET", PATH, None),
        ("POST", PATH, {"name": "more"}),
        ("PATCH", f"{PATH}/{made['id']}", {"rpm": None}),
        ("DELETE", f"{PATH}/{made['id']}", None),
        ("GET", "/api/tokens", None),
        ("POST", "/api/tokens", {"name": "t"}),
        ("GET", "/api/usage/stats", None),
        ("GET", "/api/usage/logs", None),
        ("GET", "/api/v1/stats", None),
        ("GET", "/api/v1/keys", None),
        ("GET", "/api/upstream", None),
        ("PUT", "/api/upstream", {"choice": "shared_first"}),
        ("POST", "/api/auth/logout", {}),
    ):
        refused = served.ask(method, path, body, made["key"])
        assert refused.status_code == 403, (method, path)
        assert "what was sent is of another kind (client key)" in refusal_of(refused)
    assert served.ask("GET", "/admin/keys", token=made["key"]).status_code == 403


def test_a_client_key_sees_its_own_budget_and_not_its_owners(served, owner):
    made = make(served, owner, budget=BUDGET)
    assert shown(served.ask("GET", "/api/quota", token=made["key"]))["limit_usd"] == 2.5
    assert shown(served.ask("GET", "/api/quota", token=owner))["limit_usd"] is None
    plain = make(served, owner)
    assert shown(served.ask("GET", "/api/quota", token=plain["key"]))["limit_usd"] is None


def test_a_budget_holds_from_the_keys_first_call_on(served, owner):
    for _ in range(5):
        made = make(served, owner, budget={"limit_usd": 0})
        refused = served.chat(made["key"])
        assert (refused.status_code, refused.json()["error"]["type"]) == (402, "quota_exceeded")


def test_keys_are_shown_with_their_usage(served, owner):
    made = make(served, owner, name="unused")
    [item] = shown(served.ask("GET", "/api/v1/keys", token=owner))["items"]
    described = {
        "client_key_id": made["id"],
        "name": "unused",
        "key_hint": made["key_hint"],
        "state": "active",
        "requests": 0,
    }
    assert item.items() >= described.items()
    assert shown(served.ask("GET", "/api/v1/keys", token=served.new_user()))["items"] == []


def test_keys_are_shown_in_openrouters_form_too(served, owner):
    metered = make(served, owner, name="metered", budget={"limit_usd": 2.5, "period": "day"})
    make(served, owner, name="other")

    def data(more=""):
        return shown(served.ask("GET", f"/api/v1/keys{more}", token=owner))["data"]

    limits = ["limit", "limit_remaining", "limit_reset"]
    assert [[key[name] for name in ("name", *limits)] for key in data()] == [
        ["other", None, None, None],
        ["metered", 2.5, 2.5, "daily"],
    ]
    assert [key["hash"] for key in data("?offset=1")] == [str(metered["id"])]
    assert shown(served.ask("GET", "/api/v1/keys", token=served.new_user()))["data"] == []
    for wrong in ("include_disabled=yes", "offset=-1", "workspace_id=x"):
        assert served.ask("GET", f"/api/v1/keys?{wrong}", token=owner).status_code == 400


# ── bad input


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": None},
        {"name": ["x"]},
        {"name": "a\nb"},
        {"name": "x" * 191},
        {"description": "\x00"},
        {"scopes": []},
        {"scopes": ["admin"]},
        {"scopes": "chat"},
        {"models": []},
        {"models": ["a*b"]},
        {"models": [7]},
        {"models": {"$ne": 1}},
        {"upstreams": ["../x"]},
        {"rpm": 0},
        {"rpm": True},
        {"rpm": "5"},
        {"rpm": 1.5},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "2999-01-01"},
        {"expires_at": "9999-12-31T23:59:59-12:00"},
        {"expires_at": 4_000_000_000},
        {"expires_at": "tomorrow"},
        {"budget": 5},
        {"budget": {}},
        {"budget": {"limit_usd": -1}},
        {"budget": {"limit_usd": "5"}},
        {"budget": {"limit_usd": 5, "period": "year"}},
        {"budget": {"limit_usd": 5, "period": "none", "recovery": "steady"}},
        {"budget": {"limit_usd": 5, "spent_usd": 0}},
        {"user_id": 1},
        {"key_hash": "0" * 64},
        {"key": "sk-auto-" + "A" * 43},
        {"revoked_at": None},
        {"revision": 1},
        {"id": 1},
    ],
)
def test_what_makes_no_sense_is_a_400_and_changes_nothing(served, owner, fields):
    made = make(served, owner, **LIMITED, budget=BUDGET)
    for method, path in (("POST", PATH), ("PATCH", f"{PATH}/{made['id']}")):
        refused = served.ask(method, path, ({"name": "x"} if method == "POST" else {}) | fields, owner)
        assert refused.status_code == 400, refused.text
        assert refusal_of(refused)
    made.pop("key")
    assert shown(served.ask("GET", PATH, token=owner))["items"] == [made]


@pytest.mark.parametrize("number", ["0", "9" * 18, "9" * 30, "-1", "x", "1.5", "1%20OR%201=1"])
def test_what_is_no_id_is_a_404(served, owner, number):
    for method, body in (("GET", None), ("PATCH", {"rpm": 1}), ("DELETE", None)):
        assert served.ask(method, f"{PATH}/{number}", body, owner).status_code == 404


@pytest.mark.parametrize("name", ["'; DROP TABLE client_keys; --", "<img src=x onerror=alert(1)>", "%00", "名前 🙂"])
def test_hostile_names_are_names(served, owner, name):
    made = make(served, owner, name=name, description=name)
    assert shown(served.ask("GET", f"{PATH}/{made['id']}", token=owner))["name"] == name
