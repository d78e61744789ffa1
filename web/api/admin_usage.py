"""Everybody's usage, for the operator alone: statistics and the request log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from billing.reports import export as usage_export
from billing.reports.statistics import UsageFilter
from web.api.usage import ClientKeySums, DaysShown, DaySums, LogEntry, ModelSums, Sums
from web.http import answer, services
from web.operation import Page, Query, RowId, Who, operation
from web.usage_query import Days, LogFile, LogFilter, LogPageQuery, find_pool_key_id

routes = Blueprint("admin_usage_api", __name__, url_prefix="/admin")


class _OfUser(Query):
    user_id: RowId | None = Field(None, description="Of this user alone")


class _OfPoolKey(_OfUser):
    pool_key: str | None = Field(None, description="With this key of the pool, by its name")


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
    pool_key: str | None = Field(examples=["env/0a1b2c3d4e5f"])


@routes.get("/stats")
@operation("Usage, summed up", Who.OPERATOR, query=UsersDays, answers={200: Statistics})
def stats(query: UsersDays) -> Response:
    """In all, by model, by day and by pool key; for one user by client key too."""
    return answer(services().usage.summary(query.usage_of(query.user_id), for_operator=True))


@routes.get("/logs")
@operation("Everybody's calls", Who.OPERATOR, query=EverybodysLogPage, answers={200: Page[EverybodysLogEntry]})
def logs(query: EverybodysLogPage) -> Response:
    """The request log, newest first. It holds no prompt and no answer."""
    return answer(log_shown(query))


@routes.get("/logs/export")
@operation(
    "Everybody's calls as a file",
    Who.OPERATOR,
    query=EverybodysLogFile,
    answers={200: tuple(usage_export.MIMETYPES.values())},
)
def export(query: EverybodysLogFile) -> Response:
    """The whole log, oldest first."""
    return log_file(query)


# ── for the pages too


def log_shown(query: EverybodysLogPage) -> dict[str, Any]:
    """A page of everybody's log, as it is answered. Raises BadRequest."""
    found = services().usage_log.page(_asked(query, query), query.page, query.page_size)
    items = [item.to_dict(for_operator=True) for item in found.items]
    return {"items": items, "total": found.total, "page": query.page, "page_size": query.page_size}


def log_file(query: EverybodysLogFile) -> Response:
    """Everybody's log as a file. Raises BadRequest."""
    walk = services().usage_log.walk(_asked(query, query))
    return Response(
        usage_export.lines(walk, query.format, for_operator=True), headers=usage_export.headers(query.format)
    )


def _asked(calls: LogFilter, whose: _OfPoolKey) -> UsageFilter:
    return replace(calls.usage_of(whose.user_id), pool_key_id=find_pool_key_id(whose.pool_key))
