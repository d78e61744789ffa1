"""A user's own OpenRouter keys, which they use elsewhere and watch here; no key's text is ever shown again."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.caller import Caller
from config.checks import OPENROUTER_KEY
from foundation.money import usd
from monitor.watched_keys import WatchedKey
from web.api.client_keys import Name
from web.http import answer, audit, count_request, services
from web.operation import Body, Page, Paging, Shown, Who, operation
from web.usage_query import Days

routes = Blueprint("personal_key_api", __name__, url_prefix="/api/keys")

EXAMPLE_KEY = "sk-or-0123456789abcdefghijklmnopqrstuvwxyz"
Text = Annotated[str, Field(pattern=f"^{OPENROUTER_KEY.pattern}$", examples=[EXAMPLE_KEY])]


class NewWatchedKey(Body):
    """A key of your own at OpenRouter."""

    name: Name = Field(examples=["laptop"])
    key: Text


class WatchedKeyChange(Body):
    """key: another text in place of the one that is here; without it, only the name changes."""

    name: Name = Field(examples=["laptop"])
    key: Text | None = None


class WatchedKeyShown(Shown):
    """A key without its text. key_hint: its first characters. Amounts are OpenRouter's; null for no limit.

    state: `suspect` after OpenRouter has refused it once, `refused` after twice in a row. asked_at: the latest question
    to OpenRouter; checked_at: its latest answer on whether it accepts the key; synced_at: its latest answer with
    amounts. failures: questions in vain since then, and last_error: why the latest was.
    """

    id: int
    name: str
    key_hint: str = Field(examples=["sk-or-01234****"])
    state: Literal["valid", "suspect", "refused"]
    usage_usd: float | None = Field(description="What it has spent in all, anywhere", examples=[12.5])
    limit_usd: float | None = Field(examples=[20])
    remaining_usd: float | None = Field(examples=[7.5])
    created_at: datetime
    updated_at: datetime
    asked_at: datetime
    checked_at: datetime | None
    synced_at: datetime | None
    next_sync_at: datetime
    failures: int = Field(examples=[0])
    last_error: str | None = Field(examples=[None])


class Removed(Shown):
    """What is removed."""

    id: int
    message: Literal["Removed"]


class DayCost(Shown):
    """What a key has cost on a day of UTC."""

    date: date
    cost_nano: int = Field(description="Billionths of a dollar", examples=[5_000_000])
    cost_usd: float = Field(examples=[0.005])


class WatchedKeyUsage(Shown):
    """What a key has cost in some days, newest first; days without a cost are left out."""

    start_date: date
    end_date: date
    cost_nano: int = Field(description="Of all these days, in billionths of a dollar", examples=[5_000_000])
    cost_usd: float = Field(examples=[0.005])
    items: list[DayCost]


@routes.get("")
@operation("List your OpenRouter keys", Who.USER, query=Paging, answers={200: Page[WatchedKeyShown]})
def page(caller: Caller, query: Paging) -> Response:
    """Newest first."""
    found, total = services().watched_key_sync.keys.page(caller.user_id, query.page, query.page_size)
    items = [key.to_dict() for key in found]
    return answer({"items": items, "total": total, "page": query.page, "page_size": query.page_size})


@routes.post("")
@operation(
    "Add an OpenRouter key of yours",
    Who.USER,
    body=NewWatchedKey,
    answers={201: WatchedKeyShown},
    refusals=(409,),
    door="key checks",
)
def create(caller: Caller, body: NewWatchedKey) -> Response:
    """It is stored, encrypted, once OpenRouter accepts it. 409 for a key that you have here, and for too many."""
    return answer(add_key(caller.user_id, body).to_dict(), 201)


@routes.get("/<int:key_id>")
@operation("Show an OpenRouter key of yours", Who.USER, answers={200: WatchedKeyShown}, refusals=(404,))
def show(caller: Caller, key_id: int) -> Response:
    """Without its text. 403 for somebody else's."""
    return answer(services().watched_key_sync.keys.get(key_id, caller.user_id).to_dict())


@routes.put("/<int:key_id>")
@operation(
    "Rename or replace an OpenRouter key of yours",
    Who.USER,
    body=WatchedKeyChange,
    answers={200: WatchedKeyShown},
    refusals=(404, 409, 429),
)
def change(caller: Caller, key_id: int, body: WatchedKeyChange) -> Response:
    """Another key is stored once OpenRouter accepts it; the days of the one before stay."""
    return answer(change_key(caller.user_id, key_id, body).to_dict())


@routes.delete("/<int:key_id>")
@operation("Remove an OpenRouter key of yours", Who.USER, answers={200: Removed}, refusals=(404,))
def delete(caller: Caller, key_id: int) -> Response:
    """It is forgotten here, with its usage; at OpenRouter nothing changes."""
    remove_key(caller.user_id, key_id)
    return answer({"id": key_id, "message": "Removed"})


@routes.post("/<int:key_id>/sync")
@operation(
    "Ask OpenRouter about a key of yours now",
    Who.USER,
    answers={200: WatchedKeyShown},
    refusals=(404,),
    door="key checks",
)
def sync(caller: Caller, key_id: int) -> Response:
    """At most once a minute for each key. What came of it is in the key: look at its state and last_error."""
    return answer(services().watched_key_sync.sync_now(key_id, caller.user_id).to_dict())


@routes.get("/<int:key_id>/usage")
@operation("What a key of yours has cost", Who.USER, query=Days, answers={200: WatchedKeyUsage}, refusals=(404,))
def usage(caller: Caller, key_id: int, query: Days) -> Response:
    """By day of UTC, wherever it was used; calls through this gateway are in `/api/usage/stats` instead."""
    first, last = query.first_and_last()
    key = services().watched_key_sync.keys.get(key_id, caller.user_id)
    found = services().watched_key_sync.keys.days([key.id], first, last)
    items = [{"date": day.isoformat()} | cost(nano) for _, day, nano in found]
    shown = {"start_date": first.isoformat(), "end_date": last.isoformat(), "items": items}
    return answer(shown | cost(sum(nano for *_, nano in found)))


def cost(nano: int) -> dict[str, object]:
    """An amount as usage shows it."""
    return {"cost_nano": nano, "cost_usd": usd(nano)}


# ── for the pages too


def add_key(user_id: int, body: NewWatchedKey) -> WatchedKey:
    """Take in a user's key. Raises BadRequest, Conflict, Busy."""
    key = services().watched_key_sync.add(user_id, body.name, body.key)
    audit(f"user/{user_id}", "personal_key_added", _subject(key.id), user_id, name=key.name)
    return key


def change_key(user_id: int, key_id: int, body: WatchedKeyChange) -> WatchedKey:
    """Rename or replace a user's key. Raises NotFound, Forbidden, BadRequest, Conflict, Busy, TooManyRequests."""
    if body.key is not None:
        count_request("key checks")  # as few as at the door of `create`; for a name alone OpenRouter is not asked
    key, is_replaced = services().watched_key_sync.change(key_id, user_id, body.name, body.key)
    told = {"name": key.name, "is_replaced": is_replaced}
    audit(f"user/{user_id}", "personal_key_changed", _subject(key_id), user_id, **told)
    return key


def remove_key(user_id: int, key_id: int) -> None:
    """Forget a user's key. Raises NotFound, Forbidden."""
    services().watched_key_sync.keys.remove(key_id, user_id)
    audit(f"user/{user_id}", "personal_key_removed", _subject(key_id), user_id)


def _subject(key_id: int) -> str:
    return f"personal-key/{key_id}"
