"""Only operators are let in: every route below /admin, asked by everybody whom it might be asked by."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from tests.support.gateway import ADMIN_TOKEN, refusal_of, user_id_of, wait_for
from web.api.table import register_api

NOBODYS_ID = 10**12


def admin_routes() -> list[tuple[str, str]]:
    app = Flask(__name__)
    register_api(app)
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/admin")]
    return sorted(
        (method, re.sub(r"<any\(([a-z]+)[^>]*>", r"\1", rule.rule))
        for rule in rules
        for method in rule.methods - {"HEAD", "OPTIONS"}
    )


ROUTES = admin_routes()


def path_of(rule: str) -> str:
    return re.sub(r"<[^>]+>", str(NOBODYS_ID), rule)


def test_all_of_them_are_known_here():
    assert len(ROUTES) >= 16
    assert ("PATCH", "/admin/users/<int:user_id>") in ROUTES


@pytest.mark.parametrize(("method", "rule"), ROUTES, ids=" ".join)
def test_operators_are_let_in_and_users_and_strangers_are_not(administered, people, method, rule):
    path, refused_before = path_of(rule), administered.log().count("admin_refused")
    strangers = [
        None,
        "",
        "None",
        "ü" * 36,
        ADMIN_TOKEN[:-1],
        f"{ADMIN_TOKEN}x",
        ADMIN_TOKEN.lower(),
        "sk-auto-x",
        "x.y.z",
    ]
    for token in strangers:
        refused = administered.ask(method, path, {}, token)
        assert refused.status_code == 401, (token, refused.text)
        assert "This is for operators" in refusal_of(refused)
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    refused = administered.ask(method, path, {}, people.user)
    assert refused.status_code == 403
    assert "no active admin" in refusal_of(refused)
    assert administered.log().count("admin_refused") == refused_before + len(strangers) + 1
    for token in (ADMIN_TOKEN, people.admin):
        # Nobody has this id: what they ask for is not there, or was not understood, and nothing changes.
        assert administered.ask(method, path, {}, token).status_code in {200, 201, 400, 404}


def test_without_an_admin_token_admins_by_role_are_let_in_and_nobody_else(administered, people, start):
    settings = {name: administered.settings[name] for name in ("DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEY")}
    other = start(**settings)
    assert other.get("/admin/users", people.admin).status_code == 200
    assert other.get("/admin/users", people.user).status_code == 403
    for token in (None, "", "None", ADMIN_TOKEN):
        assert other.get("/admin/users", token).status_code == 401


def test_an_admin_who_is_one_no_more_is_refused_by_every_gateway_within_two_seconds(administered, start):
    settings = {name: administered.settings[name] for name in ("DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEY")}
    other = start(**settings)
    for change in ({"role": "user"}, {"state": "disabled"}, {"state": "silenced"}):
        token = administered.new_user()
        path = f"/admin/users/{user_id_of(token)}"
        both = (administered, other)
        assert administered.ask("PATCH", path, {"role": "admin"}, ADMIN_TOKEN).status_code == 200
        wait_for(lambda both=both, token=token: all(one.get("/admin/users", token).ok for one in both))
        assert administered.ask("PATCH", path, change, ADMIN_TOKEN).status_code == 200
        # Two seconds, and what a busy machine may take on top.
        wait_for(lambda both=both, token=token: not any(one.get("/admin/users", token).ok for one in both))
        assert {one.get("/admin/users", token).status_code for one in both} <= {401, 403}


def test_strangers_who_guess_keep_no_operator_out(administered, people, start):
    settings = {name: administered.settings[name] for name in ("DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEY")}
    strict = start(**settings, ADMIN_TOKEN=ADMIN_TOKEN, ADMIN_RATE_LIMIT_PER_MINUTE=3)
    guesses = [strict.get("/admin/users", token).status_code for token in (None, "guess", people.user) * 3]
    assert guesses[0] == 401
    assert 429 in guesses  # a minute may end in between
    # At once: the next minute would let anybody in again.
    assert strict.get("/admin/users", people.admin).status_code == 200
    assert strict.get("/admin/users", ADMIN_TOKEN).status_code == 200
