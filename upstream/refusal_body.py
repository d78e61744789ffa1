"""A refusal's body, whatever it looks like: OpenRouter's object, or what other services and the edges before them send.

Google's has a list around it, FastAPI's a `detail`, others a `message`, a text or a page. What it says is found, so
that the client learns why; whose fault it was is told by refusals.py, for which a body that is no JSON object is an
edge's.
"""

from __future__ import annotations

import html
import re
from typing import Any

from foundation import json_text
from upstream.disclosure import hide_account
from upstream.refusal import Json

REASON_FIELDS = ("message", "detail", "errors", "error_description", "title")
MAX_REASON = 500
_UNSEEN = re.compile(r"(?is)<(script|style|head)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>")
_TITLE = re.compile(r"(?is)<title[^>]*>(.*?)</title>")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")


def object_in(status: int, body: bytes) -> tuple[Json | None, bytes]:
    """The error object of a JSON body, with its `error` where OpenRouter has it, or None if there is none; and the body
    as it may go on, or b"" if the object is another than was sent."""
    try:
        sent = json_text.parse(body)
    except json_text.BadJson:
        return None, body
    found = next((one for one in sent if isinstance(one, dict)), None) if isinstance(sent, list) else sent
    if not isinstance(found, dict):
        return None, body
    if not found.get("error"):
        said = next((found[name] for name in REASON_FIELDS if found.get(name)), None)
        found = found if said is None else found | {"error": {"code": status, "message": _one_line(_as_text(said))}}
    return found, body if found is sent else b""


def reason_in(body: bytes) -> str:
    """What a text or a page says, in one line that a client may see; "" if it says nothing."""
    text = body[: 64 * 1024].decode("utf-8", "replace")
    if "\ufffd" in text:  # compressed, or no text at all
        return ""
    if "<" in text:
        title = _TITLE.search(text)
        text = html.unescape(title[1] if title and title[1].strip() else _UNSEEN.sub(" ", text))
    return _one_line(text)


def _as_text(said: Any) -> str:
    return said if isinstance(said, str) else json_text.write(said).decode()


def _one_line(text: str) -> str:
    return hide_account(_SPACE.sub(" ", text).strip())[:MAX_REASON]
