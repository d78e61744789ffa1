"""Client keys at two replicas over one database: what they allow, and how soon a change holds everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from accounts.users import Users, UserState
from foundation.clock import Clock
from tests.sandbox.conftest import Running
from tests.support.billing import COMPLETION_NANO, Billing, user_of
from tests.support.gateway import Gateway, refusal_of, wait_for
from tests.support.mariadb import DatabaseServer


class World:
    """Two gateways, the owner of keys, and a database server that may stop."""

    def __init__(self, server: DatabaseServer, billing: Billing) -> None:
        self.server, self.billing = server, billing
        self.here, self.there = (billing.gateway(SERVER_THREADS=32, MAX_CLIENT_KEYS_PER_USER=1000) for _ in range(2))
        self.owner = self.here.new_user()

    def key(self, owner: str | None = None, **fields: Any) -> tuple[int, str]:
        """A new key that works everywhere: its id and its text."""
        answer = self.here.post("/api/api-keys", {"name": "k"} | fields, owner or self.owner)
        assert answer.status_code == 201, answer.text
        key_id, secret = answer.json()["id"], answer.json()["key"]
        wait_for(lambda: self.there.get("/api/quota", secret).status_code == 200)
        return key_id, secret

    def change(self, key_id: int, **fields: Any) -> None:
        headers = {"Authorization": f"Bearer {self.owner}"}
        answer = requests.patch(f"{self.here.url}/api/api-keys/{key_id}", json=fields, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text

    def revoke(self, key_id: int) -> None:
        headers = {"Authorization": f"Bearer {self.owner}"}
        assert requests.delete(f"{self.here.url}/api/api-keys/{key_id}", headers=headers, timeout=30).status_code == 200

    def both(self, secret: str, **fields: Any) -> set[int]:
        """What a call gets at each replica."""
        return {gateway.chat(secret, **fields).status_code for gateway in (self.here, self.there)}


@pytest.fixture(scope="module")
def world(
    start: Callable[..., Gateway], stand_in: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("client-keys")
    server = DatabaseServer(folder)
    billing = Billing(start, stand_in, server.new_database(), folder)
    made = World(server, billing)
    yield made
    made.here.stop()
    made.there.stop()
    billing.close()
    server.stop()


# ── everywhere within two seconds


def test_a_revoked_key_is_refused_everywhere(world):
    key_id, secret = world.key()
    assert world.both(secret) == {200}
    world.revoke(key_id)
    assert world.here.chat(secret).status_code == 401
    wait_for(lambda: world.there.chat(secret).status_code == 401)
    refused = world.there.chat(secret)
    assert refusal_of(refused) == "The client key is unknown, revoked or expired"


def test_a_change_holds_everywhere(world):
    key_id, secret = world.key()
    world.change(key_id, models=["anthropic/*"])
    assert world.here.chat(secret).status_code == 403
    wait_for(lambda: world.there.chat(secret).status_code == 403)
    world.change(key_id, models=None)
    wait_for(lambda: world.both(secret) == {200})


def test_an_expired_key_is_refused_everywhere_by_the_clock(world):
    key_id, secret = world.key()
    at = datetime.now(UTC) + timedelta(seconds=2)
    world.change(key_id, expires_at=at.isoformat())
    wait_for(lambda: world.both(secret) == {401})
    assert datetime.now(UTC) >= at


def test_a_silenced_and_a_disabled_owners_keys_are_refused_everywhere(world):
    owner, teammate = world.here.new_user(), world.here.new_user()
    (_, secret), (_, other) = world.key(owner), world.key(teammate)
    users = Users(world.billing.db, b"k" * 32, Clock())
    for state in (UserState.SILENCED, UserState.DISABLED):
        users.set_state(user_of(owner), state)
        wait_for(lambda: world.both(secret) == {403})
        status = 200 if state is UserState.SILENCED else 403
        wait_for(lambda status=status: world.there.get("/api/quota", secret).status_code == status)
    assert world.both(other) == {200}
    users.set_state(user_of(owner), UserState.ACTIVE)
    wait_for(lambda: world.both(secret) == {200})


def test_the_last_use_is_written_a_little_later(world):
    key_id, secret = world.key()
    assert world.there.chat(secret).status_code == 200
    used = wait_for(lambda: world.here.get(f"/api/api-keys/{key_id}", world.owner).json()["last_used"])
    assert datetime.now(UTC) - datetime.fromisoformat(used) < timedelta(minutes=1)


# ── what a key allows


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "openai/gpt-4o-mini"}, 200),
        ({"model": "openai/gpt-4o-mini", "models": ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4.5"]}, 200),
        ({"model": "openai/gpt-4o"}, 403),
        ({"model": "OPENAI/gpt-4o-mini"}, 403),
        ({"model": "openai/gpt-4o-mini:online"}, 403),
        ({"model": "openai/gpt-4o-mini@preset/x"}, 403),
        ({"model": "openai/gpt-4o-mini", "models": ["openai/gpt-4o"]}, 403),
        ({"model": None, "models": ["openai/gpt-4o"]}, 403),
        ({"model": None}, 403),
        ({"model": ""}, 403),
        ({"model": "openai/gpt-4o-mini", "plugins": [{"id": "fusion"}]}, 403),
        ({"model": "openai/gpt-4o-mini", "tools": [{"type": "openrouter:subagent"}]}, 403),
        ({"model": "openai/gpt-4o-mini", "preset": "mine"}, 403),
        ({"model": "openai/gpt-4o-mini", "plugins": [{"id": "web"}]}, 200),
        ({"model": ["openai/gpt-4o-mini"]}, 400),
    ],
)
def test_only_allowed_models_are_reached(world, body, status):
    _, secret = world.key(models=["openai/gpt-4o-mini", "anthropic/*"])
    answer = world.there.chat(secret, **body)
    assert answer.status_code == status, answer.text
    if status == 403:
        assert "it may use anthropic/*, openai/gpt-4o-mini" in refusal_of(answer)


def test_a_key_is_for_its_apis_and_upstreams_only(world):
    _, embeddings = world.key(scopes=["embeddings"])
    refused = world.there.chat(embeddings)
    assert (refused.status_code, "it is for embeddings" in refusal_of(refused)) == (403, True)
    _, elsewhere = world.key(upstreams=["local"])
    refused = world.there.chat(elsewhere)
    assert (refused.status_code, "it may use local" in refusal_of(refused)) == (403, True)
    _, both = world.key(scopes=["chat"], upstreams=["openrouter"])
    assert world.both(both) == {200}


FORMATS = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "completions": ("/v1/completions", {"prompt": "Hi"}),
    "embeddings": ("/v1/embeddings", {"input": "Hi"}),
    "responses": ("/v1/responses", {"input": "Hi"}),
    "messages": ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}),
}


@pytest.mark.parametrize("scope", FORMATS)
def test_in_every_format_scope_and_models_hold(world, scope):
    _, wrong = world.key(scopes=[name for name in FORMATS if name != scope])
    _, right = world.key(scopes=[scope], models=["allowed/*"])
    path, body = FORMATS[scope]
    refused = world.there.post(path, body | {"model": "allowed/model"}, wrong)
    assert refused.status_code == 403
    assert f"This client key is not for {scope}" in refused.text
    refused = world.there.post(path, body | {"model": "openai/gpt-4o-mini"}, right)
    assert refused.status_code == 403
    assert "it may use allowed/*" in refused.text
    assert world.there.post(path, body | {"model": "allowed/model"}, right).status_code not in {401, 403}


def test_fall_backs_in_anthropics_form_are_checked_and_x_api_key_takes_client_keys(world):
    _, secret = world.key(models=["anthropic/*"])
    body = {"model": "anthropic/claude-sonnet-4.5", "fallbacks": [{"model": "openai/gpt-4o"}]}
    path, rest = FORMATS["messages"]
    refused = world.here.post(path, body | rest, headers={"x-api-key": secret})
    assert (refused.status_code, refused.json()["type"]) == (403, "error")
    assert "may not use 'openai/gpt-4o'" in refused.json()["error"]["message"]
    assert world.here.post(path, body | rest, headers={"x-api-key": f"{secret}x"}).status_code == 401


def test_a_key_sees_what_it_may_use_and_its_own_calls_only(world):
    (_, narrow), (_, wide) = world.key(models=["openai/gpt-4o-mini"]), world.key()
    [model] = world.there.get("/v1/models", narrow).json()["data"]
    assert model["id"] == "openai/gpt-4o-mini"
    assert len(world.there.get("/v1/models", wide).json()["data"]) > 1
    assert world.there.get("/v1/models/openai/gpt-4o", narrow).status_code == 404
    assert world.there.get("/v1/models/openai/gpt-4o", wide).status_code == 200
    generation = world.there.chat(wide).headers["X-Generation-Id"]
    path = f"/v1/generation?id={generation}"
    wait_for(lambda: world.there.get(path, wide).status_code == 200)
    assert world.there.get(path, world.owner).status_code == 200
    assert world.there.get(path, narrow).status_code == 404
    assert world.there.get(path, world.here.new_user()).status_code == 404
    assert world.there.get("/v1/key", narrow).json()["data"]["label"].startswith("key/")


def test_a_refused_call_costs_nothing_and_is_not_sent(world):
    _, secret = world.key(models=["openai/gpt-4o-mini"])
    before = world.billing.bill()
    assert world.both(secret, model="openai/gpt-4o") == {403}
    assert world.billing.bill() == before


def test_a_keys_own_rpm_holds_and_another_keys_is_not_touched(world):
    (_, secret), (_, other) = world.key(rpm=3), world.key()
    answers = [world.here.chat(secret) for _ in range(8)]  # at most two minutes' worth
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 2 <= len(refused) <= 5
    assert "allows 3 a minute per key" in refusal_of(refused[0])
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 60
    assert '"key-requests";q=3' in answers[0].headers["RateLimit-Policy"]
    assert world.here.chat(other).status_code == 200
    assert world.here.chat(world.owner).status_code == 200


def test_a_budget_is_spent_once_however_many_call_at_once(world):
    # Each call reserves for a hundred tokens of an answer; there is enough for a few of them only.
    limit_nano = 4 * 100 * COMPLETION_NANO
    (key_id, secret), (_, other) = world.key(budget={"limit_usd": limit_nano / 1e9, "period": "none"}), world.key()
    wait_for(lambda: "X-Quota-Limit" in world.there.chat(secret, model="no/such-model").headers)
    with ThreadPoolExecutor(8) as callers:
        statuses = list(callers.map(lambda n: (world.here, world.there)[n % 2].chat(secret).status_code, range(24)))
    assert set(statuses) <= {200, 402}
    wait_for(lambda: world.both(secret) == {402})
    path = f"/api/api-keys/{key_id}"
    spent = wait_for(lambda: world.here.get(path, world.owner).json()["budget"]["spent_usd"])  # once it is accounted
    assert spent <= limit_nano / 1e9
    assert world.both(other) == world.both(world.owner) == {200}
    world.change(key_id, budget=None)
    wait_for(lambda: world.both(secret) == {200})


def test_usage_is_shown_by_key(world):
    owner = world.here.new_user()
    (key_id, secret), (unused_id, _) = world.key(owner, name="used"), world.key(owner, name="unused")
    assert world.there.chat(secret).status_code == 200
    assert world.here.chat(owner).status_code == 200

    def counts() -> dict[int | None, tuple[str | None, int]]:
        items = world.here.get("/api/v1/keys", owner).json()["items"]
        return {item["client_key_id"]: (item["name"], item["requests"]) for item in items}

    wait_for(lambda: counts() == {key_id: ("used", 1), unused_id: ("unused", 0), None: (None, 1)})
    headers = {"Authorization": f"Bearer {owner}"}
    for each in (key_id, unused_id):
        requests.delete(f"{world.here.url}/api/api-keys/{each}", headers=headers, timeout=30)
    assert counts() == {key_id: ("used", 1), None: (None, 1)}


# ── hostile keys


@pytest.mark.parametrize(
    "text",
    [
        "sk-auto-",
        "sk-auto-' OR 1=1-- ",
        "sk-auto-'; DROP TABLE client_keys; --",
        "sk-auto-%",
        "sk-auto-" + "A" * 43,
        "sk-auto-" + "A" * 4000,
        "sk-auto-" + "A" * 40_000,
        'sk-auto-{"$ne":null}',
        "SK-AUTO-" + "A" * 43,
        "sk-auto-\u00e9",
    ],
)
def test_a_hostile_key_is_refused_like_any_other(world, text):
    headers = {"Authorization": f"Bearer {text}".encode()}
    for path in ("/v1/chat/completions", "/api/quota"):
        method = "POST" if path.startswith("/v1") else "GET"
        answer = requests.request(method, world.here.url + path, headers=headers, json={}, timeout=30)
        assert answer.status_code in {401, 431, 400}, answer.text
        assert answer.status_code == 401 or len(text) > 4096


# ── without the database


def test_without_the_database_keys_go_on_and_changes_are_refused(world):
    _, secret = world.key(models=["openai/gpt-4o-mini"])
    world.server.stop()
    try:
        assert world.both(secret) == {200}
        assert world.both(secret, model="openai/gpt-4o") == {403}
        assert world.both("sk-auto-" + "A" * 43) == {401}
        refused = world.here.post("/api/api-keys", {"name": "k"}, world.owner)
        assert refused.status_code == 503
        refusal_of(refused)
    finally:
        world.server.start()
    assert world.key()
