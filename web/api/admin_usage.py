"""Everybody's usage, for the operator alone: statistics and the request log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from accounts.labels import with_labels
from billing import refused_calls
from billing.reports import export as usage_export
from billing.reports.one_request import get_request
from billing.reports.statistics import UsageFilter
from foundation.errors import BadRequest, NotFound
from web.api.usage import ClientKeySums, DaysShown, DaySums, LogEntry, LogShown, ModelSums, Sums, TryShown
from web.api.usage import log_shown as page_shown
from web.http import answer, note_read, services
from web.operation import Number, Query, RowId, Shown, Who, operation
from web.usage_query import Days, LogFile, LogFilter, LogPageQuery, find_pool_key_id

MOST_REFUSALS = 200

routes = Blueprint("admin_usage_api", __name__, url_prefix="/admin")


class _OfUser(Query):
    user_id: RowId | None = Field(None, description="Of this user alone")


class _OfPoolKey(_OfUser):
    pool_key: str | None = Field(None, description="With this key of the pool, by its name or a part that only it has")


class UsersDays(Days, _OfUser):
    """Days, of everybody or of one user."""


class EverybodysLogPage(LogPageQuery, _OfPoolKey):
    """A page of everybody's log."""


class EverybodysLogFile(LogFile, _OfPoolKey):
    """Everybody's log as a file."""


class PoolKeySums(Sums):
    """What was used with a key of the pool, or of another upstream; both null for calls that got to neither."""

    pool_key: str | None = Field(examples=["env/0a1b2c3d4e5f"])
    upstream: str | None = Field(examples=["openrouter"])


class Statistics(DaysShown):
    """Usage in some days. Days and models without calls are left out."""

    totals: Sums
    by_model: list[ModelSums]
    by_day: list[DaySums]
    by_pool_key: list[PoolKeySums]
    by_client_key: list[ClientKeySums] = Field([], description="For one user only")


class EverybodysLogEntry(LogEntry):
    """One request, with whose it was and which key of the pool carried it."""

    user_id: int = Field(examples=[1])
    user_label: str | None = Field(description="What operators call the user", examples=["marketing, laptop 3"])
    pool_key: str | None = Field(examples=["env/0a1b2c3d4e5f"])


class OperatorsTry(TryShown):
    """One try, with which key it went where, and what came back. ms: to its end."""

    pool_key: str | None = Field(examples=["env/0a1b2c3d4e5f"])
    upstream: str | None = Field(description="Another upstream's name", examples=[None])
    status: int | None = Field(examples=[429])
    error_type: str | None = Field(description="Of a try that another one followed, the kind", examples=["key-limited"])
    error_message: str | None = Field(examples=["Rate limit exceeded"])
    ms: int | None = Field(examples=[120])


class EverybodysRequest(EverybodysLogEntry):
    """One call, whole."""

    attempts: list[OperatorsTry]


class RefusalsQuery(Query):
    """For how long back."""

    hours: Number = Field(24, ge=1, le=24 * 366, description="In so many hours up to now")


class RefusalSum(Shown):
    """Refusals of one kind. caller: `address/…`, `user/…`, or `others` where there were too many to tell apart."""

    caller: str = Field(examples=["address/203.0.113.7"])
    user_label: str | None = Field(description="What operators call the user", examples=[None])
    error_type: str = Field(examples=["authentication_error"])
    refusals: int = Field(examples=[1200])
    latest: datetime = Field(description="The hour of the last one")


class RefusalSums(Shown):
    """Refusals that are in no log, summed up."""

    items: list[RefusalSum]


@routes.get("/stats")
@operation("Usage, summed up", Who.AUDITOR, query=UsersDays, answers={200: Statistics})
def stats(query: UsersDays) -> Response:
    """In all, by model, by day and by pool key; for one user by client key too."""
    if query.user_id:
        note_read("usage", query.user_id)
    return answer(services().usage.summary(query.usage_of(query.user_id), for_operator=True))


@routes.get("/logs")
@operation("Everybody's calls", Who.AUDITOR, query=EverybodysLogPage, answers={200: LogShown[EverybodysLogEntry]})
def logs(query: EverybodysLogPage) -> Response:
    """The request log, newest first. It holds no prompt and no answer."""
    return answer(log_shown(query))


@routes.get("/logs/<request_id>")
@operation("One call", Who.AUDITOR, answers={200: EverybodysRequest}, refusals=(404,))
def one_request(request_id: str) -> Response:
    """All that is known of it: each of its tries, with which key, and why it failed."""
    return answer(request_shown(request_id))


@routes.get("/refusals")
@operation("Refusals without a row", Who.AUDITOR, query=RefusalsQuery, answers={200: RefusalSums})
def refusals(query: RefusalsQuery) -> Response:
    """Model calls that were refused at the door and are not in the log, the most refused first.

    Strangers' calls, by address, and those of callers who were refused more than 60 times in a minute.
    """
    found = refusals_shown(query.hours, MOST_REFUSALS)
    return answer({"items": [row | {"latest": row["latest"].isoformat()} for row in found]})


@routes.get("/logs/export")
@operation(
    "Everybody's calls as a file",
    Who.AUDITOR,
    query=EverybodysLogFile,
    answers={200: tuple(usage_export.MIMETYPES.values())},
)
def export(query: EverybodysLogFile) -> Response:
    """The whole log, oldest first."""
    return log_file(query)


# ── for the pages too


def log_shown(query: EverybodysLogPage) -> dict[str, Any]:
    """A page of everybody's log, as it is answered. Raises BadRequest."""
    note_read("requests", query.user_id)
    return page_shown(query, _asked(query, query), for_operator=True)


def refusals_shown(hours: int, most: int) -> list[dict[str, Any]]:
    """Refusals that are in no log, in the last hours."""
    found = refused_calls.latest(services().db, services().clock.now() - timedelta(hours=hours), most)
    return with_labels(services().db, found, user_label="caller")


def request_shown(request_id: str) -> dict[str, Any]:
    """One call, as it is answered. Raises NotFound."""
    found = get_request(services().db, request_id)
    note_read("one request", found["user_id"])
    return found


def log_file(query: EverybodysLogFile) -> Response:
    """Everybody's log as a file. Raises BadRequest."""
    note_read("requests, as a file", query.user_id)
    walk = services().usage_log.walk(_asked(query, query))
    return Response(
        usage_export.lines(walk, query.format, for_operator=True), headers=usage_export.headers(query.format)
    )


def _asked(calls: LogFilter, whose: _OfPoolKey) -> UsageFilter:
    user_id = whose.user_id
    if user_id is None and calls.client_key_id is not None:  # sums of keys are their owners'
        user_id = _owner(calls.client_key_id)
    return replace(calls.usage_of(user_id), pool_key_id=find_pool_key_id(whose.pool_key))


def _owner(client_key_id: int) -> int:
    try:
        return services().client_keys.get(client_key_id, with_revoked=True).user_id
    except NotFound:
        raise BadRequest("client_key_id must be the number of a client key, as GET /admin/keys shows it") from None
