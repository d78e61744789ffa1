"""For the operator alone, with ADMIN_TOKEN: whether our sums are OpenRouter's."""

from __future__ import annotations

from flask import Blueprint, Response

import usage_checks
from routes.http import DEFAULT_PAGE_SIZE, MAX_PAGE, MAX_PAGE_SIZE, answer, check_operator, number, services

routes = Blueprint("admin_check_api", __name__, url_prefix="/admin")


@routes.before_request
def check() -> None:
    """Let only the operator in. Raises Forbidden, Unauthorized."""
    check_operator()


@routes.get("/usage-checks")
def checks() -> Response:
    """?page=1&page_size=20 → the daily checks of each pool key, newest first; money in dollars, null while unknown."""
    page, page_size = number("page", 1, MAX_PAGE), number("page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    found, total = usage_checks.page(services().db, page, page_size)
    items = [check.to_dict() for check in found]
    return answer({"items": items, "total": total, "page": page, "page_size": page_size})
