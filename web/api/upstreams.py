"""A user's own OpenRouter key and which keys carry their calls; never the key itself."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.caller import Caller
from accounts.users import UpstreamChoice, User, UserState
from foundation.errors import Conflict
from foundation.money import usd
from pool.choice import EXPIRY_MARGIN
from pool.life import PoolKeyRow
from web.http import answer, audit, services
from web.operation import Body, Shown, Who, operation

routes = Blueprint("upstream_api", __name__, url_prefix="/api/upstream")

Choice = Literal["dedicated_first", "shared_first", "dedicated_only"]


class NewChoice(Body):
    """Which OpenRouter keys shall carry one's calls."""

    choice: Choice = Field(examples=["shared_first"])


class DedicatedKey(Shown):
    """One's own OpenRouter key; amounts are null without one.

    state: `off` where users have no keys of their own, unless they connect an account; `none` for who gets none;
    `being_made`; `active`; `resting` while the key can't carry calls. is_connected: it is of one's own account, which
    pays; its limit is what OpenRouter said last.
    """

    state: Literal["off", "none", "being_made", "active", "resting"]
    is_connected: bool
    limit_usd: float | None = Field(examples=[5])
    remaining_usd: float | None = Field(examples=[4.25])
    limit_reset: Literal["daily", "weekly", "monthly", "none"] | None = Field(description="Null for a connected one")


class OwnUpstream(Shown):
    """Which OpenRouter keys carry one's calls."""

    choice: Choice
    dedicated: DedicatedKey


@routes.get("")
@operation("Your OpenRouter key", Who.USER, answers={200: OwnUpstream})
def upstream(caller: Caller) -> Response:
    """Which OpenRouter keys carry your calls, and what your own has left."""
    return answer(shown(caller.user_id))


@routes.put("")
@operation(
    "Choose between your key and the shared ones", Who.USER, body=NewChoice, answers={200: OwnUpstream}, refusals=(409,)
)
def choose(caller: Caller, body: NewChoice) -> Response:
    """In force everywhere within two seconds. 409 where users have no keys of their own, for who has connected none."""
    set_choice(caller.user_id, body)
    return answer(shown(caller.user_id))


def set_choice(user_id: int, body: NewChoice) -> None:
    """Choose which keys carry a user's calls. Raises Conflict."""
    if services().config.dedicated_keys == "off" and services().accounts.find(user_id) is None:
        raise Conflict(
            "Users get no OpenRouter keys of their own here (DEDICATED_KEYS is off), "
            "and you have connected no account: nothing to choose"
        )
    services().users.set_upstream_choice(user_id, UpstreamChoice(body.choice))
    audit(f"user/{user_id}", "upstream_chosen", f"user/{user_id}", user_id, choice=body.choice)


def shown(user_id: int) -> dict[str, object]:
    """Which keys carry a user's calls, as JSON.

    Asked of the database: another process may have served the PUT a moment ago.
    """
    config, user = services().config, services().users.get(user_id)
    key, account = services().pool_keys.dedicated([user_id]).get(user_id), services().accounts.find(user_id)
    is_connected = account is not None and key is not None and key.id == account.pool_key_id
    if config.dedicated_keys == "off" and not is_connected:
        key = None  # one that the rotation has yet to withdraw
    amounts = account if is_connected else key
    dedicated = {
        "state": _state(user, key),
        "is_connected": is_connected,
        "limit_usd": usd(amounts.limit_nano) if amounts else None,
        "remaining_usd": usd(amounts.remaining_nano) if amounts else None,
        "limit_reset": None if is_connected else config.dedicated_key_limit_reset,
    }
    return {"choice": user.upstream_choice.value, "dedicated": dedicated}


def _state(user: User, key: PoolKeyRow | None) -> str:
    if key is None and services().config.dedicated_keys == "off":
        return "off"
    if key is None or (key.expires_at and key.expires_at <= services().clock.now() + EXPIRY_MARGIN):
        return "being_made" if user.state is UserState.ACTIVE else "none"
    is_spent = key.remaining_nano is not None and key.remaining_nano <= 0
    return "resting" if is_spent or services().pool.own_key_rests(key.id, user.id) else "active"
