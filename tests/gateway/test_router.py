"""Fallbacks and choices of upstreams: whom a call may go on to, what that costs, and what the client is told."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from accounts.client_keys import ClientKey
from accounts.users import UpstreamChoice
from billing.quotas.slices import QuotaSlices, Reservation
from db import Database
from foundation.errors import AppError, Busy, QuotaExceeded
from gateway.failures import Failure
from gateway.model_rules import Fallback, RuleTerms
from tests.gateway.test_destinations import ANSWER, add
from tests.support.data_plane import DONE, EVENT, WHOLE, finished, last_event, request, whole
from tests.support.gateway import free_port
from tests.support.scripted_upstream import CLOSE, SSE, ScriptedUpstream, chunked, json_answer

ONE, TWO, THREE = "a/one", "b/two", "c/three"
LIMITED = json_answer("429 Slow", b'{"error":{"message":"Slow down","code":429,"metadata":{"provider_name":"p"}}}')
DOWN = json_answer("502 Bad", b'{"error":{"message":"down","code":502}}')
TIMED_OUT = json_answer("504 Late", b'{"error":{"message":"late","code":504}}')
FLAGGED = json_answer("403 No", b'{"error":{"message":"flagged","code":403,"metadata":{"reasons":["x"]}}}')
LONG = json_answer("400 No", b'{"error":{"message":"maximum context length is 1","code":400}}')
WRONG = json_answer("400 No", b'{"error":{"message":"bad temperature","code":400}}')
FINE = json_answer("200 OK", WHOLE)


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    """Another upstream than OpenRouter's."""
    scripted = ScriptedUpstream()
    for model in (ONE, TWO):
        scripted.play(model, json_answer("200 OK", ANSWER))
    yield scripted
    scripted.close()


@pytest.fixture
def proxy(make_proxy: Callable[..., Any], upstream: ScriptedUpstream, other: ScriptedUpstream) -> Any:
    for model in (TWO, THREE):
        upstream.play(model, FINE)
    made = make_proxy()
    add(made, other.url, prices={"*": {"prompt": 1000, "completion": 1000}})
    return made


def rule(proxy: Any, *fallbacks: Fallback, model: str = ONE, **terms: Any) -> None:
    proxy.router.rules.set(model, RuleTerms(fallbacks, **terms))
    proxy.router.rules.reload()


def asked(upstream: ScriptedUpstream) -> list[str]:
    return [json.loads(one.body)["model"] for one in upstream.received]


def records(proxy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in proxy.usage._journal._path.read_bytes().splitlines() if line]


def with_key(asked: Any, **limits: Any) -> Any:
    return replace(asked, caller=dataclasses.replace(asked.caller, client_key=ClientKey(1, 1, **limits)))


# ── by kind of failure


@pytest.mark.parametrize(
    "script, after",
    [([LIMITED], "rate-limited"), ([FLAGGED], "moderated"), ([LONG], "too-long"), ([DOWN], "away")],
)
def test_a_call_goes_on_to_the_model_that_is_named_for_its_failure(proxy, upstream, caplog, script, after):
    """And a call of the same model's without that failure, and of anybody's for another model, is as ever."""
    caplog.set_level(logging.INFO)
    upstream.play(ONE, *script)
    others = tuple(one for one in Failure if one != after)
    rule(proxy, Fallback(THREE, "", others), Fallback(TWO, "", (Failure(after),)))
    call = request(ONE, seed=123456789012345678901)
    call.body.data = sent = bytes(call.body.data).replace(b'"hi"', b'"hi", "x": 1e400')
    answer = proxy.forward(call)
    assert (answer.status, whole(answer)) == (200, WHOLE)
    assert dict(answer.headers)["X-Fallback"] == f"{TWO}; upstream=openrouter; after={after}"
    assert set(asked(upstream)) == {ONE, TWO}
    assert upstream.received[-1].body == sent.replace(ONE.encode(), TWO.encode())
    told = finished(caplog)
    assert (told["model"], told["asked_model"], told["upstream"], told["outcome"]) == (
        TWO,
        ONE,
        "openrouter",
        "complete",
    )
    assert [one.get("model") for one in told["tries"]] == [ONE] * (len(told["tries"]) - 1) + [None]
    assert told["tries"][-1]["kind"] == "answered"
    innocent = proxy.forward(request(TWO, user_id=2))
    assert "X-Fallback" not in dict(innocent.headers)
    whole(innocent)


def test_what_the_client_did_wrong_stays_its_own(proxy, upstream):
    upstream.play(ONE, WRONG)
    rule(proxy, Fallback(TWO))
    answer = proxy.forward(request(ONE))
    assert (answer.status, asked(upstream), "X-Fallback" in dict(answer.headers)) == (400, [ONE], False)


def test_when_all_fail_the_last_says_why(proxy, upstream):
    upstream.play(ONE, LIMITED)
    upstream.play(TWO, FLAGGED)
    upstream.play(THREE, LONG)
    rule(proxy, Fallback(TWO), Fallback(THREE, "", (Failure.MODERATED,)))
    answer = proxy.forward(request(ONE))
    assert (answer.status, asked(upstream)) == (400, [ONE, TWO, THREE])
    assert dict(answer.headers)["X-Fallback"] == f"{THREE}; upstream=openrouter; after=moderated"


def test_a_streams_first_content_is_the_last_moment(proxy, upstream):
    rule(proxy, Fallback(TWO))
    upstream.play(ONE, SSE + chunked(EVENT, end=False), CLOSE)
    answer = proxy.forward(request(ONE, stream=True))
    assert last_event(whole(answer))["error"]["code"] == 502
    assert asked(upstream) == [ONE]
    upstream.play(ONE, SSE + chunked(b'data: {"error":{"code":429,"message":"slow"}}\n\n'))
    upstream.play(TWO, SSE + chunked(EVENT + DONE))
    answer = proxy.forward(request(ONE, stream=True))
    assert whole(answer) == EVENT + DONE
    assert dict(answer.headers)["X-Fallback"] == f"{TWO}; upstream=openrouter; after=rate-limited"


def test_a_stream_that_had_to_begin_early_falls_back_too(proxy, upstream):
    rule(proxy, Fallback(TWO))
    upstream.play(ONE, 0.6, LIMITED)
    upstream.play(TWO, SSE + chunked(EVENT + DONE))
    answer = proxy.forward(request(ONE, stream=True))
    assert "X-Fallback" not in dict(answer.headers)
    assert whole(answer).endswith(EVENT + DONE)


def test_there_is_one_deadline_for_all(proxy, upstream):
    rule(proxy, Fallback(TWO), timeout_seconds=1)
    upstream.play(ONE, LIMITED)
    upstream.play(TWO, 30.0)
    with pytest.raises(AppError) as late:
        proxy.forward(request(ONE))
    assert late.value.status == 504


# ── time-outs


def test_a_models_time_is_its_rules_and_a_calls_own_comes_first(proxy):
    rule(proxy, timeout_seconds=600)

    def times(model: str, timeout: int) -> tuple[float, float]:
        route = proxy.router.first(request(model, timeout=timeout))
        return route.first_byte_timeout, route.idle_timeout

    usual = (5, 120)
    assert (times(ONE, 0), times(ONE, 2), times(ONE, 900), times(TWO, 0)) == ((600, 600), (2, 120), (900, 900), usual)


# ── whom it may go on to


def test_a_key_reaches_nothing_by_a_fallback_that_it_may_not_use(proxy, upstream, other, caplog):
    caplog.set_level(logging.INFO)
    upstream.play(ONE, LIMITED)
    rule(proxy, Fallback(ONE, "local"), Fallback(TWO), Fallback(THREE))
    limits: Any
    for limits in ({"models": (ONE, THREE), "upstreams": frozenset({"openrouter"})}, {"models": (ONE,), "upstreams": frozenset({"openrouter"})}):  # fmt: skip
        proxy_asked = len(upstream.received)
        answer = proxy.forward(with_key(request(ONE), **limits))
        whole(answer)
        expected = [ONE, THREE] if THREE in limits["models"] else [ONE]
        assert asked(upstream)[proxy_asked:] == expected
        assert answer.status == (200 if THREE in limits["models"] else 429)
    assert other.received == []
    assert any(
        "may not use the upstream" in one.fields["reason"] for one in caplog.records if one.msg == "fallback_skipped"
    )


@pytest.mark.parametrize("fields", [{"provider": {"data_collection": "deny"}}, {"provider": None}])
def test_who_says_which_providers_may_have_the_prompt_is_not_sent_elsewhere(proxy, upstream, other, fields):
    upstream.play(ONE, LIMITED)
    rule(proxy, Fallback(ONE, "local"), Fallback(TWO))
    whole(proxy.forward(request(ONE, **fields)))
    assert (asked(upstream), other.received) == ([ONE, TWO], [])
    whole(proxy.forward(request(ONE)))
    assert asked(other) == [ONE]


def test_who_names_an_upstream_stays_there(proxy, upstream, other):
    other.play(ONE, LIMITED)
    rule(proxy, Fallback(ONE, "openrouter"), Fallback(TWO))
    answer = proxy.forward(replace(request(ONE), upstream="local"))
    assert dict(answer.headers)["X-Fallback"] == f"{TWO}; upstream=local; after=rate-limited"
    assert (whole(answer), asked(other), upstream.received) == (ANSWER, [ONE, TWO], [])


def test_who_wants_an_own_key_alone_stays_with_it(proxy, upstream, other):
    upstream.play(ONE, LIMITED)
    rule(proxy, Fallback(ONE, "local"))
    pool = proxy.destinations.openrouter.keys
    pool._choice_of, pool._all_have_own = {1: UpstreamChoice.DEDICATED_ONLY}.get, True
    with pytest.raises(Busy, match="Your own OpenRouter key is being made"):
        proxy.forward(request(ONE, user_id=1))
    assert other.received == []


def test_an_upstream_that_is_off_or_gone_is_passed_over(proxy, upstream, other):
    upstream.play(ONE, LIMITED)
    rule(proxy, Fallback(ONE, "local"), Fallback(TWO))
    proxy.destinations._named["local"] = None
    whole(proxy.forward(request(ONE)))
    del proxy.destinations._named["local"]
    whole(proxy.forward(request(ONE)))
    assert (asked(upstream), other.received) == ([ONE, TWO] * 2, [])


def test_a_pool_without_keys_is_away(make_proxy, other):
    proxy = make_proxy(keys=0)
    add(proxy, other.url)
    rule(proxy, Fallback(ONE, "local"))
    answer = proxy.forward(request(ONE))
    assert (whole(answer), dict(answer.headers)["X-Fallback"]) == (ANSWER, f"{ONE}; upstream=local; after=away")
    [dispatched] = [one for one in records(proxy) if one["state"] == "dispatched"]
    assert (dispatched["model"], dispatched["attempt"], "asked_model" in dispatched) == (ONE, 1, False)


# ── money


def test_the_bill_is_of_who_answered_and_each_try_has_its_row(proxy, upstream, other):
    upstream.play(ONE, DOWN)
    rule(proxy, Fallback(TWO, "local"))
    whole(proxy.forward(request(ONE)))
    sent = [one for one in records(proxy) if one["state"] == "dispatched"]
    assert [(one["attempt"], one["model"], one.get("upstream_id")) for one in sent[:-1]] == [
        (number, ONE, None) for number in range(1, len(sent))
    ]
    assert (sent[-1]["model"], sent[-1]["asked_model"], sent[-1]["upstream_id"]) == (TWO, ONE, 1)
    ends = {one["attempt"]: one for one in records(proxy) if one["state"] in {"settled", "void"}}
    assert [ends[number]["state"] for number in sorted(ends)] == ["void"] * (len(sent) - 1) + ["settled"]
    assert ends[len(sent)]["cost_nano"] == 7_000_000  # 3 + 4 tokens at 1,000 $ a million
    assert ends[len(sent)]["is_last"] is True


def test_the_name_that_was_asked_for_is_cut_to_its_column(proxy, upstream):
    long = "a/" + "x" * 100
    upstream.play(long, LIMITED)
    rule(proxy, Fallback(TWO), model=long)
    whole(proxy.forward(request(long)))
    assert records(proxy)[-1]["state"] == "settled"
    assert [one.get("asked_model") for one in records(proxy) if one["state"] == "dispatched"] == [None, long[:64]]


def test_two_tries_may_be_billed_and_no_third_is_made(proxy, upstream):
    for model in (ONE, TWO):
        upstream.play(model, TIMED_OUT)
    rule(proxy, Fallback(TWO), Fallback(THREE))
    assert proxy.forward(request(ONE)).status == 504
    assert asked(upstream) == [ONE, ONE]
    upstream.received.clear()
    upstream.play_in_turn(ONE, [TIMED_OUT], [LIMITED])
    assert proxy.forward(request(ONE)).status == 504
    assert asked(upstream) == [ONE, ONE, TWO]


def test_a_call_has_six_tries_at_most(proxy, upstream):
    for model in (ONE, TWO, THREE):
        upstream.play(model, DOWN)
    rule(proxy, Fallback(TWO), Fallback(THREE))
    assert proxy.forward(request(ONE)).status == 502
    assert Counter(asked(upstream)) == {ONE: 3, TWO: 3}


class Slices(QuotaSlices):
    """Lets nothing be reserved beyond so much, and writes down what is."""

    def __init__(self, db: Database, most_nano: int) -> None:
        self.free, self.steps, self._most = most_nano, [], most_nano

    def reserve(self, caller: Any, nano: int, user_pays: bool = False) -> Reservation:
        if nano > self.free:
            raise QuotaExceeded("spent")
        self.free -= nano
        self.steps.append(("reserve", nano))
        return Reservation(nano, {"user_quota_id": 1})

    def give_back(self, reservation: Any, nano: int) -> None:
        self.free += nano
        self.steps.append(("give back", nano))


def test_what_the_next_may_cost_is_reserved_before_the_last_is_given_back(proxy, upstream, other):
    upstream.play(ONE, LIMITED)
    rule(proxy, Fallback(ONE, "local"), Fallback(TWO))
    slices = proxy.usage._slices = Slices(None, 10**15)
    whole(proxy.forward(request(ONE, max_tokens=10)))
    (_, first), (_, second) = slices.steps[:2]
    assert [what for what, _ in slices.steps] == ["reserve", "reserve", "give back", "give back"]
    assert slices.steps[2] == ("give back", first)
    assert slices.free == 10**15 - 7_000_000
    poor = proxy.usage._slices = Slices(None, first + second - 1)
    answer = proxy.forward(request(ONE, max_tokens=10))
    assert dict(answer.headers)["X-Fallback"].startswith(f"{TWO}; upstream=openrouter")  # which is cheaper
    whole(answer)
    assert poor.free == first + second - 1 - 7000


# ── several upstreams that carry one model


def test_weights_choose_the_upstream_and_a_session_stays_with_one(proxy):
    rule(proxy, upstreams={"openrouter": 3, "local": 1})

    def chosen(session: str | None = None, **more: Any) -> str:
        return proxy.router.first(request(ONE, **({"session_id": session} if session else {}), **more)).to.name

    found = Counter(chosen() for _ in range(1000))
    assert 600 < found["openrouter"] < 900
    by_session = {str(n): chosen(str(n)) for n in range(50)}
    assert {session: chosen(session) for session in by_session} == by_session
    assert set(by_session.values()) == {"openrouter", "local"}
    asked_for = replace(request(ONE), upstream="local")
    assert {proxy.router.first(asked_for).to.name for _ in range(20)} == {"local"}
    limited = with_key(request(ONE), upstreams=frozenset({"local"}))
    assert {proxy.router.first(limited).to.name for _ in range(20)} == {"local"}
    proxy.destinations.find("local").reach.is_away = True
    assert {chosen() for _ in range(50)} == {"openrouter"}
    assert proxy.router.first(request(TWO)).to.name == "openrouter"


def test_the_price_chooses_the_cheaper_upstream(proxy, other):
    rule(proxy, upstreams={"local": 1, "openrouter": 1}, choose_by="price")
    assert proxy.router.first(request(ONE, max_tokens=10)).to.name == "openrouter"
    add(proxy, other.url, "cheap", prices={"*": {"prompt": 0.001, "completion": 0.001}})
    rule(proxy, upstreams={"local": 1, "openrouter": 1, "cheap": 1}, choose_by="price")
    assert proxy.router.first(request(ONE, max_tokens=10)).to.name == "cheap"


def test_where_none_of_them_can_be_used_the_call_is_told_why(proxy):
    rule(proxy, upstreams={"local": 1})
    proxy.destinations._named["local"] = None
    with pytest.raises(Busy, match="switched off"):
        proxy.router.first(request(ONE))


def test_an_upstream_that_nobody_can_reach_falls_back(proxy, upstream):
    add(proxy, f"http://127.0.0.1:{free_port()}/v1", "gone", prices={"*": {"prompt": 1, "completion": 1}})
    rule(proxy, Fallback(TWO, "openrouter"), upstreams={"gone": 1})
    answer = proxy.forward(request(ONE))
    assert (answer.status, dict(answer.headers)["X-Fallback"]) == (200, f"{TWO}; upstream=openrouter; after=away")
    whole(answer)
