"""Answers that are no text: they pass byte for byte whatever they look like, and nobody guesses what they cost."""

from __future__ import annotations

import json

import pytest

from formats.registry import SPEECH
from foundation.errors import UpstreamFailed
from tests.gateway.test_format_contract import record
from tests.support.data_plane import request, whole
from tests.support.scripted_upstream import CLOSE, chunked, json_answer
from upstream.connection import ConnectionLost

NAME = "X-Generation-Id: gen-of-header\r\n"
SOUNDS = [b"{not json", b"data: no event\n\n", b": no comment\n\n", b"   \n\n", b"\0\xff" * 40_000, b"[1]", b"<html>"]


@pytest.fixture
def proxy(make_proxy):
    return make_proxy()


def ask():
    return request(api=SPEECH, input="hi")


def audio(body, name=NAME, length=None):
    size = len(body) if length is None else length
    head = f"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n{name}Content-Length: {size}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("sound", SOUNDS, ids=[repr(sound[:8]) for sound in SOUNDS])
def test_sound_passes_byte_for_byte_and_its_cost_is_asked_for(proxy, upstream, sound):
    upstream.play("m", audio(sound))
    answer = proxy.forward(ask())
    headers = dict(answer.headers)
    assert (headers["Content-Type"], headers["Content-Length"]) == ("audio/mpeg", str(len(sound)))
    assert whole(answer) == sound
    told = record(proxy)
    assert (told["state"], told["generation_id"], told["outcome"]) == ("pending", "gen-of-header", "complete")
    assert "cost_nano" not in told


def test_what_sound_without_a_name_costs_is_unknown(proxy, upstream):
    upstream.play("m", audio(b"sound", name=""))
    whole(proxy.forward(ask()))
    told = record(proxy)
    assert (told["state"], told.get("cost_nano")) == ("unknown", None)


def test_it_comes_as_soon_as_there_is_some_of_it(proxy, upstream):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/pcm\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.play("m", head, chunked(b"first", end=False), 20.0)
    answer = proxy.forward(ask())
    assert next(iter(answer.body)) == b"first"
    answer.body.close()
    assert upstream.received[0].closed_by_client.wait(30)
    assert record(proxy)["outcome"] == "client_gone"


def test_cut_sound_is_cut_for_the_client_and_not_asked_for_again(proxy, upstream):
    upstream.play("m", audio(b"half", length=100), 0.05, CLOSE)
    with pytest.raises(ConnectionLost):
        whole(proxy.forward(ask()))
    assert len(upstream.received) == 1
    told = record(proxy)
    assert (told["state"], told["outcome"], told["generation_id"]) == ("pending", "cut", "gen-of-header")


def test_before_its_first_byte_a_call_is_tried_again(proxy, upstream):
    upstream.play_in_turn("m", (audio(b"", length=100), 0.05, CLOSE), (audio(b"sound"),))
    assert whole(proxy.forward(ask())) == b"sound"
    assert len(upstream.received) == 2


def test_an_error_in_its_place_is_told_as_one(proxy, upstream):
    error = {"error": {"code": 502, "message": "Provider of user_2abcdefghij failed"}}
    upstream.play("m", json_answer("200 OK", json.dumps(error).encode()))
    try:
        body = whole(proxy.forward(ask()))
    except UpstreamFailed as told:
        body = told.to_json()
    assert b"failed" in body
    assert b"user_2" not in body
    assert record(proxy)["state"] != "settled"
