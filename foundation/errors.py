"""The errors that this service answers with, drawn as a tree, and their one JSON shape.

    AppError
    ├── BadRequest 400        ├── Forbidden 403        ├── PayloadTooLarge 413
    │   └── UsernameTaken     ├── NotFound 404         ├── UnsupportedMedia 415
    ├── Unauthorized 401      ├── MethodNotAllowed 405 ├── TooManyRequests 429
    ├── PaymentRequired 402   ├── RequestTimeout 408   └── ServiceFault 500
    │   └── QuotaExceeded     └── Conflict 409
    ├── UpgradeRefused 426
    └── NotSupported 501, UpstreamFailed 502, UpstreamTimeout 504, UpstreamRefused 4xx, Busy 503
                                                                                   └── ServerEnds

The body holds what the SDKs of OpenAI and OpenRouter read (`error.code` an integer, `error.message`,
`error.metadata.error_type` out of OpenRouter's list) and the `message` and `detail` of older clients.
"""

from __future__ import annotations

import orjson

# OpenRouter's list of error types, by the HTTP status that each goes with.
ERROR_TYPES = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    405: "invalid_request",
    408: "timeout",
    412: "precondition_failed",
    413: "payload_too_large",
    415: "invalid_request",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    500: "server",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
}


class AppError(Exception):
    """An error that a client may read.

    message: what was wrong and what is accepted; never a secret or another person's data.
    headers: sent with the answer.
    """

    status = 500
    type = "server_error"
    is_noted = False
    """True once it is written down why, for the log of requests."""

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}

    @property
    def error_type(self) -> str:
        """The word of OpenRouter's list that fits the status."""
        return ERROR_TYPES.get(self.status, "invalid_request" if self.status < 500 else "server")

    def to_dict(self) -> dict[str, object]:
        """The one shape of an error body."""
        return {
            "error": {
                "code": self.status,
                "message": self.message,
                "type": self.type,
                "param": None,
                "metadata": {"error_type": self.error_type},
            },
            "message": self.message,
            "detail": self.message,
        }

    def to_json(self) -> bytes:
        """The body as bytes."""
        return orjson.dumps(self.to_dict())


class BadRequest(AppError):
    status, type = 400, "invalid_request"


class UsernameTaken(BadRequest):
    type = "username_taken"

    def __init__(self) -> None:
        super().__init__("Username already exists")


class Unauthorized(AppError):
    status, type = 401, "authentication_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, {"WWW-Authenticate": 'Bearer realm="openrouter-proxy"'})


class PaymentRequired(AppError):
    """No SDK retries a 402: for a pool that needs its operator, not patience."""

    status, type = 402, "payment_required"

    def __init__(self, message: str) -> None:
        super().__init__(message, {"x-should-retry": "false"})


class QuotaExceeded(PaymentRequired):
    """What the caller may spend is spent: waiting helps only when the quota recovers."""

    type = "quota_exceeded"


class Forbidden(AppError):
    status, type = 403, "permission_denied"


class NotFound(AppError):
    status, type = 404, "not_found"


class MethodNotAllowed(AppError):
    status, type = 405, "method_not_allowed"


class RequestTimeout(AppError):
    status, type = 408, "request_timeout"


class Conflict(AppError):
    status, type = 409, "conflict"


class PayloadTooLarge(AppError):
    status, type = 413, "payload_too_large"


class UnsupportedMedia(AppError):
    status, type = 415, "unsupported_media_type"


class UpgradeRefused(AppError):
    """Agents that try WebSockets first go on over HTTP at once when they read this; other refusals they try again."""

    status, type = 426, "upgrade_refused"


class TooManyRequests(AppError):
    """SDKs wait for Retry-After politely on a 429; on a 503 some retry for an hour."""

    status, type = 429, "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_seconds: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, {"Retry-After": str(retry_after_seconds), **(headers or {})})


class ServiceFault(AppError):
    """Our own bug. The log has the cause under the request id; the client learns only the id."""

    def __init__(self) -> None:
        super().__init__("The service failed to handle this request. Quote the X-Request-Id header to its operator.")


class NotSupported(AppError):
    status, type = 501, "not_supported"


class UpstreamFailed(AppError):
    status, type = 502, "upstream_failed"


class UpstreamRefused(AppError):
    """An upstream's refusal of the request itself, in a body that no client could read."""

    type = "upstream_refused"

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason or f"The upstream refused the request with status {status}")
        self.status = status


class Busy(AppError):
    status, type = 503, "service_busy"

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message, {"Retry-After": str(retry_after_seconds)})


class ServerEnds(Busy):
    """This process ends, and the call has taken all the time that calls have then."""

    type = "server_ends"

    def __init__(self) -> None:
        super().__init__("The service is being restarted, and did not wait longer for this answer; try again")


class UpstreamTimeout(AppError):
    status, type = 504, "upstream_timeout"
