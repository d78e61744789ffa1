"""Whose a quota is: `user/<id>`, `key/<client key id>` or `team/<id>`; and all those that a call must fit."""

from __future__ import annotations

import re
from collections.abc import Mapping

from accounts.teams import Teams
from accounts.users import Users
from foundation.errors import BadRequest, NotFound

# The kinds, each with the column in which the ledger names the quota that a call was held against.
COLUMNS: Mapping[str, str] = {"user": "user_quota_id", "key": "key_quota_id", "team": "team_quota_id"}
SUBJECT = re.compile(rf"({'|'.join(COLUMNS)})/[1-9][0-9]{{0,17}}")


def check_subject(subject: str) -> str:
    """The subject, if it is one. Raises BadRequest."""
    if not SUBJECT.fullmatch(subject):
        raise BadRequest("A quota belongs to user/<id>, key/<id> or team/<id>, where id is a whole number from 1 on")
    return subject


def known_subject(users: Users, teams: Teams, subject: str) -> str:
    """The subject, if it is one, and no user or team that there is not. Raises BadRequest, NotFound."""
    user_id = user_of(check_subject(subject))
    if user_id is not None and users.find_by_id(user_id) is None:
        raise NotFound(f"There is no user {user_id}")
    kind, _, number = subject.partition("/")
    if kind == "team":
        teams.get(int(number))
    return subject


def user_of(subject: str) -> int | None:
    """The id of the user whose quota it is; None for any other."""
    kind, _, number = subject.partition("/")
    return int(number) if kind == "user" else None


def column_of(subject: str) -> str:
    """The ledger's column for a quota of this subject."""
    return COLUMNS[subject.partition("/")[0]]


def subjects_of(user_id: int, client_key_id: int | None, team_id: int, user_pays: bool = False) -> list[str]:
    """Whose quotas a call counts in, all of which it must fit. team_id: 0 for none.

    user_pays: with an account of their own. Quotas of users and teams are of what others pay; what a client key may
    spend, its user has limited: that counts, whoever pays.
    """
    subjects = [] if user_pays else [f"user/{user_id}"]
    if client_key_id is not None:
        subjects.append(f"key/{client_key_id}")
    if team_id and not user_pays:
        subjects.append(f"team/{team_id}")
    return subjects
