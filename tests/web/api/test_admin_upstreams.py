"""Upstreams for the operator: added, shown, replaced, removed; for whoever has ADMIN_TOKEN, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown

PATH = "/admin/upstreams"
KEY = "sk-upstream-0123456789abcdef-wxyz"
PRICES = {"*": {"prompt": 0.15, "completion": 0.6}}


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def administered(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], stand_in: Any, tmp_path_factory: Any
) -> Gateway:
    """A gateway with an operator."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('upstreams')}/x.db"
    else:
        url = request.getfixturevalue("mariadb").new_database()
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    return start(DATABASE_URL=url, OPENROUTER_API_URL=stand_in.address, **secrets)


@pytest.fixture(autouse=True)
def empty(administered: Gateway) -> None:
    for item in ask(administered, "GET", f"{PATH}?page_size=100").json()["items"]:
        assert ask(administered, "DELETE", f"{PATH}/{item['id']}").status_code == 200


def ask(
    gateway: Gateway, method: str, path: str, body: Any = None, token: str | None = ADMIN_TOKEN
) -> requests.Response:
    return gateway.ask(method, path, body, token)


def given(name: str = "openai", **fields: Any) -> dict[str, Any]:
    return {"name": name, "base_url": "https://api.openai.example/v1", "api_key": KEY, **fields}


def test_the_operator_is_let_in_and_a_user_and_a_stranger_are_not(administered):
    before = shown(ask(administered, "POST", PATH, given()), 201)
    token = administered.new_user()
    for wrong, status in ((token, 403), (None, 401), (ADMIN_TOKEN[:-1], 401)):
        for method, path in (
            *(("GET", PATH), ("POST", PATH)),
            *((method, f"{PATH}/openai") for method in ("GET", "PUT", "DELETE")),
        ):
            assert ask(administered, method, path, given("other"), wrong).status_code == status
    assert shown(ask(administered, "GET", PATH))["items"] == [before]


def test_an_upstream_is_added_shown_replaced_and_removed(administered):
    added = shown(ask(administered, "POST", PATH, given(prices=PRICES, model_prefixes={"o/": ""})), 201)
    assert added.items() >= {"api_key": "sk-***wxyz", "prices": PRICES, "model_prefixes": {"o/": ""}}.items()
    for name in ("openai", added["id"]):
        assert shown(ask(administered, "GET", f"{PATH}/{name}")) == added
    assert shown(ask(administered, "GET", PATH)) == {"items": [added], "total": 1, "page": 1, "page_size": 20}
    body = given(is_active=False, timeout_seconds=7)
    del body["api_key"]
    changed = shown(ask(administered, "PUT", f"{PATH}/openai", body))
    assert changed.items() >= {"api_key": "sk-***wxyz", "timeout_seconds": 7, "is_active": False, "prices": {}}.items()
    assert shown(ask(administered, "PUT", f"{PATH}/openai", body | {"api_key": None}))["api_key"] is None
    assert shown(ask(administered, "DELETE", f"{PATH}/{added['id']}"))["name"] == "openai"
    for method in ("GET", "PUT", "DELETE"):
        assert ask(administered, method, f"{PATH}/openai", body).status_code == 404
    for event in ("upstream_added", "upstream_changed", "upstream_removed"):
        assert f"{event} request_id=" in administered.log()
    assert KEY not in administered.log()


def test_pages_are_newest_first(administered):
    for name in "abc":
        shown(ask(administered, "POST", PATH, given(name)), 201)
    page = shown(ask(administered, "GET", f"{PATH}?page=2&page_size=2"))
    assert ([item["name"] for item in page["items"]], page["total"]) == (["a"], 3)


def test_a_name_that_is_taken_is_a_conflict(administered):
    shown(ask(administered, "POST", PATH, given("one")), 201)
    shown(ask(administered, "POST", PATH, given("two")), 201)
    for answer in (
        ask(administered, "POST", PATH, given("one")),
        ask(administered, "PUT", f"{PATH}/two", given("one")),
    ):
        assert answer.status_code == 409
        assert "names are unique" in refusal_of(answer)


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": "http://api.openai.example/v1"},
        {"base_url": "https://169.254.169.254/v1"},
        {"base_url": "https://localhost/v1"},
        {"name": "openrouter"},
        {"id": 7},
        {"api_key_hint": "abcd"},
        {"timeout_seconds": "7"},
        {"timeout_seconds": 0},
        {"model_prefixes": {"": "x"}},
        {"prices": {"*": {"prompt": -1, "completion": 0}}},
        {"api_key": "two words"},
        {"api_key": ""},
        {"is_default": True, "is_active": False},
    ],
)
def test_what_can_not_be_is_refused_and_changes_nothing(administered, fields):
    before = shown(ask(administered, "POST", PATH, given()), 201)
    for method, path in (("POST", PATH), ("PUT", f"{PATH}/openai")):
        answer = ask(administered, method, path, given("openai") | fields)
        assert answer.status_code == 400
        refusal_of(answer)
    assert shown(ask(administered, "GET", PATH))["items"] == [before]


def test_a_stored_key_does_not_go_to_another_host(administered):
    shown(ask(administered, "POST", PATH, given()), 201)
    body = given(base_url="https://evil.example/v1")
    del body["api_key"]
    answer = ask(administered, "PUT", f"{PATH}/openai", body)
    assert answer.status_code == 400
    assert "another host" in refusal_of(answer)
