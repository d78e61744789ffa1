"""Whether an upstream answers and takes its key: it is asked for its models, as clients ask."""

from __future__ import annotations

from dataclasses import dataclass

from foundation import json_members
from foundation.deadline import TimeIsUp
from foundation.json_text import BadJson
from upstream.connection import UpstreamError
from upstream.http import UpstreamHttp
from upstream.registry import Upstream, Upstreams

ANSWER_SECONDS = 15.0
MAX_ANSWER_BYTES = json_members.MOST_LIST_BYTES
REASONS = {
    401: "it does not take its key",
    403: "it does not take its key",
    404: "it has no /models: most base URLs end in /v1",
}


@dataclass(frozen=True)
class Checked:
    """What became of asking. reason: why it is not ok, if that is known; models: how many it names."""

    name: str
    ok: bool = False
    status: int | None = None
    reason: str | None = None
    models: int | None = None


def check(upstreams: Upstreams, upstream: Upstream) -> Checked:
    """Ask an upstream `GET /models` with its key."""
    name, terms = upstream.terms.name, upstream.terms
    key = upstreams.keys([upstream.id]).get(upstream.id)
    if not (key is None or isinstance(key, str)):
        return Checked(name, reason=str(key))
    headers = f"Authorization: Bearer {key}\r\n".encode("ascii") if key else b""
    http = UpstreamHttp(terms.base_url, terms.connect_timeout_seconds, dial=upstreams.guard.dial)
    try:
        status, body = http.get("/models", headers, ANSWER_SECONDS, MAX_ANSWER_BYTES)
    except UpstreamError as error:
        return Checked(name, reason=str(error))
    except TimeIsUp:
        return Checked(name, reason=f"no whole answer in {ANSWER_SECONDS:.0f} s and {MAX_ANSWER_BYTES >> 20} MiB")
    finally:
        http.close()
    if status != 200:
        redirects = "it redirects, which is not followed" if 300 <= status < 400 else None
        return Checked(name, status=status, reason=REASONS.get(status, redirects))
    models = _models(body)
    if models is None:
        return Checked(name, status=status, reason="its answer is no list of models: is this its API's base URL?")
    return Checked(name, ok=True, status=status, models=models)


def _models(body: bytes) -> int | None:
    """How many models an answer in OpenAI's form names; None if it is no such answer.

    Counted as bytes: whoever answers may send millions of small values, and built they take thirty times the room.
    """
    try:
        json_members.check(body)
        listed = json_members.members(body).get("data")
        return len(json_members.items(listed)) if listed and json_members.first(listed) == "[" else None
    except BadJson:
        return None
