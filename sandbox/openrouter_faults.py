"""Every refusal and failure that OpenRouter and its edge answer with, as a table of data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sandbox.http_server import Exchange, Reply

MODERATION = "requires moderation on Amazon Bedrock. Your input was flagged for"
CREDITS_LINK = "https://openrouter.ai/settings/credits"
KEYS_LINK = "https://openrouter.ai/settings/keys"
BYOK_LINK = "https://openrouter.ai/settings/integrations"
PAGE = "<!DOCTYPE html><html><head><title>%s</title></head><body><h1>%s</h1><center>cloudflare</center></body></html>\n"
PLACEHOLDER = re.compile(rb'"\$(RETRY_AFTER)"|\$([A-Z_]+)')


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One kind of failed answer. `$WORDS` in its texts are filled in when it is sent."""

    status: int
    message: str
    metadata: Mapping[str, Any] | None = None
    names_account: bool = False
    html: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, Any] | None = None  # instead of one made of the message

    def reply(self, values: Mapping[str, str]) -> Reply:
        """Return the answer with its placeholders filled in."""
        known = {name.encode(): value for name, value in (DEFAULT_VALUES | dict(values)).items()}

        def filled(match: re.Match[bytes]) -> bytes:
            if match[1]:
                return known[match[1]].encode()
            value = known.get(match[2])
            return match[0] if value is None else orjson.dumps(value)[1:-1]

        lines = b"".join(b"%b: %b\r\n" % (name.encode(), text.encode()) for name, text in self.headers.items())
        headers = PLACEHOLDER.sub(filled, lines)
        if self.html:
            return Reply(self.status, self.html.encode(), headers, b"text/html; charset=UTF-8")
        if 300 <= self.status < 400:
            return Reply(self.status, b"", headers, b"text/plain")
        return Reply(self.status, PLACEHOLDER.sub(filled, orjson.dumps(self._document())), headers)

    def _document(self) -> Mapping[str, Any]:
        if self.document is not None:
            return self.document
        error: dict[str, Any] = {"message": self.message, "code": self.status}
        if self.metadata is not None:
            error["metadata"] = self.metadata
        return {"error": error, "user_id": "$ACCOUNT"} if self.names_account else {"error": error}


DEFAULT_VALUES = {
    "MESSAGE": "Invalid request parameters",
    "RAW": "[]",
    "MODEL": "openai/gpt-4o-mini",
    "KEY": "sk-or-v1-unknown",
    "ACCOUNT": "user_2sandbox0000000000000000000",
    "PROMPT": "...",
    "REQUESTED": "65536",
    "AFFORDABLE": "10114",
    "LIMIT_KIND": "total",
    "RETRY_AFTER": "2",
    "RESET_MS": "1781481600000",
    "LIMIT": "50",
}


def upstream(text: str, **more: Any) -> dict[str, Any]:
    """Return the metadata of an error that a provider caused."""
    return {"raw": text, "provider_name": "DigitalOcean", "is_byok": False, **more}


def limited_by(source: str, **more: Any) -> dict[str, Any]:
    """Return the metadata of an error that one of OpenRouter's own limits caused."""
    return {"limit_source": source, **more}


def edge_page(status: int, title: str) -> FaultRow:
    """Return a row for a failure that Cloudflare answers by itself, with a page of HTML."""
    return FaultRow(status, "", html=PAGE % (f"openrouter.ai | {status}: {title}", f"Error {status} - {title}"))


RATE_LIMIT_HEADERS = {"X-RateLimit-Limit": "$LIMIT", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "$RESET_MS"}
RETRY_AFTER = {"retry-after": "$RETRY_AFTER"}

ROWS: dict[str, FaultRow] = {
    "302": FaultRow(302, "", headers={"location": "/sandbox/redirected"}),
    "307": FaultRow(307, "", headers={"location": "/sandbox/redirected"}),
    "400": FaultRow(400, "$MESSAGE"),
    "400-model": FaultRow(400, "$MODEL is not a valid model ID", names_account=True),
    "400-context": FaultRow(
        400,
        "This endpoint's maximum context length is 128000 tokens. However, you requested about 200000 tokens.",
        {"error_type": "context_length_exceeded", "provider_name": None},
    ),
    # What the validator of responses says has a code that is text, and metadata beside the error.
    "400-responses": FaultRow(
        400,
        "",
        document={
            "error": {"code": "invalid_prompt", "message": "Invalid Responses API request"},
            "metadata": {"raw": "$RAW"},
        },
    ),
    # 401a: no usable header; 401b: unknown, deleted or expired key; 401c: disabled key.
    "401a": FaultRow(401, "Missing Authentication header"),
    "401b": FaultRow(401, "User not found."),
    "401c": FaultRow(401, "Invalid credentials: this API key is disabled"),
    "401-provider": FaultRow(401, "Provider returned error", upstream("invalid x-api-key", provider_name="Anthropic")),
    # 402a: the account's running requests; 402b: this key's cap; 402c: balance too small for this request; 402d: empty.
    "402a": FaultRow(
        402,
        "This request would exceed your available credits given your current in-flight requests. "
        "Retry after in-flight requests settle, or add credits.",
        limited_by(
            "openrouter_in_flight_budget",
            reason="in_flight_budget_exhausted",
            remedy_hint=f"Retry after in-flight requests settle, or add credits at {CREDITS_LINK}",
        ),
        headers=RETRY_AFTER,
    ),
    "402b": FaultRow(
        402,
        "This request requires more credits, or fewer max_tokens. You requested up to $REQUESTED tokens, but can only "
        f"afford $AFFORDABLE. To increase, visit {KEYS_LINK} and create a key with a higher $LIMIT_KIND limit",
        limited_by("openrouter_key_limit", provider_name=None),
        names_account=True,
    ),
    "402c": FaultRow(
        402,
        "This request requires more credits, or fewer max_tokens. You requested up to $REQUESTED tokens, but can only "
        f"afford $AFFORDABLE. To increase, visit {CREDITS_LINK} and upgrade to a paid account",
        limited_by("openrouter_credits", provider_name=None, reason="weight_exceeds_budget"),
        names_account=True,
    ),
    "402d": FaultRow(
        402, "Insufficient credits. Add more using https://openrouter.ai/settings/credits", names_account=True
    ),
    # 403a: moderation; 403b: guardrail; 403c: key cap spent; 403d: workspace budget; 403e: data region;
    # 403f: the provider declines; 403g: wrong kind of key.
    "403a": FaultRow(
        403,
        f'$MODEL {MODERATION} "self-harm/intent". No credits were charged.',
        {
            "reasons": ["self-harm/intent"],
            "flagged_input": "$PROMPT",
            "provider_name": "Amazon Bedrock",
            "model_slug": "$MODEL",
        },
    ),
    "403b": FaultRow(403, "Request blocked: prompt injection patterns detected", {"patterns": ["ignore previous"]}),
    "403c": FaultRow(403, f"Key limit exceeded ($LIMIT_KIND limit). Manage it using {KEYS_LINK}"),
    "403d": FaultRow(403, "Workspace monthly budget of $500.00 exceeded. Contact your org admin.", names_account=True),
    "403e": FaultRow(
        403,
        "This request arrived on the global data region, but the key's workspace permits requests only on these "
        "OpenRouter hostnames: eu.openrouter.ai",
    ),
    "403f": FaultRow(
        403,
        "The provider declined this request because of its content policy",
        {"error_type": "content_policy_violation", "provider_code": "content_filter"},
    ),
    "403g": FaultRow(403, "Only management keys can perform this operation"),
    "404": FaultRow(404, "Not Found"),
    "404-generation": FaultRow(404, "Generation $MESSAGE not found"),
    "404-key": FaultRow(404, "API key not found"),
    # 404a: nobody serves the model; 404b: this account's privacy or provider settings leave nobody.
    "404a": FaultRow(404, "No endpoints found for $MODEL.", names_account=True),
    "404b": FaultRow(
        404,
        "No endpoints found matching your data policy. Configure: https://openrouter.ai/settings/privacy",
        {"failed_routing_step": "data_policy"},
        names_account=True,
    ),
    "405": FaultRow(405, "Method Not Allowed"),
    "408": FaultRow(408, "Operation timed out. Please try again later."),
    "412": FaultRow(412, "Precondition failed", {"error_type": "precondition_failed"}),
    "413": FaultRow(413, "Request payload too large", {"error_type": "payload_too_large"}),
    "413-html": edge_page(413, "Payload Too Large"),
    "422": FaultRow(422, "Downloaded image content cannot exceed 30MB", {"provider_name": None}),
    # 429a: the account's free requests of this minute; 429b: of this day; 429c: the provider's pool; 429d: the edge.
    "429a": FaultRow(
        429,
        "Rate limit exceeded: free-models-per-min. ",
        limited_by("openrouter_free_tier_per_minute", headers=RATE_LIMIT_HEADERS),
        names_account=True,
        headers=RATE_LIMIT_HEADERS,
    ),
    "429b": FaultRow(
        429,
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
        limited_by("openrouter_free_tier_daily", headers=RATE_LIMIT_HEADERS),
        names_account=True,
        headers=RATE_LIMIT_HEADERS,
    ),
    "429c": FaultRow(
        429,
        "Provider returned error",
        upstream(
            "$MODEL is temporarily rate-limited upstream. Please retry shortly, or add your own key to accumulate "
            f"your rate limits: {BYOK_LINK}",
            limit_source="upstream_provider_shared_pool",
            retry_after_seconds="$RETRY_AFTER",
            remedy_hint=f"Retry shortly, or add your own provider key: {BYOK_LINK}",
        ),
        headers=RETRY_AFTER,
    ),
    "429d": edge_page(429, "Too Many Requests"),
    "499": FaultRow(499, "Client closed request"),
    # A provider that echoes what it was sent: the whole key stands in the answer.
    "500": FaultRow(500, "Internal Server Error", {"raw": "request with Authorization: Bearer $KEY failed"}),
    "502": FaultRow(
        502,
        "Provider returned error",
        upstream(
            '{"error":{"type":"overloaded_error","message":"Overloaded"}}',
            error_type="provider_unavailable",
            previous_errors=[{"code": 429, "message": "rate-limited", "provider_name": "Chutes"}],
        ),
        names_account=True,
    ),
    "502-html": edge_page(502, "Bad gateway"),
    "503": FaultRow(
        503,
        "Service temporarily unavailable",
        {"error_type": "provider_overloaded", "provider_name": None},
        headers=RETRY_AFTER,
    ),
    "503-routing": FaultRow(503, "No available model provider that meets your routing requirements"),
    "504": FaultRow(504, "Operation timed out", {"error_type": "timeout", "provider_name": "DigitalOcean"}),
    "520": edge_page(520, "Web server is returning an unknown error"),
    "521": edge_page(521, "Web server is down"),
    "522": edge_page(522, "Connection timed out"),
    "523": edge_page(523, "Origin is unreachable"),
    "524": FaultRow(524, "Request timed out. Please try again later."),
    "524-html": edge_page(524, "A timeout occurred"),
    "529": FaultRow(529, "Provider returned error", upstream("Overloaded", error_type="provider_overloaded")),
}


class Refused(Exception):
    """A request is answered with a row of the table."""

    def __init__(self, label: str, **values: str) -> None:
        super().__init__(label)
        self.label = label
        self.values_given = values


def bad_request(message: str) -> Refused:
    """Return the refusal of a request that is wrong in itself."""
    return Refused("400", MESSAGE=message)


def values_of(exchange: Exchange, account_id: str) -> dict[str, str]:
    """Return what a request itself contributes to the texts of a row."""
    secret = exchange.header(b"authorization").decode("latin-1").partition(" ")[2]
    return {"KEY": secret} | ({"ACCOUNT": account_id} if account_id else {})
