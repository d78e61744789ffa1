"""The operator's pages of the system: its parts, the processes that serve, the checks of the sums; and settings."""

from __future__ import annotations

from flask import Response

from replicas.lease import rotation_status
from web.api.admin_check import checks_shown
from web.api.admin_pool import PoolFilter, pool_shown
from web.api.admin_settings import settings_shown
from web.api.health import health_shown
from web.http import services
from web.operation import Paging
from web.pages.forms import here, query_of
from web.pages.operator import for_auditors
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_system_pages", "/operator")


@routes.get("/system")
@for_auditors
def system() -> Response:
    """All of it, as of now."""
    return show(
        "operator_system.html",
        here=here,
        health=health_shown(),
        rotation=rotation_status(services().db, services().clock.now()),
        processes=pool_shown(PoolFilter.model_validate({"page_size": "1"}))["processes"],
        **checks_shown(query_of(Paging)),
    )


@routes.get("/settings")
@for_auditors
def settings() -> Response:
    """What is set, and where it comes from."""
    return show("operator_settings.html", items=settings_shown())
