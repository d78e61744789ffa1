"""A user's own OpenRouter key and which keys carry their calls; never the key itself."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, request

from auth import Caller
from errors import BadRequest, Conflict
from key_choice import EXPIRY_MARGIN
from logs import event
from money import usd
from pool_keys import KeyRow
from routes.http import answer, json_body, services
from users import UpstreamChoice, User, UserState

log = logging.getLogger("upstream")
routes = Blueprint("upstream_api", __name__, url_prefix="/api/upstream")


@routes.get("")
def upstream() -> Response:
    """{choice, dedicated: {state, limit_usd, remaining_usd, limit_reset}} of the user who asks.

    state: `off` where users have no keys of their own; `none` for who gets none; `being_made`; `active`; `resting`
    while the key can't carry calls. The amounts are null without a key.
    """
    return answer(_shown(_caller().user_id))


@routes.put("")
def choose() -> Response:
    """{choice} → as GET; in force everywhere within two seconds. 409 where users have no keys of their own."""
    user_id, choice = _caller().user_id, json_body().get("choice")
    if choice not in list(UpstreamChoice):
        raise BadRequest(f"choice must be one of {', '.join(UpstreamChoice)}")
    if services().config.dedicated_keys == "off":
        raise Conflict("Users have no OpenRouter keys of their own here (DEDICATED_KEYS is off): nothing to choose")
    services().users.set_upstream_choice(user_id, UpstreamChoice(choice))
    event(log, "upstream_chosen", user_id=user_id, choice=choice)
    return answer(_shown(user_id))


def _caller() -> Caller:
    # A silenced user may look, and what they choose is no call.
    return services().auth.authenticate(request.headers.get("Authorization"), may_call=False)


def _shown(user_id: int) -> dict[str, object]:
    """Asked of the database: another process may have served the PUT a moment ago."""
    config, user = services().config, services().users.get(user_id)
    key = services().keys.dedicated([user_id]).get(user_id) if config.dedicated_keys == "on" else None
    dedicated = {
        "state": _state(user, key),
        "limit_usd": usd(key.limit_nano) if key else None,
        "remaining_usd": usd(key.remaining_nano) if key else None,
        "limit_reset": config.dedicated_key_limit_reset,
    }
    return {"choice": user.upstream_choice.value, "dedicated": dedicated}


def _state(user: User, key: KeyRow | None) -> str:
    if services().config.dedicated_keys == "off":
        return "off"
    if key is None or (key.expires_at and key.expires_at <= services().clock.now() + EXPIRY_MARGIN):
        return "being_made" if user.state is UserState.ACTIVE else "none"
    is_spent = key.remaining_nano is not None and key.remaining_nano <= 0
    return "resting" if is_spent or services().pool.own_key_rests(key.id, user.id) else "active"
