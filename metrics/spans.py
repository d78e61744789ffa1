"""Spans of calls by OpenTelemetry's GenAI conventions, made of what the log says of a call, never of prompts.

call          below the span that its client's `traceparent` names, if there is one
└─ attempt    each one, until its answer was known
"""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

from billing.records import NO_ERROR
from config.settings import Config
from config.version import VERSION

FLUSH_MS = 2000  # at the end
NS_PER_MS = 1_000_000
OPERATIONS = {"messages": "chat", "responses": "chat", "completions": "text_completion"}  # others by their own names
PROVIDER, MODEL, OPERATION = "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.operation.name"
STATUS = "http.response.status_code"


class Spans:
    """Makes spans of calls, and sends them to the collector in batches."""

    def __init__(self, config: Config) -> None:
        share = TraceIdRatioBased(config.otel_traces_sampler_arg)
        self._provider = TracerProvider(
            # A client may ask for less than the operator's share, but not for more.
            ParentBased(share, remote_parent_sampled=share, remote_parent_not_sampled=ALWAYS_OFF),
            Resource.create({"service.name": config.otel_service_name, "service.version": VERSION}),
            shutdown_on_exit=False,
        )
        secret = config.otel_exporter_otlp_headers
        headers = parse_env_headers(secret.get_secret_value(), liberal=True) if secret else None
        endpoint = f"{(config.otel_exporter_otlp_endpoint or '').rstrip('/')}/v1/traces"
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, headers=headers)))
        self._tracer = self._provider.get_tracer("openrouter_proxy", VERSION)
        self._propagator = TraceContextTextMapPropagator()

    def tell(self, ended_ns: int, traceparent: str, facts: dict[str, Any]) -> None:
        """Make a call's spans, with the times that it had."""
        begun_ns = ended_ns - round(facts["total_ms"] * NS_PER_MS)
        parent = self._propagator.extract({"traceparent": traceparent})
        span = self._tracer.start_span(_name_of(facts), parent, SpanKind.SERVER, start_time=begun_ns)
        if span.is_recording():
            _set(span, _of_call(facts))
            if facts["first_byte_ms"] is not None:
                span.add_event("first_byte", timestamp=begun_ns + round(facts["first_byte_ms"] * NS_PER_MS))
            if facts["outcome"] not in NO_ERROR:
                _fail(span, facts["outcome"])
            for attempt in facts["tries"]:
                self._tell_attempt(span, begun_ns, facts, attempt)
        span.end(ended_ns)

    def _tell_attempt(self, call: Span, begun_ns: int, facts: dict[str, Any], attempt: dict[str, Any]) -> None:
        start_ns = begun_ns + round(attempt["after_ms"] * NS_PER_MS)
        span = self._tracer.start_span(_name_of(facts), set_span_in_context(call), SpanKind.CLIENT, start_time=start_ns)
        _set(
            span,
            {
                OPERATION: _operation_of(facts),
                PROVIDER: attempt.get("upstream", facts["upstream"]),
                MODEL: attempt.get("model", facts["model"]),
                STATUS: attempt["status"],
                "openrouter_proxy.pool_key": attempt["key"],
            },
        )
        if attempt["kind"] != "answered":
            _fail(span, attempt["kind"] or facts["outcome"])
        span.end(start_ns + round(attempt["ms"] * NS_PER_MS))

    def close(self) -> None:
        """Send what is left, but not for long."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


def _operation_of(facts: dict[str, Any]) -> str:
    api: str = facts["api"]
    return OPERATIONS.get(api, api)


def _name_of(facts: dict[str, Any]) -> str:
    return f"{_operation_of(facts)} {facts['asked_model'] or facts['model'] or ''}".rstrip()


def _of_call(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        OPERATION: _operation_of(facts),
        PROVIDER: facts["upstream"],
        MODEL: facts["asked_model"] or facts["model"],
        "gen_ai.usage.input_tokens": facts["prompt_tokens"],
        "gen_ai.usage.output_tokens": facts["completion_tokens"],
        STATUS: facts["status"],
        "user.id": str(facts["user_id"]),
        "openrouter_proxy.request_id": facts["request_id"],
        "openrouter_proxy.stream": facts["stream"],
        "openrouter_proxy.outcome": facts["outcome"],
        "openrouter_proxy.cost_usd": facts["cost_usd"],
    }


def _set(span: Span, attributes: dict[str, Any]) -> None:
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def _fail(span: Span, kind: str) -> None:
    span.set_status(StatusCode.ERROR, kind)
    span.set_attribute("error.type", kind)
