"""Rules of models over HTTP: set, listed, replaced, removed, and refused with what is accepted; then a call by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, wait_for

PATH, MODEL, OTHER, LIMITED = "/admin/model-rules", "x-ai/grok-4", "openai/gpt-4o-mini", "sandbox/429c"
ALL = ["away", "rate-limited", "too-long", "moderated"]


@pytest.fixture(scope="module")
def administered(start: Callable[..., Gateway], stand_in: Any, pool_keys: Any, modules_database_url: str) -> Gateway:
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    keys = ",".join(key["key"] for key in pool_keys)
    return start(
        DATABASE_URL=modules_database_url, OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=keys, **secrets
    )


def test_a_rule_is_set_replaced_and_removed(administered):
    def ask(method: str, path: str = "", body: Any = None) -> Any:
        return administered.ask(method, PATH + path, body, ADMIN_TOKEN)

    first = shown(ask("PUT", f"/{MODEL}", {"fallbacks": [{"model": OTHER}], "timeout_seconds": 60}))
    assert first["fallbacks"] == [{"model": OTHER, "upstream": None, "after": ALL}]
    assert (first["model"], first["timeout_seconds"], first["upstreams"], first["choose_by"]) == (
        MODEL,
        60,
        [],
        "weight",
    )
    fast = shown(ask("PUT", "/fast", {"upstreams": [{"upstream": "openrouter"}], "choose_by": "price"}))
    assert fast["upstreams"] == [{"upstream": "openrouter", "weight": 1}]
    assert shown(ask("GET")) == {"items": [fast, first], "total": 2, "page": 1, "page_size": 20}
    fallback = {"model": OTHER, "after": ["away"]}
    for body, words in (
        ({}, "must have fallbacks, timeout_seconds or upstreams"),
        ({"fallbacks": [fallback] * 4}, "fallbacks"),
        ({"fallbacks": [fallback] * 2}, "must differ"),
        ({"fallbacks": [fallback | {"after": []}]}, "after"),
        ({"fallbacks": [fallback | {"after": ["luck"]}]}, "after"),
        ({"fallbacks": [fallback | {"upstream": "nowhere"}]}, "no upstream named 'nowhere'; there are openrouter"),
        ({"fallbacks": [fallback | {"price": 1}]}, "price"),
        ({"timeout_seconds": 3601}, "from 1 to 3600"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"upstreams": [{"upstream": "openrouter", "weight": 0}]}, "weight"),
        ({"upstreams": [{"upstream": "openrouter"}] * 2}, "must differ"),
        ({"timeout_seconds": 5, "choose_by": "luck"}, "choose_by"),
        ([], "JSON object"),
    ):
        refused = ask("PUT", f"/{MODEL}", body)
        assert (refused.status_code, words in refusal_of(refused)) == (400, True), refused.text
    assert shown(ask("GET"))["items"] == [fast, first]
    assert shown(ask("DELETE", "/fast")) == fast
    assert ask("DELETE", "/fast").status_code == 404
    audited = [(one["action"], one["subject"]) for one in shown(administered.get("/admin/audit", ADMIN_TOKEN))["items"]]
    assert audited[:2] == [("model_rule_removed", "model-rule/fast"), ("model_rule_set", "model-rule/fast")]
    shown(ask("DELETE", f"/{MODEL}"))


def test_a_call_falls_back_and_the_log_says_both_names(administered):
    """The bill is the answering model's; nobody else's log knows of it."""
    token, innocent = administered.new_user(), administered.new_user()
    body = {"model": LIMITED, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}
    assert administered.post("/v1/chat/completions", body, token).status_code == 429
    rule = {"fallbacks": [{"model": OTHER, "after": ["rate-limited"]}]}
    shown(administered.ask("PUT", f"{PATH}/{LIMITED}", rule, ADMIN_TOKEN))

    def answered() -> Any:
        answer = administered.post("/v1/chat/completions", body, token)
        return answer if answer.status_code == 200 else None

    answer = wait_for(answered)  # once this process has seen the change
    assert answer.headers["X-Fallback"] == f"{OTHER}; upstream=openrouter; after=rate-limited"
    assert answer.json()["model"].startswith(OTHER)

    def logged() -> Any:
        items = administered.get("/api/usage/logs?page_size=100", token).json()["items"]
        return next((one for one in items if one["outcome"] == "complete"), None)

    found = wait_for(logged)
    assert (found["model"], found["asked_model"], found["status"]) == (OTHER, LIMITED, 200)
    assert found["cost_usd"] == pytest.approx(answer.json()["usage"]["cost"])
    assert administered.get("/api/usage/logs", innocent).json()["items"] == []
