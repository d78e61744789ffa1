"""The client keys of everybody, for the operator alone; keys that belong to a program and to no person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.billing import user_of
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown

PATH = "/admin/keys"


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def administered(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], stand_in: Any, tmp_path_factory: Any
) -> Gateway:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('keys')}/x.db"
    else:
        url = request.getfixturevalue("mariadb").new_database()
    key = stand_in.new_key(account=stand_in.new_account(balance=1000)["id"])["key"]
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    return start(DATABASE_URL=url, OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=key, **secrets)


def ask(
    gateway: Gateway, method: str, path: str, body: Any = None, token: str | None = ADMIN_TOKEN
) -> requests.Response:
    return gateway.ask(method, path, body, token)


def make(gateway: Gateway, **fields: Any) -> dict[str, Any]:
    return shown(ask(gateway, "POST", PATH, {"name": "k"} | fields), 201)


def test_a_user_and_a_stranger_are_not_let_in(administered):
    made = make(administered)
    wrong_ones = {administered.new_user(): 403, made["key"]: 403, "sk-auto-x": 401, None: 401, ADMIN_TOKEN[:-1]: 401}
    for wrong, status in wrong_ones.items():
        for method, path in (("GET", ""), ("POST", ""), *((m, f"/{made['id']}") for m in ("GET", "PATCH", "DELETE"))):
            refused = ask(administered, method, PATH + path, {"name": "x"}, wrong)
            assert refused.status_code == status
            assert refusal_of(refused)
    assert shown(ask(administered, "GET", f"{PATH}/{made['id']}"))["state"] == "active"


def test_a_key_for_a_user_is_the_users(administered):
    owner, teammate = administered.new_user(), administered.new_user()
    made = make(administered, user_id=user_of(owner), models=["openai/*"], budget={"limit_usd": 1})
    assert (made["user_id"], made["budget"]["limit_usd"], made["budget"]["period"]) == (user_of(owner), 1.0, "month")
    secret = made.pop("key")
    assert administered.chat(secret).status_code == 200
    assert administered.get(f"/api/api-keys/{made['id']}", owner).json()["id"] == made["id"]
    assert administered.get(f"/api/api-keys/{made['id']}", teammate).status_code == 404
    changed = shown(ask(administered, "PATCH", f"{PATH}/{made['id']}", {"models": ["anthropic/*"]}))
    assert changed["models"] == ["anthropic/*"]
    assert administered.chat(secret).status_code == 403
    assert shown(ask(administered, "DELETE", f"{PATH}/{made['id']}"))["state"] == "revoked"
    assert administered.chat(secret).status_code == 401
    assert shown(ask(administered, "GET", f"{PATH}/{made['id']}"))["state"] == "revoked"
    assert ask(administered, "DELETE", f"{PATH}/{made['id']}").status_code == 404
    log = administered.log()
    for action in ("made", "changed", "revoked"):
        assert f"client_key_{action} request_id=" in log
    assert secret[8:] not in log


def test_a_key_of_nobody_has_an_account_of_its_own(administered):
    made = make(administered, name="cron")
    other = make(administered, name="cron", user_id=made["user_id"])  # a successor, before the first is revoked
    third = make(administered, name="another")
    assert made["user_id"] == other["user_id"] != third["user_id"]
    assert administered.chat(made["key"]).status_code == 200
    quota = ask(administered, "PUT", f"/admin/quotas/user/{made['user_id']}", {"limit_usd": 0})
    assert quota.status_code == 200


def test_keys_are_found_by_owner_and_state(administered):
    owner = user_of(administered.new_user())
    first, second, third = (make(administered, user_id=owner)["id"] for _ in range(3))
    ask(administered, "DELETE", f"{PATH}/{second}")

    def ids(query: str) -> list[int]:
        return [item["id"] for item in shown(ask(administered, "GET", f"{PATH}?user_id={owner}&{query}"))["items"]]

    assert ids("page=1") == [third, second, first]
    assert ids("state=active") == [third, first]
    assert ids("state=revoked") == [second]
    assert ids("state=expired") == []
    assert ids("page=2&page_size=1") == [second]
    assert shown(ask(administered, "GET", PATH))["items"][0]["id"] == third
    for query in ("state=lost", "user_id=x", "user_id=0", "owner=1", "page_size=101"):
        assert ask(administered, "GET", f"{PATH}?{query}").status_code == 400


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"user_id": 999_999}, "There is no user 999999"),
        ({"user_id": "1"}, "user_id"),
        ({"user_id": 2**70}, "user_id"),
        ({"role": "admin"}, "There is no field 'role' here"),
        ({"name": None}, "name"),
    ],
)
def test_what_makes_no_sense_is_a_400_and_makes_nothing(administered, fields, told):
    before = shown(ask(administered, "GET", PATH))["total"]
    refused = ask(administered, "POST", PATH, {"name": "x"} | fields)
    assert refused.status_code == 400
    assert told in refusal_of(refused)
    assert shown(ask(administered, "GET", PATH))["total"] == before


@pytest.mark.parametrize("number", ["999999", "9" * 30, "0", "x"])
def test_what_does_not_exist_is_a_404(administered, number):
    for method in ("GET", "PATCH", "DELETE"):
        assert ask(administered, method, f"{PATH}/{number}", {}).status_code == 404
