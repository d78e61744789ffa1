"""What a client may rely on in every format of model calls, streamed and not, when OpenRouter works and when it fails.

In this process against exact bytes: what comes back, what goes up, and what the journal says that it cost.
"""

import json
import re
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from formats.chat import ModelApi, data_of, is_done
from formats.registry import CHAT, COMPLETIONS, EMBEDDINGS, IMAGES, MESSAGES, RERANK, RESPONSES
from foundation.errors import BadRequest, UpstreamFailed, UpstreamTimeout
from gateway import relay
from tests.support.data_plane import KEEPALIVE, finished, request, whole
from tests.support.gateway import wait_for
from tests.support.scripted_upstream import CLOSE, JSON_CHUNKED, SSE, chunked, json_answer
from upstream.connection import ConnectionLost

NAMED = "X-Generation-Id: gen-of-header\r\n"
NAMED_SSE = SSE.replace(b"\r\n\r\n", b"\r\n" + NAMED.encode() + b"\r\n")
NAMED_JSON = JSON_CHUNKED.replace(b"\r\n\r\n", b"\r\n" + NAMED.encode() + b"\r\n")
COMMENT = b": OPENROUTER PROCESSING\n\n"
MIB = 1024 * 1024
COST_NANO = 123_456_789


@dataclass(frozen=True)
class Form:
    """How one format looks on the wire. first: events without content. error: an event that is an error."""

    api: ModelApi
    fields: dict[str, Any]
    body: dict[str, Any]
    first: bytes = b""
    content: bytes = b""
    rest: bytes = b""
    error: bytes = b""
    tokens: tuple[int, int] = (3, 4)

    @property
    def stream(self) -> bytes:
        return self.first + self.content + self.rest


def data(**payload):
    return f"data: {json.dumps(payload)}\n\n".encode()


def named(said, **payload):
    return f"event: {said}\n".encode() + data(type=said, **payload)


OLDER = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cost": 0.1234567891}
NEWER = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "cost": 0.1234567891}
ERROR = {"code": 502, "message": "Provider of user_2abcdefghij returned error", "metadata": {"raw": "PROMPT"}}


def chunk_of(delta):
    return data(id="gen-1", choices=[{"index": 0, "finish_reason": None} | delta])


RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "error": None}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
FORMS = {
    "chat": Form(
        CHAT,
        {},
        {"id": "gen-1", "choices": [{"index": 0, "message": {"content": "hi"}}], "usage": OLDER},
        chunk_of({"delta": {"role": "assistant", "content": ""}}),
        chunk_of({"delta": {"content": "hi"}}),
        data(id="gen-1", choices=[], usage=OLDER) + b"data: [DONE]\n\n",
        data(id="gen-1", error=ERROR, choices=[]),
    ),
    "completions": Form(
        COMPLETIONS,
        {"prompt": "hi"},
        {"id": "gen-1", "object": "text_completion", "choices": [{"index": 0, "text": "hi"}], "usage": OLDER},
        chunk_of({"text": ""}),
        chunk_of({"text": "hi"}),
        data(id="gen-1", choices=[], usage=OLDER) + b"data: [DONE]\n\n",
        data(id="gen-1", error=ERROR, choices=[]),
    ),
    "responses": Form(
        RESPONSES,
        {"input": "hi"},
        RESPONSE | {"output": [{"type": "message"}], "usage": NEWER},
        named("response.created", response=RESPONSE | {"status": "in_progress"})
        + named("response.output_item.added", item={"type": "message", "content": []}),
        named("response.output_text.delta", delta="hi"),
        named("response.output_text.done", text="hi")
        + named("response.completed", response=RESPONSE | {"usage": NEWER}),
        named("response.failed", response=RESPONSE | {"error": ERROR | {"code": "server_error"}}),
    ),
    "messages": Form(
        MESSAGES,
        {"max_tokens": 9},
        MESSAGE | {"content": [{"type": "text", "text": "hi"}], "usage": NEWER},
        named("message_start", message=MESSAGE | {"usage": {"input_tokens": 3, "output_tokens": 1}})
        + named("ping")
        + named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}),
        named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4, "cost": 0.1234567891})
        + named("message_stop"),
        named("error", error={"type": "api_error", "message": ERROR["message"]}, metadata={"raw": "PROMPT"}),
    ),
    "embeddings": Form(
        EMBEDDINGS,
        {"input": ["hi"]},
        {"object": "list", "data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 3, "cost": 0.1234567891}},
        tokens=(3, 0),
    ),
    "rerank": Form(
        RERANK,
        {"query": "hi", "documents": ["hi"]},
        {
            "results": [{"index": 0, "document": {"text": "Paris"}}],
            "usage": {"search_units": 1, "total_tokens": 3, "cost": 0.1234567891},
        },
        tokens=(3, 0),
    ),
    "images": Form(
        IMAGES,
        {"prompt": "hi"},
        {"created": 1, "data": [{"b64_json": "aGk="}], "usage": OLDER},
        COMMENT,
        data(type="image_generation.partial_image", partial_image_index=0, b64_json="aGk="),
        data(type="image_generation.completed", created=1, b64_json="aGk=", usage=OLDER) + b"data: [DONE]\n\n",
        data(
            type="error", error={"code": "upstream_error", "message": ERROR["message"], "metadata": {"raw": "PROMPT"}}
        ),
    ),
}
EVERY = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
STREAMS = {name: form for name, form in FORMS.items() if form.stream}
STREAMED = pytest.mark.parametrize("form", STREAMS.values(), ids=STREAMS)
NAMED_FORMS = ["responses", "messages"]


@pytest.fixture
def proxy(make_proxy):
    return make_proxy(
        keepalive_seconds=0.3, upstream_first_byte_timeout_seconds=3, upstream_idle_timeout_seconds=1, keys=4
    )


def ask(form, stream=False, **more):
    return request(api=form.api, **form.fields, **({"stream": True} if stream else {}), **more)


def error_of(form, event):
    """The message of an error event and the kind that it says, as this format's SDKs read them."""
    name, _, text = event.rstrip(b"\n").rpartition(b"data: ")
    told = json.loads(text)
    if form.api is MESSAGES:
        assert name == b"event: error\n"
        assert told["type"] == "error"
        return told["error"]["message"], told["error"]["type"]
    if form.api is RESPONSES:
        assert name == b"event: error\n"
        assert told["type"] == "error"
        assert told["message"] == told["error"]["message"]
        assert isinstance(told["sequence_number"], int)
        return told["message"], told["error"]["metadata"]["error_type"]
    assert name == b""
    if form.api is IMAGES:
        assert told["type"] == "error"
        return told["error"]["message"], told["error"]["metadata"]["error_type"]
    assert told["choices"][0]["finish_reason"] == "error"
    assert told["object"] == ("text_completion" if form.api is COMPLETIONS else "chat.completion.chunk")
    return told["error"]["message"], told["error"]["metadata"]["error_type"]


CUT = {"messages": "api_error"}
STALLED = {"messages": "timeout_error"}


def last_of(body):
    assert body.endswith(b"\n\n")
    return body[body[:-2].rfind(b"\n\n") + 2 :] if b"\n\n" in body[:-2] else body


def ends_in(form, event):
    """True if this is the event that ends a stream of this format well."""
    found = data_of(event)
    if found is None or is_done(found):
        return found is not None and form.api.has_reasons
    try:
        return form.api.is_end(json.loads(found))
    except json.JSONDecodeError:  # it was cut within
        return False


def record(proxy):
    """The last thing that the journal holds of the last call."""
    return json.loads(proxy.usage._journal._path.read_bytes().splitlines()[-1])


def settled(proxy):
    told = record(proxy)
    return told["state"], told.get("cost_nano"), told.get("prompt_tokens"), told.get("completion_tokens")


# ── what works


@STREAMED
@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_stream_passes_byte_for_byte_and_is_settled_to_the_nano_dollar(proxy, upstream, form, size, line_end):
    stream = (COMMENT + form.stream).replace(b"\n", line_end)
    pieces = [chunked(stream[i : i + size], end=False) for i in range(0, len(stream), size)]
    upstream.play("m", NAMED_SSE, *pieces, b"0\r\n\r\n")
    answer = proxy.forward(ask(form, stream=True))
    assert dict(answer.headers)["Content-Type"] == "text/event-stream"
    assert whole(answer).replace(KEEPALIVE, b"") == stream
    assert settled(proxy) == ("settled", COST_NANO, 3, 4)
    told = record(proxy)
    assert (told["source"], told["outcome"], told["generation_id"]) == ("stream", "complete", "gen-of-header")


@EVERY
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_plain_answer_passes_byte_for_byte_and_is_settled_to_the_nano_dollar(proxy, upstream, form, size):
    body = json.dumps(form.body, indent=1).encode()
    upstream.play(
        "m", NAMED_JSON, *(chunked(body[i : i + size], end=False) for i in range(0, len(body), size)), b"0\r\n\r\n"
    )
    answer = proxy.forward(ask(form))
    assert (answer.status, whole(answer)) == (200, body)
    assert settled(proxy) == ("settled", COST_NANO, *form.tokens)
    assert (record(proxy)["source"], record(proxy)["generation_id"]) == ("body", "gen-of-header")


@EVERY
def test_each_format_has_its_path_upstream_and_its_body_goes_up_byte_for_byte(proxy, upstream, form):
    upstream.play("m", json_answer("200 OK", json.dumps(form.body).encode()))
    call = ask(form, headers=b"Anthropic-Version: 2023-06-01\r\n", future={"x": [1.50]})
    sent = call.body.data
    whole(proxy.forward(call))
    [received] = upstream.received
    assert received.head.startswith(f"POST /api/v1{form.api.path} HTTP/1.1\r\n".encode())
    assert received.body == sent
    assert call.body.data == b""  # no other try can need it
    assert received.headers()["authorization"].startswith("Bearer sk-or-v1-")


@EVERY
def test_the_answers_own_name_is_found_in_its_body(proxy, upstream, form):
    upstream.play(
        "m", json_answer("200 OK", json.dumps({"id": "gen-of-body"} | form.body | {"id": "gen-of-body"}).encode())
    )
    whole(proxy.forward(ask(form)))
    assert record(proxy)["generation_id"] == "gen-of-body"


@EVERY
def test_a_name_that_the_client_had_repeated_is_not_the_answers(proxy, upstream, form):
    body = {"id": "other_1"} | form.body | {"id": "other_1", "usage": None, "metadata": {"id": "gen-of-somebody"}}
    upstream.play("m", json_answer("200 OK", json.dumps(body).encode()))
    whole(proxy.forward(ask(form)))
    assert "generation_id" not in record(proxy)


@EVERY
def test_an_answer_without_a_cost_is_asked_about_by_the_name_in_its_header(proxy, upstream, form):
    usage = {name: value for name, value in form.body["usage"].items() if name != "cost"}
    upstream.play("m", json_answer("200 OK", json.dumps(form.body | {"usage": usage}).encode(), NAMED))
    whole(proxy.forward(ask(form)))
    told = record(proxy)
    assert (told["state"], told["generation_id"]) == ("pending", "gen-of-header")
    assert told["estimate_nano"] > 0


@pytest.mark.parametrize("first", [True, False])
def test_long_embeddings_are_settled_wherever_their_usage_stands(proxy, upstream, first):
    body = FORMS["embeddings"].body
    values = {"data": [{"embedding": "A" * 2 * MIB}]}
    ordered = {"usage": body["usage"]} | values if first else values | {"usage": body["usage"]}
    upstream.play("m", NAMED_JSON, chunked(text := json.dumps(ordered).encode()))
    assert whole(proxy.forward(ask(FORMS["embeddings"]))) == text
    assert settled(proxy) == ("settled", COST_NANO, 3, 0)


@pytest.mark.parametrize("name", [*NAMED_FORMS, "rerank"])
def test_a_long_answer_whose_end_might_be_made_up_is_asked_about(proxy, upstream, name):
    form = FORMS[name]
    made_up = {"usage": NEWER | {"cost": 0}}
    upstream.play("m", NAMED_JSON, chunked(json.dumps(form.body | {"z": ["x" * 2 * MIB, made_up]}).encode()))
    whole(proxy.forward(ask(form)))
    assert (record(proxy)["state"], record(proxy)["generation_id"]) == ("pending", "gen-of-header")


def test_embeddings_are_never_streamed(proxy, upstream):
    with pytest.raises(BadRequest, match="stream"):
        proxy.forward(ask(FORMS["embeddings"], stream=True))
    assert upstream.received == []


# ── an honest stream


@STREAMED
@pytest.mark.parametrize("where", ["after content", "within an event", "before the end"])
def test_a_cut_stream_ends_with_this_formats_error_and_never_looks_finished(proxy, upstream, form, where):
    sent = form.first + form.content
    sent += {
        "after content": b"",
        "within an event": form.rest[:20],
        "before the end": form.rest[: form.rest[:-2].rfind(b"\n\n") + 2],
    }[where]
    upstream.play("m", NAMED_SSE, chunked(sent, end=False), 0.05, CLOSE)
    body = whole(proxy.forward(ask(form, stream=True)))
    assert body.startswith(form.first + form.content)
    error = last_of(body)
    assert error_of(form, error) == ("The upstream's answer broke off", CUT.get(form.api.name, "provider_unavailable"))
    assert not any(ends_in(form, event) for event in body.split(b"\n\n"))
    assert len(upstream.received) == 1
    told = record(proxy)
    assert (told["outcome"], told["generation_id"]) == ("cut", "gen-of-header")
    assert told["state"] == ("settled" if where == "before the end" and form.api is not RESPONSES else "pending")


@STREAMED
def test_a_stream_that_http_calls_whole_is_cut_unless_it_says_its_end(proxy, upstream, form):
    upstream.play("m", SSE, chunked(form.first, form.content))
    body = whole(proxy.forward(ask(form, stream=True)))
    assert body.startswith(form.first + form.content)
    assert error_of(form, last_of(body))[0] == "The upstream's answer broke off"
    assert record(proxy)["outcome"] == "cut"


@STREAMED
def test_a_stalled_stream_ends_with_this_formats_error(proxy, upstream, form):
    upstream.play("m", SSE, chunked(form.first, form.content, form.rest[:20], end=False), 20.0)
    body = whole(proxy.forward(ask(form, stream=True)))
    assert KEEPALIVE in body
    assert error_of(form, last_of(body))[1] == STALLED.get(form.api.name, "timeout")
    assert upstream.received[0].closed_by_client.wait(30)


@pytest.mark.parametrize("name", ["messages", "chat"])
def test_pings_without_end_are_given_up_like_silence(proxy, upstream, name):
    form = FORMS[name]
    ping = named("ping") if name == "messages" else COMMENT
    pings = [step for _ in range(200) for step in (chunked(ping, end=False), 0.05)]
    upstream.play("m", SSE, chunked(form.first, form.content, end=False), *pings)
    body = whole(proxy.forward(ask(form, stream=True)))
    assert 2 < body.count(ping) < 100
    assert error_of(form, last_of(body))[1] == STALLED.get(name, "timeout")


@STREAMED
def test_a_stream_broken_before_content_is_tried_again_and_nothing_of_it_is_seen(proxy, upstream, form):
    good = (NAMED_SSE, chunked(form.stream))
    upstream.play_in_turn("m", (SSE, chunked(form.first, end=False), 0.05, CLOSE), (SSE, chunked(form.first)), good)
    body = whole(proxy.forward(ask(form, stream=True)))
    assert body.replace(KEEPALIVE, b"") == form.stream
    assert len(upstream.received) == 3
    assert settled(proxy) == ("settled", COST_NANO, 3, 4)


@STREAMED
def test_an_error_before_content_is_tried_again(proxy, upstream, form):
    upstream.play_in_turn("m", (SSE, chunked(COMMENT, form.first, form.error)), (SSE, chunked(form.stream)))
    assert whole(proxy.forward(ask(form, stream=True))).replace(KEEPALIVE, b"") == form.stream
    assert len(upstream.received) == 2


@STREAMED
def test_the_last_error_before_content_passes_cleaned(proxy, upstream, form):
    upstream.play("m", SSE, chunked(COMMENT, form.first, form.error))
    body = whole(proxy.forward(ask(form, stream=True)))
    assert len(upstream.received) == 3
    assert b"returned error" in last_of(body)
    assert last_of(body).partition(b"\n")[0] == form.error.partition(b"\n")[0] or form.api.name not in NAMED_FORMS
    assert b"user_2" not in body
    assert b"PROMPT" not in body


@STREAMED
def test_an_error_after_content_passes_cleaned_and_nothing_is_tried_again(proxy, upstream, form):
    upstream.play("m", NAMED_SSE, chunked(form.first, form.content, form.error))
    body = whole(proxy.forward(ask(form, stream=True)))
    assert body.startswith(form.first + form.content)
    assert b"returned error" in last_of(body)
    assert b"user_2" not in body
    assert b"PROMPT" not in body
    assert len(upstream.received) == 1
    assert record(proxy)["outcome"] == "error"


@STREAMED
def test_a_late_stream_begins_with_comments_and_never_with_an_event_of_ours(proxy, upstream, form):
    gate = threading.Event()
    upstream.play("m", gate, SSE, chunked(form.stream))
    answer = proxy.forward(ask(form, stream=True))
    pieces = iter(answer.body)
    assert next(pieces) == KEEPALIVE
    gate.set()
    assert b"".join(pieces).replace(KEEPALIVE, b"") == form.stream
    answer.body.close()
    assert settled(proxy) == ("settled", COST_NANO, 3, 4)


@STREAMED
def test_a_late_refusal_is_this_formats_event(proxy, upstream, form):
    gate = threading.Event()
    refusal = b'{"error":{"code":400,"message":"bad model"},"user_id":"user_2abcdefghij"}'
    upstream.play("m", gate, json_answer("400 Bad Request", refusal))
    answer = proxy.forward(ask(form, stream=True))
    pieces = iter(answer.body)
    next(pieces)
    gate.set()
    body = b"".join(pieces)
    answer.body.close()
    assert b"bad model" in last_of(body)
    assert form.api.kind_of(last_of(body)).value == "error"
    assert b"user_2" not in body


@STREAMED
def test_nothing_at_all_is_this_formats_error_too(proxy, upstream, form):
    upstream.play("m", 20.0)
    body = whole(proxy.forward(ask(form, stream=True)))
    assert error_of(form, last_of(body))[1] == STALLED.get(form.api.name, "timeout")


@STREAMED
def test_a_client_that_goes_ends_the_call_upstream_and_its_cost_is_asked_for(proxy, upstream, form):
    upstream.play("m", NAMED_SSE, chunked(form.first, form.content, end=False), 20.0)
    answer = proxy.forward(ask(form, stream=True))
    assert next(iter(answer.body)) == form.first + form.content
    answer.body.close()
    assert upstream.received[0].closed_by_client.wait(30)
    told = record(proxy)
    assert (told["state"], told["outcome"], told["generation_id"]) == ("pending", "client_gone", "gen-of-header")
    assert told["estimate_nano"] > 0


@STREAMED
@pytest.mark.parametrize("cut_at", range(0, 400, 23))
def test_our_comments_never_split_an_event(make_proxy, upstream, form, cut_at, monkeypatch):
    monkeypatch.setattr(relay, "TICK_SECONDS", 0.05)
    gate = threading.Event()
    cut = len(form.first + form.content) + cut_at % len(form.rest)
    upstream.play("m", SSE, chunked(form.stream[:cut], end=False), gate, chunked(form.stream[cut:]))
    answer = make_proxy(keepalive_seconds=0.05).forward(ask(form, stream=True))
    body = b""
    for piece in answer.body:
        body += piece
        if KEEPALIVE in body:
            gate.set()
    answer.body.close()
    assert body.replace(KEEPALIVE, b"") == form.stream
    assert all(re.match(rb"(event: \S+\n)?data: |: ", block) for block in body.split(b"\n\n")[:-1])


# ── refusals


def envelope(form, told):
    """The error in an HTTP body of this format; asserts that it is the format's own."""
    assert (told.get("type") == "error") is (form.api is MESSAGES)
    assert ("request_id" in told) is (form.api is MESSAGES)
    return told["error"]


@pytest.mark.parametrize(
    ("form", "stream", "anthropic"),
    [
        *((form, False, False) for form in FORMS.values()),
        *((form, True, False) for form in FORMS.values() if form.stream),
        *((FORMS["messages"], stream, True) for stream in (True, False)),
    ],
)
def test_a_refusal_passes_in_this_formats_envelope_cleaned_of_our_account(
    make_proxy, upstream, form, stream, anthropic
):
    message = "No sk-or-v1-0123456789abcdef of user_2abcdefghij"
    refused = {
        "error": {"code": 400, "message": message, "metadata": {"raw": "PROMPT", "reason": "r"}},
        "user_id": "user_2abcdefghij",
    }
    if anthropic:
        error = {"type": "invalid_request_error", "message": message, "error_type": "invalid_prompt"}
        refused = {"type": "error", "error": error, "metadata": {"raw": "PROMPT"}, "request_id": None}
    upstream.play("m", json_answer("400 Bad Request", json.dumps(refused).encode()))
    answer = make_proxy(keepalive_seconds=5).forward(ask(form, stream=stream))
    body = whole(answer)
    assert answer.status == 400
    assert envelope(form, json.loads(body))["message"] == "No *** of ***"
    assert b"PROMPT" not in body
    assert b"user_2" not in body
    assert len(upstream.received) == 1


@EVERY
@pytest.mark.parametrize("anthropic", [True, False])
def test_a_refusal_of_our_key_is_tried_with_others_and_never_told(proxy, upstream, form, anthropic):
    refused = {"error": {"code": 401, "message": "User not found."}}
    if anthropic:
        refused = {
            "type": "error",
            "error": {"type": "authentication_error", "message": "User not found."},
            "request_id": None,
        }
    good = (json_answer("200 OK", json.dumps(form.body).encode()),)
    upstream.play_in_turn("m", (json_answer("401 Unauthorized", json.dumps(refused).encode()),), good)
    assert json.loads(whole(proxy.forward(ask(form)))) == form.body
    assert proxy.destinations.openrouter.keys.usable_count() == 3  # the refused one rests
    upstream.play("m", json_answer("401 Unauthorized", json.dumps(refused).encode()))
    with pytest.raises(UpstreamFailed) as told:
        proxy.forward(ask(form))
    assert "User not found" not in told.value.message


@EVERY
def test_a_provider_that_is_limited_harms_no_key_and_its_wait_is_passed_on(proxy, upstream, form):
    metadata = {"limit_source": "upstream_provider_shared_pool", "provider_name": "P"}
    refused = {"error": {"code": 429, "message": "slow down", "metadata": metadata}}
    if form.api is MESSAGES:
        refused = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}, "metadata": metadata}
    upstream.play("m", json_answer("429 Too Many Requests", json.dumps(refused).encode(), "Retry-After: 33\r\n"))
    answer = proxy.forward(ask(form))
    assert (answer.status, dict(answer.headers)["Retry-After"]) == (429, "33")
    assert envelope(form, json.loads(whole(answer)))["message"] == "slow down"
    assert proxy.destinations.openrouter.keys.usable_count() == 4
    assert len(upstream.received) == 1


@EVERY
def test_an_error_under_200_is_tried_again_and_then_passes_cleaned(make_proxy, upstream, form):
    told = {"error": ERROR, "user_id": "user_2abcdefghij"}
    if form.api is MESSAGES:
        told = {"type": "error", "error": {"type": "api_error", "message": ERROR["message"]}, "request_id": None}
    if form.api is RESPONSES:
        told = RESPONSE | {"status": "failed", "error": {"code": "server_error", "message": ERROR["message"]}}
    upstream.play("m", json_answer("200 OK", json.dumps(told).encode()))
    body = whole(make_proxy(keepalive_seconds=5).forward(ask(form)))
    assert json.loads(body)["error"]["message"] == "Provider of *** returned error"
    assert b"PROMPT" not in body
    assert len(upstream.received) == 3


@EVERY
def test_a_plain_answer_that_breaks_off_is_an_error_and_not_tried_again(proxy, upstream, form):
    body = json.dumps(form.body).encode()
    upstream.play("m", NAMED_JSON, chunked(body[:20], end=False), 0.05, CLOSE)
    with pytest.raises(UpstreamFailed):
        proxy.forward(ask(form))
    upstream.play("m", NAMED_JSON, chunked(body[:20], end=False), 20.0)
    with pytest.raises(UpstreamTimeout):
        proxy.forward(ask(form))
    assert len(upstream.received) == 2
    assert (record(proxy)["state"], record(proxy)["generation_id"]) == ("pending", "gen-of-header")


@EVERY
def test_a_long_plain_answer_that_breaks_off_does_so_for_the_client(proxy, upstream, form):
    upstream.play("m", JSON_CHUNKED, chunked(b'{"a":"' + b"1" * 2 * MIB, end=False), 0.05, CLOSE)
    with pytest.raises(ConnectionLost):
        whole(proxy.forward(ask(form)))


@EVERY
def test_an_error_after_white_space_has_this_formats_envelope(proxy, upstream, form):
    gate = threading.Event()
    upstream.play("m", JSON_CHUNKED, chunked(b"\n   \n", end=False), gate, chunked(b'{"a', end=False), CLOSE)
    pieces = iter((answer := proxy.forward(call := ask(form))).body)
    assert next(pieces) == b"\n   \n"
    gate.set()
    told = json.loads(b"".join(pieces))
    answer.body.close()
    assert envelope(form, told)["message"] == "The upstream's answer broke off"
    assert told.get("request_id", call.request_id) == call.request_id


@EVERY
def test_every_call_is_logged_with_its_format_and_what_it_cost(proxy, upstream, form, caplog):
    caplog.set_level("INFO")
    upstream.play("m", json_answer("200 OK", json.dumps(form.body).encode()))
    whole(proxy.forward(ask(form)))
    fields = finished(caplog)
    assert fields["api"] == form.api.name
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == form.tokens
    assert str(fields["cost_usd"]) == "0.123456789"


def test_the_tokens_of_a_stream_that_was_cut_are_counted_by_its_events(proxy, upstream):
    counted = []

    class Counting:
        def release(self, tokens):
            counted.append(tokens)

    form = FORMS["messages"]
    upstream.play("m", SSE, chunked(form.first, form.content * 20, end=False), CLOSE)
    whole(proxy.forward(ask(form, stream=True, admission=Counting())))
    wait_for(lambda: counted)
    assert 20 <= counted[0] <= 3 + 20 + 3
