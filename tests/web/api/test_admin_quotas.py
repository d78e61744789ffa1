"""Quotas for operators: seen, set, reset."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, user_id_of

GIVEN = {"limit_usd": 2.5, "soft_limit_usd": 0.1, "period": "week", "recovery": "reset"}
PATH = "/admin/quotas/user"


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Each user may spend $5 a day."""
    return {"QUOTA_USD": 5, "QUOTA_PERIOD": "day"}


@pytest.fixture
def user_id(administered: Gateway) -> str:
    return str(user_id_of(administered.new_user()))


def ask(gateway: Gateway, method: str, path: str, body: Any = None) -> requests.Response:
    return gateway.ask(method, path, body, ADMIN_TOKEN)


def test_a_quota_is_set_seen_and_reset(administered, user_id):
    path = f"{PATH}/{user_id}"
    default = shown(ask(administered, "GET", path))
    assert (default["subject"], default["is_default"], default["limit_usd"]) == (f"user/{user_id}", True, 5.0)
    given = shown(ask(administered, "PUT", path, GIVEN))
    assert given.items() >= {**GIVEN, "subject": f"user/{user_id}", "is_default": False, "remaining_usd": 2.5}.items()
    assert shown(ask(administered, "GET", path)) == given
    assert shown(ask(administered, "GET", "/admin/quotas"))["items"][0] == given
    assert shown(ask(administered, "DELETE", path)) == default
    assert shown(ask(administered, "GET", path)) == default
    for event in ("quota_set", "quota_reset"):
        assert f"{event} request_id=" in administered.log()


def test_what_is_left_out_is_none_or_as_the_settings_say(administered, user_id):
    given = shown(ask(administered, "PUT", f"{PATH}/{user_id}", {}))
    assert (given["limit_usd"], given["soft_limit_usd"], given["period"], given["recovery"]) == (
        None,
        None,
        "day",
        "reset",
    )


def test_a_client_key_has_a_quota_only_if_one_is_set(administered):
    path = "/admin/quotas/key/77"
    assert ask(administered, "GET", path).status_code == 404
    assert shown(ask(administered, "PUT", path, GIVEN))["subject"] == "key/77"
    assert shown(ask(administered, "GET", path))["limit_usd"] == 2.5
    assert shown(ask(administered, "DELETE", path))["limit_usd"] is None
    assert ask(administered, "GET", path).status_code == 404


def test_pages_are_cut_as_asked(administered):
    for number in (101, 102, 103):
        shown(ask(administered, "PUT", f"/admin/quotas/key/{number}", GIVEN))
    page = shown(ask(administered, "GET", "/admin/quotas?page=2&page_size=1"))
    assert [item["subject"] for item in page["items"]] == ["key/102"]
    assert (page["page"], page["page_size"]) == (2, 1)
    assert page["total"] >= 3
    for query in ("page=0", "page_size=101", "page_size=x"):
        assert ask(administered, "GET", f"/admin/quotas?{query}").status_code == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_who_does_not_exist_is_a_404(administered, method):
    for path in (f"{PATH}/999999", "/admin/quotas/group/1"):
        refused = ask(administered, method, path, GIVEN)
        assert refused.status_code == 404
        refusal_of(refused)


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", "٣", "9" * 30])
def test_what_is_no_id_is_a_400(administered, number):
    refused = ask(administered, "GET", f"{PATH}/{number}")
    assert refused.status_code == 400
    assert "user/<id>" in refusal_of(refused)


@pytest.mark.parametrize(
    "body",
    [
        {"limit_usd": -1},
        {"limit_usd": 1e30},
        {"limit_usd": "5"},
        {"limit_usd": True},
        {"limit_usd": [5]},
        {"soft_limit_usd": -0.5},
        {"limit_usd": 1, "soft_limit_usd": 2},
        {"period": "year"},
        {"recovery": {"x": 1}},
        {"limit_usd": 5, "period": "none", "recovery": "steady"},
        {"limit": 5},
        {"limit_usd": 5, "user_id": 1, "spent_nano": 0},
        [],
    ],
)
def test_what_makes_no_sense_is_a_400_and_changes_nothing(administered, user_id, body):
    before = shown(ask(administered, "GET", f"{PATH}/{user_id}"))
    refused = ask(administered, "PUT", f"{PATH}/{user_id}", body)
    assert refused.status_code == 400
    refusal_of(refused)
    assert shown(ask(administered, "GET", f"{PATH}/{user_id}")) == before


def test_more_than_nine_decimals_are_rounded(administered, user_id):
    given = shown(ask(administered, "PUT", f"{PATH}/{user_id}", {"limit_usd": 0.12345678949}))
    assert given["limit_usd"] == 0.123456789
