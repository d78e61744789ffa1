"""The response cache: who gets what again, what is never kept, how much is; and that nothing else about a call changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace as with_fields
from typing import Any

import pytest
from msgspec.structs import replace

from accounts.client_keys import ClientKey
from billing.quotas.rate_limits import Admission
from config.settings import Config
from formats.registry import COMPLETIONS, EMBEDDINGS, IMAGES, MESSAGES, RESPONSES
from foundation.errors import Forbidden
from gateway.model_rules import Fallback, RuleTerms
from gateway.response_cache import MAX_ANSWER_BYTES, ROW_BYTES, RecordedBody, ResponseCache, _name_of
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.gateway.test_destinations import ANSWER, add
from tests.support.data_plane import DONE, EVENT, KEEPALIVE, WHOLE, request, whole
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, wait_for
from tests.support.lazily import Lazily
from tests.support.scripted_upstream import CLOSE, SSE, ScriptedUpstream, chunked, json_answer

openai = Lazily("openai")
MODEL = "openai/gpt-4o-mini"
FINE = json_answer("200 OK", WHOLE, "X-Generation-Id: gen-1\r\n")
PRICED = b'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"cost":0.000007}}\n\n'
STREAM = EVENT + PRICED + DONE
KEY = ClientKey(5, 1, response_cache=True)


def call(model: str = MODEL, key: ClientKey | None = KEY, cache_control: str = "", **fields: Any) -> Any:
    asked = request(model, **fields)
    caller = with_fields(asked.caller, client_key=key, user_id=key.user_id if key else 1)
    return replace(asked, caller=caller, cache_control=cache_control)


def told(answer: Any) -> dict[str, str]:
    return dict(answer.headers)


def cache_of(proxy: Any, asked: Any) -> str | None:
    """What X-Cache says of a call, which is read to its end."""
    answer = proxy.forward(asked)
    whole(answer)
    return told(answer).get("X-Cache")


@pytest.fixture
def proxy(make_proxy: Callable[..., Any], upstream: ScriptedUpstream) -> Any:
    upstream.play(MODEL, FINE)
    upstream.play("streamed", SSE, chunked(STREAM))
    return make_proxy()


# ── a repeat


def test_a_repeat_is_answered_with_the_same_bytes_and_nothing_goes_up(proxy, upstream, caplog):
    caplog.set_level(logging.INFO)
    first, again = proxy.forward(call()), proxy.forward(call())
    assert whole(first) == whole(again) == WHOLE
    assert (told(first)["X-Cache"], told(again)["X-Cache"], told(again)["Age"]) == ("MISS", "HIT", "0")
    kept = ("Content-Type", "X-Generation-Id", "Content-Length")
    assert [told(first)[name] for name in kept] == [told(again)[name] for name in kept]
    assert len(upstream.received) == 1
    lines = [record.fields for record in caplog.records if record.getMessage() == "proxied"]
    assert [(one["outcome"], one["status"], one["cost_usd"]) for one in lines] == [
        ("complete", 200, 0.000007),
        ("cached", 200, None),
    ]
    assert proxy.latest_calls.told() == {"last_minute": 2, "failed": 0, "why": {}}


def test_a_stream_is_repeated_as_the_stream_that_it_was(proxy, upstream):
    first = proxy.forward(call("streamed", stream=True))
    assert (whole(first), told(first)["X-Cache"]) == (STREAM, "MISS")
    again = proxy.forward(call("streamed", stream=True))
    assert (whole(again), told(again)["X-Cache"], told(again)["Content-Type"]) == (STREAM, "HIT", "text/event-stream")
    assert len(upstream.received) == 1


def test_comments_of_ours_are_no_part_of_the_answer(proxy, upstream):
    upstream.play("slow", SSE, chunked(EVENT, end=False), 0.5, chunked(PRICED + DONE))
    assert KEEPALIVE in whole(proxy.forward(call("slow", stream=True)))
    again = proxy.forward(call("slow", stream=True))
    assert (whole(again), told(again)["X-Cache"]) == (STREAM, "HIT")


def test_a_stream_that_begins_before_its_answer_is_kept_too(proxy, upstream):
    upstream.play("late", 0.5, SSE, chunked(STREAM))
    assert whole(proxy.forward(call("late", stream=True))).endswith(STREAM)
    again = proxy.forward(call("late", stream=True))
    assert (whole(again), told(again)["X-Cache"]) == (STREAM, "HIT")


@pytest.mark.parametrize("api", [COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES], ids=lambda api: api.name)
def test_every_format_of_texts_has_repeats_of_its_own(proxy, upstream, api):
    fields = {"prompt": "hi", "input": "hi", "max_tokens": 5, "api": api}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "input_tokens": 3, "output_tokens": 4, "cost": 0.000007}
    said = {"data": [1], "choices": [{"text": "hi"}], "content": [{"type": "text", "text": "hi"}], "output": ["hi"]}
    upstream.play(MODEL, json_answer("200 OK", json.dumps(said | {"usage": usage}).encode()))
    assert [cache_of(proxy, call(**fields)) for _ in range(2)] == ["MISS", "HIT"]
    assert cache_of(proxy, call(**fields | {"api": COMPLETIONS if api is EMBEDDINGS else EMBEDDINGS})) == "MISS"


def test_pictures_are_never_repeated(proxy, upstream):
    upstream.play(MODEL, json_answer("200 OK", b'{"data":[{"b64_json":"aGk="}],"usage":{"cost":0.04}}'))
    assert [cache_of(proxy, call(api=IMAGES, prompt="hi")) for _ in range(2)] == [None, None]
    assert len(upstream.received) == 2


# ── not a repeat


def test_who_has_no_cache_hears_nothing_of_it(proxy, upstream):
    for key in (None, with_fields(KEY, response_cache=False)):
        assert [cache_of(proxy, call(key=key)) for _ in range(2)] == [None, None]
    assert len(upstream.received) == 4


def test_nobody_gets_another_keys_answer(proxy, upstream):
    assert cache_of(proxy, call()) == "MISS"
    owners_other, innocent = with_fields(KEY, id=6), ClientKey(7, 2, response_cache=True)
    assert [cache_of(proxy, call(key=key)) for key in (owners_other, innocent)] == ["MISS", "MISS"]
    assert [cache_of(proxy, call(key=key)) for key in (owners_other, innocent)] == ["HIT", "HIT"]
    assert len(upstream.received) == 3


@pytest.mark.parametrize(
    "change",
    [{"temperature": 1}, {"stream": True}, {"headers": b"X-Session-Id: s\r\n"}, {"seed": 1}],
    ids=str,
)
def test_whatever_is_not_equal_goes_up(proxy, upstream, change):
    assert cache_of(proxy, call()) == "MISS"
    assert cache_of(proxy, call(**change)) == "MISS"
    assert len(upstream.received) == 2


def test_bytes_that_move_from_a_header_into_the_body_make_another_name(proxy):
    route, names = proxy.router.first(call()), set()
    for headers, body in ((b"X-Session-Id: s\r\n", b"{}"), (b"", b"X-Session-Id: s\r\n{}")):
        asked = call(headers=headers)
        asked.body.pieces = (body,)
        names.add(_name_of(asked, route))
    assert len(names) == 2


def test_an_alias_that_leads_elsewhere_is_another_call(proxy, upstream):
    upstream.play("anthropic/other", FINE)
    for model, expected in ((MODEL, ["MISS", "HIT"]), ("anthropic/other", ["MISS", "HIT"]), (MODEL, ["HIT"])):
        proxy.router.aliases.set("fast", {model: 1})
        proxy.router.aliases.reload()
        assert [cache_of(proxy, call("fast")) for _ in expected] == expected
    assert cache_of(proxy, call(MODEL)) == "HIT"  # the same bytes go up
    assert len(upstream.received) == 2


def test_another_upstream_is_another_place(proxy, other):
    add(proxy, other.url, prices={"*": {"prompt": 1000, "completion": 1000}})
    assert cache_of(proxy, call()) == "MISS"
    assert [cache_of(proxy, replace(call(), upstream="local")) for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize(
    "fields",
    [
        {"plugins": [{"id": "web"}]},
        {"tools": [{"type": "openrouter:web_search"}]},
        {"models": ["openai/gpt-4o:online"]},
    ],
    ids=str,
)
def test_what_looks_at_the_world_is_never_repeated(proxy, upstream, fields):
    assert [cache_of(proxy, call(**fields)) for _ in range(2)] == [None, None]
    assert len(upstream.received) == 2


def test_functions_of_the_clients_own_are_part_of_the_call(proxy):
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert [cache_of(proxy, call(tools=tools)) for _ in range(2)] == ["MISS", "HIT"]
    assert cache_of(proxy, call(tools=[{"type": "function", "function": {"name": "g"}}])) == "MISS"


# ── what is kept


@pytest.mark.parametrize(
    "script",
    [
        [json_answer("400 No", b'{"error":{"message":"bad temperature","code":400}}')],
        [
            json_answer(
                "200 OK", b'{"choices":[{"message":{"content":"hi"}}],"usage":{"cost":0.1},"error":{"code":502}}'
            )
        ],
        [json_answer("200 OK", b'{"id":"gen-1","choices":[]}')],
    ],
    ids=["a refusal", "an error beside content", "no cost"],
)
def test_only_good_answers_with_a_known_cost_are_kept(proxy, upstream, script):
    upstream.play("odd", *script)
    assert [cache_of(proxy, call("odd")) for _ in range(2)] == (["MISS", "MISS"])
    assert len(upstream.received) == 2
    assert [cache_of(proxy, call()) for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize(
    "script",
    [
        [SSE, chunked(EVENT, end=False), CLOSE],
        [SSE, chunked(EVENT + b'data: {"error":{"code":502,"message":"x"}}\n\n' + PRICED + DONE)],
        [SSE, chunked(EVENT + DONE)],
    ],
    ids=["cut", "an error within", "no cost"],
)
def test_a_stream_that_does_not_end_well_is_not_kept(proxy, upstream, script):
    upstream.play("odd", *script)
    assert [cache_of(proxy, call("odd", stream=True)) for _ in range(2)] == ["MISS", "MISS"]
    assert len(upstream.received) == 2


def test_a_stream_that_its_client_leaves_is_not_kept(proxy, upstream):
    answer = proxy.forward(call("streamed", stream=True))
    next(iter(answer.body))
    answer.body.close()
    assert cache_of(proxy, call("streamed", stream=True)) == "MISS"
    assert cache_of(proxy, call("streamed", stream=True)) == "HIT"


def test_a_fallbacks_answer_is_not_kept_for_the_time_after(proxy, upstream):
    down = json_answer("502 Bad", b'{"error":{"message":"down","code":502}}')
    upstream.play_in_turn("a/one", [down], [down], [down], [FINE])
    proxy.router.rules.set("a/one", RuleTerms((Fallback(MODEL),)))
    proxy.router.rules.reload()
    answer = proxy.forward(call("a/one"))
    assert (whole(answer), "X-Fallback" in told(answer)) == (WHOLE, True)
    answer = proxy.forward(call("a/one"))
    assert (whole(answer), "X-Fallback" in told(answer), told(answer)["X-Cache"]) == (WHOLE, False, "MISS")
    assert cache_of(proxy, call("a/one")) == "HIT"


def test_a_long_answer_passes_whole_and_is_not_kept(proxy, upstream):
    body = WHOLE[:-1] + b',"x":"' + b"a" * MAX_ANSWER_BYTES + b'"}'
    upstream.play("long", json_answer("200 OK", body))
    for _ in range(2):
        answer = proxy.forward(call("long"))
        assert (whole(answer) == body, told(answer)["X-Cache"]) == (True, "MISS")


# ── the client's wishes


@pytest.mark.parametrize("wish", ["no-cache", "No-Cache", "max-age=0", "max-age=", "private, no-cache"])
def test_a_client_that_wants_a_new_answer_gets_it_and_the_next_one_that_too(proxy, upstream, wish):
    newer = json_answer("200 OK", WHOLE.replace(b"gen-1", b"gen-2"))
    upstream.play_in_turn(MODEL, [FINE], [newer])
    assert cache_of(proxy, call()) == "MISS"
    assert b"gen-2" in whole(proxy.forward(call(cache_control=wish)))
    again = proxy.forward(call(cache_control="max-age=60"))
    assert (b"gen-2" in whole(again), told(again)["X-Cache"]) == (True, "HIT")


def test_what_a_client_wants_not_to_be_stored_is_not(proxy, upstream):
    assert [cache_of(proxy, call(cache_control="no-store")) for _ in range(2)] == ["MISS", "MISS"]
    assert cache_of(proxy, call()) == "MISS"
    assert cache_of(proxy, call(cache_control="no-store")) == "MISS"
    assert cache_of(proxy, call(cache_control="max-stale, only-if-there")) == "HIT"  # words that mean nothing here


# ── rights


def test_a_key_that_may_not_use_the_model_any_more_is_refused_at_a_repeat(proxy, upstream):
    assert [cache_of(proxy, call()) for _ in range(2)] == ["MISS", "HIT"]
    for limits in ({"models": ("anthropic/*",)}, {"scopes": frozenset({"messages"})}, {"upstreams": frozenset({"x"})}):
        with pytest.raises(Forbidden):
            proxy.forward(call(key=with_fields(KEY, **limits)))
    assert (len(upstream.received), cache_of(proxy, call())) == (1, "HIT")


def test_a_repeat_releases_its_admission_without_tokens(proxy):
    released: list[Any] = []

    class Noted(Admission):
        def release(self, tokens: int | None) -> None:
            released.append(tokens)

    for _ in range(2):
        cache_of(proxy, call(admission=Noted()))
    assert released == [7, None]


def test_a_repeat_has_a_row_of_its_own_that_costs_nothing(proxy):
    for _ in range(2):
        cache_of(proxy, call())
    lines = [json.loads(line) for line in proxy.usage._journal._path.read_bytes().splitlines() if line]
    assert {name: lines[-1][name] for name in ("state", "outcome", "http_status", "client_key_id", "attempt")} == {
        "state": "void",
        "outcome": "cached",
        "http_status": 200,
        "client_key_id": 5,
        "attempt": 0,
    }
    assert sum("cost_nano" in line for line in lines) == 1


# ── bounds


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def cache(**settings: Any) -> tuple[ResponseCache, Time]:
    at = Time()
    return ResponseCache(Config(**settings), at), at


def names_in(kept: ResponseCache) -> set[bytes]:
    return {name for name in (b"1", b"2", b"3", b"4") if kept.find(name, 9e9)}


def test_an_answer_is_none_after_its_time_and_its_memory_is_free():
    kept, at = cache(response_cache_seconds=60)
    kept.keep(b"1", 1, [], b"x")
    at.now = 30
    kept.keep(b"2", 1, [], b"x")
    assert kept.find(b"1", 9e9)[1] == 30
    assert (kept.find(b"1", 29), kept.find(b"1", 30)[1]) == (None, 30)
    at.now = 60
    assert names_in(kept) == {b"2"}
    kept.drop_old()
    assert (len(kept._kept), kept._size, kept._shares[1].size) == (1, ROW_BYTES + 1, ROW_BYTES + 1)
    at.now = 90
    kept.drop_old()
    assert (kept._kept, kept._size, kept._shares) == ({}, 0, {})


def test_a_user_who_wants_too_much_loses_their_own_oldest_answers_only():
    kept, _ = cache(response_cache_bytes=100_000, response_cache_user_bytes=2 * ROW_BYTES)
    kept.keep(b"4", 2, [], b"")
    for name in (b"1", b"2", b"3"):
        kept.keep(name, 1, [], b"")
    assert names_in(kept) == {b"2", b"3", b"4"}
    kept.keep(b"1", 1, [], b"a" * 2 * ROW_BYTES)  # more than all of it: nothing makes room
    assert names_in(kept) == {b"2", b"3", b"4"}


def test_all_together_keep_to_the_bound_and_the_oldest_goes():
    kept, _ = cache(response_cache_bytes=3 * ROW_BYTES, response_cache_user_bytes=9 * ROW_BYTES)
    for user_id, name in enumerate((b"1", b"2", b"3", b"4")):
        kept.keep(name, user_id, [], b"")
    assert (names_in(kept), kept._size) == ({b"2", b"3", b"4"}, 3 * ROW_BYTES)
    kept.keep(b"2", 1, [], b"")  # anew, so that it is the newest
    kept.keep(b"1", 0, [], b"")
    assert names_in(kept) == {b"1", b"2", b"4"}


def test_a_body_that_is_too_long_is_not_held_on_its_way():
    kept: list[bytes] = []
    pieces = [b"a" * 100_000] * 12
    assert sum(map(len, RecordedBody(pieces, kept.append))) == 1_200_000
    assert kept == []
    list(RecordedBody([b"a", KEEPALIVE, b"b"], kept.append))
    assert kept == [b"ab"]


# ── a gateway


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    scripted.play(MODEL, json_answer("200 OK", ANSWER))
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def openrouter() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL}
    answer |= {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    answer |= {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cost": 0.25}}
    scripted.play(MODEL, json_answer("200 OK", json.dumps(answer).encode()))
    scripted.play("x/stream", SSE, chunked(STREAM.replace(b"gen-1", b"chatcmpl-2")))
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def served(start: Callable[..., Gateway], openrouter: ScriptedUpstream, modules_database_url: str) -> Gateway:
    return start(
        DATABASE_URL=modules_database_url,
        OPENROUTER_API_URL=openrouter.url,
        OPENROUTER_API_KEYS="sk-or-v1-" + "7" * 64,
        QUOTA_USD=1,
        RATE_LIMIT_KEY_RPM=6,
        SECRET_KEY=SECRET_KEY,
        ENCRYPTION_KEY=ENCRYPTION_KEY,
        ADMIN_TOKEN=ADMIN_TOKEN,
    )


BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}


def test_a_switch_on_a_key_and_what_it_does_to_a_bill(served, openrouter):
    """Off at first; on by a PATCH; with OpenAI's own SDK, and a second user whom none of it concerns."""
    token, innocent = served.new_user(), served.new_user()
    made = shown(served.ask("POST", "/api/api-keys", {"name": "repeats"}, token), 201)
    key, theirs = made["key"], shown(served.ask("POST", "/api/api-keys", {"name": "n"}, innocent), 201)["key"]
    path = f"/api/api-keys/{made['id']}"
    assert made["response_cache"] is False
    assert "X-Cache" not in served.post("/v1/chat/completions", BODY, key).headers
    assert refusal_of(served.ask("PATCH", path, {"response_cache": None}, token))
    assert shown(served.ask("PATCH", path, {"response_cache": True}, token))["response_cache"] is True

    answers = [served.post("/v1/chat/completions", BODY, key) for _ in range(2)]
    assert [one.headers["X-Cache"] for one in answers] == ["MISS", "HIT"]
    assert answers[0].content == answers[1].content
    assert 0 <= int(answers[1].headers["Age"]) < 60
    assert answers[1].headers["Cache-Control"] == "no-store"
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0)
    sent = len(openrouter.received)
    said = [
        "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        for stream in (client.chat.completions.create(**BODY | {"model": "x/stream"}, stream=True) for _ in range(2))
    ]
    assert said == ["hi", "hi"]
    assert len(openrouter.received) == sent + 1
    assert "X-Cache" not in served.post("/v1/chat/completions", BODY, theirs).headers


def test_the_log_and_the_quota_say_what_a_repeat_cost(served):
    token, innocent = served.new_user(), served.new_user()
    made = shown(served.ask("POST", "/api/api-keys", {"name": "r", "response_cache": True}, token), 201)
    assert [served.post("/v1/chat/completions", BODY, made["key"]).headers["X-Cache"] for _ in range(3)] == [
        "MISS",
        "HIT",
        "HIT",
    ]

    def logged() -> Any:
        items = served.get("/api/usage/logs", token).json()["items"]
        return items if len(items) == 3 else None

    items = wait_for(logged)
    assert [(one["outcome"], one["cost_usd"], one["status"]) for one in items] == [
        ("cached", 0, 200),
        ("cached", 0, 200),
        ("complete", 0.25, 200),
    ]
    found = served.get("/api/usage/logs?outcome=cached", token).json()["items"]
    assert len(found) == 2
    wait_for(lambda: served.get("/api/quota", token).json()["spent_usd"] == 0.25)
    assert served.get("/api/usage/logs", innocent).json()["items"] == []


def test_rate_limits_count_repeats_and_a_revoked_key_hits_nothing(served):
    token = served.new_user()
    made = shown(served.ask("POST", "/api/api-keys", {"name": "r", "response_cache": True}, token), 201)
    other = shown(served.ask("POST", "/api/api-keys", {"name": "o", "response_cache": True}, token), 201)
    statuses = [served.post("/v1/chat/completions", BODY, made["key"]).status_code for _ in range(8)]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) <= 7  # a minute may have ended within
    assert served.post("/v1/chat/completions", BODY, other["key"]).headers["X-Cache"] == "MISS"
    shown(served.ask("DELETE", f"/api/api-keys/{other['id']}", None, token))
    assert served.post("/v1/chat/completions", BODY, other["key"]).status_code == 401


def test_an_operator_may_have_none_at_all(command, services):
    services.client_keys._may_cache = False
    refused = command("keys", "create", "nightly", "--response-cache")
    assert (refused.exit_code, "RESPONSE_CACHE_SECONDS=0" in refused.output) == (1, True)
    services.client_keys._may_cache = True
    assert command("keys", "create", "nightly", "--response-cache").exit_code == 0
