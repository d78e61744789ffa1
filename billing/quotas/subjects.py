"""Whose a quota is: `user/<id>` or `key/<client key id>`."""

from __future__ import annotations

import re

from accounts.users import Users
from foundation.errors import BadRequest, NotFound

SUBJECT = re.compile(r"(user|key)/[1-9][0-9]{0,17}")


def check_subject(subject: str) -> str:
    """The subject, if it is one. Raises BadRequest."""
    if not SUBJECT.fullmatch(subject):
        raise BadRequest("A quota belongs to user/<id> or key/<id>, where id is a whole number from 1 on")
    return subject


def known_subject(users: Users, subject: str) -> str:
    """The subject, if it is one, and no user that there is not. Raises BadRequest, NotFound."""
    user_id = user_of(check_subject(subject))
    if user_id is not None and users.find_by_id(user_id) is None:
        raise NotFound(f"There is no user {user_id}")
    return subject


def user_of(subject: str) -> int | None:
    """The id of the user whose quota it is; None for that of a client key."""
    kind, _, number = subject.partition("/")
    return int(number) if kind == "user" else None
