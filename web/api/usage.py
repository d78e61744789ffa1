"""A caller's own usage: statistics, request log, and the public API of the same figures. Never anybody else's."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Any, Generic, Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.caller import Caller
from accounts.client_keys import ClientKeyRow
from billing.reports import export as usage_export
from billing.reports.one_request import get_request
from billing.reports.statistics import UsageFilter, no_usage
from web.api.openrouter import as_openrouters_keys
from web.api.watched_keys import cost
from web.http import MAX_PAGE, MAX_PAGE_SIZE, answer, services
from web.operation import Item, Number, Page, Shown, Who, operation
from web.usage_query import Days, LogFile, LogPageQuery

routes = Blueprint("usage_api", __name__, url_prefix="/api")

NOT_KNOWN: dict[str, object] = dict.fromkeys(("name", "key_hint", "state", "last_used"))


class Sums(Shown):
    """What was used. unknown: calls that OpenRouter may have billed and nobody can tell."""

    requests: int = Field(examples=[12])
    errors: int = Field(examples=[1])
    prompt_tokens: int = Field(examples=[3400])
    completion_tokens: int = Field(examples=[1200])
    cost_nano: int = Field(description="Billionths of a dollar", examples=[5_000_000])
    cost_usd: float = Field(examples=[0.005])
    unknown: int = Field(description="Calls whose cost nobody knows", examples=[0])


class ModelSums(Sums):
    """What was used of a model."""

    model: str = Field(examples=["openai/gpt-4o-mini"])


class DaySums(Sums):
    """What was used on a day of UTC."""

    date: date


class DayModelSums(DaySums, ModelSums):
    """What was used of a model on a day of UTC."""


class ClientKeySums(Sums):
    """What was used with a client key; null stands for calls without one."""

    client_key_id: int | None = Field(examples=[None])


class DaysShown(Shown):
    """The days that sums are of, both included."""

    start_date: date
    end_date: date


class OwnStatistics(DaysShown):
    """One's usage in some days. Days and models without calls are left out."""

    totals: Sums
    by_model: list[ModelSums]
    by_day: list[DaySums]
    by_client_key: list[ClientKeySums]


class PublicStatistics(DaysShown):
    """One's usage in some days."""

    summary: Sums
    by_model: list[ModelSums]


class PublicUsage(Shown):
    """Usage by day and model, newest day first."""

    items: list[DayModelSums]
    total: int = Field(description="Items on all pages together", examples=[1])
    page: int = Field(examples=[1])
    limit: int = Field(examples=[20])


class DescribedKeySums(ClientKeySums):
    """What was used with a client key, and what the key is; nulls for calls without one."""

    name: str | None = Field(examples=["nightly report"])
    key_hint: str | None = Field(examples=["sk-auto-ab****"])
    state: Literal["active", "expired", "revoked"] | None
    last_used: datetime | None


class WatchedKeyCost(Shown):
    """What one's own OpenRouter key has cost, wherever it was used: its calls are nobody's here to count."""

    id: int
    name: str = Field(examples=["laptop"])
    key_hint: str = Field(examples=["sk-or-01234****"])
    state: Literal["valid", "suspect", "refused"]
    synced_at: datetime | None
    cost_nano: int = Field(description="In these days, in billionths of a dollar", examples=[5_000_000])
    cost_usd: float = Field(examples=[0.005])


class OpenRoutersKey(Shown):
    """A client key in the form of one of OpenRouter's: `limit` is its own budget, in dollars, as all amounts are."""

    hash: str = Field(description="The client key's id", examples=["7"])
    name: str = Field(examples=["nightly report"])
    label: str = Field(examples=["sk-auto-ab****"])
    disabled: bool
    limit: float | None
    limit_remaining: float | None
    limit_reset: Literal["daily", "weekly", "monthly"] | None
    usage: float
    usage_daily: float
    usage_weekly: float
    usage_monthly: float
    byok_usage: float
    byok_usage_daily: float
    byok_usage_weekly: float
    byok_usage_monthly: float
    include_byok_in_limit: bool
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    external_user: None
    creator_user_id: str
    workspace_id: str


class KeysQuery(Days):
    """Days for the usage; of `data`, whether keys that are no longer good are in it, and how many to leave out."""

    include_disabled: Literal["true", "false"] = Field("false", description="Whether `data` has expired keys too")
    offset: Number = Field(0, ge=0, le=MAX_PAGE, description="How many keys of `data` are left out, as pages go on")


class KeysUsage(Shown):
    """Usage by client key; beside it, and not to be added up with it, what personal keys have cost anywhere."""

    items: list[DescribedKeySums]
    personal_keys: list[WatchedKeyCost]
    data: list[OpenRoutersKey] = Field(description="The client keys once more, as OpenRouter's SDKs read keys")


class LogEntry(Shown):
    """One request. cost and tokens: of all its tries together, null while unknown."""

    request_id: str = Field(examples=["019ab5d1c2e3a1b2c3d4e5f60718293a"])
    created_at: datetime
    client_key_id: int | None = Field(examples=[None])
    model: str = Field(examples=["openai/gpt-4o-mini"])
    asked_model: str | None = Field(
        description="What the client asked for, where an alias or a fallback led to the model", examples=[None]
    )
    upstream: str | None = Field(description="Where it went; null if nowhere", examples=["openrouter"])
    status: int | None = Field(description="The HTTP status of the answer", examples=[200])
    outcome: str | None = Field(description="`complete`, `client_gone`, or what went wrong", examples=["complete"])
    error_type: str | None = Field(description="Why it was refused or failed, in a word", examples=[None])
    error_message: str | None = Field(description="And in a sentence, as the client was told", examples=[None])
    stream: bool
    state: Literal["dispatched", "streaming", "pending", "unknown", "estimated", "settled", "void"] = Field(
        description="How much is known of the cost"
    )
    source: str | None = Field(description="Where the cost is known from", examples=["answer"])
    prompt_tokens: int | None = Field(examples=[340])
    completion_tokens: int | None = Field(examples=[120])
    cached_tokens: int | None = Field(description="Of the prompt's; null for none, here and below", examples=[None])
    reasoning_tokens: int | None = Field(description="Of the completion's", examples=[64])
    image_tokens: int | None = Field(description="Of the completion's", examples=[None])
    web_searches: int | None = Field(description="Made by OpenRouter's tools for this call", examples=[1])
    cost_nano: int | None = Field(description="Billionths of a dollar", examples=[5_000_000])
    cost_usd: float | None = Field(examples=[0.005])
    byok_nano: int | None = Field(
        description="What the provider bills beside, where OpenRouter used a key of the provider's", examples=[None]
    )
    tries: int = Field(description="Calls upstream", examples=[1])
    first_byte_ms: int | None = Field(examples=[420])
    total_ms: int | None = Field(examples=[1900])


class LogShown(Page[Item], Generic[Item]):
    """A page of the log. Some filters, and every order but `newest`, look at the newest rows alone."""

    searched_since: datetime | None = Field(
        description="The full hour from which on such a search has looked; null if there is nothing older",
        examples=[None],
    )


class TryShown(Shown):
    """One try of a call. source: where its cost is known from."""

    attempt: int = Field(examples=[1])
    state: str = Field(description="How much is known of its cost", examples=["settled"])
    source: str | None = Field(examples=["stream"])
    cost_nano: int | None = Field(examples=[5_000_000])
    cost_usd: float | None = Field(examples=[0.005])
    generation_id: str | None = Field(description="OpenRouter's name for the answer", examples=["gen-1234"])


class RequestShown(LogEntry):
    """One call, whole."""

    attempts: list[TryShown]


class UsagePage(Days):
    """Days, and which page."""

    page: Number = Field(1, ge=1, le=MAX_PAGE, description="Which page, counted from 1")
    limit: Number = Field(20, ge=1, le=MAX_PAGE_SIZE, description="Items on a page")


# Whose figures are shown is the caller's id, everywhere below: nothing in a query can name another.


@routes.get("/usage/stats")
@operation("Your usage, summed up", Who.READER, query=Days, answers={200: OwnStatistics})
def stats(caller: Caller, query: Days) -> Response:
    """In all, by model, by day and by client key."""
    return answer(services().usage.summary(query.usage_of(caller.user_id)))


@routes.get("/usage/logs")
@operation("Your calls", Who.READER, query=LogPageQuery, answers={200: LogShown[LogEntry]})
def logs(caller: Caller, query: LogPageQuery) -> Response:
    """The request log, newest first. It holds no prompt and no answer."""
    return answer(log_shown(query, query.usage_of(caller.user_id)))


@routes.get("/usage/logs/<request_id>")
@operation("One of your calls", Who.READER, answers={200: RequestShown}, refusals=(404,))
def one_request(caller: Caller, request_id: str) -> Response:
    """All that is known of it, with each of its tries. Its id is the X-Request-Id of its answer."""
    return answer(get_request(services().db, request_id, caller.user_id))


@routes.get("/usage/logs/export")
@operation("Your calls as a file", Who.READER, query=LogFile, answers={200: tuple(usage_export.MIMETYPES.values())})
def export(caller: Caller, query: LogFile) -> Response:
    """The whole log, oldest first."""
    content = usage_export.lines(services().usage_log.walk(query.usage_of(caller.user_id)), query.format)
    return Response(content, headers=usage_export.headers(query.format))


@routes.get("/v1/stats")
@operation("Usage in all", Who.READER, query=Days, answers={200: PublicStatistics})
def public_stats(caller: Caller, query: Days) -> Response:
    """In all and by model."""
    found = services().usage.summary(query.usage_of(caller.user_id))
    shown = {name: found[name] for name in ("start_date", "end_date", "by_model")}
    return answer(shown | {"summary": found["totals"]})


@routes.get("/v1/usage")
@operation("Usage by day and model", Who.READER, query=UsagePage, answers={200: PublicUsage})
def public_usage(caller: Caller, query: UsagePage) -> Response:
    """Newest day first."""
    items, total = services().usage.days_and_models(query.usage_of(caller.user_id), query.page, query.limit)
    return answer({"items": items, "total": total, "page": query.page, "limit": query.limit})


@routes.get("/v1/keys")
@operation("Usage by key", Who.READER, query=KeysQuery, answers={200: KeysUsage})
def public_keys(caller: Caller, query: KeysQuery) -> Response:
    """Your client keys and their usage, costliest first, and your own OpenRouter keys.

    Beside the client keys in use there are the revoked ones that were used; null stands for calls without a key.
    """
    used = {item["client_key_id"]: item for item in services().usage.client_keys(query.usage_of(caller.user_id))}
    rows = services().client_keys.of_user(caller.user_id, [key_id for key_id in used if key_id])
    described = {row.id: _described(row, services().clock.now()) for row in rows}
    unused = [no_usage(row.id) for row in rows if row.id not in used]
    items = [item | described.get(item["client_key_id"], NOT_KNOWN) for item in [*used.values(), *unused]]
    data = as_openrouters_keys(rows, services().usage.spent_by_key(caller.user_id), services().clock.now())
    if query.include_disabled == "false":
        data = [key for key in data if not key["disabled"]]
    personal = _watched_keys(caller.user_id, *query.first_and_last())
    return answer({"items": items, "personal_keys": personal, "data": data[query.offset :]})


def _watched_keys(user_id: int, first: date, last: date) -> list[dict[str, object]]:
    rows = services().watched_key_sync.keys.of_user(user_id)
    costs: Counter[int] = Counter()
    for key_id, _, cost_nano in services().watched_key_sync.keys.days([row.id for row in rows], first, last):
        costs[key_id] += cost_nano
    shown = [row.to_dict() for row in rows]
    told = "id", "name", "key_hint", "state", "synced_at"
    return [{name: row[name] for name in told} | cost(costs[row["id"]]) for row in shown]


def _described(row: ClientKeyRow, now: datetime) -> dict[str, object]:
    return {"name": row.name, "key_hint": row.key_hint, "state": row.state(now), "last_used": row.last_used}


def log_shown(query: LogPageQuery, calls: UsageFilter, for_operator: bool = False) -> dict[str, Any]:
    """A page of these calls, as it is answered."""
    found = services().usage_log.page(calls, query.page, query.page_size)
    since = found.searched_since
    return {
        "items": [item.to_dict(for_operator) for item in found.items],
        "total": found.total,
        "page": query.page,
        "page_size": query.page_size,
        "searched_since": since.isoformat() if since else None,
    }
