"""A user's API tokens over HTTP: they read usage, so many times an hour, and can do nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.billing import user_of
from tests.support.gateway import Gateway, rate_limits_in, refusal_of

PATH = "/api/tokens"
READABLE = [
    "/api/v1/stats",
    "/api/v1/usage",
    "/api/v1/keys",
    "/api/usage/stats",
    "/api/usage/logs",
    "/api/usage/logs/export?format=jsonl",
]


@pytest.fixture(scope="module")
def served(modules_database_url: str, start: Callable[..., Gateway], stand_in: Any) -> Gateway:
    """A gateway where a token may be used twelve times an hour, on each kind of database."""
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "API_TOKEN_RATE_LIMIT_PER_HOUR": 12}
    return start(DATABASE_URL=modules_database_url, OPENROUTER_API_URL=stand_in.address, **secrets)


@pytest.fixture
def owner(served: Gateway) -> str:
    return served.new_user()


def make(gateway: Gateway, token: str, **fields: Any) -> dict[str, Any]:
    answer = gateway.ask("POST", PATH, {"name": "dashboard"} | fields, token)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_token_is_made_listed_used_and_revoked(served, owner):
    made = make(served, owner, expires_at="2998-01-01T00:00:00Z")
    secret = made.pop("token")
    assert re.fullmatch(r"or_api_[\w-]{43}", secret)
    assert made["token_hint"] == f"{secret[:9]}****"
    assert set(made) == {"id", "token_hint", "name", "expires_at", "created_at", "last_used"}
    page = served.ask("GET", PATH, token=owner)
    assert page.json() == {"items": [made], "total": 1, "page": 1, "page_size": 20}
    for path in READABLE:
        assert served.get(path, secret).status_code == 200, path
    revoked = served.ask("DELETE", f"{PATH}/{made['id']}", token=owner)
    assert (revoked.status_code, revoked.json()) == (200, {"id": made["id"], "message": "Revoked"})
    assert served.get(READABLE[0], secret).status_code == 401
    assert served.ask("DELETE", f"{PATH}/{made['id']}", token=owner).status_code == 404
    assert secret[7:] not in served.log()
    assert f"api_token_revoked request_id={revoked.headers['X-Request-Id']} actor=user/{user_of(owner)}" in served.log()


def test_a_token_shows_its_owners_figures_only(served, owner):
    made = make(served, owner)
    served.post(  # a key of the owner's, and one of somebody else's
        "/api/api-keys", {"name": "mine"}, owner
    )
    served.post("/api/api-keys", {"name": "theirs"}, served.new_user())
    items = served.get("/api/v1/keys", made["token"]).json()["items"]
    assert [item["name"] for item in items] == ["mine"]


def test_a_token_can_do_nothing_else(served, owner):
    secret = make(served, owner)["token"]
    for method, path, body in (
        ("GET", PATH, None),
        ("POST", PATH, {"name": "more"}),
        ("DELETE", f"{PATH}/1", None),
        ("GET", "/api/api-keys", None),
        ("POST", "/api/api-keys", {"name": "more"}),
        ("GET", "/api/quota", None),
        ("GET", "/api/upstream", None),
        ("POST", "/api/auth/logout", {}),
        ("POST", "/v1/chat/completions", {"model": "a/b", "messages": [{"role": "user", "content": "Hi"}]}),
        ("POST", "/api/proxy/openrouter", {"model": "a/b", "messages": [{"role": "user", "content": "Hi"}]}),
    ):
        refused = served.ask(method, path, body, secret)
        assert refused.status_code == 403, (method, path, refused.text)
        assert "what was sent is of another kind (API token)" in refusal_of(refused)


def test_nobody_elses_token_is_seen_or_revoked(served, owner):
    made = make(served, owner)
    teammate = served.new_user()
    assert served.ask("GET", PATH, token=teammate).json()["items"] == []
    assert served.ask("DELETE", f"{PATH}/{made['id']}", token=teammate).status_code == 404
    for stranger in (None, "or_api_' OR 1=1-- ", "or_api_" + "A" * 43):
        assert served.ask("GET", PATH, token=stranger).status_code == 401
        assert served.ask("DELETE", f"{PATH}/{made['id']}", token=stranger).status_code == 401
    assert served.get(READABLE[0], made["token"]).status_code == 200


def test_a_token_is_used_so_many_times_an_hour_and_others_are_not_held_up(served, owner):
    # Not more than an hour's worth, even if the hour ends meanwhile: then another one begins.
    first, second = make(served, owner)["token"], make(served, owner)["token"]
    answers = [served.get(READABLE[0], first) for _ in range(25)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 1 <= len(refused) <= 13
    assert "allows 12 an hour per token" in refusal_of(refused[0])
    assert refused[0].headers["RateLimit-Policy"] == '"token-requests";q=12;w=3600'
    assert rate_limits_in(refused[0].headers["RateLimit"])["token-requests"]["r"] == 0
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 3600
    assert served.get(READABLE[0], second).status_code == 200
    assert served.get(READABLE[0], owner).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": 7},
        {"name": "a\nb"},
        {"name": "x", "expires_at": "2001-01-01T00:00:00Z"},
        {"name": "x", "user_id": 1},
        {"name": "x", "token_hash": "0"},
        [],
    ],
)
def test_what_makes_no_sense_is_a_400(served, owner, body):
    assert served.ask("POST", PATH, body, owner).status_code == 400
    assert served.ask("GET", PATH, token=owner).json()["total"] == 0
