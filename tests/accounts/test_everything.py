"""Everything ended at once: what was given out for an account, and what is about to be with it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from accounts.api_tokens import ApiTokens
from accounts.client_keys import ClientKeys
from accounts.everything import Ended, Everything
from accounts.sessions import EndedBy, UserSessions, hold
from accounts.users import Users
from db import Database
from foundation.errors import Unauthorized
from tests.support.movable_clock import MovableClock


class Process:
    """What one process of a gateway knows of who is let in."""

    def __init__(self, db: Database, clock: MovableClock) -> None:
        self.users = Users(db, b"k" * 32, clock)
        self.sessions = UserSessions(db, clock, timedelta(minutes=5), timedelta(days=7), b"r" * 32)
        self.keys, self.tokens = ClientKeys(db, clock, 50), ApiTokens(db, clock)
        self.everything = Everything(db, clock, self.sessions, self.keys, self.tokens)

    def lets_in(self, given: tuple[str, str, str]) -> list[bool]:
        session_id, key, token = given
        return [
            session_id not in self.sessions.ended,
            self.keys.live.find(key) is not None,
            self.tokens.live.find(token) is not None,
        ]


@pytest.fixture
def here(db: Database, clock: MovableClock) -> Process:
    return Process(db, clock)


@pytest.fixture
def elsewhere(db: Database, clock: MovableClock) -> Process:
    return Process(db, clock)


def given_out(process: Process, user_id: int) -> tuple[str, str, str]:
    """A session, a client key and an API token."""
    key, token = (process.keys.create(user_id, {"name": "k"})[1], process.tokens.create(user_id, "t", None)[1])
    return process.sessions.start(user_id).id, key, token


def test_sessions_client_keys_and_api_tokens_end_in_every_process_and_nobody_elses(here, elsewhere):
    owner, teammate = here.users.create("owner", "x"), here.users.create("teammate", "x")
    first, second, theirs = given_out(here, owner), given_out(here, owner), given_out(here, teammate)
    elsewhere.everything.reload()
    assert elsewhere.lets_in(first) == elsewhere.lets_in(theirs) == [True] * 3
    assert here.everything.end(owner, EndedBy.EVERYTHING) == Ended(2, 2, 2)
    elsewhere.everything.reload()
    for process in (here, elsewhere):
        assert process.lets_in(first) == process.lets_in(second) == [False] * 3
        assert process.lets_in(theirs) == [True] * 3
    assert here.everything.end(owner, EndedBy.EVERYTHING) == Ended(0, 0, 0)
    assert here.keys.page(1, 10, owner) == ([], 0)


def test_who_was_let_in_a_moment_before_makes_nothing_that_outlives_it(here, elsewhere):
    """In a process that does not know of the end yet, by a request that it has let in."""
    owner, teammate = here.users.create("owner", "x"), here.users.create("teammate", "x")
    session_id, theirs = given_out(here, owner)[0], given_out(here, teammate)[0]
    elsewhere.everything.reload()
    here.everything.end(owner, EndedBy.EVERYTHING)
    assert session_id not in elsewhere.sessions.ended
    with pytest.raises(Unauthorized):
        elsewhere.keys.create(owner, {"name": "k"}, first=lambda tx: hold(tx, session_id, owner))
    with pytest.raises(Unauthorized):
        elsewhere.tokens.create(owner, "t", None, lambda tx: hold(tx, session_id, owner))
    assert here.keys.page(1, 10, owner)[1] == here.tokens.page(owner, 1, 10)[1] == 0
    assert elsewhere.keys.create(teammate, {"name": "k"}, first=lambda tx: hold(tx, theirs, teammate))
