"""The playground: a chat with a model in the browser. Nothing of it is kept here but the request's row in the log.

Model calls take no cookie, so the page asks for a token that holds for minutes, and for model calls alone, and keeps it
in its memory only.
"""

from __future__ import annotations

from datetime import timedelta

from flask import Response, request

from accounts.users import UserState
from web.http import answer, services
from web.pages.models import rows
from web.pages.views import Visitor, for_users, page_blueprint, show

routes = page_blueprint("playground_pages", "/playground")

TOKEN_LIFE = timedelta(minutes=5)


@routes.get("")
@for_users
def page(visitor: Visitor) -> Response:
    """The chat, with the model that the address asks for, or else one's default."""
    chosen, models = services().favourite_models.of(visitor.user.id), rows()
    return show(
        "playground.html",
        models=models,
        favourites=[row for row in models if row.id in chosen.favourites],
        wanted=request.args.get("model") or chosen.default_model,
        may_call=visitor.user.state is UserState.ACTIVE,
    )


@routes.post("/token")
@for_users
def token(visitor: Visitor) -> Response:
    """A token of the visitor's session for model calls, for some minutes."""
    text = services().auth.issue_call_token(visitor.caller, TOKEN_LIFE)
    return answer({"token": text, "expires_in": int(TOKEN_LIFE.total_seconds())})
