"""The paths of plug-ins: the same answers as elsewhere, and connected accounts, each person's own."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.gateway import refusal_of, wait_for

PREFIX = "/api/plugin-api"


@pytest.fixture(scope="module")
def gateway_settings(stand_in: Any) -> dict[str, Any]:
    return {"OPENROUTER_API_KEYS": stand_in.new_key()["key"], "QUOTA_USD": 5}


def test_quota_and_models_are_those_of_the_ordinary_paths(administered, people):
    quota = administered.get(f"{PREFIX}/quotas/user", people.user)
    assert quota.json() == administered.get("/api/quota", people.user).json()
    assert quota.json()["limit_usd"] == 5
    wait_for(lambda: administered.get("/v1/models", people.user).status_code == 200)
    models = administered.get(f"{PREFIX}/models", people.user)
    assert models.content == administered.get("/v1/models", people.user).content


def test_calls_are_chat_completions(administered, people):
    body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    answer = wait_for(
        lambda: (found := administered.post(f"{PREFIX}/chat/completions", body, people.user)).ok and found
    )
    assert answer.json()["object"] == "chat.completion"
    streamed = administered.post(f"{PREFIX}/chat/completions", body | {"stream": True}, people.user)
    assert streamed.text.rstrip().endswith("data: [DONE]")
    assert administered.post(f"{PREFIX}/chat/completions", body).status_code == 401
    assert administered.get(f"{PREFIX}/chat/completions", people.user).status_code == 405


def test_each_person_sees_the_account_that_they_have_connected(administered, stand_in, people):
    owner, teammate = administered.new_user(), administered.new_user()
    key = stand_in.new_key(limit=2)
    connected = administered.post("/api/v1/openrouter/auth/validate-key", {"api_key": key["key"]}, owner)
    assert connected.status_code == 200, connected.text
    assert administered.get(f"{PREFIX}/accounts", owner).json() == {"items": [connected.json()]}
    assert (connected.json()["method"], connected.json()["limit_usd"]) == ("key", 2)
    for person in (teammate, people.admin):
        assert administered.get(f"{PREFIX}/accounts", person).json() == {"items": []}
    stranger = administered.get(f"{PREFIX}/accounts")
    assert stranger.status_code == 401
    assert connected.json()["label"] not in refusal_of(stranger)


def test_a_connection_that_a_plug_in_began_ends_as_any(administered, stand_in, people):
    owner, callback = administered.new_user(), {"callback_url": "http://localhost:9/"}

    def returned() -> dict[str, str]:
        """What the browser comes back with."""
        begun = administered.post(f"{PREFIX}/oauth/authorize", callback, owner).json()
        back = urlsplit(stand_in.decide(begun["authorization_url"], stand_in.new_account()["id"]))
        return {name: parse_qs(back.query)[name][0] for name in ("code", "state")}

    ended = "/api/v1/openrouter/oauth/callback"
    assert administered.post(f"{PREFIX}/oauth/authorize", callback).status_code == 401
    assert administered.post(ended, returned(), people.user).status_code == 403
    assert administered.post(ended, returned(), owner).json()["method"] == "oauth"
    [account] = administered.get(f"{PREFIX}/accounts", owner).json()["items"]
    assert account["connected"]
