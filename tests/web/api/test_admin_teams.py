"""Teams over HTTP, for operators: made, changed, deleted, and who is in them; refused with what is accepted."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, user_id_of
from tests.support.rows import each_row

PATH = "/admin/teams"


def ask(gateway: Gateway, method: str, path: str = "", body: Any = None) -> Any:
    return gateway.ask(method, PATH + path, body, ADMIN_TOKEN)


def new_name() -> str:
    return f"team-{secrets.token_hex(4)}"


@pytest.fixture
def team(administered: Gateway) -> dict[str, Any]:
    """One with a quota and lists."""
    body = {"name": new_name(), "models": ["openai/*"], "upstreams": ["openrouter"]}
    return shown(ask(administered, "POST", "", body | {"quota": {"limit_usd": 5, "period": "week"}}), 201)


def test_a_team_is_made_with_its_quota_changed_and_deleted(administered, team):
    path = f"/{team['id']}"
    assert (team["models"], team["upstreams"], team["members"]) == (["openai/*"], ["openrouter"], 0)
    assert (team["quota"]["limit_usd"], team["quota"]["period"]) == (5, "week")
    assert shown(ask(administered, "GET"))["items"][0] == team
    changed = shown(ask(administered, "PATCH", path, {"models": None}))
    assert changed == team | {"models": None, "updated_at": changed["updated_at"]}
    lowered = shown(administered.ask("PUT", f"/admin/quotas/team{path}", {"limit_usd": 2}, ADMIN_TOKEN))
    assert lowered["subject"] == f"team{path}"
    assert shown(ask(administered, "GET", path))["quota"]["limit_usd"] == 2
    assert shown(ask(administered, "DELETE", path))["name"] == team["name"]
    for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
        assert ask(administered, method, path, body).status_code == 404
    assert administered.ask("PUT", f"/admin/quotas/team{path}", {"limit_usd": 2}, ADMIN_TOKEN).status_code == 404
    actions = [one["action"] for one in shown(administered.get("/admin/audit", ADMIN_TOKEN))["items"]]
    assert actions[:4] == ["team_deleted", "quota_set", "team_changed", "team_made"]


def test_people_are_added_made_managers_and_removed_and_nobody_is_in_two(administered, team):
    ann, bob = (user_id_of(administered.new_user()) for _ in range(2))
    other = shown(ask(administered, "POST", "", {"name": new_name()}), 201)
    members = f"/{team['id']}/members"
    for user_id in (ann, bob):
        made = shown(ask(administered, "POST", members, {"user_id": user_id}), 201)
        assert made.items() >= {"user_id": user_id, "role": "member", "spent_usd": 0}.items()
    for at, which in ((members, "this team"), (f"/{other['id']}/members", "another team")):
        refused = ask(administered, "POST", at, {"user_id": bob})
        assert (refused.status_code, which in refusal_of(refused)) == (409, True)
    assert shown(ask(administered, "PATCH", f"{members}/{bob}", {"role": "manager"}))["role"] == "manager"
    found = shown(ask(administered, "GET", f"/{team['id']}"))
    assert [(one["user_id"], one["role"]) for one in found["people"]] == [(bob, "manager"), (ann, "member")]
    assert found["members"] == 2
    assert shown(ask(administered, "DELETE", f"{members}/{bob}"))["members"] == 1
    for method, body in (("PATCH", {"role": "member"}), ("DELETE", None)):
        for path in (f"{members}/{bob}", f"/{other['id']}/members/{ann}"):
            assert ask(administered, method, path, body).status_code == 404
    assert [one["user_id"] for one in shown(ask(administered, "GET", f"/{team['id']}"))["people"]] == [ann]


@each_row(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "a" * 101},
        {"name": "x", "models": []},
        {"name": "x", "models": ["a b"]},
        {"name": "x", "upstreams": ["/"]},
        {"name": "x", "quota": {"limit_usd": -1}},
        {"name": "x", "quota": {"limit_usd": 1, "soft_limit_usd": 2}},
        {"name": "x", "members": [1]},
    ],
)
def test_what_is_no_team_is_refused_and_none_is_made(administered, body):
    before = shown(ask(administered, "GET"))["total"]
    refused = ask(administered, "POST", "", body)
    assert refused.status_code == 400, refused.text
    refusal_of(refused)
    assert shown(ask(administered, "GET"))["total"] == before


def test_what_is_wrong_with_a_change_is_refused_and_changes_nothing(administered, team):
    taken = shown(ask(administered, "POST", "", {"name": new_name()}), 201)["name"]
    path, nobody = f"/{team['id']}", 999_999
    for method, at, body, status in (
        ("PATCH", path, {"name": taken}, 409),
        ("PATCH", path, {"name": None}, 400),
        ("PATCH", path, {"quota": {"limit_usd": 1}}, 400),
        ("POST", "", {"name": taken}, 409),
        ("POST", f"{path}/members", {"user_id": nobody}, 404),
        ("POST", f"{path}/members", {"user_id": 0}, 400),
        ("POST", f"{path}/members", {"user_id": 1, "role": "owner"}, 400),
        ("PATCH", f"{path}/members/{nobody}", {"role": "owner"}, 400),
        ("POST", f"/{nobody}/members", {"user_id": user_id_of(administered.new_user())}, 404),
    ):
        refused = ask(administered, method, at, body)
        assert refused.status_code == status, (at, body, refused.text)
        refusal_of(refused)
    assert shown(ask(administered, "GET", path)).items() >= (team | {"people": []}).items()
