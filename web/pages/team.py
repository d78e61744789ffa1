"""The page of one's team: its quota and one's own part of it, and for its managers what each of its people spends."""

from __future__ import annotations

from flask import Response

from web.api.teams import own_team
from web.pages.views import Visitor, for_users, page_blueprint, show

routes = page_blueprint("team_pages", "/team")


@routes.get("")
@for_users
def page(visitor: Visitor) -> Response:
    """The team that the visitor is in. Raises NotFound for none."""
    return show("team.html", team=own_team(visitor.user.id), user_id=visitor.user.id)
