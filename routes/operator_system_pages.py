"""The operator's page of the system: how its parts are, the processes that serve, and whether the sums are right."""

from __future__ import annotations

from flask import Response

from rotation_lease import rotation_status
from routes.admin_api import PoolFilter, pool_shown
from routes.admin_check_api import checks_shown
from routes.forms import query_of
from routes.health_api import health_shown
from routes.http import services
from routes.operation import Paging
from routes.operator_pages import for_operators, here
from routes.pages import page_blueprint, show

routes = page_blueprint("operator_system_pages", "/operator/system")


@routes.get("")
@for_operators
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
