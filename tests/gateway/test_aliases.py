"""Aliases: looked up before anything is asked of the model, kept through a session, and never hidden from the log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from db import Database
from foundation.clock import Clock
from foundation.errors import BadRequest, Conflict, NotFound
from gateway.aliases import MAX_ALIASES, Aliases
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.data_plane import request, whole
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, wait_for
from tests.support.lazily import Lazily
from tests.support.rows import each_row
from tests.support.scripted_upstream import ScriptedUpstream, json_answer

openai = Lazily("openai")
MINI, CLAUDE = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4.5"
USAGE = {"prompt_tokens": 5, "completion_tokens": 5, "cost": 0.001}


def body_of(received: Any) -> Any:
    return json.loads(received.body)


# ── the rule, on a proxy


@pytest.fixture
def proxy(make_proxy: Callable[..., Any], upstream: ScriptedUpstream) -> Any:
    for model in (MINI, CLAUDE, "fast"):
        upstream.play(model, json_answer("200 OK", b'{"id":"gen-1","choices":[]}'))
    return make_proxy()


def lead(proxy: Any, name: str, models: dict[str, int]) -> None:
    proxy.router.aliases.set(name, models)
    proxy.router.aliases.reload()


def test_the_model_alone_is_changed_on_its_way_up(proxy, upstream):
    lead(proxy, "fast", {MINI: 1})
    asked = request("fast")
    asked.body.data = bytearray(
        b'{ "seed":123456789012345678901, "model" : "fast","messages":[{"role":"user"}],"x":1e400}'
    )
    whole(proxy.forward(asked))
    whole(proxy.forward(request(MINI)))
    assert [bytes(one.body) for one in upstream.received] == [
        b'{ "seed":123456789012345678901, "model" : "%b","messages":[{"role":"user"}],"x":1e400}' % MINI.encode(),
        bytes(request(MINI).body.data),
    ]


def test_without_aliases_every_body_goes_up_as_it_is(proxy, upstream):
    whole(proxy.forward(request("fast")))
    assert upstream.received[0].body == request("fast").body.data


def test_weights_share_calls_out_and_a_session_stays_with_one_model(proxy, upstream):
    lead(proxy, "canary", {MINI: 3, CLAUDE: 1})
    resolve = proxy.router.aliases.resolve
    api = request().api

    def led_to(session: str | None, user_id: int = 1) -> str:
        asked = request("canary", user_id=user_id, **({"session_id": session} if session else {}))
        return resolve(api.read(asked.body.data), asked).model

    found = Counter(led_to(None) for _ in range(2000))
    assert found.keys() == {MINI, CLAUDE}
    assert 1300 < found[MINI] < 1700  # 1,500 ± 10 standard deviations
    by_session = {str(number): led_to(str(number)) for number in range(400)}
    assert 220 < Counter(by_session.values())[MINI] < 380
    assert {session: led_to(session) for session in by_session} == by_session
    assert {led_to("7", user_id) for user_id in range(40)} == {MINI, CLAUDE}  # whose session it is counts too


def test_a_key_needs_the_model_that_answers_and_not_the_alias(proxy):
    lead(proxy, "fast", {MINI: 1})
    found = proxy.router.aliases.resolve(request().api.read(request("fast").body.data), request("fast"))
    assert (found.model, found.names, found.asked_model) == (MINI, (MINI,), "fast")
    lead(proxy, "fast", {f"{MINI}@preset/house": 1})
    found = proxy.router.aliases.resolve(request().api.read(request("fast").body.data), request("fast"))
    assert found.others == ("@preset/house",)


def test_an_alias_among_models_to_fall_back_to_is_refused_and_nothing_goes_up(proxy, upstream):
    lead(proxy, "fast", {MINI: 1})
    with pytest.raises(BadRequest, match="fast is an alias, which works as `model` only"):
        proxy.forward(request(MINI, models=["fast"]))
    assert upstream.received == []


# ── rows


def test_aliases_are_set_replaced_and_removed(db: Database):
    aliases = Aliases(db, Clock())
    aliases.set("fast", {MINI: 9, CLAUDE: 1})
    aliases.set("best", {CLAUDE: 1})
    aliases.set("fast", {CLAUDE: 1})
    assert [(one.name, dict(one.models)) for one in aliases.rows()] == [("best", {CLAUDE: 1}), ("fast", {CLAUDE: 1})]
    aliases.remove("best")
    for nobody in ("best", "ünknown"):
        with pytest.raises(NotFound):
            aliases.remove(nobody)
    for number in range(MAX_ALIASES - 1):
        aliases.set(f"a{number}", {MINI: 1})
    with pytest.raises(Conflict, match="at most 200"):
        aliases.set("another", {MINI: 1})
    aliases.set("fast", {MINI: 1})


@each_row(
    "name, models, words",
    [
        ("Fast", {MINI: 1}, "An alias must be"),
        ("openai/fast", {MINI: 1}, "without a slash"),
        ("", {MINI: 1}, "An alias must be"),
        ("a" * 65, {MINI: 1}, "An alias must be"),
        ("fast", {}, "leads to 1 to 20 models"),
        ("fast", {f"m/{number}": 1 for number in range(21)}, "leads to 1 to 20 models"),
        ("fast", {"a b": 1}, "without spaces"),
        ("fast", {MINI: 0}, "A weight must be"),
        ("fast", {MINI: 1001}, "A weight must be"),
        ("fast", {MINI: True}, "A weight must be"),
        ("fast", {"fast": 1}, "fast is an alias itself"),
        ("new", {"old": 1}, "old is an alias itself"),
        ("local-model", {MINI: 1}, "The alias old leads to a model named local-model"),
    ],
)
def test_what_can_be_no_alias_is_refused_and_changes_nothing(db: Database, name, models, words):
    aliases = Aliases(db, Clock())
    aliases.set("old", {"local-model": 1})
    before = aliases.rows()
    with pytest.raises(BadRequest, match=words):
        aliases.set(name, models)
    assert aliases.rows() == before


# ── a whole gateway


@pytest.fixture(scope="module")
def other() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    answer = {"id": "gen-a", "object": "chat.completion", "created": 1, "model": MINI, "usage": USAGE}
    answer["choices"] = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}]
    scripted.play("theirs", json_answer("200 OK", json.dumps(answer).encode()))
    scripted.play("quick", json_answer("404 Not Found", b'{"error":{"message":"No such model","code":404}}'))
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def served(start: Callable[..., Gateway], other: ScriptedUpstream, modules_database_url: str) -> Gateway:
    prices = {"own/model": {"prompt": 2, "completion": 8}}
    listed = [{"name": "own", "base_url": other.url, "prices": prices, "model_prefixes": {"own/model": "theirs"}}]
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    return start(
        DATABASE_URL=modules_database_url,
        OPENROUTER_API_URL=other.url,
        OPENROUTER_API_KEYS="sk-or-v1-" + "7" * 64,
        ALLOW_PRIVATE_UPSTREAMS="true",
        UPSTREAMS=json.dumps(listed),
        QUOTA_USD=1,
        **secrets,
    )


def test_a_client_asks_for_an_alias_and_the_log_says_both_names(served, other):
    """With OpenAI's own SDK; a key that may not use the model is refused by the model's name."""
    token, innocent = served.new_user(), served.new_user()
    path = "/admin/aliases/quick"
    shown(served.ask("PUT", path, {"models": [{"model": "own/model"}]}, ADMIN_TOKEN))
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=token, max_retries=0)
    messages: Any = [{"role": "user", "content": "Hello"}]

    def call(model: str) -> str | None:
        return client.chat.completions.create(model=model, messages=messages, max_tokens=10).choices[0].message.content

    def answered() -> bool:
        try:
            return call("quick") == "hi"
        except openai.APIStatusError:  # until this process has seen the change
            return False

    wait_for(answered)
    assert body_of(other.received[-1])["model"] == "theirs"
    assert call("own/model") == "hi"
    limited = shown(served.ask("POST", "/api/api-keys", {"name": "l", "models": ["quick"]}, token), 201)["key"]
    body = {"model": "quick", "messages": messages}
    sent = len(other.received)
    refused = served.post("/v1/chat/completions", body, limited)
    assert (refused.status_code, "own/model" in refusal_of(refused)) == (403, True)
    assert len(other.received) == sent

    def logged() -> Any:
        items = served.get("/api/usage/logs?page_size=100", token).json()["items"]
        done = [one for one in items if one["outcome"] == "complete"]
        return done if len(done) >= 2 else None

    newest, before = wait_for(logged)[:2]
    assert (newest["model"], newest["asked_model"]) == ("own/model", None)
    assert (before["model"], before["asked_model"]) == ("own/model", "quick")
    assert newest["cost_usd"] == before["cost_usd"] > 0
    assert served.get("/api/usage/logs", innocent).json()["items"] == []
    assert shown(served.ask("DELETE", path, None, ADMIN_TOKEN))["name"] == "quick"
