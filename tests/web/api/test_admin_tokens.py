"""Operator tokens over HTTP: what each scope may on every route, what is written down, and when they end."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.api_world import declared
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, user_id_of, wait_for
from web.operation import Who

PATH = "/admin/tokens"
NOBODYS_ID = 10**12


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    return {"ADMIN_RATE_LIMIT_PER_MINUTE": 1000}


def made(gateway: Gateway, scope: str = "read", by: str = ADMIN_TOKEN, **more: Any) -> dict[str, Any]:
    body = {"name": f"t-{secrets.token_hex(4)}", "scope": scope} | more
    return shown(gateway.ask("POST", PATH, body, by), 201)


def test_each_scope_may_what_it_says_on_every_route_and_no_token_says_who_may(administered):
    reader, writer = made(administered)["token"], made(administered, "everything")["token"]
    asked = 0
    for route, operation in declared().items():
        method, _, template = route.partition(" ")
        path = re.sub(r"\{\w+\}", str(NOBODYS_ID), template.replace("{kind}", "user"))
        got = [administered.ask(method, path, {}, token).status_code for token in (reader, writer)]
        if template.startswith("/admin"):
            asked += 1
            mays = {Who.AUDITOR: (True, True), Who.OPERATOR: (False, True), Who.APPOINTER: (False, False)}
            assert tuple(status != 403 for status in got) == mays[operation.who], route
            assert 401 not in got, route
        elif operation.who is not Who.ANYBODY:
            assert got == [401, 401], route
    assert asked >= 30


def test_what_would_outlive_a_token_is_not_given_by_one(administered, people):
    token = made(administered, "everything")["token"]
    user_id = user_id_of(administered.new_user())
    for method, path, body in (
        ("POST", PATH, {"name": "another"}),
        ("PATCH", f"/admin/users/{user_id}", {"role": "admin"}),
        ("PATCH", f"/admin/users/{people.admin_id}", {"role": "user"}),
        ("PATCH", f"/admin/users/{people.admin_id}", {"state": "disabled"}),
        ("DELETE", f"/admin/users/{people.admin_id}", None),
        ("POST", "/admin/invitations", {"role": "admin"}),
        ("POST", "/admin/invitations", {"role": "auditor"}),
        ("POST", f"/admin/users/{people.admin_id}/reset-link", None),
    ):
        refused = administered.ask(method, path, body, token)
        assert refused.status_code == 403, (method, path)
        assert "a token may not" in refusal_of(refused)
    assert shown(administered.get(f"/admin/users/{user_id}", token))["role"] == "user"
    assert administered.ask("PATCH", f"/admin/users/{user_id}", {"trust_level": 2}, token).status_code == 200
    assert administered.ask("POST", "/admin/invitations", {}, token).status_code == 201
    assert administered.ask("POST", f"/admin/users/{user_id}/reset-link", None, token).status_code == 201


def test_what_a_token_does_is_written_down_by_its_name(administered, people):
    one = made(administered, "everything", people.admin, name="deploy-bot", days=3)
    assert re.fullmatch(r"or_op_[\w-]{43}", one["token"])
    assert (one["state"], one["created_by"]) == ("active", f"user/{people.admin_id}")
    user_id = user_id_of(administered.new_user())
    shown(administered.ask("PATCH", f"/admin/users/{user_id}", {"trust_level": 3}, one["token"]))
    entries = shown(administered.get(f"/admin/audit?user_id={user_id}&action=user_changed", ADMIN_TOKEN))["items"]
    assert [(entry["actor"], entry["details"]["trust_level"]) for entry in entries] == [("token/deploy-bot", 3)]
    [entry] = [
        entry
        for entry in shown(administered.get("/admin/audit?action=operator_token_made", ADMIN_TOKEN))["items"]
        if entry["subject"] == "token/deploy-bot"
    ]
    assert entry["details"] == {"scope": "everything", "days": 3}
    listed = {row["name"]: row for row in shown(administered.get(PATH, ADMIN_TOKEN))["items"]}
    assert "token" not in listed["deploy-bot"]
    assert one["token"][8:] not in administered.log()


def test_a_revoked_token_opens_nothing_and_the_others_go_on(administered):
    one, other = made(administered), made(administered)
    assert administered.get(PATH, one["token"]).status_code == 200
    gone = shown(administered.ask("DELETE", f"{PATH}/{one['id']}", token=ADMIN_TOKEN))
    assert gone["state"] == "revoked"
    assert administered.get(PATH, one["token"]).status_code == 401
    assert administered.get(PATH, other["token"]).status_code == 200
    assert administered.ask("DELETE", f"{PATH}/{NOBODYS_ID}", token=ADMIN_TOKEN).status_code == 404


def test_what_makes_no_sense_is_refused(administered):
    before = shown(administered.get(PATH, ADMIN_TOKEN))["total"]
    for body in (
        {"name": "A b"},
        {},
        {"name": "a", "scope": "root"},
        {"name": "a", "days": 0},
        {"name": "a", "days": 366},
    ):
        answer = administered.ask("POST", PATH, body, ADMIN_TOKEN)
        assert answer.status_code == 400, body
    assert shown(administered.get(PATH, ADMIN_TOKEN))["total"] == before


def test_another_gateway_knows_it_and_knows_its_end(administered, start: Callable[..., Gateway]):
    settings = {name: administered.settings[name] for name in ("DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEY")}
    other = start(**settings)
    one = made(administered)
    wait_for(lambda: other.get(PATH, one["token"]).status_code == 200)
    shown(administered.ask("DELETE", f"{PATH}/{one['id']}", token=ADMIN_TOKEN))
    wait_for(lambda: other.get(PATH, one["token"]).status_code == 401)
