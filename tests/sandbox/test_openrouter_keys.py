"""The endpoints for keys: pages, fields, refusals, and what a key is told about itself."""

import hashlib
import re

import pytest
from openrouter import operations

PAST, FUTURE = "2020-01-01T00:00:00Z", "2099-12-31T23:59:59Z"


def test_a_new_key_is_shown_once_with_its_hash_and_label(manage):
    answer = manage("POST", "/keys/", json={"name": "new", "limit": 0.1, "expires_at": FUTURE})
    made = answer.json()
    assert answer.status_code == 201
    assert re.fullmatch(r"sk-or-v1-[0-9a-f]{64}", made["key"])
    assert made["data"]["hash"] == hashlib.sha256(made["key"].encode()).hexdigest()
    assert made["data"]["label"] == f"sk-or-v1-{made['key'][9:12]}...{made['key'][-3:]}"
    assert made["data"]["limit_remaining"] == 0.1
    assert "key" not in manage("GET", f"/keys/{made['data']['hash']}").json()
    operations.CreateKeysResponse.model_validate(made)


def test_pages_hold_a_hundred_keys_newest_first(manage):
    for number in range(103):
        manage("POST", "/keys", json={"name": f"key {number}"})
    pages = [manage("GET", "/keys", params={"offset": offset}).json()["data"] for offset in (0, 100, 200)]
    assert [len(page) for page in pages] == [100, 3, 0]
    assert pages[0][0]["name"] == "key 102"
    assert pages[1][-1]["name"] == "key 0"


def test_disabled_and_expired_keys_are_listed_on_request_only(manage):
    manage("POST", "/keys", json={"name": "plain"})
    manage("POST", "/keys", json={"name": "expired", "expires_at": PAST})
    disabled = manage("POST", "/keys", json={"name": "disabled"}).json()["data"]["hash"]
    manage("PATCH", f"/keys/{disabled}", json={"disabled": True})

    def names(**query):
        return [key["name"] for key in manage("GET", "/keys", params=query).json()["data"]]

    assert names() == ["plain"]
    assert names(include_disabled="true") == ["disabled", "plain"]
    assert names(include_expired="true") == ["expired", "plain"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": ""},
        {"name": 5},
        {"name": "x", "limit": -1},
        {"name": "x", "limit": True},
        {"name": "x", "limit": 1e300},
        {"name": "x", "limit_reset": "yearly"},
        {"name": "x", "expires_at": "2099-12-31T23:59Z"},
        {"name": "x", "expires_at": "2099-12-31T23:59:59+02:00"},
        {"name": "x", "expires_at": "2099-12-31T23:59:59"},
        {"name": "x", "expires_at": "9999-99-99T99:99:99Z"},
        {"name": "x", "expires_at": 5},
        {"name": "x", "include_byok_in_limit": "yes"},
    ],
)
def test_wrong_wishes_are_refused(manage, document):
    answer = manage("POST", "/keys", json=document)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == 400


def test_a_change_touches_what_it_names(manage):
    made = manage("POST", "/keys", json={"name": "x", "limit": 5, "limit_reset": "weekly"}).json()["data"]
    changed = manage("PATCH", f"/keys/{made['hash']}", json={"limit": None}).json()["data"]
    assert changed["limit"] is None
    assert changed["limit_remaining"] is None
    assert (changed["name"], changed["limit_reset"]) == ("x", "weekly")
    assert changed["updated_at"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_keys_of_others_and_deleted_ones_are_not_found(stand_in, manage, method):
    foreign = stand_in.new_key()["hash"]
    mine = manage("POST", "/keys", json={"name": "x"}).json()["data"]["hash"]
    assert manage("DELETE", f"/keys/{mine}").json() == {"deleted": True}
    for key_hash in (foreign, mine, "unheard-of"):
        assert manage(method, f"/keys/{key_hash}", json={}).status_code == 404


# The client warns of its own class for the obsolete `rate_limit` field, which OpenRouter still sends.
@pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED:DeprecationWarning")
@pytest.mark.parametrize("path", ["/key", "/auth/key"])
def test_a_key_can_describe_itself(stand_in, account, path):
    key = stand_in.new_key(account=account["id"], limit=2, limit_reset="monthly")
    stand_in.chat(key["key"])
    answer = stand_in.call("GET", path, key["key"]).json()
    described = operations.GetCurrentKeyResponse.model_validate(answer).data
    assert described.creator_user_id == account["id"]
    assert described.limit_remaining == pytest.approx(2 - described.usage)
    assert described.effective_budget.scope == "key_limit"
    assert described.effective_budget.resets_at.day == 1
    assert not described.is_management_key
