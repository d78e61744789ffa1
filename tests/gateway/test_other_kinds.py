"""Answers of another kind than was asked for, errors beside content, and streams that do not say their end.

Each of these was billed, so none is thrown away or asked for again; and each ends alike, be it quick or late.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from formats.registry import IMAGES, MESSAGES, RESPONSES, VIDEOS
from foundation.errors import AppError
from openrouter_proxy import OpenRouterProxy
from tests.gateway.test_format_contract import FORMS, NEWER, OLDER, STREAMED, ask, data, named
from tests.support.data_plane import DONE, EVENT, finished, last_event, request, whole
from tests.support.scripted_upstream import CLOSE, JSON_CHUNKED, SSE, chunked, json_answer

EVERY = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
QUICK_AND_LATE = pytest.mark.parametrize("late", [False, True], ids=["quick", "late"])
ERROR = {"code": 429, "message": "Provider returned error"}
STOP = data(id="gen-1", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
END = b"0\r\n\r\n"


@pytest.fixture(autouse=True)
def _with_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


@pytest.fixture
def proxy(make_proxy: Callable[..., OpenRouterProxy]) -> OpenRouterProxy:
    return make_proxy(keepalive_seconds=0.1)


def without_comments(body: bytes) -> bytes:
    return body.replace(b": keep-alive\n\n", b"")


# ── content before an error

CHOICE = {"index": 0, "finish_reason": "error", "error": ERROR}
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": "so far"}]}]
FAILED = FORMS["responses"].body | {"status": "failed", "error": ERROR | {"code": "server_error"}, "output": OUTPUT}
PARTIAL = {
    "chat": FORMS["chat"].body | {"choices": [CHOICE | {"message": {"content": "so far"}}]},
    "completions": FORMS["completions"].body | {"choices": [CHOICE | {"text": "so far"}]},
    "responses": FAILED,
    "messages": FORMS["messages"].body | {"error": ERROR},
    "embeddings": FORMS["embeddings"].body | {"error": ERROR},
    "rerank": FORMS["rerank"].body | {"error": ERROR},
    "images": FORMS["images"].body | {"error": ERROR},
}


@EVERY
@pytest.mark.parametrize("has_text", [True, False], ids=["text", "only a bill"])
def test_a_plain_answer_with_an_error_beside_text_or_a_bill_is_asked_for_once(proxy, upstream, caplog, form, has_text):
    partial: dict[str, Any] = dict(PARTIAL[form.api.name])
    if not has_text:
        bare = {
            "choices": [{"index": 0, "finish_reason": "error", "error": ERROR}],
            "output": [],
            "content": [],
            "data": [],
            "results": [],
        }
        partial |= {name: value for name, value in bare.items() if name in partial}
    else:
        partial = {name: value for name, value in partial.items() if name != "usage"}
    upstream.play("m", json_answer("200 OK", json.dumps(partial).encode()))
    answer = proxy.forward(ask(form))
    told = json.loads(whole(answer))
    assert answer.status == 200
    assert "Provider returned error" in json.dumps(told)
    assert has_text is any(text in json.dumps(told) for text in ("so far", '"hi"', "0.1]", "Paris", "aGk="))
    assert len(upstream.received) == 1
    line = finished(caplog)
    assert (line["outcome"], [one["kind"] for one in line["tries"]]) == ("error", ["answered"])
    assert [kind for kind, _ in proxy.destinations.openrouter.keys.told] == ["picked", "succeeded", "released"]
    if not has_text:
        assert line["cost_usd"] == 0.123456789


@pytest.mark.parametrize("said", [{"delta": {"content": "hi"}}, {"delta": {}}])
def test_so_is_a_stream_whose_first_event_has_both(proxy, upstream, caplog, said):
    usage = {} if said["delta"] else {"usage": OLDER}
    event = data(id="gen-1", error=ERROR, choices=[said | {"finish_reason": "error"}], **usage)
    upstream.play("m", SSE, chunked(event, DONE))
    assert without_comments(whole(proxy.forward(request(stream=True)))) == event + DONE
    assert len(upstream.received) == 1
    assert finished(caplog)["outcome"] == "error"


def test_so_are_messages_and_responses(proxy, upstream):
    for api, event in (
        (RESPONSES, named("response.failed", response=FAILED | {"usage": None})),
        (RESPONSES, named("response.failed", response=FAILED | {"output": []})),
        (MESSAGES, named("error", error={"type": "api_error", "message": "no"}, usage=NEWER)),
    ):
        upstream.play("m", SSE, chunked(FORMS[api.name].first + event))
        before = len(upstream.received)
        assert b"error" in whole(proxy.forward(ask(FORMS[api.name], stream=True)))
        assert len(upstream.received) == before + 1


def test_an_error_without_content_or_bill_is_still_tried_again(proxy, upstream):
    free = {
        "id": "gen-1",
        "error": ERROR | {"code": 502},
        "usage": {"prompt_tokens": 3, "completion_tokens": 0, "cost": 0},
    }
    upstream.play_in_turn("m", (json_answer("200 OK", json.dumps(free).encode()),), (SSE, chunked(EVENT, DONE)))
    assert without_comments(whole(proxy.forward(request(stream=True)))) == EVENT + DONE


# ── another kind than asked


@STREAMED
@QUICK_AND_LATE
def test_json_to_a_stream_becomes_its_events(proxy, upstream, caplog, form, late):
    upstream.play("m", JSON_CHUNKED, 0.4 if late else 0.0, chunked(json.dumps(form.body).encode()))
    answer = proxy.forward(ask(form, stream=True))
    assert dict(answer.headers)["Content-Type"] == "text/event-stream"
    body = without_comments(whole(answer))
    kinds = [form.api.kind_of(event + b"\n\n").value for event in body.removesuffix(b"\n\n").split(b"\n\n")]
    assert "content" in kinds
    assert "error" not in kinds
    assert body.endswith(b"[DONE]\n\n") or form.api.is_end(json.loads(body.rpartition(b"data: ")[2]))
    if form.api is not RESPONSES:
        assert b"aGk=" in body if form.api is IMAGES else b"hi" in body
    line = finished(caplog)
    assert (line["outcome"], line["cost_usd"], len(line["tries"])) == ("complete", 0.123456789, 1)


@QUICK_AND_LATE
@pytest.mark.parametrize("body", [b'{"unknown": 1}', b"[1]", b"hello", b'{"a":"' + b"x" * 1_200_000 + b'"}'])
def test_what_no_format_knows_passes_as_one_event(proxy, upstream, late, body):
    upstream.play("m", JSON_CHUNKED, 0.4 if late else 0.0, chunked(body))
    assert without_comments(whole(proxy.forward(request(stream=True)))) == b"data: " + body + b"\n\n"
    assert len(upstream.received) == 1


@QUICK_AND_LATE
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html", ""])
@pytest.mark.parametrize("stream", [True, False])
def test_events_of_any_type_pass_as_they_come(proxy, upstream, caplog, kind, late, stream):
    head = SSE.replace(b"Content-Type: text/event-stream\r\n", f"Content-Type: {kind}\r\n".encode() if kind else b"")
    events = FORMS["chat"].stream
    pieces = [events[a:b] for a, b in itertools.pairwise((0, 2, 9, len(events)))]
    upstream.play("m", 0.4 if late else 0.0, head, *(chunked(piece, end=False) for piece in pieces), END)
    answer = proxy.forward(request(stream=stream))
    assert dict(answer.headers)["Content-Type"] == "text/event-stream"
    assert without_comments(whole(answer)) == events
    line = finished(caplog)
    assert (line["outcome"], line["cost_usd"]) == ("complete", 0.123456789)


def test_json_that_is_called_a_stream_or_a_page_is_json(proxy, upstream):
    body = json.dumps(FORMS["chat"].body).encode()
    for kind in (b"text/event-stream", b"text/html"):
        upstream.play("m", json_answer("200 OK", body).replace(b"application/json", kind))
        assert whole(proxy.forward(request())) == body


@EVERY
@QUICK_AND_LATE
def test_an_upstreams_4xx_stays_that_with_its_reason_whatever_its_body(proxy, upstream, form, late):
    bodies = {
        b'[{"error":{"code":400,"message":"cannot find field"}}]': "cannot find field",
        b'{"detail":"cannot find field"}': "cannot find field",
        b"cannot find field": "cannot find field",
        b"<html><title>cannot find field</title>": "cannot find field",
        b"": "status 4",
    }
    for status, (body, reason) in itertools.product((400, 404, 422), bodies.items()):
        upstream.play("m", 0.15 if late and form.stream else 0.0, json_answer(f"{status} No", body))
        before = len(upstream.received)
        try:
            answer = proxy.forward(ask(form, stream=bool(form.stream) and late))
            seen = (answer.status, whole(answer))
        except AppError as error:
            seen = (error.status, error.to_json())
        assert reason.encode() in seen[1]
        assert seen[0] == status or late
        assert len(upstream.received) == before + 1


# ── a stream's end


@pytest.mark.parametrize(
    ("stream", "outcome"),
    [
        (EVENT, "cut"),
        (EVENT * 3 + b": comment\n\n", "cut"),
        (EVENT + data(choices=[], usage=OLDER), "cut"),
        (EVENT + STOP, "complete"),
        (EVENT + STOP + data(choices=[], usage=OLDER), "complete"),
        (EVENT + DONE, "complete"),
        (EVENT + data(choices=[{"index": 0, "delta": {}, "finish_reason": "error"}]) + DONE, "error"),
    ],
)
def test_a_stream_says_its_end_or_was_cut(proxy, upstream, caplog, stream, outcome):
    upstream.play("m", SSE, chunked(stream))
    body = without_comments(whole(proxy.forward(request(stream=True))))
    if outcome == "cut":
        assert body.startswith(stream)
        assert last_event(body)["error"]["code"] == 502
    else:
        assert body == stream
    assert finished(caplog)["outcome"] == outcome


def test_a_reason_is_no_end_where_http_says_that_something_is_missing(proxy, upstream):
    upstream.play("m", SSE, chunked(EVENT + STOP, end=False), 0.05, CLOSE)
    assert last_event(whole(proxy.forward(request(stream=True))))["error"]["code"] == 502


# ── a job without a name

GZIPPED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b"
)
NO_JOBS = {
    "list": (json_answer("200 OK", b'[{"id":"job-1","status":"pending"}]'),),
    "null": (json_answer("200 OK", b"null"),),
    "damaged": (json_answer("202 Accepted", b'{"id":"job-1","status":'),),
    "no name": (json_answer("200 OK", b'{"status":"pending"}'),),
    "a name for no path": (json_answer("200 OK", b'{"id":"../keys","status":"pending"}'),),
    "no status": (json_answer("200 OK", b'{"id":"job-1","status":["pending"]}'),),
    "events": (SSE, chunked(EVENT, DONE)),
    "compressed": (GZIPPED,),
    "too long to be looked at": (json_answer("200 OK", b'{"id":"job-1","status":"%s"}' % (b"x" * (2 << 20))),),
}


@pytest.mark.parametrize("script", NO_JOBS.values(), ids=NO_JOBS)
def test_an_answer_that_names_no_job_is_a_failure_and_no_second_job_is_started(proxy, upstream, caplog, script):
    """Nobody could ask for it, so nothing of it goes to a client as if it had been started."""
    upstream.play("m", *script)
    with pytest.raises(AppError, match="did not say the name of the job") as failed:
        proxy.forward(request(api=VIDEOS, prompt="Hi"))
    assert (failed.value.status, len(upstream.received)) == (502, 1)
    assert finished(caplog)["outcome"] == "failed"
    upstream.play("m", json_answer("202 Accepted", b'{"id":"job-1","status":"pending"}'))
    assert json.loads(whole(proxy.forward(request(api=VIDEOS, prompt="Hi", user_id=2))))["id"] == "job-1"
