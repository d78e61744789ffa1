"""Whose a quota is: users and teams that there are, and client keys; nothing else."""

from __future__ import annotations

import pytest

from accounts.client_keys import ClientKeys
from accounts.teams import Teams
from accounts.users import Users
from billing.quotas.budgets import end_members_quota
from billing.quotas.subjects import check_subject, column_of, known_subject, subjects_of, user_of
from db import Database
from foundation.errors import BadRequest, NotFound
from tests.support.movable_clock import MovableClock
from tests.support.rows import each_row


@each_row("subject", ["", "user", "user/", "user/0", "user/01", "user/-1", "group/1", "user/1 ", "USER/1", "user/1\n"])
def test_what_is_no_subject_is_refused(subject):
    with pytest.raises(BadRequest, match="user/<id>"):
        check_subject(subject)


def test_a_subject_of_a_user_names_that_user_and_one_of_a_key_nobody():
    assert (user_of("user/17"), user_of("key/17")) == (17, None)


def test_a_call_must_fit_all_that_it_is_charged_to():
    assert subjects_of(1, None, 0) == ["user/1"]
    assert subjects_of(1, 7, 3) == ["user/1", "key/7", "team/3"]
    assert subjects_of(1, 7, 3, user_pays=True) == ["key/7"]
    assert [column_of(each) for each in subjects_of(1, 7, 3)] == ["user_quota_id", "key_quota_id", "team_quota_id"]


def test_users_and_teams_that_there_are_not_are_refused_and_a_key_is_taken_at_its_word(
    db: Database, clock: MovableClock
):
    users = Users(db, b"k" * 32, clock)
    teams = Teams(db, clock, ClientKeys(db, clock, 5), lambda: None, end_members_quota)
    user_id, team_id = users.create("ann", "hash"), teams.create({"name": "one"}).id
    for subject in (f"user/{user_id}", f"team/{team_id}", "key/1"):
        assert known_subject(users, teams, subject) == subject
    with pytest.raises(NotFound, match=f"no user {user_id + 1}$"):
        known_subject(users, teams, f"user/{user_id + 1}")
    with pytest.raises(NotFound, match=f"no team {team_id + 1}$"):
        known_subject(users, teams, f"team/{team_id + 1}")
