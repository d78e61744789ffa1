"""What keeps the operator's pages as things are at this moment: server-sent events, for some seconds at a time.

The servers give each request a thread. So no stream is endless: it ends after STREAM_SECONDS, or once the server is
told to end, and the browser asks again; at most MAX_STREAMS are open in a process, and the others are told to come
later. A line is written each second, by which the server learns that a browser has gone.
"""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from flask import Response, request, stream_with_context

from accounts.roles import Right
from db import DatabaseError
from foundation.errors import AppError, BadRequest, Busy
from serving import ending
from web.api.admin_usage import EverybodysLogPage
from web.http import rights_here
from web.pages.forms import here, query_of
from web.pages.operator import for_auditors, log_values
from web.pages.operator_pool import pool_values
from web.pages.views import find_caller, page_blueprint, show

routes = page_blueprint("operator_live_pages", "/operator/live")

STREAM_SECONDS, LOOK_SECONDS, RETRY_SECONDS = 15, 1, 3
MAX_STREAMS = 4  # of at least 8 threads
OVER = "event: over\ndata: log in again\n\n"

Read = Callable[[], dict[str, Any]]

_places = threading.BoundedSemaphore(MAX_STREAMS)


@routes.get("/pool")
@for_auditors
def pool() -> Response:
    """The keys of the pool."""
    return _stream("operator_pool_part.html", pool_values)


@routes.get("/logs")
@for_auditors
def logs() -> Response:
    """Everybody's requests; not what has to be searched for, which would be searched for again each second."""
    if query_of(EverybodysLogPage).is_search:
        raise BadRequest("What was searched for is not kept up to date: load the page again")
    return _stream("log_part.html", lambda: log_values() | {"path": "/operator/logs"})


def _stream(template: str, read: Read) -> Response:
    """The part of a page, whenever it is another one than `Last-Event-ID` names; with the filters of that page."""
    read()  # before there is an answer: a filter may be wrong
    if not _places.acquire(blocking=False):
        raise Busy("As many pages as may are being kept up to date; this one will be later", RETRY_SECONDS * 5)
    events = stream_with_context(_events(template, read, request.headers.get("Last-Event-ID", "")))
    response = Response(events, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})
    # Once, whatever comes first: the end, a server that gives up, or one that never begins.
    response.call_on_close(weakref.finalize(response, _places.release))
    return response


def _events(template: str, read: Read, seen: str) -> Iterator[str]:
    until = time.monotonic() + STREAM_SECONDS
    yield f"retry: {RETRY_SECONDS * 1000}\n\n"
    while time.monotonic() < until and not ending.is_near():
        try:
            if not _may_still_look():
                yield OVER
                return
            values = read()
        except (DatabaseError, AppError):  # an upstream that the filter names may have been removed
            yield ": nothing can be read at present\n\n"
        else:
            digest = hashlib.sha256(orjson.dumps(values)).hexdigest()[:16]
            yield ":\n\n" if digest == seen else _event(digest, show(template, here=here, **values))
            seen = digest
        time.sleep(LOOK_SECONDS)


def _may_still_look() -> bool:
    """False once the session is over or the rights are gone; told from memory. Raises Busy."""
    caller = find_caller()
    return caller is not None and Right.READ in rights_here(caller.user_id)


def _event(digest: str, shown: Response) -> str:
    # Not only line feeds end a line of a stream: a name with another end of line in it would write events of its own.
    lines = "".join(f"data: {line}\n" for line in shown.get_data(as_text=True).splitlines())
    return f"id: {digest}\nevent: part\n{lines}\n"
