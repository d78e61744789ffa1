"""Second factors over HTTP: every way in asks for them, operators may have to have one, and who has lost one is helped."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyotp
import pytest
import requests

from foundation.clock import Clock
from tables import totp_secrets, user_sessions
from tests.support.gateway import ADMIN_TOKEN, Gateway, new_derived_key, shown, user_id_of, wait_for
from tests.support.sign_on import Browser, agree, sign_on_settings

PATH = "/api/auth/second-factor"
PASSWORD = "Tr4in-to-Nowhere"


@pytest.fixture(scope="module")
def gateway_settings(identity_provider: str) -> dict[str, Any]:
    return sign_on_settings(identity_provider, "http://gateway.test")


class Person:
    """Somebody with an app, whose clock the tests move on so that each code is a new one."""

    def __init__(self, gateway: Gateway, database: Any, token: str = "", account: dict[str, str] | None = None) -> None:
        self.gateway, self.database = gateway, database
        self.account = account or gateway.new_account()
        self.token = token or shown(gateway.post("/login", self.account))["token"]
        self.id = user_id_of(self.token)
        begun = shown(gateway.post(PATH, token=self.token), 201)
        assert begun["secret"] in begun["uri"]
        self.app = pyotp.TOTP(begun["secret"])
        shown(gateway.post(f"{PATH}/confirm", {"code": self.app.now()}, self.token))

    def code(self) -> str:
        """One that is good now, though there was one in this half minute."""
        mine = totp_secrets.c.user_id == self.id
        self.database.transact(
            lambda tx: tx.execute(totp_secrets.update().where(mine).values(last_step=None, failures=0))
        )
        return self.app.at(time.time())

    def events(self, token: str) -> list[str]:
        return [one["action"] for one in self.gateway.get("/api/auth/events", token).json()["items"]]


@pytest.fixture
def ann(administered: Gateway, database: Any) -> Person:
    return Person(administered, database)


def kind_of(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", {}).get("type", "")


NEEDED = (403, "second_factor_needed")


def test_a_log_in_takes_the_key_and_a_code_and_a_stranger_learns_nothing(administered, ann):
    bob = administered.new_account()
    assert kind_of(administered.post("/login", ann.account)) == NEEDED
    wrong_key = administered.post("/login", ann.account | {"derived_key": new_derived_key()})
    with_code = administered.post(
        "/login", ann.account | {"derived_key": new_derived_key(), "second_factor": ann.code()}
    )
    wrong_code = administered.post("/login", ann.account | {"second_factor": "000000"})
    assert {one.status_code for one in (wrong_key, with_code, wrong_code)} == {401}
    assert wrong_key.content == with_code.content == wrong_code.content
    code = ann.code()
    told = shown(administered.post("/login", ann.account | {"second_factor": code}))
    assert administered.post("/login", ann.account | {"second_factor": code}).status_code == 401
    wait_for(lambda: "second_factor_refused" in ann.events(told["token"]))
    assert {"second_factor_set_up"} <= set(ann.events(told["token"]))
    shown(administered.post("/login", bob))
    assert shown(administered.get(PATH, told["token"]))["set_up_at"]
    assert ann.app.secret not in administered.log()
    assert shown(administered.get(f"/admin/users/{ann.id}", ADMIN_TOKEN))["has_second_factor"]


def test_so_does_one_with_a_password(administered, database):
    email = f"{secrets.token_hex(8)}@example.com"
    shown(
        administered.post(
            "/api/auth/register", {"email": email, **dict.fromkeys(("password", "password_confirm"), PASSWORD)}
        ),
        201,
    )
    known = {"email": email, "password": PASSWORD}
    ann = Person(administered, database, shown(administered.post("/api/auth/login", known))["token"], known)
    assert kind_of(administered.post("/api/auth/login", known)) == NEEDED
    shown(administered.post("/api/auth/login", known | {"second_factor": ann.code()}))


def test_so_does_one_through_a_provider_and_its_code_waits_for_it(administered, database):
    browser, who = Browser(administered), secrets.token_hex(4)
    ann = Person(administered, database, browser.log_in("github", **{"as": who})["token"], {})
    code = browser.arrive(agree(browser.begin("github"), **{"as": who}))["sso"]
    assert kind_of(browser.redeem(code)) == NEEDED
    wrong = browser.post("/api/auth/sso/token", {"code": code, "second_factor": "000000"})
    assert wrong.status_code == 401
    other = Browser(administered)
    second = browser.arrive(agree(browser.begin("github"), **{"as": who}))["sso"]
    assert other.redeem(second).status_code == 400
    code = browser.arrive(agree(browser.begin("github"), **{"as": who}))["sso"]
    body = {"code": code, "second_factor": ann.code()}
    shown(browser.post("/api/auth/sso/token", body))
    assert browser.post("/api/auth/sso/token", body).status_code == 400


def test_so_do_a_recovery_and_an_operators_link(administered, ann):
    first, second = shown(administered.post("/api/auth/recovery-codes", token=ann.token), 201)["codes"][:2]
    body = {"username": ann.account["username"], "new_derived_key": new_derived_key()}
    by_code = body | {"recovery_code": first}
    assert kind_of(administered.post("/api/auth/recover", by_code)) == NEEDED
    assert administered.post("/api/auth/recover", by_code | {"second_factor": first}).status_code == 401  # one, not two
    reset = shown(administered.post(f"/admin/users/{ann.id}/reset-link", token=ADMIN_TOKEN), 201)["reset"]
    assert kind_of(administered.post("/api/auth/reset", body | {"reset": reset})) == NEEDED
    shown(administered.post("/api/auth/reset", body | {"reset": reset, "second_factor": second}))


def test_a_change_of_the_key_needs_none_and_removing_takes_a_fresh_session(administered, database, ann):
    new = {"derived_key": ann.account["derived_key"], "new_derived_key": new_derived_key()}
    token = shown(administered.post("/api/auth/change-key", new, ann.token))["access_token"]
    begun = Clock().now() - timedelta(minutes=16)
    of_ann = user_sessions.update().where(user_sessions.c.user_id == ann.id)
    database.transact(lambda tx: tx.execute(of_ann.values(created_at=begun)))
    assert kind_of(administered.ask("DELETE", PATH, token=token)) == (403, "fresh_session_needed")
    assert kind_of(administered.post(PATH, token=token)) == (403, "fresh_session_needed")
    database.transact(lambda tx: tx.execute(of_ann.values(created_at=Clock().now())))
    shown(administered.ask("DELETE", PATH, token=token))
    shown(administered.post("/login", {"username": ann.account["username"], "derived_key": new["new_derived_key"]}))


def test_an_operator_helps_who_has_lost_theirs(administered, ann):
    path = f"/admin/users/{ann.id}/second-factor"
    assert administered.ask("DELETE", path, token=ann.token).status_code == 403
    shown(administered.ask("DELETE", path, token=ADMIN_TOKEN))
    assert administered.ask("DELETE", path, token=ADMIN_TOKEN).status_code == 404
    told = shown(administered.post("/login", ann.account))
    assert "second_factor_removed" in ann.events(told["token"])


def test_where_operators_need_one_who_has_none_can_only_set_one_up(start: Callable[..., Gateway], tmp_path):
    from config.settings import Config
    from db import Database, database_url

    url = f"sqlite:///{tmp_path}/x.db"
    strict = start(DATABASE_URL=url, ADMIN_TOKEN=ADMIN_TOKEN, OPERATOR_SECOND_FACTOR="required")
    account = strict.new_account()
    token = shown(strict.post("/login", account))["token"]
    shown(strict.ask("PATCH", f"/admin/users/{user_id_of(token)}", {"role": "admin"}, ADMIN_TOKEN))
    refused = wait_for(lambda: kind_of(strict.get("/admin/users", token)) == (403, "second_factor_required"))
    assert refused
    assert strict.ask("PATCH", f"/admin/users/{user_id_of(token)}", {"trust_level": 1}, token).status_code == 403
    page = {"session": requests.post(f"{strict.url}/session", headers={"Authorization": f"Bearer {token}"}, timeout=30)}
    answer = requests.get(f"{strict.url}/operator/users", cookies=page["session"].cookies, timeout=30)
    assert (answer.status_code, "set one up in your profile" in answer.text) == (403, True)
    database = Database(database_url(Config(database_url=url)))
    try:
        Person(strict, database, token, account)
    finally:
        database.close()
    assert strict.get("/admin/users", token).status_code == 200
    assert kind_of(strict.ask("DELETE", PATH, token=token))[0] == 409
