"""Traces of real calls, as a collector receives them: whose they are, how long each part took, and nobody's words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.gateway import user_id_of, wait_for

TRACE, ABOVE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "collectors-own-secret"


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent. may_answer: waited for before each answer."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(("127.0.0.1", 0), Receiver)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[Span]:
        found = []
        for _, body in self.received:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found

    def of_request(self, answer: requests.Response) -> list[Span]:
        """The call's span and those of its attempts, once they are here."""

        def find() -> list[Span]:
            spans = self.spans()
            calls = [
                one for one in spans if of(one).get("openrouter_proxy.request_id") == answer.headers["X-Request-ID"]
            ]
            return calls + [one for one in spans if calls and one.parent_span_id == calls[0].span_id]

        return wait_for(find)


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(({"path": self.path, **self.headers}, body))
        self.server.may_answer.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def of(span: Span) -> dict[str, object]:
    """Its attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.may_answer.set()
        server.shutdown()


@pytest.fixture(scope="module")
def settings(collector, stand_in, pool_keys) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-collector-key={SECRET}",
        "OPENROUTER_API_URL": stand_in.address,
        "OPENROUTER_API_KEYS": pool_keys[0]["key"],
    }


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def served(request, start, settings):
    return start(SERVER=request.param, **settings)


def call(gateway, token: str, model: str = "openai/gpt-4o-mini", traceparent: str = "") -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "my innermost thoughts"}], "max_tokens": 9}
    headers = {"Authorization": f"Bearer {token}"} | ({"traceparent": traceparent} if traceparent else {})
    return requests.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def test_a_call_is_a_span_below_its_clients_with_its_attempt_below_it(served, collector):
    person = served.new_user()
    answer = call(served, person, traceparent=f"00-{TRACE}-{ABOVE}-01")
    whole, attempt = collector.of_request(answer)
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, ABOVE)
    assert whole.kind == Span.SPAN_KIND_SERVER
    assert attempt.kind == Span.SPAN_KIND_CLIENT
    assert whole.name == attempt.name == "chat openai/gpt-4o-mini"
    usage = answer.json()["usage"]
    told = of(whole)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "openrouter"
    assert told["gen_ai.request.model"] == "openai/gpt-4o-mini"
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert told["openrouter_proxy.cost_usd"] == pytest.approx(usage["cost"])
    assert told["user.id"] == str(user_id_of(person))
    assert (told["http.response.status_code"], of(attempt)["http.response.status_code"]) == (200, 200)
    assert whole.start_time_unix_nano <= attempt.start_time_unix_nano
    assert attempt.end_time_unix_nano <= whole.end_time_unix_nano + 1_000_000  # times are told to the tenth of a ms
    assert [one.name for one in whole.events] == ["first_byte"]
    assert whole.status.code == attempt.status.code == Status.STATUS_CODE_UNSET


def test_what_fails_says_how_and_nobody_elses_call_does(served, collector):
    person, teammate = served.new_user(), served.new_user()
    refused = call(served, person, "sandbox/503")
    whole, *attempts = collector.of_request(refused)
    assert refused.status_code == 503
    assert whole.status.code == Status.STATUS_CODE_ERROR
    assert of(whole)["error.type"] == "refused"
    assert len(attempts) > 1
    assert all(of(one)["error.type"] for one in attempts)
    starts = [one.start_time_unix_nano for one in attempts]
    assert starts == sorted(starts)
    assert starts[1] >= attempts[0].end_time_unix_nano
    assert collector.of_request(call(served, teammate))[0].status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(
    "traceparent", ["", "nonsense", f"00-{'0' * 32}-{ABOVE}-01", "00-" + "x" * 4000, f"ff-{TRACE}-{ABOVE}-01"]
)
def test_a_call_without_a_usable_traceparent_begins_a_trace(served, collector, traceparent):
    answer = call(served, served.new_user(), traceparent=traceparent)
    whole = collector.of_request(answer)[0]
    assert answer.status_code == 200
    assert whole.trace_id.hex() not in {TRACE, "0" * 32}
    assert whole.parent_span_id == b""


def test_a_client_that_wants_no_trace_gets_none(served, collector):
    token = served.new_user()
    unwanted = call(served, token, traceparent=f"00-{TRACE[::-1]}-{ABOVE}-00")
    assert unwanted.status_code == 200
    collector.of_request(call(served, token))  # what came before it would be here
    assert not [one for one in collector.spans() if one.trace_id.hex() == TRACE[::-1]]


def test_nobodys_words_and_no_secrets_leave(served, collector):
    token = served.new_user()
    collector.of_request(call(served, token))
    for headers, body in collector.received:
        assert (headers["path"], headers["x-collector-key"]) == ("/v1/traces", SECRET)
        for secret in (b"innermost", b"sk-or-", token.encode(), SECRET.encode()):
            assert secret not in body
    assert SECRET not in served.log()


def test_a_share_of_none_sends_none(start, settings, collector):
    gateway = start(OTEL_TRACES_SAMPLER_ARG=0, **settings)
    before = len(collector.received)
    token = gateway.new_user()
    for traceparent in ("", f"00-{'c' * 32}-{ABOVE}-01"):
        assert call(gateway, token, traceparent=traceparent).status_code == 200
    assert gateway.stop() == 0
    assert len(collector.received) == before


def test_what_has_ended_is_told_before_the_process_goes(start, settings, collector):
    gateway = start(**settings)
    answer = call(gateway, gateway.new_user())
    assert gateway.stop() == 0
    assert collector.of_request(answer)


def test_a_collector_that_never_answers_holds_up_no_call_and_no_end(start, settings, collector):
    gateway = start(**settings)
    person, teammate = gateway.new_user(), gateway.new_user()
    collector.may_answer.clear()
    try:
        begun = len(collector.received)
        assert call(gateway, person).status_code == 200
        wait_for(lambda: len(collector.received) > begun)
        for token in (person, teammate) * 3:
            assert call(gateway, token).status_code == 200
        assert gateway.stop() == 0
    finally:
        collector.may_answer.set()
