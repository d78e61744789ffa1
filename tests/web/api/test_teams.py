"""What people see of their team, what it lets them call, and what it costs them: theirs, and nobody else's."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from config.settings import Config
from db import Database, database_url
from tables import team_members
from tests.sandbox.conftest import Running
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, user_id_of, wait_for

MODEL = "openai/gpt-4o-mini"


@pytest.fixture(scope="module")
def gateway_settings(stand_in: Running) -> dict[str, Any]:
    """It can call."""
    return {"OPENROUTER_API_KEYS": stand_in.new_key()["key"]}


class Team:
    """A team with a manager and a member, and somebody of none."""

    def __init__(self, gateway: Gateway, **fields: Any) -> None:
        self.gateway = gateway
        self.manager, self.member, self.other = (gateway.new_user() for _ in range(3))
        body = {"name": f"team-{secrets.token_hex(4)}"} | fields
        self.id = shown(gateway.ask("POST", "/admin/teams", body, ADMIN_TOKEN), 201)["id"]
        self.add(self.manager, "manager")
        self.add(self.member)

    def operate(self, method: str, path: str, body: Any = None) -> Any:
        return self.gateway.ask(method, f"/admin/teams/{self.id}{path}", body, ADMIN_TOKEN)

    def add(self, token: str, role: str = "member") -> None:
        shown(self.operate("POST", "/members", {"user_id": user_id_of(token), "role": role}), 201)

    def seen_by(self, token: str) -> dict[str, Any]:
        return shown(self.gateway.get("/api/team", token))


@pytest.fixture
def team(administered: Gateway) -> Team:
    return Team(administered, quota={"limit_usd": 5}, models=["openai/*"])


def test_members_see_their_team_and_managers_what_each_spends(administered, team):
    seen = team.seen_by(team.member)
    assert (seen["id"], seen["role"], seen["models"], seen["upstreams"]) == (team.id, "member", ["openai/*"], None)
    assert (seen["quota"]["limit_usd"], seen["people"]) == (5, None)
    assert administered.chat(team.member, MODEL).status_code == 200

    def spent() -> dict[int, float]:
        return {one["user_id"]: one["spent_usd"] for one in team.seen_by(team.manager)["people"]}

    wait_for(lambda: spent()[user_id_of(team.member)])
    assert spent()[user_id_of(team.manager)] == 0
    assert set(spent()) == {user_id_of(team.manager), user_id_of(team.member)}
    of_operators = shown(team.operate("GET", ""))["people"]
    assert {one["user_id"]: one["spent_usd"] for one in of_operators} == spent()
    refused = administered.get("/api/team", team.other)
    assert (refused.status_code, refusal_of(refused)) == (404, "You are in no team")


def test_the_teams_quota_and_lists_hold_for_its_members_alone(administered, team):
    shown(administered.ask("PUT", f"/admin/quotas/team/{team.id}", {"limit_usd": 0}, ADMIN_TOKEN))
    for token, expected in ((team.member, 402), (team.other, 200)):
        wait_for(lambda token=token, expected=expected: administered.chat(token, MODEL).status_code == expected)
    refused = administered.chat(team.member, "anthropic/claude-3.5-haiku")
    assert (refused.status_code, "Your team may not use" in refused.text) == (403, True)


def test_members_see_the_teams_quota_beside_their_own(administered, team):
    for token, limit in ((team.member, 5), (team.other, None)):
        quota = shown(administered.get("/api/quota", token))["team"]
        assert (quota and quota["limit_usd"]) == limit
        budgets = shown(administered.get("/api/v1/key", token))["data"]["budgets"]
        assert [one["limit_usd"] for one in budgets if one["scope"] == "workspace"] == ([limit] if limit else [])
    key = shown(administered.post("/api/api-keys", {"name": "k"}, team.member), 201)["key"]
    assert shown(administered.get("/api/quota", key))["team"] is None
    budgets = shown(administered.get("/api/v1/key", key))["data"]["budgets"]
    assert "workspace" in [one["scope"] for one in budgets]


def test_a_key_of_the_team_ends_when_its_maker_leaves_and_their_own_does_not(administered, team):
    def make(token: str, **fields: Any) -> dict[str, Any]:
        return shown(administered.post("/api/api-keys", {"name": "k"} | fields, token), 201)

    of_team, own, colleagues = make(team.member, team=True), make(team.member), make(team.manager, team=True)
    assert [key["team_id"] for key in (of_team, own, colleagues)] == [team.id, None, team.id]
    assert administered.chat(of_team["key"], MODEL).status_code == 200
    shown(team.operate("DELETE", f"/members/{user_id_of(team.member)}"))
    for key, expected in ((of_team, 401), (own, 200), (colleagues, 200)):
        assert administered.chat(key["key"], MODEL).status_code == expected
    assert administered.get("/api/team", team.member).status_code == 404


def test_who_is_in_no_team_makes_no_key_of_one(administered, team):
    refused = administered.post("/api/api-keys", {"name": "k", "team": True}, team.other)
    assert (refused.status_code, "no team" in refusal_of(refused)) == (409, True)
    refused = administered.post("/admin/keys", {"name": "k", "team": True}, ADMIN_TOKEN)
    assert refused.status_code == 409
    body = {"name": "k", "team": True, "user_id": user_id_of(team.member)}
    assert shown(administered.post("/admin/keys", body, ADMIN_TOKEN), 201)["team_id"] == team.id
    assert shown(administered.get("/api/api-keys", team.other))["total"] == 0


def test_who_has_just_left_makes_no_key_of_the_team_where_nobody_knows_it_yet(administered, team):
    def make(token: str, **fields: Any) -> int:
        return administered.ask("POST", "/api/api-keys", {"name": "k"} | fields, token).status_code

    assert make(team.member, team=True) == 201
    db = Database(database_url(Config(database_url=administered.settings["DATABASE_URL"])))
    left = team_members.c.user_id == user_id_of(team.member)
    db.transact(lambda tx: tx.execute(team_members.delete().where(left)))  # without the word that others wait for
    db.close()
    assert team.seen_by(team.manager)["role"] == "manager"
    assert make(team.member, team=True) == 404
    assert [make(team.member), make(team.manager, team=True)] == [201, 201]
