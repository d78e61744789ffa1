"""A call's route: what goes up, and what an attempt by it means for its cost."""

from __future__ import annotations

import pytest

from formats.registry import CHAT
from gateway.attempt import Attempt
from gateway.forms import Form
from gateway.route import Route
from tests.support.data_plane import request
from tests.support.rows import each_row
from upstream.refusal import Refusal


class Answered:
    """An exchange whose head has come."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.headers = {"x-generation-id": "gen-1"}


@pytest.fixture
def route(make_proxy) -> Route:
    proxy = make_proxy()
    asked = request("openai/gpt-4o-mini", max_tokens=10)
    return Route(asked, CHAT.read(asked.body.data), proxy.destinations.openrouter, proxy.usage.forecasts)


def attempt(status: int, form: Form, refusal: Refusal | None = None) -> Attempt:
    found = Attempt(CHAT, None, Answered(status), 1)
    found.form, found.refusal = form, refusal
    return found


def test_it_knows_what_goes_up_and_what_that_may_cost(make_proxy):
    proxy, asked = make_proxy(), request("openai/gpt-4o-mini", max_tokens=10)
    route = Route(asked, CHAT.read(asked.body.data), proxy.destinations.openrouter, proxy.usage.forecasts)
    assert [bytes(piece) for piece in asked.body.pieces] == [asked.body.data]
    assert (route.model_name, route.prompt_bytes) == ("openai/gpt-4o-mini", len(asked.body.data))
    assert route.forecast.reserved_nano <= route.forecast.most_nano


def test_a_calls_own_time_comes_first_and_makes_no_silence_shorter(make_proxy):
    proxy = make_proxy(upstream_first_byte_timeout_seconds=5, upstream_idle_timeout_seconds=4)

    def times(timeout: int) -> tuple[float, float]:
        asked = request(timeout=timeout)
        found = Route(asked, CHAT.read(asked.body.data), proxy.destinations.openrouter, proxy.usage.forecasts)
        return found.first_byte_timeout, found.idle_timeout

    assert (times(0), times(2), times(60)) == ((5, 4), (2, 4), (60, 60))


@each_row(
    "refusal, is_refused, is_free",
    [(None, False, False), (Refusal(429, {}), True, True), (Refusal(504, {}), False, False)],
)
def test_a_refusal_is_free_unless_the_work_may_have_been_done(route, refusal, is_refused, is_free):
    form = Form.REFUSAL if refusal else Form.PLAIN
    result = route.result_of(attempt(refusal.status if refusal else 200, form, refusal))
    assert (result.refused, result.estimate is int) == (is_refused, is_free)
    assert (result.generation_id, result.is_final, result.sent) == ("gen-1", False, True)
