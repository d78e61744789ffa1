"""Signing up where not everybody may: invitations, approval, closed doors; in every form of sign-up."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from clients.python.openrouter_proxy_client import ProxyClient, ProxyError
from tests.support.gateway import ADMIN_TOKEN, Gateway, new_derived_key, refusal_of, shown, user_id_of, wait_for
from tests.support.sign_on import Browser, agree, sign_on_settings

PATH = "/admin/invitations"
PASSWORD = "Tr4in-to-Nowhere"


@pytest.fixture(scope="module")
def gateway_settings(identity_provider: str) -> dict[str, Any]:
    return {"REGISTRATION": "invite", "QUOTA_USD": 3} | sign_on_settings(identity_provider, "http://gateway.test")


@pytest.fixture(scope="module")
def other_modes(start: Callable[..., Gateway]) -> dict[str, Gateway]:
    return {mode: start(REGISTRATION=mode, ADMIN_TOKEN=ADMIN_TOKEN) for mode in ("approval", "closed")}


def account() -> dict[str, str]:
    return {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}


def person() -> dict[str, str]:
    return {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD, "password_confirm": PASSWORD}


def invited(gateway: Gateway, **body: object) -> dict[str, Any]:
    return shown(gateway.ask("POST", PATH, body, ADMIN_TOKEN), 201)


def entered(gateway: Gateway, who: dict[str, str]) -> str:
    return shown(gateway.post("/login", who))["token"]


def test_without_an_invitation_nobody_signs_up_in_any_form(administered):
    for path, body in (("/register", account()), ("/api/auth/register", person())):
        refused = administered.post(path, body)
        assert refused.status_code == 403
        assert refused.json()["error"]["type"] == "invitation_needed"
        assert "takes an invitation" in refusal_of(refused)
        refused = administered.post(path, body | {"invitation": "inv_unknown"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "invitation_refused")
    browser = Browser(administered)
    told = browser.arrive(agree(browser.begin("github"), **{"as": secrets.token_hex(4)}))
    assert told == {"sso_error": "invitation_needed"}


def test_an_invitation_opens_one_account_with_its_role_and_quota(administered):
    made = invited(administered, note="Ann", role="admin", limit_usd=12.5, period="week", days=2)
    assert made["path"] == f"/register#invitation={made['invitation']}"
    who = account()
    answer = administered.post("/register", who | {"invitation": made["invitation"]})
    assert (answer.status_code, answer.json()) == (201, {"message": "User registered successfully"})
    token = entered(administered, who)
    assert administered.get(PATH, token).status_code == 200  # an operator, at once
    quota = administered.get("/api/quota", token).json()
    assert (quota["limit_usd"], quota["period"]) == (12.5, "week")
    again = administered.post("/register", account() | {"invitation": made["invitation"]})
    assert (again.status_code, again.json()["error"]["type"]) == (403, "invitation_refused")
    [listed] = [one for one in administered.get(PATH, ADMIN_TOKEN).json()["items"] if one["id"] == made["id"]]
    assert (listed["state"], listed["used_by"], listed["note"]) == ("used", user_id_of(token), "Ann")
    events = administered.get("/api/auth/events", token).json()["items"]
    details = {"invitation": made["id"], "method": "key", "role": "admin"}
    assert [one["details"] for one in events if one["action"] == "registered"] == [details]
    assert made["invitation"] not in administered.log()


def test_the_default_quota_holds_where_an_invitation_has_none(administered):
    who = person()
    body = who | {"invitation": invited(administered)["invitation"]}
    assert administered.post("/api/auth/register", body).status_code == 201
    token = administered.post("/api/auth/login", {name: who[name] for name in ("email", "password")}).json()["token"]
    assert administered.get("/api/quota", token).json()["limit_usd"] == 3
    assert administered.get(PATH, token).status_code == 403


def test_a_taken_name_uses_no_invitation_up(administered):
    who, text = account(), invited(administered)["invitation"]
    assert administered.post("/register", who | {"invitation": text}).status_code == 201
    text = invited(administered)["invitation"]
    assert administered.post("/register", who | {"invitation": text}).json()["message"] == "Username already exists"
    assert administered.post("/register", account() | {"invitation": text}).status_code == 201


def test_an_invitation_goes_with_a_log_in_through_a_provider(administered):
    text, name = invited(administered, limit_usd=1)["invitation"], secrets.token_hex(4)
    browser = Browser(administered)
    told = browser.arrive(agree(browser.begin("github", invitation=text), **{"as": name}))
    token = browser.redeem(told["sso"]).json()["token"]
    assert administered.get("/api/quota", token).json()["limit_usd"] == 1
    again = Browser(administered)
    assert "sso" in again.arrive(agree(again.begin("github"), **{"as": name}))  # who has an account needs none
    other = Browser(administered)
    told = other.arrive(agree(other.begin("github", invitation=text), **{"as": secrets.token_hex(4)}))
    assert told == {"sso_error": "invitation_refused"}


def test_a_revoked_invitation_opens_nothing(administered):
    made, other = invited(administered), invited(administered)
    assert shown(administered.ask("DELETE", f"{PATH}/{made['id']}", token=ADMIN_TOKEN))["state"] == "revoked"
    assert administered.post("/register", account() | {"invitation": made["invitation"]}).status_code == 403
    assert administered.post("/register", account() | {"invitation": other["invitation"]}).status_code == 201
    used = administered.ask("DELETE", f"{PATH}/{other['id']}", token=ADMIN_TOKEN)
    assert used.status_code == 409
    assert administered.ask("DELETE", f"{PATH}/999999", token=ADMIN_TOKEN).status_code == 404


@pytest.mark.parametrize(
    "body", [{"role": "owner"}, {"days": 0}, {"days": 366}, {"limit_usd": -1}, {"period": "year"}, {"note": "a\nb"}]
)
def test_what_makes_no_sense_is_refused(administered, body):
    before = administered.get(PATH, ADMIN_TOKEN).json()["total"]
    answer = administered.ask("POST", PATH, body, ADMIN_TOKEN)
    assert answer.status_code == 400
    assert next(iter(body)) in refusal_of(answer)
    assert administered.get(PATH, ADMIN_TOKEN).json()["total"] == before


def test_our_client_carries_the_code(administered):
    name = f"{secrets.token_hex(8)}@example.com"
    with ProxyClient(administered.url) as client:
        with pytest.raises(ProxyError) as refused:
            client.register(name, PASSWORD)
        assert (refused.value.status, refused.value.error_type) == (403, "invitation_needed")
        client.register(name, PASSWORD, invited(administered)["invitation"])
        client.login(name, PASSWORD)
        assert client.quota()["limit_usd"] == 3


def test_who_waits_gets_in_once_an_operator_says_so(other_modes):
    gateway, who, other = other_modes["approval"], account(), account()
    for one in (who, other):
        answer = gateway.post("/register", one)
        assert (answer.status_code, answer.json()["state"]) == (201, "pending")
        refused = gateway.post("/login", one)
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "account_pending")
    wrong = gateway.post("/login", who | {"derived_key": new_derived_key()})
    assert (wrong.status_code, refusal_of(wrong)) == (401, "Invalid credentials")
    found = shown(gateway.ask("POST", "/admin/users/find", {"username": who["username"]}, ADMIN_TOKEN))
    waiting = shown(gateway.ask("GET", "/admin/users?state=pending", token=ADMIN_TOKEN))["items"]
    assert found["id"] in {one["id"] for one in waiting}
    shown(gateway.ask("PATCH", f"/admin/users/{found['id']}", {"state": "active"}, ADMIN_TOKEN))
    token = entered(gateway, who)
    wait_for(lambda: gateway.get("/api/auth/sessions", token).status_code == 200)
    assert gateway.post("/login", other).status_code == 403
    body = account()
    assert gateway.post("/register", body | {"invitation": invited(gateway)["invitation"]}).status_code == 201
    assert entered(gateway, body)


def test_where_registration_is_closed_an_invitation_opens_nothing(other_modes):
    gateway = other_modes["closed"]
    for more in ({}, {"invitation": "inv_unknown"}, {"invitation": invited(gateway)["invitation"]}):
        refused = gateway.post("/register", account() | more)
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "registration_closed")
        assert "closed" in refusal_of(refused)
