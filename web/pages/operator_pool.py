"""The operator's page of the pool: how its keys are, what the rotation does, and changes to single keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import Response

from pool.keys import ANYBODYS, SHARED
from pool.overview import RENEWAL_STEPS, renewals
from replicas.lease import rotation_status
from web.api.admin_pool import PoolFilter, PoolKeyName, ask_renewal, pool_shown, set_enabled
from web.http import services
from web.pages.forms import form_of, here, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.sparkline import sparkline
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_pool_pages", "/operator/pool")


@routes.get("")
@for_auditors
def pool() -> Response:
    """The keys as all processes together see them."""
    query = query_of(PoolFilter)
    asked_for = {"with_gone": query.all == "true", "with_owned": query.owner == ANYBODYS}
    return show("operator_pool.html", here=here, **asked_for, **pool_values())


@routes.post("/enable")
@for_operators
def enable(operator: str) -> Response:
    """Let a key be picked."""
    set_enabled(operator, form_of(PoolKeyName).name, True)
    return _part()


@routes.post("/disable")
@for_operators
def disable(operator: str) -> Response:
    """Let a key not be picked any more."""
    set_enabled(operator, form_of(PoolKeyName).name, False)
    return _part()


@routes.post("/renew")
@for_operators
def renew(operator: str) -> Response:
    """Have a key replaced at the rotation's next pass."""
    ask_renewal(operator, form_of(PoolKeyName).name)
    return _part()


def _part() -> Response:
    return show("operator_pool_part.html", here=here, **pool_values())


def failing_since(points: Sequence[Mapping[str, Any]], now: datetime) -> datetime | None:
    """The begin of the first of those hours, up to now, in each of which a key was called and failed; None if it works.

    points: hour by hour, the last of them this hour's. Hours without calls say nothing.
    """
    begin = None
    for back, point in enumerate(reversed(points)):
        if point["calls"] and not point["errors"]:
            break
        if point["errors"]:
            begin = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=back)
    return begin


def pool_values() -> dict[str, Any]:
    """What the part with the keys shows: the same values for as long as nothing has changed."""
    found, now = pool_shown(query_of(PoolFilter)), services().clock.now()
    for key in found["items"]:
        key |= {"sparkline": sparkline(key["points"]), "failing_since": failing_since(key["points"], now)}
    rotation = rotation_status(services().db, now)
    return found | {
        "processes": [{name: one[name] for name in ("id", "silent", "in_flight")} for one in found["processes"]],
        "is_rotating": rotation.is_running,
        "deletions_held_until": rotation.deletions_held_until,
        "renewals": renewals(services().pool_keys.page(SHARED, with_gone=False, begin=0, size=None)[0], now),
        "renewal_steps": RENEWAL_STEPS,
    }
