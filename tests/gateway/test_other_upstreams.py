"""Other upstreams through a whole gateway: chosen, billed, logged and filtered; kept while the database is away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.sandbox.conftest import Running
from tests.support.billing import user_of
from tests.support.connect_proxy import ConnectProxy
from tests.support.gateway import Gateway, free_port, run, wait_for
from tests.support.mariadb import DatabaseServer
from tests.support.scripted_upstream import SSE, ScriptedUpstream, chunked, json_answer

ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
KEY = "sk-upstream-0123456789abcdef-wxyz"
USAGE = b'"usage":{"prompt_tokens":1000,"completion_tokens":500}'
ANSWER = b'{"id":"chatcmpl-1","choices":[{"message":{"content":"hi"}}],' + USAGE + b"}"
EVENTS = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: {"choices":[],' + USAGE + b"}\n\ndata: [DONE]\n\n"
PRICES = {"*": {"prompt": 2, "completion": 8}}
COST_USD = 0.006
SECRETS = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}


@pytest.fixture(scope="module")
def other() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    scripted.play("m", json_answer("200 OK", ANSWER))
    scripted.play("streamed", SSE + chunked(EVENTS))
    scripted.play("refused", json_answer("401 No", json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()))
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def served(
    start: Callable[..., Gateway],
    stand_in: Running,
    pool_keys: list[dict[str, str]],
    other: ScriptedUpstream,
    modules_database_url: str,
) -> Gateway:
    """A gateway with a pool and two other upstreams, one of which has prices."""
    listed = [
        {"name": "priced", "base_url": other.url, "api_key": KEY, "prices": PRICES, "model_prefixes": {"priced/": ""}},
        {"name": "free", "base_url": other.url},
    ]
    return start(
        DATABASE_URL=modules_database_url,
        OPENROUTER_API_URL=stand_in.address,
        OPENROUTER_API_KEYS=",".join(key["key"] for key in pool_keys),
        ALLOW_PRIVATE_UPSTREAMS="true",
        UPSTREAMS=json.dumps(listed),
        QUOTA_USD=1,
        **SECRETS,
    )


def chat(gateway: Gateway, token: str, model: str, upstream: str = "", **fields: Any) -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, **fields}
    return gateway.post("/v1/chat/completions", body, token, headers={"X-Upstream": upstream} if upstream else {})


def log_of(gateway: Gateway, token: str, count: int, query: str = "") -> list[dict[str, Any]]:
    """The newest requests in the caller's log, once there are so many."""

    def find() -> list[dict[str, Any]]:
        items = gateway.get(f"/api/usage/logs?page_size=100{query}", token).json()["items"]
        return items if len(items) >= count else []

    found: list[dict[str, Any]] = wait_for(find)
    return found


def test_calls_to_other_upstreams_are_billed_and_logged_beside_the_pools(served, other):
    token, stranger = served.new_user(), served.new_user()
    other.received = []
    assert chat(served, token, "priced/m").content == ANSWER
    assert chat(served, token, "m", "free").content == ANSWER
    assert chat(served, token, "streamed", "priced", stream=True).content == EVENTS
    assert chat(served, token, "openai/gpt-4o-mini").status_code == 200
    assert chat(served, token, "openai/gpt-4o-mini", "openrouter").status_code == 200
    shown = log_of(served, token, 5)
    told = [(one["upstream"], one["model"], one["state"], one["source"], one["cost_usd"]) for one in shown[::-1]]
    assert told[:3] == [
        ("priced", "priced/m", "settled", "priced", COST_USD),
        ("free", "m", "unknown", None, None),
        ("priced", "streamed", "settled", "priced", COST_USD),
    ]
    assert [one[0] for one in told[3:]] == ["openrouter"] * 2
    spent = sum(one["cost_usd"] or 0 for one in shown)
    assert wait_for(lambda: round(served.get("/api/quota", token).json()["spent_usd"], 9) == round(spent, 9))
    assert gone_through(served, token, other) == [f"Bearer {KEY}", None, f"Bearer {KEY}"]
    for name, count in (("priced", 2), ("free", 1), ("openrouter", 2)):
        assert {one["upstream"] for one in log_of(served, token, count, f"&upstream={name}")} == {name}
        everybodys = served.get(f"/admin/logs?upstream={name}&user_id={user_of(token)}", ADMIN_TOKEN).json()
        assert everybodys["total"] == count
    lines = served.get("/api/usage/logs/export?format=jsonl&upstream=free", token).text.splitlines()
    assert [json.loads(line)["upstream"] for line in lines] == ["free"]
    assert served.get("/api/usage/logs?upstream=priced", stranger).json()["total"] == 0
    assert served.get("/api/usage/logs?upstream=nobody", token).status_code == 400
    by_carrier = served.get(f"/admin/stats?user_id={user_of(token)}", ADMIN_TOKEN).json()["by_pool_key"]
    assert {(one["upstream"], one["requests"], one["unknown"]) for one in by_carrier if not one["pool_key"]} == {
        ("priced", 2, 0),
        ("free", 1, 1),
        ("openrouter", 2, 0),  # one user's sums don't tell the pool's keys apart
    }


def gone_through(served: Gateway, token: str, other: ScriptedUpstream) -> list[str | None]:
    """What authorized the requests that came to the other upstream; never what the client sent."""
    received, other.received = other.received, []
    assert all(token.encode() not in request.head for request in received)
    return [request.headers().get("authorization") for request in received]


def test_what_can_not_be_asked_for_is_refused(served):
    token = served.new_user()
    answer = chat(served, token, "m", "nobody")
    assert answer.status_code == 400
    assert "no upstream named 'nobody'" in answer.json()["message"]
    assert chat(served, "wrong", "m", "free").status_code == 401


def test_a_client_key_gets_403_for_an_upstream_that_it_may_not_use(served, other):
    token = served.new_user()
    body = {"name": "limited", "upstreams": ["free"]}
    key = served.post("/api/api-keys", body, token).json()["key"]
    wait_for(lambda: chat(served, key, "m", "free").status_code == 200)
    for model, upstream in (("m", "priced"), ("priced/m", ""), ("openai/gpt-4o-mini", "")):
        answer = chat(served, key, model, upstream)
        assert answer.status_code == 403
        assert "may not use the upstream" in answer.json()["message"]
    assert len(other.received) == 1
    other.received = []


def test_an_upstream_changes_everywhere_within_two_seconds_and_its_log_outlives_it(served, other):
    token = served.new_user()
    base = {"base_url": other.url, "prices": PRICES}
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    added = requests.post(f"{served.url}/admin/upstreams", json={"name": "new", **base}, headers=headers, timeout=30)
    assert added.status_code == 201, added.text
    wait_for(lambda: chat(served, token, "m", "new").status_code == 200)
    body = {"name": "new", "is_active": False, **base}
    requests.put(f"{served.url}/admin/upstreams/new", json=body, headers=headers, timeout=30)
    wait_for(lambda: chat(served, token, "m", "new").status_code == 503)
    assert log_of(served, token, 1, "&upstream=new&status=ok")[0]["cost_usd"] == COST_USD
    requests.delete(f"{served.url}/admin/upstreams/new", headers=headers, timeout=30)
    wait_for(lambda: chat(served, token, "m", "new").status_code == 400)
    shown = log_of(served, token, 1, "&status=ok")
    assert shown[-1]["upstream"] == f"#{added.json()['id']}"
    other.received = []


def test_a_refused_key_of_ours_is_a_502_and_appears_nowhere(served, other):
    token = served.new_user()
    answer = chat(served, token, "refused", "priced")
    assert answer.status_code == 502
    assert KEY not in answer.text
    assert KEY not in served.log()
    assert chat(served, served.new_user(), "m", "priced").status_code == 200  # it rests for nobody
    assert chat(served, token, "m", "free").status_code == 200
    assert chat(served, token, "refused", "priced").status_code == 502
    other.received = []
    # Operators see it as soon as the process has reported.
    doubted = wait_for(lambda: (shown := health_of(served, "priced"))["health"] == "suspect" and shown)
    assert (doubted["reason"], doubted["until"]) == ("key-refused", None)
    assert health_of(served, "free")["health"] == "ok"


def health_of(served: Gateway, name: str) -> dict[str, Any]:
    """The upstream as operators see it, in the list and by itself."""
    listed = {one["name"]: one for one in served.get("/admin/upstreams", ADMIN_TOKEN).json()["items"]}
    alone = served.get(f"/admin/upstreams/{name}", ADMIN_TOKEN).json()
    assert set(alone) == set(listed[name])
    return alone


def test_while_the_database_is_away_all_upstreams_go_on_serving_with_one_warning_a_minute(
    start, stand_in, pool_keys, other, tmp_path_factory
):
    server = DatabaseServer(tmp_path_factory.mktemp("away"))
    try:
        gateway = start(
            DATABASE_URL=server.new_database(),
            OPENROUTER_API_URL=stand_in.address,
            OPENROUTER_API_KEYS=",".join(key["key"] for key in pool_keys),
            ALLOW_PRIVATE_UPSTREAMS="true",
            UPSTREAMS=json.dumps([{"name": "local", "base_url": other.url, "api_key": KEY, "is_default": True}]),
            **SECRETS,
        )
        token = gateway.new_user()
        assert chat(gateway, token, "m").content == ANSWER
        server.stop()
        wait_for(lambda: "database_unreachable" in gateway.log())
        for _ in range(3):
            assert chat(gateway, token, "m").content == ANSWER
            assert chat(gateway, token, "openai/gpt-4o-mini", "openrouter").status_code == 200
        assert gateway.log().count("database_unreachable") == 1
        server.start()
        wait_for(lambda: "database_reachable_again" in gateway.log())
        assert len(log_of(gateway, token, 7)) == 7
    finally:
        if server.process.poll() is None:
            server.stop()


def test_everything_to_openrouter_goes_through_the_outbound_proxy(start, stand_in, pool_keys, other):
    proxy = ConnectProxy("someone", "proxys-own-password")
    try:
        gateway = start(
            OPENROUTER_API_URL=stand_in.address,
            OPENROUTER_API_KEYS=pool_keys[0]["key"],
            OUTBOUND_PROXY=proxy.url,
            ALLOW_PRIVATE_UPSTREAMS="true",
            UPSTREAMS=json.dumps([{"name": "local", "base_url": other.url}]),
            **SECRETS,
        )
        token = gateway.new_user()
        assert chat(gateway, token, "openai/gpt-4o-mini").status_code == 200
        assert proxy.tunnels
        before = len(proxy.tunnels)
        assert chat(gateway, token, "m", "local").content == ANSWER
        assert set(proxy.tunnels) == {stand_in.address.split("/")[2]}
        assert not any(str(other.port) in tunnel for tunnel in proxy.tunnels[before:])
    finally:
        proxy.close()
    assert "proxys-own-password" not in gateway.log()


@pytest.mark.parametrize(("status", "words"), [(407, "user and password"), (502, "could not reach the host")])
def test_a_proxys_refusal_is_a_502_and_the_log_says_why(start, stand_in, pool_keys, status, words):
    proxy = ConnectProxy("someone", "proxys-own-password")
    try:
        proxy.refuse = status
        url = proxy.url if status != 407 else proxy.url.replace("own", "wrong")
        gateway = start(
            OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=pool_keys[0]["key"], OUTBOUND_PROXY=url, **SECRETS
        )
        answer = chat(gateway, gateway.new_user(), "openai/gpt-4o-mini")
        assert answer.status_code == 502
        assert "could not be reached" in answer.json()["message"]
        assert words in gateway.log()
        assert "password@" not in gateway.log()
        assert "proxys-" not in gateway.log()
    finally:
        proxy.close()


def test_a_gateway_that_may_not_reach_private_upstreams_refuses_to_begin_with_one(other, tmp_path):
    listed = json.dumps([{"name": "local", "base_url": other.url, "api_key": KEY}])
    ended = run("app.py", PORT=free_port(), DATA_DIR=tmp_path, UPSTREAMS=listed, **SECRETS)
    assert ended.returncode == 1
    assert "UPSTREAMS, item 1: base_url can't be used: it must begin with https://" in ended.stderr
    assert KEY not in ended.stderr


def test_a_model_that_gets_another_name_leaves_every_other_byte(served, other):
    """No number is read and written again: else it would lose its last digits, or become infinite."""
    body = (
        b' {"n_big":123456789012345678901,  "f":1.50e+0, "e":1e400,\t"z":-0.0,"messages":[{"role":"user",'
        b'"content":"\\u00e9 \xc3\xa9 \\/ \\ud83d"}],"model" : "priced\\/exact" , "a":[1.0,1E5,0.1000000000000000055] }\n'
    )
    other.play("exact", json_answer("200 OK", ANSWER))
    headers = {"Authorization": f"Bearer {served.new_user()}", "Content-Type": "application/json"}
    answer = requests.post(f"{served.url}/v1/chat/completions", data=body, headers=headers, timeout=30)
    assert (answer.status_code, answer.content) == (200, ANSWER)
    assert other.requests_for("exact")[-1].body == body.replace(b'"priced\\/exact"', b'"exact"')
