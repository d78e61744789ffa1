"""What kind of answer has come: told by its head, and corrected by how its body begins.

Upstreams send events under `application/json`, JSON to whom asked for a stream, and JSON as `text/html`. What a body is
can be seen from its first bytes: JSON never begins like a field of an event.
"""

from __future__ import annotations

from enum import Enum

from formats.chat import BYTE_ORDER_MARK
from upstream.http import Exchange

EVENT_FIELDS = (b":", b"data:", b"event:", b"id:", b"retry:")
BLANK = b" \t\r\n"
BINARY = ("audio/", "video/", "image/", "application/octet-stream")  # such bytes may begin like anything


class Form(Enum):
    """What kind of answer has come. UNREAD: sound, or compressed though we asked for none. PAGE: for people."""

    STREAM = "stream"
    PLAIN = "plain"
    UNREAD = "unread"
    PAGE = "page"
    REFUSAL = "refusal"


def form_of_head(exchange: Exchange) -> Form:
    """What an answer's status and headers say that it is."""
    content_type = exchange.headers.get("content-type", "").lower()
    if not 200 <= exchange.status < 300:
        return Form.REFUSAL
    if is_encoded(exchange) or content_type.startswith(BINARY):
        return Form.UNREAD
    if content_type.startswith("text/event-stream"):
        return Form.STREAM
    return Form.PAGE if content_type.startswith("text/html") else Form.PLAIN


def form_of_body(begun: bytes, told: Form) -> Form | None:
    """What a body is by its beginning; None while there is too little of it. told: by its head."""
    begun = begun.removeprefix(BYTE_ORDER_MARK).lstrip(BLANK)
    if not begun:
        return None
    if begun.startswith((b"{", b"[")):
        return Form.PLAIN
    if begun.startswith(EVENT_FIELDS):
        return Form.STREAM
    return None if any(field.startswith(begun) for field in EVENT_FIELDS) else told


def is_encoded(exchange: Exchange) -> bool:
    """True if the body is compressed."""
    return exchange.headers.get("content-encoding", "identity").lower() != "identity"
