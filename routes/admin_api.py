"""For the operator alone, with ADMIN_TOKEN: the pool of OpenRouter keys, and changes to it."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, request

from crypto import same
from errors import BadRequest, Forbidden, Unauthorized
from logs import event
from pool_keys import MAX_NAME_CHARACTERS
from pool_overview import pool_overview
from routes.http import answer, json_body, services

log = logging.getLogger("admin")
routes = Blueprint("admin_api", __name__, url_prefix="/admin")

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 20, 100
MAX_PAGE = 1_000_000


@routes.before_request
def check_operator() -> None:
    """Let only the operator in. Raises Forbidden, Unauthorized."""
    token = services().config.admin_token
    if not token or not token.get_secret_value():
        raise Forbidden("Administration is switched off here: its operator has to set ADMIN_TOKEN")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not same(given, token.get_secret_value()):
        event(log, "admin_refused", logging.WARNING)
        raise Unauthorized("This is for the operator: send `Authorization: Bearer <ADMIN_TOKEN>`")


@routes.get("/pool")
def pool() -> Response:
    """?page=1&page_size=20&all=false → the keys without their texts, newest first, and the processes that use them."""
    with_gone = request.args.get("all", "false")
    if with_gone not in {"true", "false"}:
        raise BadRequest("all must be true or false")
    page = _number("page", 1, MAX_PAGE)
    page_size = _number("page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    found = pool_overview(services().keys, services().db, services().clock.now(), with_gone == "true")
    begin = (page - 1) * page_size
    return answer(
        {
            "items": [key.to_dict() for key in found.keys[begin : begin + page_size]],
            "total": len(found.keys),
            "page": page,
            "page_size": page_size,
            "usable": found.usable,
            "pool_size": services().config.pool_size,
            "processes": found.processes,
        }
    )


@routes.post("/pool/enable")
def enable() -> Response:
    """{name} → the key may be picked again, everywhere within two seconds; 404 for an unknown name."""
    return _set_enabled(True)


@routes.post("/pool/disable")
def disable() -> Response:
    """{name} → the key is not picked any more; it stays alive at OpenRouter. 404 for an unknown name."""
    return _set_enabled(False)


@routes.post("/pool/rotate")
def rotate() -> Response:
    """{name} → 202: the background service replaces the key at its next pass. 404 unless it is a minted key in use."""
    name = _name()
    services().keys.ask_renewal(name)
    event(log, "pool_key_rotation_asked", key=name)
    return answer({"name": name, "rotation": "requested"}, 202)


def _set_enabled(enabled: bool) -> Response:
    name = _name()
    services().keys.set_enabled(name, enabled)
    event(log, "pool_key_enabled" if enabled else "pool_key_disabled", key=name)
    return answer({"name": name, "enabled": enabled})


def _name() -> str:
    name = json_body().get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise BadRequest(f"name must be the key's name, a text of 1 to {MAX_NAME_CHARACTERS} characters")
    return name


def _number(name: str, default: int, largest: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= largest):
        raise BadRequest(f"{name} must be a whole number from 1 to {largest}")
    return int(text)
