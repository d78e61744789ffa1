"""No key of ours comes back down, whatever an upstream repeats: in every format, field, header and at every border.

Each test sends what an upstream might say that echoes the call's key, another key of the pool, a key that is of a pool
key's form only, and what names the account; and looks at every byte that a client would get.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from foundation.errors import AppError
from gateway import attempts
from openrouter_proxy import OpenRouterProxy
from tests.gateway.test_format_contract import FORMS, ask, data
from tests.support.data_plane import whole
from tests.support.gateway import Gateway, body_of, read_all
from tests.support.scripted_upstream import JSON_CHUNKED, SSE, ScriptedUpstream, chunked, json_answer

OURS, NEIGHBOUR = f"sk-or-v1-{0:064x}", f"sk-or-v1-{1:064x}"
FOREIGN = f"sk-or-v1-{'f0e1' * 16}"
OTHERS_KEY = "other+service/0123456789abcdef=="
LABEL, ACCOUNT = "sk-or-v1-000...000", "user_2abcdefghij"
SECRETS = (OURS, NEIGHBOUR, FOREIGN, LABEL, ACCOUNT, "f0e1f0e1", OTHERS_KEY)
ALL = " ".join(SECRETS[:5])
EVERY = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
STREAMED_FORMS = {name: form for name, form in FORMS.items() if form.stream}
STREAMED = pytest.mark.parametrize("form", STREAMED_FORMS.values(), ids=STREAMED_FORMS)
INNER = ("code", "message", "type", "param", "error_type", "availability", "key")
METADATA = ("error_type", "provider_code", "provider_name", "reason", "reasons", "raw", "key")
OUTER = ("key", "id", "object", "model", "provider", "user_id", "message", "type", "metadata", "openrouter_metadata")
OUTER += ("request_id", "status", "param")
STATUSES = (400, 401, 402, 403, 404, 408, 413, 422, 429, 451, 500, 502, 503, 529)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0)


@pytest.fixture
def proxy(make_proxy: Callable[..., OpenRouterProxy]) -> OpenRouterProxy:
    return make_proxy(keys=2, keepalive_seconds=5)


@pytest.fixture
def late_proxy(make_proxy: Callable[..., OpenRouterProxy]) -> OpenRouterProxy:
    """One whose streams begin before they are answered."""
    return make_proxy(keys=2, keepalive_seconds=0.05)


def planted(secret: str, status: int = 400, **more: Any) -> dict[str, Any]:
    """An error with a secret in every field that it may have, inside, outside, and as a field's name."""
    inside = dict.fromkeys(INNER, f"at {secret}.") | {"code": status, secret: secret}
    inside["metadata"] = dict.fromkeys(METADATA, f"<{secret}>") | {"reasons": [secret, {secret: [secret]}]}
    outside: dict[str, Any] = {name: {secret: [secret]} for name in OUTER} | {secret: secret, "request_id": secret}
    return outside | {"id": secret, "type": "error", "error": inside, "choices": []} | more


def seen(act: Callable[[], Any]) -> bytes:
    """All that a client sees of an answer: its head, its body, or an error of ours."""
    try:
        answer = act()
    except AppError as error:
        return error.to_json() + repr(error.headers).encode()
    head = repr((answer.status, answer.headers)).encode()
    return head + whole(answer)


def check(shown: bytes) -> bytes:
    found = [secret for secret in SECRETS if secret.encode() in shown]
    assert not found, shown
    return shown


@EVERY
def test_a_refusal_of_any_status_passes_without_what_it_repeats(proxy, upstream, form):
    for status in STATUSES:
        body = json.dumps(planted(ALL, status)).encode()
        upstream.play("m", json_answer(f"{status} No", body, f"Retry-After: {OURS}\r\nX-Generation-Id: {OURS}\r\n"))
        shown = check(seen(lambda: proxy.forward(ask(form))))
        assert b"message" in shown
    assert len(upstream.received) >= len(STATUSES)


@EVERY
@pytest.mark.parametrize("kind", ["list", "text", "page", "escaped", "twice", "bare"])
def test_so_does_a_refusal_that_looks_otherwise(proxy, upstream, form, kind):
    error = planted(ALL)
    body = {
        "list": json.dumps([error]),
        "text": f"no, {ALL}",
        "page": f"<html><title>{ALL}</title><body>{ALL}",
        "escaped": json.dumps(error).replace("sk-or", r"\u0073k-or").replace("user_", r"user\u005f"),
        "twice": f'{{"error":{json.dumps(error["error"])},"error":{{"code":400,"message":"no"}}}}',
        "bare": json.dumps({"message": ALL, "detail": [ALL], "errors": {ALL: ALL}, "key": ALL}),
    }[kind]
    for status in (400, 404, 422, 502):
        upstream.play("m", json_answer(f"{status} No", body.encode()))
        check(seen(lambda: proxy.forward(ask(form))))


@EVERY
def test_so_does_an_error_under_200(proxy, upstream, form):
    for error in (
        planted(ALL, 502),
        planted(ALL, 400) | form.body | {"metadata": None},
        planted(ALL) | {"status": "failed", "type": None},
    ):
        upstream.play("m", JSON_CHUNKED, chunked(json.dumps(error).encode()))
        check(seen(lambda: proxy.forward(ask(form))))


@STREAMED
@pytest.mark.parametrize("before", ["nothing", "comments", "content"])
def test_so_does_an_error_within_a_stream(proxy, upstream, form, before):
    begin = {"nothing": b"", "comments": f": {OURS} {NEIGHBOUR}\n\n".encode(), "content": form.first + form.content}
    errors = [
        planted(ALL, 502),
        planted(ALL, 400, type="response.failed", response=planted(ALL) | {"status": "failed"}),
    ]
    for error in errors:
        event = f"event: {error['type']}\nid: {ALL}\n: {ALL}\n".encode() + data(**error)
        upstream.play("m", SSE, chunked(begin[before] + event))
        shown = check(seen(lambda: proxy.forward(ask(form, stream=True))))
        assert shown.startswith(b"(200")


@EVERY
def test_so_does_one_that_comes_late(late_proxy, upstream, form):
    error = json.dumps(planted(ALL, 400)).encode()
    for stream in (True, False) if form.stream else (False,):
        upstream.play("m", 0.3, json_answer("400 No", error))
        check(seen(lambda stream=stream: late_proxy.forward(ask(form, stream=stream))))
        upstream.play("m", JSON_CHUNKED, chunked(b"\n  \n", end=False), 0.3, chunked(error))
        check(seen(lambda stream=stream: late_proxy.forward(ask(form, stream=stream))))


@STREAMED
def test_what_breaks_off_is_not_named_by_a_key(proxy, upstream, form):
    head = SSE.replace(b"\r\n\r\n", f"\r\nX-Generation-Id: {OURS}\r\n\r\n".encode())
    upstream.play("m", head, chunked(form.first + form.content, end=False), 0.05, "close")
    assert b"error" in check(seen(lambda: proxy.forward(ask(form, stream=True))))


@EVERY
def test_an_answers_headers_name_no_key(proxy, upstream, form):
    names = ("X-Generation-Id", "X-Provider-Name", "X-Key", "Set-Cookie", "Retry-After")
    lines = "".join(f"{name}: {secret}\r\n" for name in names for secret in (OURS, FOREIGN, ACCOUNT))
    answer = json_answer("200 OK", json.dumps(form.body).encode(), lines)
    upstream.play("m", answer.replace(b"application/json", f"application/json; key={OURS}".encode()))
    check(seen(lambda: proxy.forward(ask(form))))


@EVERY
def test_an_answer_has_no_key_that_we_know_and_is_else_as_it_was(proxy, upstream, form):
    body = json.dumps(form.body | {"debug": {"authorization": f"Bearer {OURS}", "other": FOREIGN}}).encode()
    hidden = body.replace(OURS.encode(), b"*" * len(OURS))
    for steps in ((json_answer("200 OK", body),), (JSON_CHUNKED, *(chunked(bytes([b]), end=False) for b in body), END)):
        upstream.play("m", *steps)
        assert whole(proxy.forward(ask(form))) == hidden  # the foreign one is the client's own words


END = b"0\r\n\r\n"


@STREAMED
def test_neither_has_a_stream_wherever_it_is_cut(proxy, upstream, form):
    comment, odd = f": {OURS}\n\n".encode(), f"data: {{{NEIGHBOUR}\n\n".encode()
    long = data(type="x", choices=[{"delta": {"content": "x" * 70_000 + OURS + "x" * 70_000 + NEIGHBOUR}}])
    stream = form.first + comment + odd + form.content + long + comment + form.rest
    hidden = stream.replace(OURS.encode(), b"*" * 73).replace(NEIGHBOUR.encode(), b"*" * 73)
    borders = sorted({at for key in (OURS, NEIGHBOUR) for at in cuts(stream, key.encode())} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in itertools.pairwise(borders)]
    upstream.play("m", SSE, *(step for piece in pieces for step in (chunked(piece, end=False), 0.002)), END)
    assert whole(proxy.forward(ask(form, stream=True))) == hidden


def cuts(stream: bytes, key: bytes) -> Iterator[int]:
    at = stream.find(key)
    while at >= 0:
        yield from (at + 3, at + 9, at + 40, at + 72, at + 73)
        at = stream.find(key, at + 1)


def test_neither_has_a_long_plain_answer_whose_length_stays(proxy, upstream):
    body = json.dumps({"id": "gen-1", "a": "x" * 1_200_000 + OURS + "y" * 100_000 + OURS}).encode()
    upstream.play("m", json_answer("200 OK", body))
    answer = proxy.forward(ask(FORMS["chat"]))
    assert dict(answer.headers)["Content-Length"] == str(len(body))
    assert whole(answer) == body.replace(OURS.encode(), b"*" * len(OURS))


def test_an_event_without_a_key_is_not_held_back(proxy, upstream):
    gate = threading.Event()
    event = data(choices=[{"delta": {"content": "sk-or-v1-"}}])
    upstream.play("m", SSE, chunked(event, end=False), gate, chunked(event + b"data: [DONE]\n\n"))
    answer = proxy.forward(ask(FORMS["chat"], stream=True))
    assert next(iter(answer.body)) == event
    gate.set()
    assert whole(answer) == event + b"data: [DONE]\n\n"


# ── through a real gateway, with another upstream


@pytest.fixture(scope="module")
def other() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def served(start: Callable[..., Gateway], other: ScriptedUpstream) -> Gateway:
    row = {"name": "other", "base_url": other.url, "api_key": OTHERS_KEY, "model_prefixes": {"other/": ""}}
    return start(
        OPENROUTER_API_URL=other.url,
        OPENROUTER_API_KEYS=f"{OURS},{NEIGHBOUR}",
        ALLOW_PRIVATE_UPSTREAMS="true",
        UPSTREAMS=json.dumps([row]),
        KEEPALIVE_SECONDS=1,
    )


def test_no_upstream_can_hand_its_key_or_anothers_to_a_client(served, other):
    token = served.new_user()
    secrets = f"{ALL} {OTHERS_KEY} {OTHERS_KEY.replace('/', chr(92) + '/')}"
    for model in ("m", "other/m"):
        for status in (400, 402, 403, 404, 429, 500):
            other.play("m", json_answer(f"{status} No", json.dumps(planted(secrets, status)).encode()))
            for stream in (True, False):
                check(exactly(served, token, model, stream))
        event = data(**planted(secrets, 502))
        known = secrets.replace(FOREIGN, "").replace(LABEL, "").replace(ACCOUNT, "")
        content = data(choices=[{"delta": {"content": "hi"}}], debug=known)
        other.play("m", SSE, chunked(content, event))
        assert b"hi" in check(exactly(served, token, model, True))


def exactly(gateway: Gateway, token: str, model: str, stream: bool) -> bytes:
    connection = gateway.open_chat(token, model, stream=stream)
    shown = read_all(connection)
    connection.close()
    assert body_of(shown)
    return shown
