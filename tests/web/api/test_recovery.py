"""Back in without the password over HTTP: by a recovery code, by an operator's link, and out of a provider's account."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from foundation.clock import Clock
from tables import user_sessions
from tests.support.gateway import ADMIN_TOKEN, Gateway, new_derived_key, refusal_of, shown, user_id_of
from tests.support.sign_on import Browser, sign_on_settings

PASSWORD = "N0where-to-Train"
CODES = "/api/auth/recovery-codes"


@pytest.fixture(scope="module")
def gateway_settings(identity_provider: str) -> dict[str, Any]:
    return sign_on_settings(identity_provider, "http://gateway.test")


class Person:
    """Somebody with an account, codes and a session."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.account = gateway.new_account()
        self.name = self.account["username"]
        self.token = self.log_in()["token"]
        self.codes = shown(gateway.post(CODES, token=self.token), 201)["codes"]
        self.id = user_id_of(self.token)

    def log_in(self) -> dict[str, Any]:
        return shown(self.gateway.post("/login", self.account))

    def actions(self, token: str) -> list[str]:
        return [one["action"] for one in self.gateway.get("/api/auth/events", token).json()["items"]]


@pytest.fixture
def ann(administered: Gateway) -> Person:
    return Person(administered)


@pytest.fixture
def bob(administered: Gateway) -> Person:
    return Person(administered)


def make_old(database, token: str) -> None:
    of_user = user_sessions.c.user_id == user_id_of(token)
    begun = Clock().now() - timedelta(minutes=16)
    database.transact(lambda tx: tx.execute(sa.update(user_sessions).where(of_user).values(created_at=begun)))


def test_a_code_sets_a_new_key_ends_all_sessions_and_leaves_the_rest(administered, ann, bob):
    key, old = new_derived_key(), ann.account
    client_key = shown(administered.post("/api/api-keys", {"name": "x"}, ann.token), 201)["key"]
    body = {"username": ann.name, "recovery_code": ann.codes[3].lower(), "new_derived_key": key}
    told = shown(administered.post("/api/auth/recover", body))
    assert told.keys() == bob.log_in().keys()
    assert administered.post("/login", old).status_code == 401
    assert administered.get("/api/auth/me", ann.token).status_code == 401
    ann.account = old | {"derived_key": key}
    token = ann.log_in()["token"]
    assert shown(administered.get(CODES, token))["left"] == 9
    assert administered.get("/v1/models", client_key).status_code == 200
    assert {"recovered", "recovery_codes_made"} <= set(ann.actions(token))
    assert administered.post("/api/auth/recover", body | {"new_derived_key": new_derived_key()}).status_code == 401
    assert administered.get("/api/auth/me", bob.token).status_code == 200
    assert ann.codes[3] not in administered.log()


def test_a_code_sets_a_new_password_for_who_derives_no_key(administered, ann):
    new = {"new_password": PASSWORD, "new_password_confirm": PASSWORD}
    body = {"email": ann.name, "recovery_code": ann.codes[0]} | new
    weak = administered.post("/api/auth/recover-password", body | dict.fromkeys(new, "short"))
    assert (weak.status_code, refusal_of(weak)[:12]) == (400, "new_password")
    shown(administered.post("/api/auth/recover-password", body))
    shown(administered.post("/api/auth/login", {"email": ann.name, "password": PASSWORD}))


def test_wrong_codes_are_answered_as_wrong_passwords_and_counted_with_the_log_ins(
    administered, ann, bob, start: Callable[..., Gateway]
):
    body = {"username": ann.name, "recovery_code": ann.codes[0], "new_derived_key": new_derived_key()}
    wrong = [{"recovery_code": bob.codes[0]}, {"recovery_code": "x"}, {"username": f"{secrets.token_hex(8)}@x.example"}]
    answers = [administered.post("/api/auth/recover", body | one) for one in wrong]
    answers.append(administered.post("/login", ann.account | {"derived_key": new_derived_key()}))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    strict = start(LOGIN_RATE_LIMIT_ACCOUNT_PER_MINUTE=3)
    tries = [strict.post("/api/auth/recover", body).status_code for _ in range(4)]
    assert tries == [401, 401, 401, 429]
    assert strict.post("/login", {"username": ann.name, "derived_key": new_derived_key()}).status_code == 429
    other = {"username": bob.name, "derived_key": new_derived_key()}
    assert strict.post("/login", other).status_code == 401


def test_new_codes_and_a_first_password_take_a_fresh_session(administered, database, ann):
    browser = Browser(administered)
    stranger = browser.log_in("github", **{"as": secrets.token_hex(4)})["token"]
    make_old(database, ann.token)
    make_old(database, stranger)
    account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
    for path, body, token in ((CODES, None, ann.token), ("/api/auth/set-key", account, stranger)):
        refused = administered.post(path, body, token)
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "fresh_session_needed")
    body = {"username": ann.name, "recovery_code": ann.codes[0], "new_derived_key": new_derived_key()}
    shown(administered.post("/api/auth/recover", body))  # they are the old ones still


def test_an_operators_link_sets_a_password_once_and_its_owner_is_told(administered, ann, bob):
    path = f"/admin/users/{ann.id}/reset-link"
    assert administered.post(path, token=bob.token).status_code == 403
    made = shown(administered.post(path, token=ADMIN_TOKEN), 201)
    assert made["path"] == f"/reset#reset={made['reset']}"
    [notice] = ann.log_in()["notices"]  # though nobody has used it
    assert (notice["type"], notice["used_at"]) == ("reset_link", None)
    assert "notices" not in ann.log_in()
    made = shown(administered.post(path, token=ADMIN_TOKEN), 201)
    body = {"reset": made["reset"], "username": bob.name, "new_derived_key": new_derived_key()}
    refused = administered.post("/api/auth/reset", body)
    assert (refused.status_code, "not the username" in refusal_of(refused)) == (400, True)
    ann.account = {"username": ann.name, "derived_key": body["new_derived_key"]}
    assert "notices" not in shown(administered.post("/api/auth/reset", body | {"username": ann.name}))
    [notice] = ann.log_in()["notices"]
    assert notice["used_at"]
    again = administered.post("/api/auth/reset", body | {"username": ann.name})
    assert (again.status_code, again.json()["error"]["type"]) == (403, "reset_link_refused")
    assert [one for one in ann.actions(ann.log_in()["token"]) if "reset" in one][:2] == [
        "reset_link_used",
        "reset_link_made",
    ]
    assert administered.get("/api/auth/me", bob.token).status_code == 200
    assert "notices" not in bob.log_in()
    assert made["reset"] not in administered.log()


def test_a_link_sets_a_password_for_who_derives_no_key(administered, ann):
    made = shown(administered.post(f"/admin/users/{ann.id}/reset-link", token=ADMIN_TOKEN), 201)
    new = {"new_password": PASSWORD, "new_password_confirm": PASSWORD}
    shown(administered.post("/api/auth/reset-password", {"reset": made["reset"], "email": ann.name} | new))
    shown(administered.post("/api/auth/login", {"email": ann.name, "password": PASSWORD}))


def test_an_account_of_a_provider_gets_a_password_and_operators_see_where_it_comes_from(administered, ann):
    browser, who = Browser(administered), secrets.token_hex(4)
    told = browser.log_in("github", **{"as": who})
    path = f"/admin/users/{told['user']['id']}"
    assert administered.get(path, ADMIN_TOKEN).json()["providers"] == ["github"]
    listed = {one["id"]: one["providers"] for one in administered.get("/admin/users", ADMIN_TOKEN).json()["items"]}
    assert (listed[told["user"]["id"]], listed[ann.id]) == (["github"], [])
    account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
    taken = administered.post("/api/auth/set-key", account | {"username": ann.name}, told["token"])
    assert (taken.status_code, refusal_of(taken)) == (400, "Username already exists")
    shown(administered.post("/api/auth/set-key", account, told["token"]))
    entered = shown(administered.post("/login", account))
    assert entered["user"]["id"] == told["user"]["id"] == browser.log_in("github", **{"as": who})["user"]["id"]
    assert administered.post("/api/auth/set-key", account, entered["token"]).status_code == 409
    # The last log-in elsewhere may go now, and a provider may come to an account with a key.
    assert administered.ask("DELETE", "/api/auth/sso/github", token=entered["token"]).status_code == 200


def test_a_password_is_set_for_who_derives_no_key(administered):
    told = Browser(administered).log_in("linuxdo", **{"as": str(secrets.randbelow(10**9))})
    email = f"{secrets.token_hex(8)}@example.com"
    body = {"email": email, "password": PASSWORD, "password_confirm": PASSWORD}
    shown(administered.post("/api/auth/set-password", body, told["token"]))
    entered = shown(administered.post("/api/auth/login", {"email": email, "password": PASSWORD}))
    assert entered["user"]["id"] == told["user"]["id"]
