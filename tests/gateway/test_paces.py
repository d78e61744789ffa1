"""A choice among upstreams by how soon they answer: with few samples, after a change, while one hangs or fails."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from foundation.errors import AppError
from gateway.model_rules import RuleTerms
from gateway.paces import FAILED_SECONDS, HALF_LIFE_SECONDS, Pace, Paces, shares
from tests.gateway.test_destinations import ANSWER, add
from tests.support.data_plane import EVENT, WHOLE, request, whole
from tests.support.gateway import wait_for
from tests.support.scripted_upstream import SSE, ScriptedUpstream, chunked, json_answer

MODEL = "a/one"
SLOW_SECONDS = 0.3
QUICK, SLOW = "local", "openrouter"


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pace(at: Time, *seconds: float, waiting: int = 0) -> Pace:
    made = Pace(at)
    for one in seconds:
        made.begin()
        made.end(one)
    for _ in range(waiting):
        made.begin()
    return made


def share(one: Pace, *others: Pace) -> float:
    weights = shares([one, *others])
    return weights[0] / sum(weights)


# ── what is expected


def test_what_nobody_knows_is_shared_out_equally():
    at = Time()
    assert share(pace(at), pace(at), pace(at)) == pytest.approx(1 / 3)
    assert share(pace(at), pace(at, 0.2)) == pytest.approx(1 / 2)


def test_one_slow_answer_says_less_than_five():
    at = Time()
    quick = pace(at, *[0.1] * 5)
    assert share(pace(at, 1.0), quick) == pytest.approx(1 / (1 + 5.5**2))
    assert share(pace(at, *[1.0] * 5), quick) < share(pace(at, 1.0), quick)
    assert share(pace(at, *[1.0] * 50), quick) == pytest.approx(share(pace(at, *[1.0] * 5), quick))


def test_what_has_become_slow_is_seen_after_a_few_answers_and_what_has_become_quick_too():
    at = Time()
    one, other = pace(at, *[0.1] * 100), pace(at, *[0.1] * 100)
    for _ in range(5):
        one.begin()
        one.end(2.0)
    assert share(one, other) < 0.02
    for _ in range(20):
        one.begin()
        one.end(0.1)
    assert share(one, other) > 0.35


def test_what_was_not_called_for_long_is_tried_again():
    at = Time()
    slow, quick = pace(at, *[5.0] * 5), pace(at, *[0.1] * 5)
    shares_by_time = []
    for _ in range(12):
        shares_by_time.append(share(slow, quick))
        at.now += HALF_LIFE_SECONDS
    assert shares_by_time == sorted(shares_by_time)
    assert (shares_by_time[0] < 0.001, 0.4 < shares_by_time[-1] <= 0.5) == (True, True)


def test_whoever_waits_sends_others_elsewhere():
    at = Time()
    assert share(pace(at, 0.1, waiting=3), pace(at, 0.1)) == pytest.approx(1 / 17)
    hangs = pace(at, *[0.1] * 5, waiting=50)
    assert share(hangs, pace(at, *[1.0] * 5)) < 0.05
    for _ in range(50):
        hangs.end(None)
    assert share(hangs, pace(at, *[1.0] * 5)) > 0.9


def test_an_answer_in_no_time_can_be_counted_with():
    assert share(pace(Time(), 0.0), pace(Time(), 0.0)) == 0.5


def test_streams_and_plain_answers_have_paces_of_their_own():
    paces = Paces()
    assert paces.of("a", "m", True) is paces.of("a", "m", True)
    assert len({paces.of(*where) for where in (("a", "m", True), ("a", "m", False), ("b", "m", True))}) == 3


# ── on a proxy


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    yield scripted
    scripted.close()


@pytest.fixture
def proxy(make_proxy: Callable[..., Any], upstream: ScriptedUpstream, other: ScriptedUpstream) -> Any:
    upstream.play(MODEL, SLOW_SECONDS, json_answer("200 OK", WHOLE))
    other.play(MODEL, json_answer("200 OK", ANSWER))
    upstream.play("b/two", json_answer("200 OK", WHOLE))
    made = make_proxy()
    add(made, other.url, QUICK, prices={"*": {"prompt": 1, "completion": 1}})
    made.router.rules.set(MODEL, RuleTerms(upstreams={QUICK: 1, SLOW: 1}, choose_by="latency"))
    made.router.rules.reload()
    return made


def call(proxy: Any) -> None:
    assert whole(proxy.forward(request(MODEL)))


def counted(upstream: ScriptedUpstream, other: ScriptedUpstream, run: Callable[[], object]) -> Counter[str]:
    """How many calls each of them got meanwhile."""
    before = len(upstream.received), len(other.received)
    run()
    return Counter({SLOW: len(upstream.received) - before[0], QUICK: len(other.received) - before[1]})


def test_most_calls_go_to_the_quick_one_and_when_it_becomes_slow_to_the_other(proxy, upstream, other):
    got = counted(upstream, other, lambda: [call(proxy) for _ in range(30)])
    assert got[QUICK] > got[SLOW]
    other.play(MODEL, SLOW_SECONDS, json_answer("200 OK", ANSWER))
    upstream.play(MODEL, json_answer("200 OK", WHOLE))
    got = counted(upstream, other, lambda: [call(proxy) for _ in range(40)])
    assert got[SLOW] > got[QUICK]
    whole(proxy.forward(request("b/two")))  # a model without a rule goes where it always did
    assert len(upstream.requests_for("b/two")) == 1


def test_one_that_answers_nothing_gets_few_calls_while_all_wait(proxy, upstream, other):
    """No time of it is known, and none comes: those that wait say it."""
    release = threading.Event()
    upstream.play(MODEL, release, json_answer("200 OK", WHOLE))
    pool = [threading.Thread(target=call, args=(proxy,)) for _ in range(24)]
    for number, one in enumerate(pool):
        one.start()
        wait_for(lambda number=number: len(upstream.received) + len(other.received) > number)
    assert len(other.received) > len(upstream.received)
    release.set()
    for one in pool:
        one.join()
    assert [proxy.router._paces.of(name, MODEL, False)._waiting for name in (QUICK, SLOW)] == [0, 0]


def test_one_that_fails_at_once_is_not_quick(proxy, upstream, other):
    upstream.play(MODEL, json_answer("502 Bad", b'{"error":{"message":"down","code":502}}'))

    def call_anyhow() -> None:
        try:
            whole(proxy.forward(request(MODEL)))
        except AppError:
            pass

    got = counted(upstream, other, lambda: [call_anyhow() for _ in range(30)])
    assert got[QUICK] > 15
    assert proxy.router._paces.of(SLOW, MODEL, False)._waiting == 0


def test_what_the_client_did_wrong_says_nothing_of_an_upstream(proxy, upstream):
    upstream.play(MODEL, json_answer("400 No", b'{"error":{"message":"bad temperature","code":400}}'))
    assert proxy.forward(replace(request(MODEL), upstream=SLOW)).status == 400
    measured = proxy.router._paces.of(SLOW, MODEL, False)
    assert (measured.mean, measured._waiting) == (None, 0)


def test_only_what_may_be_used_is_drawn(proxy, other):
    proxy.destinations.find(SLOW).reach.is_away = True
    for _ in range(10):
        call(proxy)
    assert len(other.received) == 10


def test_an_answer_that_breaks_off_after_it_began_is_counted_once(proxy, upstream):
    upstream.play(MODEL, SSE, chunked(EVENT, end=False))
    answer = whole(proxy.forward(replace(request(MODEL, stream=True), upstream=SLOW)))
    assert b'"error"' in answer
    measured = proxy.router._paces.of(SLOW, MODEL, True)
    assert measured._waiting == 0
    assert measured.mean < FAILED_SECONDS
