"""Accounts as operators see and change them: what is shown, what a change does, and that each is written down."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from tests.support.gateway import ADMIN_TOKEN, Gateway, check_headers, new_derived_key, refusal_of, user_id_of, wait_for

PATH = "/admin/users"
FIELDS = {"id", "state", "role", "trust_level", "created_at", "last_login", "upstream_choice", "quota", "providers"} | {
    "has_second_factor",
    "label",
    "user_label",
}


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Each user may spend $5 a day."""
    return {"QUOTA_USD": 5, "QUOTA_PERIOD": "day"}


def shown(gateway: Gateway, method: str, path: str, body: Any = None, token: str = ADMIN_TOKEN) -> dict[str, Any]:
    answer = gateway.ask(method, path, body, token)
    assert answer.status_code == 200, answer.text
    check_headers(answer)
    return answer.json()


def refused(gateway: Gateway, status: int, method: str, path: str, body: Any = None, token: str = ADMIN_TOKEN) -> str:
    answer = gateway.ask(method, path, body, token)
    assert answer.status_code == status, answer.text
    return refusal_of(answer)


def entries(gateway: Gateway, user_id: int) -> list[tuple[str, str, dict[str, Any]]]:
    """What operators have done to an account: newest first, who, what, how."""
    found = shown(gateway, "GET", f"/admin/audit?user_id={user_id}&page_size=100")["items"]
    found = [entry for entry in found if entry["actor"] != f"user/{user_id}"]
    assert {entry["subject"] for entry in found} <= {f"user/{user_id}"}
    return [(entry["actor"], entry["action"], entry["details"]) for entry in found]


def test_an_account_is_shown_with_its_quota_and_without_its_name(administered):
    token = administered.new_user()
    found = shown(administered, "GET", f"{PATH}/{user_id_of(token)}")
    assert set(found) == FIELDS
    assert (found["id"], found["state"], found["role"], found["trust_level"]) == (
        user_id_of(token),
        "active",
        "user",
        0,
    )
    assert (found["upstream_choice"], found["quota"]["limit_usd"]) == ("dedicated_first", 5.0)
    assert found["last_login"] >= found["created_at"]


def test_accounts_come_newest_first_in_pages_and_by_what_they_are(administered):
    ids = [user_id_of(administered.new_user()) for _ in range(4)]
    shown(administered, "PATCH", f"{PATH}/{ids[1]}", {"state": "silenced", "trust_level": 3})
    shown(administered, "PATCH", f"{PATH}/{ids[2]}", {"trust_level": 3})
    found = shown(administered, "GET", f"{PATH}?page_size=2")
    assert [one["id"] for one in found["items"]] == [ids[3], ids[2]]
    assert (found["page"], found["page_size"]) == (1, 2)
    assert found["total"] >= 4
    for one in found["items"]:
        assert one == shown(administered, "GET", f"{PATH}/{one['id']}")
    second = shown(administered, "GET", f"{PATH}?page_size=2&page=2")
    assert [one["id"] for one in second["items"]] == [ids[1], ids[0]]
    by_level = shown(administered, "GET", f"{PATH}?trust_level=3")
    assert ([one["id"] for one in by_level["items"]], by_level["total"]) == ([ids[2], ids[1]], 2)
    both = shown(administered, "GET", f"{PATH}?trust_level=3&state=silenced&role=user")
    assert [one["id"] for one in both["items"]] == [ids[1]]
    assert shown(administered, "GET", f"{PATH}?role=service")["total"] == 0
    for one in ids:
        shown(administered, "PATCH", f"{PATH}/{one}", {"state": "active", "trust_level": 0})


def test_a_name_leads_to_its_account_and_is_nowhere_repeated(administered):
    name = f"{secrets.token_hex(8)}@example.com"
    assert administered.post("/register", {"username": name, "derived_key": new_derived_key()}).status_code == 201
    found = shown(administered, "POST", f"{PATH}/find", {"username": name})
    assert found == shown(administered, "GET", f"{PATH}/{found['id']}")
    told = refused(administered, 404, "POST", f"{PATH}/find", {"username": f"no-{name}"})
    assert name not in json.dumps(found) + told + administered.log()
    for body in ({}, {"username": ""}, {"username": 7}, {"username": " x"}, {"username": "x" * 256}, {"name": name}):
        refused(administered, 400, "POST", f"{PATH}/find", body)


def test_each_change_holds_and_is_written_down_with_the_old_and_the_new_value(administered, people):
    token = administered.new_user()
    user_id = user_id_of(token)
    path = f"{PATH}/{user_id}"
    changed = shown(administered, "PATCH", path, {"trust_level": 2})
    assert (changed["trust_level"], changed["state"], changed["role"]) == (2, "active", "user")
    changed = shown(administered, "PATCH", path, {"state": "silenced", "role": "admin", "trust_level": 2}, people.admin)
    assert (changed["trust_level"], changed["state"], changed["role"]) == (2, "silenced", "admin")
    assert shown(administered, "GET", path) == changed
    assert shown(administered, "PATCH", path, {"state": "silenced"}) == changed  # nothing new, nothing to write down
    assert shown(administered, "PATCH", path, {}) == changed
    shown(administered, "PATCH", path, {"state": "active", "role": None})
    assert entries(administered, user_id) == [
        ("admin-token", "user_changed", {"state": "active", "old_state": "silenced"}),
        (
            f"user/{people.admin_id}",
            "user_changed",
            {"state": "silenced", "old_state": "active", "role": "admin", "old_role": "user"},
        ),
        ("admin-token", "user_changed", {"trust_level": 2, "old_trust_level": 0}),
    ]


def test_who_is_silenced_may_look_and_not_call(administered):
    token = administered.new_user()
    shown(administered, "PATCH", f"{PATH}/{user_id_of(token)}", {"state": "silenced"})
    wait_for(lambda: administered.chat(token).status_code == 403)
    assert administered.get("/api/quota", token).status_code == 200


def test_disabling_ends_sessions_for_good(administered):
    account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
    administered.post("/register", account)
    session = administered.post("/login", account).json()
    path = f"{PATH}/{session['user']['id']}"
    shown(administered, "PATCH", path, {"state": "disabled"})
    wait_for(lambda: administered.get("/api/quota", session["access_token"]).status_code in {401, 403})
    assert administered.post("/login", account).status_code == 403
    shown(administered, "PATCH", path, {"state": "active"})
    wait_for(lambda: administered.get("/api/quota", session["access_token"]).status_code == 401)
    again = administered.post("/api/auth/refresh", {"refresh_token": session["refresh_token"]})
    assert again.status_code == 401
    assert administered.post("/login", account).status_code == 200


def test_sessions_are_ended_and_others_stay(administered):
    account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
    administered.post("/register", account)
    sessions = [administered.post("/login", account).json() for _ in range(2)]
    user_id, other = sessions[0]["user"]["id"], administered.new_user()
    assert shown(administered, "POST", f"{PATH}/{user_id}/end-sessions") == {"ended": 2}
    for session in sessions:
        wait_for(lambda session=session: administered.get("/api/quota", session["token"]).status_code == 401)
        body = {"refresh_token": session["refresh_token"]}
        assert administered.post("/api/auth/refresh", body).status_code == 401
    assert administered.get("/api/quota", other).status_code == 200
    assert administered.post("/login", account).status_code == 200
    assert entries(administered, user_id) == [("admin-token", "sessions_ended", {"ended": 2})]


def test_an_operator_ends_everything_of_a_user_and_of_nobody_else(administered, people):
    owner, teammate = administered.new_user(), administered.new_user()
    keys = [administered.post("/api/api-keys", {"name": "k"}, token).json()["key"] for token in (owner, teammate)]
    counts = {"sessions": 1, "client_keys": 1, "api_tokens": 0}
    told = shown(administered, "POST", f"{PATH}/{user_id_of(owner)}/end-everything")
    assert told == {"message": "Everything is ended"} | counts
    assert [administered.get("/v1/models", key).status_code for key in keys] == [401, 200]
    assert [administered.get("/api/quota", token).status_code for token in (owner, teammate)] == [401, 200]
    assert ("admin-token", "everything_ended", counts) in entries(administered, user_id_of(owner))


@pytest.mark.parametrize("body", [{"role": "user"}, {"state": "disabled"}, {"state": "silenced", "role": "admin"}])
def test_admins_cannot_lock_themselves_out(administered, people, body):
    path = f"{PATH}/{people.admin_id}"
    before = shown(administered, "GET", path)
    assert "your own rights" in refused(administered, 409, "PATCH", path, body, people.admin)
    assert shown(administered, "GET", path, None, people.admin) == before
    unchanged = {"role": "admin", "state": "active", "trust_level": 0}
    assert shown(administered, "PATCH", path, unchanged, people.admin) == before


@pytest.mark.parametrize(
    "body",
    [
        {"state": "gone"},
        {"state": 1},
        {"role": "service"},
        {"role": "root"},
        {"role": True},
        {"trust_level": 5},
        {"trust_level": -1},
        {"trust_level": "1"},
        {"trust_level": 1.5},
        {"username": "x"},
        {"role": "admin", "key_hash": "x"},
        {"role": "admin", "id": 1},
        [],
    ],
    ids=str,
)
def test_what_makes_no_sense_is_a_400_and_changes_nothing(administered, people, body):
    path = f"{PATH}/{people.user_id}"
    before = shown(administered, "GET", path)
    refused(administered, 400, "PATCH", path, body)
    assert shown(administered, "GET", path) == before
    assert entries(administered, people.user_id) == []


@pytest.mark.parametrize("query", ["state=gone", "role=root", "trust_level=5", "trust_level=x", "name=x", "page=0"])
def test_a_filter_that_is_not_understood_is_a_400(administered, query):
    refused(administered, 400, "GET", f"{PATH}?{query}")


def test_who_does_not_exist_is_a_404(administered):
    for method, path in (("GET", ""), ("PATCH", ""), ("POST", "/end-sessions"), ("POST", "/end-everything")):
        refused(administered, 404, method, f"{PATH}/999999{path}", {})


def test_a_label_is_set_shown_wherever_the_number_stands_and_taken_away(administered, people):
    token, other = administered.new_user(), administered.new_user()
    user_id, label = user_id_of(token), "=marketing, <b>laptop</b> 3"
    path = f"{PATH}/{user_id}"
    changed = shown(administered, "PATCH", path, {"label": label}, people.admin)
    assert (changed["label"], changed["user_label"]) == (label, label)
    assert shown(administered, "PATCH", path, {"trust_level": 1})["label"] == label  # what is not given stays
    assert shown(administered, "PATCH", path, {"label": label, "trust_level": 0})["label"] == label
    assert administered.post("/api/api-keys", {"name": "mine"}, token).status_code == 201
    shown(administered, "PUT", f"/admin/quotas/user/{user_id}", {"limit_usd": 1})
    for place in (
        f"/admin/keys?user_id={user_id}",
        "/admin/quotas?page_size=100",
        f"/admin/audit?user_id={user_id}",
        f"{PATH}?page_size=100",
    ):
        items = shown(administered, "GET", place)["items"]
        named = {one.get("subject") if "quotas" in place else one.get("user_id", one.get("id")) for one in items}
        assert named & {user_id, f"user/{user_id}"}, place
        for one in items:
            is_theirs = user_id in {one.get("user_id"), one["id"] if place.startswith(PATH) else None}
            is_theirs = is_theirs or one.get("subject") == f"user/{user_id}"
            assert (one["user_label"] == label) is is_theirs, (place, one)
    own = [one for one in entries(administered, user_id) if one[1] == "user_labelled"]
    assert own == [(f"user/{people.admin_id}", "user_labelled", {})]
    assert label not in administered.log()
    for somebody in (token, other):  # its owner finds it in what is kept of them alone, nobody else anywhere
        for place in ("/api/auth/me", "/api/api-keys", "/api/auth/events", "/api/usage/logs"):
            assert "laptop" not in administered.get(place, somebody).text
    assert administered.get("/api/auth/export", token).json()["account"]["label"] == label
    assert "laptop" not in administered.get("/api/auth/export", other).text
    assert shown(administered, "PATCH", path, {"label": ""})["user_label"] is None


@pytest.mark.parametrize("label", [" ", " x", "a\nb", "a\u202eb", "é" * 101, 7, ["x"]], ids=ascii)
def test_what_is_no_label_is_refused_and_changes_nothing(administered, label):
    path = f"{PATH}/{user_id_of(administered.new_user())}"
    before = shown(administered, "PATCH", path, {"label": "before"})
    assert "label" in refused(administered, 400, "PATCH", path, {"label": label, "trust_level": 4})
    assert shown(administered, "GET", path) == before


def test_a_shared_name_is_shown_in_quotation_marks_until_it_is_shared_no_more(administered):
    token = administered.new_user()
    path = f"{PATH}/{user_id_of(token)}"
    for sent, expected in (
        ({"display_name": "Ann"}, None),
        ({"display_name": "Ann", "shares_display_name": True}, "“Ann”"),
        ({"display_name": "Anna"}, "“Anna”"),  # left as it is
        ({"display_name": "Anna", "shares_display_name": False}, None),
    ):
        saved = shown(administered, "PUT", "/api/auth/profile", sent, token)
        assert saved["display_name"] == sent["display_name"]
        assert shown(administered, "GET", path)["user_label"] == expected
    shown(administered, "PUT", "/api/auth/profile", {"display_name": "Ann", "shares_display_name": True}, token)
    assert shown(administered, "PATCH", path, {"label": "laptop 3"})["user_label"] == "laptop 3"
    assert shown(administered, "DELETE", path)
    refused(administered, 404, "GET", path)
    rows = shown(administered, "GET", f"/admin/audit?user_id={user_id_of(token)}")["items"]
    assert {row["user_label"] for row in rows} == {None}
