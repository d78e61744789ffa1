"""Passkeys over HTTP: registered from a fresh session, good alone and as a second factor, and whatever is wrong is a 4xx."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import requests

from foundation.clock import Clock
from tables import user_sessions
from tests.support.authenticator import Authenticator
from tests.support.gateway import ADMIN_TOKEN, Gateway, free_port, new_derived_key, shown, user_id_of, wait_for
from tests.support.sign_on import Browser

PATH = "/api/auth/passkeys"
ORIGIN = "http://localhost:5000"


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    return {"PUBLIC_URL": ORIGIN}


class Person:
    """Somebody with a browser and a passkey."""

    def __init__(self, gateway: Gateway, origin: str = ORIGIN) -> None:
        self.browser, self.account = Browser(gateway), gateway.new_account()
        self.token = shown(gateway.post("/login", self.account))["token"]
        self.id, self.device = user_id_of(self.token), Authenticator(origin)

    def post(self, path: str, body: Any = None, token: str = "") -> requests.Response:
        return self.browser.post(path, body, token)

    def register(self, name: str = "phone") -> dict[str, Any]:
        options = shown(self.post(f"{PATH}/challenge", token=self.token))
        body = {"name": name, "credential": self.device.make(options)}
        return shown(self.post(PATH, body, self.token), 201)

    def signed(self) -> dict[str, Any]:
        return self.device.sign(shown(self.post(f"{PATH}/log-in/challenge")))

    def log_in(self) -> requests.Response:
        return self.post(f"{PATH}/log-in", {"credential": self.signed()})


@pytest.fixture
def ann(administered: Gateway) -> Person:
    person = Person(administered)
    person.register()
    return person


@pytest.fixture
def bob(administered: Gateway) -> Person:
    return Person(administered)


def kind_of(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", {}).get("type", "")


NEEDED = (403, "second_factor_needed")


def test_it_opens_its_account_alone_and_is_shown_to_its_owner(administered, ann, bob):
    bob.register("bob's")
    told = shown(ann.log_in())
    assert told["user"]["id"] == ann.id
    [one] = shown(administered.get(PATH, told["token"]))["items"]
    assert (one["name"], bool(one["last_used"])) == ("phone", True)
    [session, *_] = shown(administered.get("/api/auth/sessions", told["token"]))["items"]
    assert session["method"] == "passkey"
    events = shown(administered.get("/api/auth/events", told["token"]))["items"]
    assert {"passkey_added", "logged_in"} <= {event["action"] for event in events}
    assert shown(bob.log_in())["user"]["id"] == bob.id


def test_it_is_a_second_factor_of_every_other_log_in(administered, ann, bob):
    assert kind_of(administered.post("/login", ann.account)) == NEEDED
    wrong_key = ann.account | {"derived_key": new_derived_key()}
    assert ann.post("/login", wrong_key | {"second_factor": ann.signed()}).status_code == 401
    shown(ann.post("/login", ann.account | {"second_factor": ann.signed()}))
    bob.register()
    assert ann.post("/login", ann.account | {"second_factor": bob.signed()}).status_code == 400  # of bob's browser
    bob.browser = ann.browser
    assert ann.post("/login", ann.account | {"second_factor": bob.signed()}).status_code == 401
    codes = shown(administered.post("/api/auth/recovery-codes", token=ann.token), 201)["codes"]
    shown(administered.post("/login", ann.account | {"second_factor": codes[0]}))
    new = {"username": ann.account["username"], "recovery_code": codes[1], "new_derived_key": new_derived_key()}
    assert kind_of(ann.post("/api/auth/recover", new)) == NEEDED
    shown(ann.post("/api/auth/recover", new | {"second_factor": ann.signed()}))


def test_an_answer_opens_nothing_twice_and_nothing_in_another_browser(ann, bob):
    answer = ann.signed()
    shown(ann.post(f"{PATH}/log-in", {"credential": answer}))
    assert ann.post(f"{PATH}/log-in", {"credential": answer}).status_code == 400
    stolen = ann.signed()
    shown(bob.post(f"{PATH}/log-in/challenge"))  # he has a challenge, and a cookie, of his own
    assert bob.post(f"{PATH}/log-in", {"credential": stolen}).status_code == 400
    assert ann.post(f"{PATH}/log-in", {"credential": stolen}).status_code == 400  # used up
    shown(ann.log_in())


def test_options_are_the_same_for_everybody_and_refusals_too(administered, ann, bob):
    anns, strangers = (shown(one.post(f"{PATH}/log-in/challenge")) for one in (ann, bob))
    assert anns | {"challenge": ""} == strangers | {"challenge": ""}
    assert anns["allowCredentials"] == []
    bob.device.handle = ann.device.handle  # a passkey that nobody has registered
    wrong = Authenticator(ORIGIN, handle=ann.device.handle, id=ann.device.id)  # one with another key
    unknown = bob.log_in()
    ann.device, device = wrong, ann.device
    refused = ann.log_in()
    assert (unknown.status_code, unknown.json()["message"]) == (refused.status_code, refused.json()["message"])
    assert unknown.status_code == 401
    ann.device = device
    told = shown(ann.log_in())
    wait_for(
        lambda: (
            "passkey_refused"
            in {one["action"] for one in administered.get("/api/auth/events", told["token"]).json()["items"]}
        )
    )


def test_bad_input_is_told_and_changes_nothing(administered, ann):
    options = shown(ann.post(f"{PATH}/challenge", token=ann.token))
    made = Authenticator(ORIGIN).make(options)
    without = {name: value for name, value in made.items() if name != "response"}
    rows = [
        ({"name": "x"}, "credential"),
        ({"name": " x", "credential": made}, "name"),
        ({"name": "x" * 65, "credential": made}, "name"),
        ({"name": "x", "credential": without}, "credential.response"),
        ({"name": "x", "credential": made | {"id": "!"}}, "credential.id"),
        ({"name": "x", "credential": made | {"type": "password"}}, "credential.type"),
        ({"name": "x", "credential": made | {"response": made["response"] | {"attestationObject": "AA"}}}, "passkey"),
        ({"name": "x", "credential": made}, "begin again"),  # its challenge is used up by the one before
    ]
    for body, said in rows:
        refused = ann.post(PATH, body, ann.token)
        assert (refused.status_code, said in refused.json()["message"]) == (400, True), refused.text
    for given in (ann.signed() | {"response": {}}, "x" * 65, {"id": "x"}, [], 7):
        assert ann.post("/login", ann.account | {"second_factor": given}).status_code == 400
    assert len(shown(administered.get(PATH, ann.token))["items"]) == 1


def test_making_and_removing_take_a_fresh_session_and_the_own_account(administered, database, ann, bob):
    [one] = shown(administered.get(PATH, ann.token))["items"]
    assert administered.ask("DELETE", f"{PATH}/{one['id']}", token=bob.token).status_code == 404
    of_ann = user_sessions.update().where(user_sessions.c.user_id == ann.id)
    database.transact(lambda tx: tx.execute(of_ann.values(created_at=Clock().now() - timedelta(minutes=16))))
    stale = (403, "fresh_session_needed")
    assert kind_of(administered.post(f"{PATH}/challenge", token=ann.token)) == stale
    assert kind_of(administered.ask("DELETE", f"{PATH}/{one['id']}", token=ann.token)) == stale
    fresh = shown(ann.log_in())["token"]
    shown(administered.ask("DELETE", f"{PATH}/{one['id']}", token=fresh))
    shown(administered.post("/login", ann.account))  # the key alone is enough again
    assert ann.log_in().status_code == 401


def test_a_disabled_account_stays_out_and_an_operator_helps_who_has_lost_the_device(administered, ann, bob):
    path = f"/admin/users/{ann.id}"
    assert shown(administered.get(path, ADMIN_TOKEN))["has_second_factor"]
    shown(administered.ask("PATCH", path, {"state": "disabled"}, ADMIN_TOKEN))
    assert ann.log_in().status_code == 403
    shown(administered.ask("PATCH", path, {"state": "active"}, ADMIN_TOKEN))
    shown(ann.log_in())
    shown(administered.ask("DELETE", f"{path}/second-factor", token=ADMIN_TOKEN))
    assert ann.log_in().status_code == 401
    shown(administered.post("/login", ann.account))
    assert not shown(administered.get(f"/admin/users/{bob.id}", ADMIN_TOKEN))["has_second_factor"]


def test_where_operators_need_a_second_factor_a_passkey_is_one(start: Callable[..., Gateway]):
    strict = start(ADMIN_TOKEN=ADMIN_TOKEN, OPERATOR_SECOND_FACTOR="required", PUBLIC_URL=ORIGIN)
    ann = Person(strict)
    shown(strict.ask("PATCH", f"/admin/users/{ann.id}", {"role": "admin"}, ADMIN_TOKEN))
    assert wait_for(lambda: kind_of(strict.get("/admin/users", ann.token)) == (403, "second_factor_required"))
    made = ann.register()
    shown(strict.get("/admin/users", ann.token))
    assert strict.ask("DELETE", f"{PATH}/{made['id']}", token=ann.token).status_code == 409
    ann.device = Authenticator(ORIGIN)
    ann.register("laptop")
    shown(strict.ask("DELETE", f"{PATH}/{made['id']}", token=ann.token))


def test_without_a_public_address_there_are_none_and_everything_else_goes_on(start: Callable[..., Gateway]):
    plain = start(PUBLIC_URL="http://127.0.0.1:" + str(free_port()))
    token = shown(plain.post("/login", plain.new_account()))["token"]
    assert shown(plain.get(PATH, token)) == {"items": [], "are_possible": False}
    for path, sent in ((f"{PATH}/challenge", token), (f"{PATH}/log-in/challenge", "")):
        refused = plain.post(path, token=sent)
        assert (refused.status_code, "PUBLIC_URL" in refused.json()["message"]) == (404, True)
