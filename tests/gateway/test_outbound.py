"""A call on its way up: each attempt is written down before it goes out, and one ending tells of them all."""

from __future__ import annotations

import pytest

from formats.registry import CHAT
from foundation.deadline import Deadline, NothingYet
from foundation.errors import UpstreamTimeout
from gateway.outbound import Outbound
from gateway.request import ClientGone
from gateway.route import Route
from tests.support.data_plane import WHOLE, request
from tests.support.scripted_upstream import json_answer

FAILED = json_answer("502 Bad Gateway", b'{"error":{"message":"down","code":502}}')


def outbound(proxy, asked, seconds: float = 5) -> Outbound:
    route = Route(asked, CHAT.read(asked.body.data), proxy.destinations.openrouter, proxy.usage.forecasts)
    return Outbound(asked, route, proxy.usage, Deadline(seconds), None, proxy.router)


def test_it_waits_through_attempts_until_there_is_an_answer(make_proxy, upstream):
    upstream.play_in_turn("m", [FAILED], [json_answer("200 OK", WHOLE)])
    calling = outbound(make_proxy(), request())
    calling.admit()
    assert calling.wait().held == WHOLE
    ending = calling.finish("complete", 200, None, None)
    assert [(one["kind"], one["status"]) for one in calling.attempts.log] == [("failing", 502), ("answered", 200)]
    assert (ending.cost_nano, ending.usage["prompt_tokens"], ending.events) == (7000, 3, 0)
    assert ending.first_byte_ms is not None and ending.key == calling.attempts.log[-1]["key"]


def test_when_time_is_up_the_attempt_says_so(make_proxy, upstream):
    upstream.play("m", 30.0)
    calling = outbound(make_proxy(), request(), 0.2)
    with pytest.raises(UpstreamTimeout):
        calling.wait()
    ending = calling.finish("failed", 504, UpstreamTimeout("late"), None)
    assert calling.attempts.log[0]["kind"] == "timeout"
    assert (ending.first_byte_ms, ending.usage) == (None, {})


def test_it_looks_up_and_goes_on_where_it_was(make_proxy, upstream):
    upstream.play("m", 0.3, json_answer("200 OK", WHOLE))
    deadline = Deadline(5)
    proxy, asked = make_proxy(), request()
    route = Route(asked, CHAT.read(asked.body.data), proxy.destinations.openrouter, proxy.usage.forecasts)
    calling = Outbound(asked, route, proxy.usage, deadline, None, proxy.router)
    deadline.look_up_in(0.05)
    with pytest.raises(NothingYet):
        calling.wait()
    deadline.look_up_in(5)
    assert calling.wait().held == WHOLE
    calling.finish("complete", 200, None, None)
    assert len(upstream.received) == 1


def test_nobody_is_tried_again_for_a_client_that_has_gone(make_proxy, upstream):
    upstream.play("m", FAILED)
    calling = outbound(make_proxy(), request(client_is_gone=lambda: True))
    with pytest.raises(ClientGone):
        calling.wait()
    calling.finish("client_gone", 499, None, None)
    assert len(upstream.received) == 1
