"""Everybody's usage, for the operator alone, with ADMIN_TOKEN: statistics and the request log."""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint, Response, request

import usage_export
from routes.http import answer, check_operator, services
from routes.usage_query import (
    DAYS,
    OWN_LOG,
    PAGE,
    WHOSE,
    asked_days,
    asked_log,
    asked_pool_key,
    asked_user,
    page_and_size,
    take_only,
)
from usage_stats import UsageFilter

routes = Blueprint("admin_usage_api", __name__, url_prefix="/admin")


@routes.before_request
def check() -> None:
    """Let only the operator in. Raises Forbidden, Unauthorized."""
    check_operator()


@routes.get("/stats")
def stats() -> Response:
    """?start_date&end_date&user_id → totals, by_model, by_day, by_pool_key; for one user by_client_key too."""
    take_only(*DAYS, "user_id")
    return answer(services().usage.summary(asked_days(asked_user()), for_operator=True))


@routes.get("/logs")
def logs() -> Response:
    """?page&page_size&user_id&client_key_id&model&pool_key&status&start&end → a page, newest first."""
    take_only(*PAGE, *WHOSE, *OWN_LOG)
    page, page_size = page_and_size()
    found = services().usage_log.page(_asked(), page, page_size)
    items = [item.to_dict(for_operator=True) for item in found.items]
    return answer({"items": items, "total": found.total, "page": page, "page_size": page_size})


@routes.get("/logs/export")
def export() -> Response:
    """?format=csv|jsonl and the log's filters → the whole log as a file, oldest first."""
    take_only("format", *WHOSE, *OWN_LOG)
    name = usage_export.check_format(request.args.get("format"))
    content = usage_export.lines(services().usage_log.walk(_asked()), name, for_operator=True)
    return Response(content, headers=usage_export.headers(name))


def _asked() -> UsageFilter:
    return replace(asked_log(asked_user()), pool_key_id=asked_pool_key())
