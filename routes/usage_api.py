"""A caller's own usage: statistics, request log, and the public API of the same figures. Never anybody else's."""

from __future__ import annotations

from flask import Blueprint, Response, request

import usage_export
from routes.http import answer, services
from routes.usage_query import DAYS, OWN_LOG, PAGE, asked_days, asked_log, page_and_size, take_only

routes = Blueprint("usage_api", __name__, url_prefix="/api")


def _caller_id() -> int:
    """Whose figures are shown: the one place that decides. Who may not call may still look."""
    return services().auth.authenticate(request.headers.get("Authorization"), may_call=False).user_id


@routes.get("/usage/stats")
def stats() -> Response:
    """?start_date&end_date → totals, by_model, by_day, by_client_key."""
    user_id = _caller_id()
    take_only(*DAYS)
    return answer(services().usage.summary(asked_days(user_id)))


@routes.get("/usage/logs")
def logs() -> Response:
    """?page&page_size&client_key_id&model&status&start&end → {items, total, page, page_size}, newest first."""
    user_id = _caller_id()
    take_only(*PAGE, *OWN_LOG)
    page, page_size = page_and_size()
    found = services().usage_log.page(asked_log(user_id), page, page_size)
    items = [item.to_dict() for item in found.items]
    return answer({"items": items, "total": found.total, "page": page, "page_size": page_size})


@routes.get("/usage/logs/export")
def export() -> Response:
    """?format=csv|jsonl and the log's filters → the whole log as a file, oldest first."""
    user_id = _caller_id()
    take_only("format", *OWN_LOG)
    name = usage_export.check_format(request.args.get("format"))
    content = usage_export.lines(services().usage_log.walk(asked_log(user_id)), name)
    return Response(content, headers=usage_export.headers(name))


@routes.get("/v1/stats")
def public_stats() -> Response:
    """?start_date&end_date → {start_date, end_date, summary, by_model}."""
    user_id = _caller_id()
    take_only(*DAYS)
    found = services().usage.summary(asked_days(user_id))
    shown = {name: found[name] for name in ("start_date", "end_date", "by_model")}
    return answer(shown | {"summary": found["totals"]})


@routes.get("/v1/usage")
def public_usage() -> Response:
    """?start_date&end_date&page&limit → {items: by day and model, newest day first, total, page, limit}."""
    user_id = _caller_id()
    take_only(*DAYS, "page", "limit")
    page, limit = page_and_size("limit")
    items, total = services().usage.days_and_models(asked_days(user_id), page, limit)
    return answer({"items": items, "total": total, "page": page, "limit": limit})


@routes.get("/v1/keys")
def public_keys() -> Response:
    """?start_date&end_date → {items}: usage by the caller's own client keys; null stands for calls without one."""
    user_id = _caller_id()
    take_only(*DAYS)
    return answer({"items": services().usage.client_keys(asked_days(user_id))})
