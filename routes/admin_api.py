"""For the operator alone, with ADMIN_TOKEN: the pool of OpenRouter keys, and changes to it."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, request

from errors import BadRequest
from logs import event
from pool_keys import ANYBODYS, MAX_NAME_CHARACTERS, SHARED, Whose
from pool_overview import pool_overview
from routes.http import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE,
    MAX_PAGE_SIZE,
    answer,
    check_operator,
    json_body,
    number,
    services,
)

log = logging.getLogger("admin")
routes = Blueprint("admin_api", __name__, url_prefix="/admin")


@routes.before_request
def check() -> None:
    """Let only the operator in. Raises TooManyRequests, Forbidden, Unauthorized."""
    check_operator()


@routes.get("/pool")
def pool() -> Response:
    """?page=1&page_size=20&all=false&owner=shared → the keys without their texts, newest first, and the processes.

    owner: `shared`, `any`, or the id of the user whose own keys are wanted.
    """
    with_gone = request.args.get("all", "false")
    if with_gone not in {"true", "false"}:
        raise BadRequest("all must be true or false")
    page = number("page", 1, MAX_PAGE)
    page_size = number("page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    begin = (page - 1) * page_size
    now, is_with_gone = services().clock.now(), with_gone == "true"
    found = pool_overview(services().keys, services().db, now, is_with_gone, _owner(), begin, page_size)
    return answer(
        {
            "items": [key.to_dict() for key in found.keys],
            "total": found.total,
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


def _owner() -> Whose:
    text = request.args.get("owner", SHARED)
    if text in {SHARED, ANYBODYS}:
        return text
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest(f"owner must be {SHARED}, {ANYBODYS}, or a user's id")
    return int(text)
