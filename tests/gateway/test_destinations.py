"""Where calls go, and how each destination fares: another upstream's faults are its own."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from msgspec.structs import replace

from formats.body import CallBody
from formats.registry import MESSAGES, TRANSCRIPTIONS
from foundation.errors import AppError, BadRequest, Busy, PaymentRequired, UpstreamFailed
from gateway.destinations import UpstreamPrices, longest_prefix
from openrouter_proxy import OpenRouterProxy
from tables import upstreams as table
from tests.support.data_plane import DONE, EVENT, WHOLE, finished, request, whole
from tests.support.gateway import free_port, wait_for
from tests.support.scripted_upstream import RESET, SSE, ScriptedUpstream, chunked, json_answer
from upstream.registry import Upstream

KEY = "sk-upstream-0123456789abcdef-wxyz"
ANSWER = (
    b'{"id":"chatcmpl-1","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
)
PRICES = {"*": {"prompt": 1, "completion": 10}, "dear": {"prompt": 1000, "completion": 0}}


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    """Another upstream than OpenRouter's, which `upstream` stands for."""
    scripted = ScriptedUpstream()
    scripted.play("m", json_answer("200 OK", ANSWER))
    yield scripted
    scripted.close()


@pytest.fixture
def proxy(make_proxy: Callable[..., OpenRouterProxy], upstream: ScriptedUpstream) -> OpenRouterProxy:
    upstream.play("m", json_answer("200 OK", WHOLE))
    return make_proxy()


def add(proxy: OpenRouterProxy, url: str, name: str = "local", api_key: str | None = KEY, **fields: Any) -> Upstream:
    store = proxy.destinations._store
    added = store.add(store.check({"name": name, "base_url": url, **fields}), api_key)
    proxy.destinations.reload()
    return added


def ask(proxy: OpenRouterProxy, upstream: str = "local", model: str = "m", **fields: Any) -> Any:
    return proxy.forward(replace(request(model, **fields), upstream=upstream))


# ── which one


def test_a_call_goes_where_the_header_says_else_by_the_models_name_else_to_the_default(proxy):
    add(proxy, "https://one.example", "one", model_prefixes={"one/": "", "o": ""})
    add(proxy, "https://two.example", "two", model_prefixes={"one/big-": "x"})
    choose = proxy.destinations.choose
    assert choose("", "openai/gpt-4o").name == "one"
    assert choose("", "one/small").name == "one"
    assert choose("", "one/big-1").name == "two"
    assert choose("", "anthropic/claude").name == choose("", "").name == "openrouter"
    assert choose("two", "one/small").name == "two"
    assert choose("openrouter", "one/small").name == "openrouter"
    add(proxy, "https://three.example", "three", is_default=True)
    assert choose("", "anthropic/claude").name == "three"
    assert choose("openrouter", "").name == "openrouter"


def test_an_upstream_that_there_is_not_is_refused_and_one_that_is_off_is_said_to_be(proxy):
    add(proxy, "https://one.example", "one", is_active=False, model_prefixes={"one/": ""})
    with pytest.raises(BadRequest, match="no upstream named 'nobody'"):
        ask(proxy, "nobody")
    with pytest.raises(Busy, match="upstream one is switched off"):
        ask(proxy, "one")
    assert proxy.destinations.choose("", "one/x").name == "openrouter"


def test_an_upstream_whose_key_does_not_open_is_out_and_no_other(proxy, other, caplog):
    add(proxy, other.url, "one", is_default=True)
    broken = add(proxy, other.url, "two")
    db = proxy.destinations._store._db
    db.transact(lambda tx: tx.execute(table.update().where(table.c.id == broken.id).values(api_key="gAAAAbroken")))
    proxy.destinations.reload()
    with pytest.raises(Busy):
        ask(proxy, "two")
    assert ask(proxy, "").status == 200
    assert [record.fields["upstream"] for record in caplog.records if record.msg == "upstream_unreadable"] == ["two"]


def test_a_reload_keeps_what_has_not_changed_with_its_health_and_connections(proxy, other):
    add(proxy, other.url, "one")
    before = proxy.destinations.choose("one", "")
    add(proxy, other.url, "two")
    assert proxy.destinations.choose("one", "") is before
    store = proxy.destinations._store
    store.change("one", store.check({"name": "one", "base_url": other.url, "timeout_seconds": 9}), KEY)
    proxy.destinations.reload()
    assert proxy.destinations.choose("one", "").first_byte_timeout == 9
    store.remove("one")
    proxy.destinations.reload()
    with pytest.raises(BadRequest):
        ask(proxy, "one")


# ── what goes up


def test_the_clients_bytes_go_up_with_the_upstreams_key_and_without_what_is_openrouters(proxy, other, upstream):
    add(proxy, other.url)
    headers = b"X-Session-Id: s\r\nX-OpenRouter-Metadata: m\r\nAnthropic-Version: 2023-06-01\r\n"
    answer = ask(proxy, headers=headers, temperature=1.0)
    assert whole(answer) == ANSWER
    [received] = other.received
    assert received.body == request("m", temperature=1.0).body.data
    assert received.head.startswith(b"POST /api/v1/chat/completions HTTP/1.1\r\n")
    sent = received.headers()
    assert set(sent) == {
        *("host", "content-type", "accept", "accept-encoding", "user-agent", "content-length"),
        *("authorization", "anthropic-version"),
    }
    assert (sent["authorization"], sent["host"]) == (f"Bearer {KEY}", f"127.0.0.1:{other.port}")
    assert upstream.received == []
    whole(ask(proxy, "openrouter"))
    assert "http-referer" in upstream.received[0].headers()
    assert len(other.received) == 1


def test_an_upstream_without_a_key_gets_no_authorization(proxy, other):
    add(proxy, other.url, api_key=None)
    whole(ask(proxy))
    assert "authorization" not in other.received[0].headers()


def test_each_format_has_its_own_path(proxy, other):
    add(proxy, other.url)
    whole(ask(proxy, api=MESSAGES, max_tokens=5))
    assert other.received[0].head.startswith(b"POST /api/v1/messages HTTP/1.1\r\n")


def test_a_model_has_another_name_there_if_the_mapping_says_so(proxy, other):
    add(proxy, other.url, model_prefixes={"local/": "", "x/": "x/", "a/b": "meta/"})
    for model, sent in (("local/m", "m"), ("x/m", "x/m"), ("a/b-m", "meta/-m"), ("m", "m")):
        other.play(sent, json_answer("200 OK", ANSWER))
        whole(ask(proxy, model=model, seed=12345678901234567, top_p=0.1))
        received = other.received[-1]
        assert received.body == request(sent, seed=12345678901234567, top_p=0.1).body.data  # all other bytes too
    assert longest_prefix("abc", {"a": "", "ab": "", "b": ""}) == "ab"
    assert longest_prefix("xyz", {"a": ""}) is None


def test_so_has_one_in_a_form(proxy, other):
    add(proxy, other.url, model_prefixes={"local/": ""})
    part = '--b1\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    file = part.format('file"; filename="a.wav', "local/m")
    form = bytearray((file + part.format("model", "local/m") + "--b1--\r\n").encode())
    call = TRANSCRIPTIONS.read(form)
    to = proxy.destinations.choose("", call.model)
    assert to.name == "local"
    assert b"".join(to.body_for(call, form)).decode() == file + part.format("model", "m") + "--b1--\r\n"


# ── health


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}, "key-refused"),
        (402, {"message": "Insufficient credits"}, "no-credit"),
    ],
)
def test_a_refusal_of_our_key_is_ours_and_shown_to_operators_until_a_call_is_answered(
    proxy, other, status, error, reason
):
    add(proxy, other.url)
    refused = [json_answer(f"{status} No", json.dumps({"error": error}).encode())]
    other.play_in_turn("m", refused, [json_answer("200 OK", ANSWER)])
    other.play("n", json_answer("200 OK", ANSWER))
    with pytest.raises((UpstreamFailed, PaymentRequired)) as raised:
        ask(proxy)
    assert KEY not in raised.value.message
    [(name, told)] = proxy.destinations.report().items()
    assert name == f"upstream/{proxy.destinations.choose('local', '').upstream_id}"
    assert told == {"health": "suspect", "reason": reason, "until": None}
    assert ask(proxy).status == 200  # it rests for nobody
    assert proxy.destinations.report() == {}


def test_a_limit_is_passed_on_and_nobody_elses(proxy, other):
    add(proxy, other.url)
    body = json.dumps({"error": {"message": f"slow down, {KEY} of org-abcdefgh1234", "type": "requests"}}).encode()
    other.play_in_turn("m", [json_answer("429 No", body, "Retry-After: 20\r\n")], [json_answer("200 OK", ANSWER)])
    answer = ask(proxy)
    assert (answer.status, dict(answer.headers)["Retry-After"]) == (429, "20")
    assert json.loads(whole(answer))["error"] == {"message": f"slow down, {'*' * len(KEY)} of ***", "type": "requests"}
    assert ask(proxy).status == 200


def test_a_limit_until_a_date_is_passed_on_in_seconds(proxy, other):
    add(proxy, other.url)
    at = formatdate(time.time() + 90, usegmt=True)
    other.play("m", json_answer("429 No", b'{"error":{"message":"slow down"}}', f"Retry-After: {at}\r\n"))
    assert 60 <= int(dict(ask(proxy).headers)["Retry-After"]) <= 90
    assert ask(proxy, "openrouter").status == 200


def test_a_key_of_any_form_is_not_repeated_to_a_client(proxy, other):
    add(proxy, other.url, api_key="my own odd key".replace(" ", "_"))
    for error in ({"message": "my_own_odd_key is bad"}, "my_own_odd_key"):
        other.play("m", json_answer("400 No", json.dumps({"error": error}).encode()))
        assert b"odd" not in whole(ask(proxy))


@pytest.mark.parametrize("fault", ["500", "503", "reset"])
def test_what_may_be_tried_again_is_tried_again_on_the_same_upstream(proxy, other, upstream, fault):
    add(proxy, other.url)
    failure = RESET if fault == "reset" else json_answer(f"{fault} No", b'{"error":{"message":"oops"}}')
    other.play_in_turn("m", [failure], [json_answer("200 OK", ANSWER)])
    assert whole(ask(proxy)) == ANSWER
    assert len(other.received) == 2
    assert upstream.received == []


def test_the_clients_own_faults_are_passed_on_and_rest_nothing(proxy, other):
    add(proxy, other.url)
    error = {"error": {"message": "no such model", "type": "invalid_request_error", "param": None, "code": "x"}}
    for status in (400, 403, 404, 422):
        other.play("m", json_answer(f"{status} No", json.dumps(error).encode()))
        answer = ask(proxy)
        assert (answer.status, json.loads(whole(answer))) == (status, error)
    assert len(other.received) == 4


def test_an_upstream_that_is_away_is_not_waited_for_by_everybody(proxy, upstream):
    added = add(proxy, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UpstreamFailed, match="could not be reached"):
        ask(proxy)
    wait_for(lambda: proxy.destinations.choose("local", "").reach.is_away)
    with pytest.raises(Busy, match="upstream local can't be reached at present"):
        ask(proxy)
    assert proxy.destinations.report() == {
        f"upstream/{added.id}": {"health": "resting", "reason": "away", "until": None}
    }
    assert whole(ask(proxy, "openrouter")) == WHOLE
    assert len(upstream.received) == 1


def test_a_redirect_is_a_failure_and_nobody_follows_it(proxy, other, upstream):
    add(proxy, other.url)
    other.play("m", json_answer("302 Found", b"{}", f"Location: {upstream.url}/chat/completions\r\n"))
    with pytest.raises(UpstreamFailed):
        ask(proxy)
    assert upstream.received == []


def test_one_upstreams_faults_are_not_anothers_nor_the_pools(proxy, other):
    add(proxy, f"http://127.0.0.1:{free_port()}", "away")
    add(proxy, other.url)
    for _ in range(2):
        with pytest.raises(AppError):
            ask(proxy, "away")
    assert ask(proxy).status == ask(proxy, "openrouter").status == 200


# ── what it costs


def records(proxy: OpenRouterProxy) -> list[dict[str, Any]]:
    """What was written down of the calls, a dictionary for each try."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in proxy.usage._journal._path.read_bytes().splitlines():
        record = json.loads(line)
        found.setdefault((record["request_id"], record["attempt"]), {}).update(record)
    return list(found.values())


@pytest.mark.parametrize(
    ("answer", "prices", "expected"),
    [
        (ANSWER, PRICES, ("settled", "priced", 43_000)),
        (ANSWER, {}, ("unknown", None, None)),
        (
            ANSWER.replace(b'"prompt_tokens":3', b'"cost":0.5,"prompt_tokens":3'),
            PRICES,
            ("settled", "body", 500_000_000),
        ),
        (
            ANSWER.replace(b',"usage"', b',"unusual"'),
            {"*": {"prompt": 1, "completion": 0}},
            ("estimated", "estimate", 0),
        ),
        (ANSWER.replace(b',"usage"', b',"unusual"'), {}, ("unknown", None, None)),
        (ANSWER.replace(b"chatcmpl-1", b"gen-1"), {}, ("unknown", None, None)),
    ],
    ids=["priced", "no price", "told", "no usage", "neither", "a name as OpenRouter's"],
)
def test_what_is_told_counts_else_the_price_else_it_is_unknown(proxy, other, caplog, answer, prices, expected):
    caplog.set_level(logging.INFO)
    added = add(proxy, other.url, prices=prices)
    other.play("m", json_answer("200 OK", answer))
    whole(ask(proxy))
    [record] = records(proxy)
    state, source, cost = expected
    assert (record["state"], record.get("source")) == (state, source)
    assert (record.get("cost_nano") is None) == (cost is None)
    if source != "estimate":
        assert record.get("cost_nano") == cost
    assert (record["pool_key_id"], record["upstream_id"], record["model"]) == (None, added.id, "m")
    assert "generation_id" not in record
    assert finished(caplog)["upstream"] == "local"


def test_a_stream_without_usage_is_estimated_by_its_events(proxy, other):
    add(proxy, other.url, prices={"*": {"prompt": 0, "completion": 10}})
    other.play("m", SSE, chunked(EVENT * 7 + DONE))
    whole(ask(proxy, stream=True))
    [record] = records(proxy)
    assert (record["state"], record["source"]) == ("estimated", "estimate")
    assert 70_000 <= record["cost_nano"] <= 80_000


@pytest.mark.parametrize("step", [json_answer("400 No", b'{"error":{"message":"x"}}'), None])
def test_refusals_and_what_was_never_sent_cost_nothing(proxy, other, step):
    url = other.url if step else f"http://127.0.0.1:{free_port()}"
    add(proxy, url, prices=PRICES)
    if step:
        other.play("m", step)
        whole(ask(proxy))
    else:
        with pytest.raises(UpstreamFailed):
            ask(proxy)
    assert {record["state"] for record in records(proxy)} == {"void"}


def test_prices_are_by_the_models_name_else_for_all_others(proxy):
    prices = UpstreamPrices(add(proxy, "https://one.example", prices=PRICES))
    usage = {"prompt_tokens": 2, "completion_tokens": 1}
    assert prices.priced_nano("dear", usage) == 2_000_000
    assert prices.priced_nano("any", usage) == 12_000
    assert prices.priced_nano("any", {"prompt_tokens": 2}) is None
    assert prices.priced_nano("any", {"prompt_tokens": 2, "completion_tokens": "1"}) is None
    assert prices.most_nano(CallBody("any", False, max_tokens=100, n=2), 200) == 100 * 1000 + 200 * 10_000
    assert prices.most_nano(CallBody("any", False, max_tokens=0, models=("dear",)), 200) == 100 * 1_000_000
    unpriced = UpstreamPrices(add(proxy, "https://two.example", "two", prices={"dear": PRICES["dear"]}))
    assert unpriced.most_nano(CallBody("any", False), 10**6) == 0
    assert unpriced.estimate_nano("any", 10, 10) is unpriced.priced_nano("any", usage) is None


def test_no_key_is_logged(proxy, other, caplog):
    caplog.set_level(logging.DEBUG)
    add(proxy, other.url)
    other.play("m", json_answer("401 No", json.dumps({"error": {"message": KEY}}).encode()))
    with pytest.raises(UpstreamFailed):
        ask(proxy)
    assert KEY not in " ".join(str(record.__dict__) for record in caplog.records)
