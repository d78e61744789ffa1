"""Teams: who is in one, what ends with a membership, and that nothing reaches beyond the team."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from accounts.client_keys import ClientKeys
from accounts.teams import TeamRole, Teams
from accounts.users import Users
from billing.quotas.budgets import end_members_quota
from billing.quotas.rows import Quotas, put
from billing.quotas.terms import QuotaTerms
from config.settings import Config
from db import Database
from foundation.errors import BadRequest, Conflict, Forbidden, NotFound
from tables import client_keys
from tests.support.movable_clock import MovableClock
from tests.support.rows import each_row

TERMS = QuotaTerms(50, None, "month", "reset")


class House:
    """Two teams, and people of each and of none."""

    def __init__(self, db: Database, clock: MovableClock) -> None:
        self.db, self.known = db, 0
        users = Users(db, b"k" * 32, clock)
        names = ("manager", "member", "other", "nobody")
        self.manager, self.member, self.other, self.nobody = (users.create(name, "h") for name in names)
        self.keys = ClientKeys(db, clock, 50)
        self.quotas = Quotas(db, clock, Config(quota_usd=5))
        self.teams = Teams(db, clock, self.keys, self._know, end_members_quota)
        self.one, self.two = (self.teams.create({"name": name}).id for name in ("one", "two"))
        self.teams.add(self.one, self.manager, TeamRole.MANAGER)
        self.teams.add(self.one, self.member)
        self.teams.add(self.two, self.other)

    def _know(self) -> None:
        self.known += 1

    def key(self, user_id: int, team_id: int | None) -> str:
        return self.keys.create(user_id, {"name": "k", "team_id": team_id})[1]

    def members(self, team_id: int) -> list[int]:
        return [member.user_id for member in self.teams.members(team_id)]

    def teams_in_memory(self) -> dict[int, int]:
        return {user_id: team.id for user_id, team in self.teams.of_user.items()}


@pytest.fixture
def house(db: Database, clock: MovableClock) -> House:
    return House(db, clock)


@pytest.mark.mysql
def test_who_is_in_which_team_is_known_here_at_once_with_its_quota(house):
    assert house.teams_in_memory() == {house.manager: house.one, house.member: house.one, house.other: house.two}
    assert house.known == 5  # before each of the five was in force
    assert house.teams.member(house.manager).role is TeamRole.MANAGER
    assert house.teams.member(house.nobody) is None
    rows, total = house.teams.page(1, 1)
    assert ([(row.name, row.members, row.quota_subject) for row in rows], total) == (
        [("two", 1, f"team/{house.two}")],
        2,
    )


def test_nobody_is_in_two_teams_and_nobody_joins_what_is_not_there(house):
    for team_id, user_id, match in [
        (house.one, house.member, "this team already"),
        (house.two, house.member, "another team already"),
    ]:
        with pytest.raises(Conflict, match=match):
            house.teams.add(team_id, user_id)
    for team_id, user_id in [(99, house.nobody), (house.one, 99)]:
        with pytest.raises(NotFound):
            house.teams.add(team_id, user_id)
    assert house.members(house.one) == [house.manager, house.member]


@each_row("fields", [{"name": ""}, {"name": "a\nb"}, {"name": "a" * 101}, {"name": "x", "models": []}])
def test_what_is_wrong_with_a_team_is_refused(house, fields: dict[str, Any]):
    with pytest.raises(BadRequest):
        house.teams.create(fields)
    with pytest.raises(BadRequest):
        house.teams.change(house.one, fields)
    assert house.teams.get(house.one).name == "one"


def test_two_teams_have_two_names(house):
    with pytest.raises(Conflict, match="named two already"):
        house.teams.change(house.one, {"name": "two"})
    with pytest.raises(Conflict):
        house.teams.create({"name": "one"})
    assert house.teams.change(house.one, {"name": "one", "models": ["a/*"]}).models == ("a/*",)
    assert house.teams.of_user[house.member].models == ("a/*",)
    assert house.teams.of_user[house.other].models is None


@pytest.mark.mysql
def test_who_leaves_loses_the_teams_keys_and_what_its_manager_has_given_and_nobody_else_does(house):
    team_key, own_key = house.key(house.member, house.one), house.key(house.member, None)
    colleagues = house.key(house.manager, house.one)
    for user_id, team_id in [(house.member, house.one), (house.manager, house.one), (house.other, None)]:
        house.db.transact(lambda tx, u=user_id, t=team_id: put(tx, f"user/{u}", TERMS, t))
    house.teams.remove(house.one, house.member)
    assert house.keys.live.find(team_key) is None
    assert house.keys.live.find(own_key)
    assert house.keys.live.find(colleagues)
    assert house.member not in house.teams.of_user
    assert house.quotas.find(f"user/{house.member}").is_default
    assert [house.quotas.find(f"user/{each}").terms for each in (house.manager, house.other)] == [TERMS, TERMS]
    house.teams.add(house.two, house.member)  # and may join another


def test_a_quota_that_operators_have_set_stays_with_who_leaves(house):
    house.db.transact(lambda tx: put(tx, f"user/{house.member}", TERMS, house.one))
    house.quotas.set(f"user/{house.member}", 50, None, "month", "reset")
    house.teams.remove(house.one, house.member)
    assert house.quotas.find(f"user/{house.member}").terms == TERMS


def test_a_teams_key_is_refused_where_its_maker_is_known_to_have_left_whatever_is_known_of_the_key(house):
    house.teams.check_key(house.one, house.member)
    for team_id, user_id in [(house.two, house.member), (house.one, house.nobody)]:
        with pytest.raises(Forbidden, match="not in that team any more"):
            house.teams.check_key(team_id, user_id)


def test_one_team_does_not_reach_into_another(house):
    for act in (house.teams.remove, lambda *who: house.teams.set_role(*who, TeamRole.MANAGER)):
        with pytest.raises(NotFound, match="not in this team"):
            act(house.one, house.other)
    assert house.teams.member(house.other).role is TeamRole.MEMBER


def test_a_manager_is_made_and_a_member_again(house):
    assert house.teams.set_role(house.one, house.member, TeamRole.MANAGER).role is TeamRole.MANAGER
    assert house.teams.set_role(house.one, house.member, TeamRole.MEMBER).role is TeamRole.MEMBER


@pytest.mark.mysql
def test_a_team_that_is_deleted_lets_all_go_and_its_name_is_free(house):
    team_key, others_key = house.key(house.member, house.one), house.key(house.other, house.two)
    assert house.teams.delete(house.one).members == 2
    assert house.teams_in_memory() == {house.other: house.two}
    assert (house.keys.live.find(team_key), bool(house.keys.live.find(others_key))) == (None, True)
    for ask in (house.teams.get, house.teams.members, house.teams.delete):
        with pytest.raises(NotFound, match=f"no team {house.one}"):
            ask(house.one)
    with house.db.reading() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(client_keys)) == 2  # the ledger counts by them
    assert house.teams.create({"name": "one"}).id > house.two
