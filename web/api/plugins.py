"""What plug-ins of chat programs ask for by paths of their own, where no other file has it by its own name.

Their `/quotas/user` is `GET /api/quota` (web/api/quotas.py), `/models` is `GET /v1/models` (web/api/models.py), and
`/chat/completions` is one more path of chat completions (serving/door.py).
"""

from __future__ import annotations

from flask import Blueprint, Response

from accounts.caller import Caller
from web.api.connect import AccountShown, Begin, Begun, begin, shown
from web.http import answer, services
from web.operation import Shown, Who, operation

routes = Blueprint("plugin_api", __name__, url_prefix="/api/plugin-api")


class Accounts(Shown):
    """Those that are connected: one, or none."""

    items: list[AccountShown]


@routes.get("/accounts")
@operation("Your OpenRouter accounts", Who.USER, answers={200: Accounts})
def accounts(caller: Caller) -> Response:
    """As last known, each as `GET /api/v1/openrouter/status` shows it; never a key."""
    account = services().accounts.find(caller.user_id)
    return answer({"items": [shown(account)] if account else []})


@routes.post("/oauth/authorize")
@operation("Begin to connect an OpenRouter account", Who.USER, body=Begin, answers={200: Begun}, door="connections")
def authorize(caller: Caller, body: Begin) -> Response:
    """As `POST /api/v1/openrouter/oauth/initiate`, and ended as that is."""
    return begin(caller, body)
