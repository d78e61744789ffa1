"""Sessions in memory: whose they are, what is asked of the database, and how often at most."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import jwt
import pytest
import sqlalchemy as sa

from accounts import known_sessions as module
from accounts.known_sessions import UNKNOWN_PER_WINDOW, KnownSessions
from accounts.sessions import UserSessions
from accounts.users import Users
from auth import AUDIENCE, ISSUER, SigningKeys
from db import Database
from foundation.crypto import new_id
from foundation.errors import Busy, TooManyRequests, Unauthorized
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import user_id_of
from tests.support.scripted_upstream import ScriptedUpstream, json_answer

LIFE, REFRESHED = timedelta(hours=24), timedelta(days=7)
HOME, ELSEWHERE = "192.0.2.1", "192.0.2.2"
WHOLE = (
    b'{"id":"gen-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}],"usage":{"cost":0.000007}}'
)


class Asked:
    """A database that counts what it is asked."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.count = 0

    def reading(self):
        self.count += 1
        return self._db.reading()


@pytest.fixture
def sessions(db, clock) -> UserSessions:
    return UserSessions(db, clock, LIFE, REFRESHED, b"r" * 32)


@pytest.fixture
def asked(db) -> Asked:
    return Asked(db)


@pytest.fixture
def elsewhere(asked, clock) -> KnownSessions:
    """Another process's memory of the same sessions."""
    return KnownSessions(asked, clock, LIFE, REFRESHED)


@pytest.fixture
def user_id(db, clock) -> int:
    return Users(db, b"k" * 32, clock).create("owner@example.com", "hash")


def test_a_session_that_begins_here_is_known_at_once_and_is_its_users_alone(sessions, user_id):
    session = sessions.start(user_id)
    sessions.known._db = None  # nothing is asked
    sessions.known.check(session.id, user_id, HOME)
    with pytest.raises(Unauthorized, match="not known"):
        sessions.known.check(session.id, user_id + 1, HOME)


def test_those_that_there_are_are_read_at_the_first_look_and_then_never_asked_for(
    sessions, user_id, elsewhere, asked, clock
):
    held = [sessions.start(user_id) for _ in range(3)]
    clock.advance(hours=23)
    elsewhere.reload()
    elsewhere.reload()
    before = asked.count
    for session in held:
        elsewhere.check(session.id, user_id, HOME)
    assert asked.count == before


def test_one_that_begins_elsewhere_counts_at_once_and_is_asked_for_once(sessions, user_id, elsewhere, asked):
    elsewhere.reload()
    session, before = sessions.start(user_id), asked.count
    for _ in range(3):
        elsewhere.check(session.id, user_id, HOME)
    assert asked.count == before + 1


def test_one_that_has_ended_elsewhere_is_not_learned_any_more(sessions, user_id, elsewhere):
    session, known = sessions.start(user_id), sessions.start(user_id)
    elsewhere.check(known.id, user_id, HOME)
    for one in (session, known):
        sessions.end(one.id)
    with pytest.raises(Unauthorized, match="has ended"):
        elsewhere.check(session.id, user_id, HOME)
    elsewhere.reload()
    for one in (session, known):
        with pytest.raises(Unauthorized, match="has ended"):
            elsewhere.check(one.id, user_id, HOME)


def test_unknown_ones_are_asked_for_once_and_few_for_one_address_and_nobody_else_waits(
    sessions, user_id, elsewhere, asked, clock
):
    first = new_id()
    for _ in range(5):
        with pytest.raises(Unauthorized, match="not known"):
            elsewhere.check(first, user_id, HOME)
    assert asked.count == 1
    for _ in range(UNKNOWN_PER_WINDOW - 1):
        with pytest.raises(Unauthorized, match="not known"):
            elsewhere.check(new_id(), user_id, HOME)
    for _ in range(50):
        with pytest.raises(TooManyRequests):
            elsewhere.check(new_id(), user_id, HOME)
    assert asked.count == UNKNOWN_PER_WINDOW
    session = sessions.start(user_id)
    elsewhere.check(session.id, user_id, ELSEWHERE)
    elsewhere.check(session.id, user_id, HOME)  # what is known is never asked for
    clock.advance(seconds=module.WINDOW_SECONDS)
    elsewhere.check(sessions.start(user_id).id, user_id, HOME)


def test_any_number_of_true_sessions_of_one_address_is_learned(sessions, user_id, elsewhere):
    for _ in range(UNKNOWN_PER_WINDOW * 3):
        elsewhere.check(sessions.start(user_id).id, user_id, HOME)


def test_many_at_once_ask_no_more_than_one_by_one(user_id, elsewhere, asked):
    def show(_: int) -> None:
        with pytest.raises((Unauthorized, TooManyRequests)):
            elsewhere.check(new_id(), user_id, HOME)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(show, range(200)))
    assert asked.count <= UNKNOWN_PER_WINDOW


def test_memory_is_bounded(sessions, user_id, elsewhere, monkeypatch):
    monkeypatch.setattr(module, "KNOWN_SESSIONS", 3)
    for _ in range(5):
        elsewhere.check(sessions.start(user_id).id, user_id, HOME)
    assert len(elsewhere._users) == 3


def test_with_the_database_away_what_is_known_counts_and_nothing_else(tmp_path, clock):
    nowhere = Database(sa.URL.create("sqlite", database=f"{tmp_path}/nowhere/x.db"))
    known = KnownSessions(nowhere, clock, LIFE, REFRESHED)
    known.note("a" * 32, 7)
    known.check("a" * 32, 7, HOME)
    for _ in range(UNKNOWN_PER_WINDOW * 2):  # no answer is no evidence against whoever asks
        with pytest.raises(Busy):
            known.check("b" * 32, 7, HOME)


def signed(user_id: int, session_id: str, use: str = "access") -> str:
    """What only somebody with the deployment's own key can make."""
    keys, now = SigningKeys([SECRET_KEY]), int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(user_id), "sid": session_id, "jti": new_id()}
    claims |= {"iat": now, "exp": now + 3600, "token_use": use}
    return jwt.encode(claims, keys.newest, "HS256", {"kid": keys.newest_id})


def test_well_signed_tokens_of_no_account_or_session_open_nothing_and_a_new_session_does_so_everywhere_at_once(
    start, tmp_path
):
    upstream = ScriptedUpstream()
    upstream.play("m", json_answer("200 OK", WHOLE))
    shared = {"OPENROUTER_API_URL": upstream.url, "OPENROUTER_API_KEYS": f"sk-or-v1-{'a' * 64}"}
    shared |= {"DATABASE_URL": f"sqlite:///{tmp_path}/shared.db", "SECRET_KEY": SECRET_KEY}
    shared |= {"ENCRYPTION_KEY": ENCRYPTION_KEY}
    here = start(**shared)
    there = start(**shared)
    try:
        token = here.new_user()
        session_id = jwt.decode(token, options={"verify_signature": False})["sid"]
        assert there.chat(token, "m").status_code == 200  # begun a moment ago, at another replica
        before = len(upstream.received)
        owner = user_id_of(token)
        for forged in (signed(999_999, new_id()), signed(owner, new_id()), signed(owner + 1, session_id)):
            assert here.chat(forged, "m").status_code == 401
            assert there.chat(forged, "m").status_code == 401
            assert here.get("/api/auth/me", forged).status_code == 401
        assert len(upstream.received) == before
        for _ in range(UNKNOWN_PER_WINDOW):
            assert here.chat(signed(owner, new_id()), "m").status_code in {401, 429}
        assert here.chat(token, "m").status_code == 200
        assert there.chat(here.new_user(), "m").status_code == 200
    finally:
        upstream.close()
