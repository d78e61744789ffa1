"""Which pages of other origins may call this service and read its answers: CORS, as the Fetch standard has it.

Across origins counts only what a page itself puts into a request. No answer allows credentials, so that no browser adds
its cookies; the pages, `/admin` and networks that are private to a browser are open to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from foundation.errors import Forbidden
from gateway.answer import Headers, ProxyAnswer

ANY = "*"
# Beside what browsers show by themselves.
EXPOSED = (
    *("X-Request-Id", "Request-Id", "X-Generation-Id", "X-Provider-Name", "X-Fallback", "ETag"),
    *("Content-Disposition", "X-Cache", "Age"),
    *("RateLimit-Policy", "RateLimit", "Retry-After", "X-Should-Retry", "WWW-Authenticate"),
    *("X-Quota-Limit", "X-Quota-Remaining", "X-Quota-Reset", "X-Quota-Warning"),
)
METHODS = "DELETE, GET, HEAD, PATCH, POST, PUT"
MAX_AGE_SECONDS = 7200  # Chromium keeps none longer
HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]{1,2048}")
FORMS = {"/login", "/register"}  # pages, to whoever reads them
OTHER_PAGES = {"/api/docs", "/api/redoc"}


class CrossOrigin:
    """allowed: origins as browsers write them, or ANY for calls that carry a token."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._named = frozenset(allowed) - {ANY}
        self._any = ANY in allowed

    def headers(self, environ: dict[str, Any]) -> Headers:
        """What every answer to this request carries, refusals too: a page reads nothing of an answer without them."""
        if not (self._named or self._any) or not _is_open(environ["PATH_INFO"], _method(environ)):
            return []
        varies: Headers = [("Vary", "Origin")]
        if not (origin := self._granted(environ)):
            return varies
        return [*varies, ("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", ", ".join(EXPOSED))]

    def preflight(self, environ: dict[str, Any]) -> ProxyAnswer | None:
        """The answer to a browser that asks whether a page may send something; None if it asks nothing, or nothing
        that could be allowed. Raises Forbidden."""
        if not environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD") or not environ.get("HTTP_ORIGIN"):
            return None
        if environ["REQUEST_METHOD"] != "OPTIONS" or not _is_open(environ["PATH_INFO"], _method(environ)):
            return None
        if not self._granted(environ):
            raise Forbidden("Pages of this origin may not call this path: CORS_ALLOWED_ORIGINS does not name it")
        headers: Headers = [("Access-Control-Allow-Methods", METHODS)]
        asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
        # Whatever a page sends: what is not understood here is not read. `*` would not stand for Authorization.
        if HEADER_NAMES.fullmatch(asked):
            headers.append(("Access-Control-Allow-Headers", asked))
        return ProxyAnswer(204, [*headers, ("Access-Control-Max-Age", str(MAX_AGE_SECONDS))], ())

    def _granted(self, environ: dict[str, Any]) -> str | None:
        """What Access-Control-Allow-Origin says, if anything."""
        origin: str = environ.get("HTTP_ORIGIN", "")
        if origin in self._named:
            return origin
        return ANY if self._any and origin and _takes_token(environ["PATH_INFO"]) else None


def _method(environ: dict[str, Any]) -> str:
    """The method that a page wants to use."""
    sent: str = environ["REQUEST_METHOD"]
    return environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD", sent) if sent == "OPTIONS" else sent


def _is_open(path: str, method: str) -> bool:
    """Whether this is for programs."""
    if path in FORMS:
        return method == "POST"
    return path.startswith(("/v1/", "/api/")) and path not in OTHER_PAGES


def _takes_token(path: str) -> bool:
    """Whether a token comes before all else. Where passwords are tried, origins have to be named: any page could have
    its visitors' browsers try some, each from another address."""
    return path not in FORMS and not path.startswith("/api/auth/")
