"""The page of keys: client keys, one's own OpenRouter keys, API tokens; made, renamed, replaced, revoked in place."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Response, request

from config.checks import OPENROUTER_KEY
from foundation.money import usd
from web.api import tokens as token_api
from web.api import watched_keys
from web.api.client_keys import ClientKeyChanges, NewClientKey, change_key, make_key, revoke_key, shown
from web.api.tokens import NewToken
from web.api.watched_keys import NewWatchedKey, WatchedKeyChange
from web.http import count_request, services
from web.operation import Paging, asked
from web.pages.forms import form_of, is_emptied
from web.pages.views import Visitor, for_users, own_address, page_blueprint, show
from web.usage_query import Days

routes = page_blueprint("key_pages", "/keys")

BAR_HEIGHT = 20
LISTS = "scopes", "models", "upstreams", "addresses"
LIMITS = {"limit_usd": "budget"} | {name: name for name in (*LISTS, "rpm", "expires_at")}
CHEAP_MODEL = "openai/gpt-4o-mini"

FIRST_PAGE = Paging.model_validate({})


@routes.get("")
@for_users
def page(visitor: Visitor) -> Response:
    """All of one's keys."""
    return show("keys.html", **_client_keys(visitor), **_watched_keys(visitor), **_tokens(visitor, FIRST_PAGE))


# ── client keys


@routes.get("/client")
@for_users
def client_keys(visitor: Visitor) -> Response:
    """The part with the client keys: another page of them."""
    return show("keys_client.html", **_client_keys(visitor))


@routes.post("/client")
@for_users
def make_client_key(visitor: Visitor) -> Response:
    """Make a key; its text is shown in this answer and never again."""
    body = form_of(NewClientKey, lists=LISTS, **_limits())
    key = make_key(f"user/{visitor.user.id}", visitor.user.id, body, visitor.caller.hold).get_json()
    return show(
        "keys_client.html", made=key, base=own_address(), model=_first_model(visitor, key), **_client_keys(visitor)
    )


@routes.put("/client/<int:key_id>")
@for_users
def change_client_key(visitor: Visitor, key_id: int) -> Response:
    """Rename a key, or change its limits: a field that is empty takes its limit away."""
    empty = [limit for field, limit in LIMITS.items() if is_emptied(field)]
    body = form_of(ClientKeyChanges, lists=LISTS, emptied=empty, **_limits())
    change_key(f"user/{visitor.user.id}", key_id, body, visitor.user.id)
    return show("keys_client.html", **_client_keys(visitor))


@routes.delete("/client/<int:key_id>")
@for_users
def revoke_client_key(visitor: Visitor, key_id: int) -> Response:
    """Revoke a key, in force everywhere within two seconds."""
    revoke_key(f"user/{visitor.user.id}", key_id, visitor.user.id)
    return show("keys_client.html", **_client_keys(visitor))


def _limits() -> dict[str, Any]:
    """What the form's fields of a budget and of the last day mean to a key."""
    limit = request.form.get("limit_usd", "").strip()
    terms = {name: request.form.get(name) or None for name in ("period", "recovery")}
    if terms["period"] == "none":  # no time in which a budget could recover
        terms["recovery"] = "reset"
    budget = {"limit_usd": limit, **terms} if limit else None
    return {"budget": budget, "limit_usd": None, **dict.fromkeys(terms), "expires_at": _last_moment()}


def _first_model(visitor: Visitor, key: dict[str, Any]) -> str:
    """A model for examples: one that the key may call, the owner's default, or a cheap one."""
    named = [name for name in key["models"] or [] if "*" not in name]
    return named[0] if named else services().favourite_models.of(visitor.user.id).default_model or CHEAP_MODEL


def _client_keys(visitor: Visitor) -> dict[str, Any]:
    query = asked(Paging)
    rows, total = services().client_keys.page(query.page, query.page_size, visitor.user.id)
    paging = {"total": total, "page": query.page, "page_size": query.page_size}
    return {
        "client_keys": shown(rows),
        "cache_seconds": services().config.response_cache_seconds,
        "upstreams": services().upstreams.names(),
        **paging,
    }


# ── one's own OpenRouter keys


@routes.post("")
@for_users
def add_watched_key(visitor: Visitor) -> Response:
    """Take in a key that OpenRouter accepts; its text is never shown again."""
    count_request("key checks")
    watched_keys.add_key(visitor.user.id, form_of(NewWatchedKey))
    return show("keys_watched.html", **_watched_keys(visitor))


@routes.put("/<int:key_id>")
@for_users
def change_watched_key(visitor: Visitor, key_id: int) -> Response:
    """Rename a key, or put another in its place."""
    watched_keys.change_key(visitor.user.id, key_id, form_of(WatchedKeyChange))
    return show("keys_watched.html", **_watched_keys(visitor))


@routes.delete("/<int:key_id>")
@for_users
def remove_watched_key(visitor: Visitor, key_id: int) -> Response:
    """Forget a key here; at OpenRouter nothing changes."""
    watched_keys.remove_key(visitor.user.id, key_id)
    return show("keys_watched.html", **_watched_keys(visitor))


@routes.post("/<int:key_id>/sync")
@for_users
def sync_watched_key(visitor: Visitor, key_id: int) -> Response:
    """Ask OpenRouter about a key now, at most once a minute."""
    count_request("key checks")
    services().watched_key_sync.sync_now(key_id, visitor.user.id)
    return show("keys_watched.html", **_watched_keys(visitor))


def _watched_keys(visitor: Visitor) -> dict[str, Any]:
    keys = services().watched_key_sync.keys
    rows = keys.of_user(visitor.user.id)
    first, last = Days.model_validate({}).first_and_last()
    costs: dict[int, dict[int, int]] = {row.id: {} for row in rows}
    for key_id, day, nano in keys.days(costs, first, last) if rows else ():
        costs[key_id][(day - first).days] = nano
    items = [row.to_dict() | _usage(costs[row.id]) for row in rows]
    days = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    return {"watched_keys": items, "days": days, "key_pattern": OPENROUTER_KEY.pattern, "bar_height": BAR_HEIGHT}


def _usage(nano_by_day: dict[int, int]) -> dict[str, Any]:
    """What a key has cost, and a bar for each day with a cost. day: its number, from 0."""
    most = max(nano_by_day.values(), default=0)
    bars = [
        {"day": day, "height": round(BAR_HEIGHT * nano / most, 1), "cost_usd": usd(nano)}
        for day, nano in sorted(nano_by_day.items())
        if nano
    ]
    return {"cost_usd": usd(sum(nano_by_day.values())), "bars": bars}


# ── API tokens


@routes.get("/tokens")
@for_users
def tokens(visitor: Visitor) -> Response:
    """The part with the API tokens: another page of them."""
    return show("keys_tokens.html", **_tokens(visitor, asked(Paging)))


@routes.post("/tokens")
@for_users
def make_token(visitor: Visitor) -> Response:
    """Make a token; its text is shown in this answer and never again."""
    body = form_of(NewToken, expires_at=_last_moment())
    token = token_api.make_token(visitor.caller, body)
    return show("keys_tokens.html", made_token=token, **_tokens(visitor, FIRST_PAGE))


@routes.delete("/tokens/<int:token_id>")
@for_users
def revoke_token(visitor: Visitor, token_id: int) -> Response:
    """Revoke a token, in force everywhere within two seconds."""
    token_api.revoke_token(visitor.user.id, token_id)
    return show("keys_tokens.html", **_tokens(visitor, asked(Paging)))


def _tokens(visitor: Visitor, query: Paging) -> dict[str, Any]:
    return {"tokens": token_api.shown(visitor.user.id, query)}


def _last_moment() -> str | None:
    """When the day of a form ends on which something works the last time; None for none."""
    last_day = request.form.get("expires_at", "").strip()
    return f"{last_day}T23:59:59Z" if last_day else None
