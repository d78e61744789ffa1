"""The operator's pages: how the service is, everybody's requests and keys, and who changed what.

For those alone whose role gives them a right there (accounts/roles.py).
"""

from __future__ import annotations

import inspect
from datetime import UTC, timedelta
from functools import wraps
from typing import Any

from flask import Response, g, request

from accounts.roles import Right
from billing.reports.statistics import UsageFilter
from foundation.money import usd
from web.api.admin_audit import AuditFilter, changes_shown
from web.api.admin_client_keys import ClientKeyFilter, client_keys_shown
from web.api.admin_usage import EverybodysLogFile, EverybodysLogPage, log_file, log_shown, refusals_shown, request_shown
from web.api.client_keys import revoke_key
from web.api.health import health_shown
from web.http import audit, count_operator, count_request, services
from web.pages.dashboard import series
from web.pages.first_steps import KEY_SAVED, operators_guide
from web.pages.forms import found, here, query_of
from web.pages.requests import log_form
from web.pages.views import View, Visitor, find_visitor, for_those_with, page_blueprint, show
from web.usage_query import midnight

routes = page_blueprint("operator_pages", "/operator")

DAYS = 30
MOST_ROWS = 20  # of a table of the overview


def for_operators(view: View) -> View:
    """Let only those in who may change things, each so often a minute as to the operator's API.

    A view that changes something names `operator`: who that is, for the audit log. Raises TooManyRequests, Forbidden.
    """
    return _for(Right.CHANGE, view)


def for_auditors(view: View) -> View:
    """Let those in too who may only read."""
    return _for(Right.READ, view)


def for_appointers(view: View) -> View:
    """Let only those in who may say who may do what."""
    return _for(Right.APPOINT, view)


def _for(right: Right, view: View) -> View:
    wants_operator = "operator" in inspect.signature(view).parameters

    def counted(visitor: Visitor, **path: Any) -> Response:
        count_operator(f"user/{visitor.user.id}")
        g.operator, g.rights = f"user/{visitor.user.id}", visitor.rights
        return view(operator=f"user/{visitor.user.id}", **path) if wants_operator else view(**path)

    guarded = for_those_with(right, counted)

    @wraps(view)
    def run(**path: Any) -> Response:
        visitor = find_visitor()
        if not (visitor and visitor.rights):
            count_request("admin requests")
        return guarded(**path)

    return run


@routes.get("")
@for_auditors
def overview() -> Response:
    """How the service is, and what was spent today and in the last days, over everybody."""
    last = services().clock.now().astimezone(UTC).date()
    first, end = last - timedelta(days=DAYS - 1), midnight(last) + timedelta(days=1)
    usage = services().usage
    today = usage.summary(UsageFilter(start=midnight(last), end=end), for_operator=True)
    month = usage.summary(UsageFilter(start=midnight(first), end=end), for_operator=True)
    return show(
        "operator_overview.html",
        health=health_shown(),
        today=today["totals"],
        month=month["totals"],
        by_day=month["by_day"],
        series=series(month["by_day"], first, last),
        by_model=_compared(today["by_model"], month["by_model"], "model"),
        by_upstream=_compared(today["by_pool_key"], month["by_pool_key"], "upstream"),
        days=DAYS,
        first=first,
        **operators_guide(g.visitor.user.id),
    )


@routes.post("/first-steps/key-saved")
@for_operators
def key_saved(operator: str) -> Response:
    """Remember that this operator has saved the encryption key."""
    audit(operator, KEY_SAVED, operator, g.visitor.user.id)
    return show("operator_first_steps.html", **operators_guide(g.visitor.user.id))


def _compared(today: list[dict[str, Any]], month: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Requests and dollars of today and of the last days by what `name` names, dearest first."""
    found: dict[str | None, dict[str, Any]] = {}
    for days, rows in (("today", today), ("month", month)):
        for row in rows:
            sums = found.setdefault(
                row[name], {"name": row[name]} | {f"{day}_requests": 0 for day in ("today", "month")}
            )
            sums[f"{days}_requests"] += row["requests"]
            sums[f"{days}_nano"] = sums.get(f"{days}_nano", 0) + row["cost_nano"]
    rows = sorted(found.values(), key=lambda sums: (sums["month_nano"], sums["month_requests"]), reverse=True)
    for sums in rows:
        sums |= {"today_usd": usd(sums.get("today_nano", 0)), "month_usd": usd(sums["month_nano"])}
    return rows[:MOST_ROWS]


@routes.get("/logs")
@for_auditors
def logs() -> Response:
    """Everybody's requests, newest first."""
    refused = refusals_shown(24, MOST_ROWS)
    return show("operator_logs.html", path="/operator/logs", refused=refused, **log_form(), **found(log_values))


def log_values() -> dict[str, Any]:
    """What the part with the requests shows. Raises BadRequest."""
    query = query_of(EverybodysLogPage)
    return log_shown(query) | {"is_search": query.is_search}


@routes.get("/logs.csv")
@for_auditors
def csv() -> Response:
    """The requests that a filter finds, as a file."""
    return log_file(query_of(EverybodysLogFile, format="csv"))


@routes.get("/request")
@for_auditors
def one_request() -> Response:
    """Why a call failed, and whatever else is known of it; `id` names it, and without it is looked for."""
    request_id = request.args.get("id", "").strip()
    return show("operator_request.html", item=request_shown(request_id) if request_id else None)


@routes.get("/audit")
@for_auditors
def changes() -> Response:
    """Who changed what, newest first."""
    return show(
        "operator_audit.html", given=request.args, here=here, **found(lambda: changes_shown(query_of(AuditFilter)))
    )


@routes.get("/keys")
@for_auditors
def keys() -> Response:
    """Everybody's client keys."""
    shown = found(lambda: client_keys_shown(query_of(ClientKeyFilter)))
    return show("operator_keys.html", given=request.args, here=here, **shown)


@routes.delete("/keys/<int:key_id>")
@for_operators
def revoke(operator: str, key_id: int) -> Response:
    """Revoke anybody's key, in force everywhere within two seconds."""
    revoke_key(operator, key_id)
    return show("operator_keys_part.html", here=here, **client_keys_shown(query_of(ClientKeyFilter)))
