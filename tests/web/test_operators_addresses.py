"""ADMIN_ADDRESSES: operators work from there alone, whatever proves them; nobody else notices."""

from __future__ import annotations

import pytest
import requests

from tests.support.gateway import ADMIN_TOKEN, refusal_of, shown, user_id_of, wait_for

OFFICE, ELSEWHERE = "203.0.113.7", "198.51.100.1"


@pytest.fixture(scope="module")
def gateway(start):
    return start(ADMIN_TOKEN=ADMIN_TOKEN, TRUSTED_PROXIES="127.0.0.1", ADMIN_ADDRESSES="203.0.113.0/24")


def ask(gateway, path: str, token: str, address: str, **more) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
    return requests.request(more.pop("method", "GET"), f"{gateway.url}{path}", headers=headers, timeout=30, **more)


def test_tokens_and_admins_are_let_in_from_there_alone(gateway):
    person, user = gateway.new_user(), gateway.new_user()
    role = {"role": "admin"}
    path = f"/admin/users/{user_id_of(person)}"
    assert ask(gateway, path, ADMIN_TOKEN, ELSEWHERE, method="PATCH", json=role).status_code == 403
    shown(ask(gateway, path, ADMIN_TOKEN, OFFICE, method="PATCH", json=role))
    made = ask(gateway, "/admin/tokens", ADMIN_TOKEN, OFFICE, method="POST", json={"name": "backup", "scope": "read"})
    for token in (ADMIN_TOKEN, shown(made, 201)["token"], person):
        wait_for(lambda token=token: ask(gateway, "/admin/users", token, OFFICE).status_code == 200)
        refused = ask(gateway, "/admin/users", token, ELSEWHERE)
        assert (refused.status_code, refusal_of(refused)) == (
            403,
            f"Operators don't work from {ELSEWHERE} (ADMIN_ADDRESSES)",
        )
    for token in (person, user):
        assert ask(gateway, "/api/quota", token, ELSEWHERE).status_code == 200, "what everybody may do"
    assert ask(gateway, "/admin/users", user, OFFICE).status_code == 403


def test_it_is_in_the_log(gateway):
    before = gateway.log().count("admin_refused")
    assert ask(gateway, "/admin/users", ADMIN_TOKEN, ELSEWHERE).status_code == 403
    wait_for(lambda: gateway.log().count("admin_refused") > before)


def test_pages_of_operators_are_closed_elsewhere(gateway):
    account = gateway.new_account()
    token = gateway.post("/login", account).json()["token"]
    path = f"/admin/users/{user_id_of(token)}"
    shown(ask(gateway, path, ADMIN_TOKEN, OFFICE, method="PATCH", json={"role": "admin"}))
    wait_for(lambda: ask(gateway, "/admin/users", token, OFFICE).status_code == 200)
    session = requests.Session()
    began = session.post(f"{gateway.url}/session", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert began.status_code == 204, began.text
    assert session.get(f"{gateway.url}/keys", headers={"X-Forwarded-For": ELSEWHERE}, timeout=30).status_code == 200
    for address, status in ((OFFICE, 200), (ELSEWHERE, 403)):
        page = session.get(f"{gateway.url}/operator", headers={"X-Forwarded-For": address}, timeout=30)
        assert page.status_code == status, (address, page.text[:300])
