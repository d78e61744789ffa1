"""Sessions: a refresh token works once, an ended session never again, one person's never for another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clock import Clock
from crypto import sha256_hex
from db import Database
from errors import Unauthorized
from tables import revisions
from tables import user_sessions as table
from tests.gateway import in_processes
from tests.movable_clock import MovableClock
from user_sessions import UserSession, UserSessions
from users import Users

ACCESS, REFRESH = timedelta(hours=24), timedelta(days=7)


@pytest.fixture
def sessions(db: Database, clock: MovableClock) -> UserSessions:
    return UserSessions(db, clock, ACCESS, REFRESH)


@pytest.fixture
def people(db: Database, clock: MovableClock) -> tuple[int, int, int]:
    """Owner, teammate and stranger."""
    users = Users(db, b"k" * 32, clock)
    return tuple(users.create(name, "hash") for name in ("owner", "teammate", "stranger"))


@pytest.fixture
def session(sessions: UserSessions, people: tuple[int, int, int]) -> UserSession:
    """The owner's session."""
    return sessions.start(people[0])


def rows(db: Database) -> list[dict[str, object]]:
    with db.reading() as tx:
        return [row._asdict() for row in tx.execute(sa.select(table).order_by(table.c.created_at))]


def refused(sessions: UserSessions, token: str) -> bool:
    try:
        sessions.refresh(token)
    except Unauthorized as error:
        assert error.message == "The refresh token is unknown, used, expired or revoked; log in again"
        return True
    return False


def test_a_session_lasts_as_long_as_its_refresh_token(db, session, clock, people):
    [row] = rows(db)
    assert (row["id"], row["user_id"], row["ended_at"]) == (session.id, people[0], None)
    assert row["created_at"] == row["refreshed_at"] == clock.now()
    assert row["expires_at"] == clock.now() + REFRESH


def test_a_refresh_token_is_stored_as_a_hash_only(db, session):
    [row] = rows(db)
    assert row["refresh_hash"] == sha256_hex(session.refresh_token)
    assert session.refresh_token.partition(".")[2] not in str(row)
    assert len(session.refresh_token.partition(".")[2]) == 43


def test_a_refresh_token_is_exchanged_for_its_successor_in_the_same_session(db, sessions, session, clock):
    clock.advance(days=6)
    successor = sessions.refresh(session.refresh_token)
    assert (successor.id, successor.user_id) == (session.id, session.user_id)
    assert successor.refresh_token != session.refresh_token
    [row] = rows(db)
    assert row["refreshed_at"] == clock.now()
    assert row["expires_at"] == clock.now() + REFRESH
    clock.advance(days=6)
    assert sessions.refresh(successor.refresh_token).user_id == session.user_id


def test_a_used_refresh_token_is_refused_and_its_successor_stays_good(sessions, session):
    successor = sessions.refresh(session.refresh_token)
    assert refused(sessions, session.refresh_token)
    assert not refused(sessions, successor.refresh_token)


def test_of_parallel_exchanges_of_one_token_exactly_one_succeeds(db, sessions, session):
    def exchange(_: int) -> str | None:
        try:
            return sessions.refresh(session.refresh_token).refresh_token
        except Unauthorized:
            return None

    with ThreadPoolExecutor(20) as threads:
        successors = [token for token in threads.map(exchange, range(20)) if token]
    assert len(successors) == 1
    assert rows(db)[0]["refresh_hash"] == sha256_hex(successors[0])


PREPARE = """
import clock, config, datetime, db, errors, user_sessions
database = db.Database(db.database_url(config.Config(database_url=sys.argv[1])))
week = datetime.timedelta(days=7)
sessions = user_sessions.UserSessions(database, clock.Clock(), week, week)
database.is_current()
"""
EXCHANGE = """
for token in sys.argv[2:]:
    try:
        sessions.refresh(token)
        print("exchanged", token)
    except errors.Unauthorized:
        pass
"""


def test_of_exchanges_in_several_processes_exactly_one_succeeds(db, people, empty_database_url):
    sessions = UserSessions(db, Clock(), ACCESS, REFRESH)
    tokens = [sessions.start(people[0]).refresh_token for _ in range(10)]
    printed = "".join(in_processes(3, PREPARE, EXCHANGE, empty_database_url, *tokens))
    assert sorted(printed.splitlines()) == sorted(f"exchanged {token}" for token in tokens)


def test_a_refresh_token_runs_out_to_the_second(sessions, session, clock):
    clock.advance(days=7, microseconds=-1)
    successor = sessions.refresh(session.refresh_token)
    clock.advance(days=7)
    assert refused(sessions, successor.refresh_token)


def test_an_ended_session_is_refused_and_stays_ended_when_it_ended(db, sessions, session, clock):
    ended_at = clock.now()
    sessions.end(session.id)
    clock.advance(hours=1)
    sessions.end(session.id)
    assert refused(sessions, session.refresh_token)
    assert rows(db)[0]["ended_at"] == ended_at


def test_ending_one_session_leaves_those_of_others_and_ones_own_alone(sessions, session, people):
    same_person, teammates = sessions.start(people[0]), sessions.start(people[1])
    sessions.end(session.id)
    sessions.reload()
    assert sessions.ended == {session.id}
    assert not refused(sessions, same_person.refresh_token)
    assert not refused(sessions, teammates.refresh_token)


def test_one_persons_secret_does_not_refresh_anothers_session(sessions, session, people):
    strangers = sessions.start(people[2])
    stolen = f"{session.id}.{strangers.refresh_token.partition('.')[2]}"
    assert refused(sessions, stolen)
    assert sessions.refresh(strangers.refresh_token).user_id == people[2]
    assert sessions.refresh(session.refresh_token).user_id == people[0]


def test_ending_an_unknown_session_changes_nothing(db, sessions, session):
    sessions.end("f" * 32)
    assert rows(db)[0]["ended_at"] is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_other_text_refreshes(db, sessions, session, data):
    token = session.refresh_token
    text = st.text(st.characters(codec="ascii"), max_size=80)
    changed = st.builds(lambda at, new: token[:at] + new + token[at + 1 :], st.integers(0, len(token) - 1), text)
    begun = st.builds(lambda at: token[:at], st.integers(0, len(token)))
    garbage = data.draw(text | changed | begun | text.map(lambda more: f"{session.id}.{more}"))
    if garbage != token:
        assert refused(sessions, garbage)
    assert rows(db)[0]["refresh_hash"] == sha256_hex(token)


def test_memory_holds_ended_sessions_while_their_access_tokens_may_run(sessions, session, people, clock):
    sessions.reload()
    assert sessions.ended == frozenset()
    sessions.end(session.id)
    sessions.reload()
    assert sessions.ended == {session.id}
    clock.advance(hours=24, seconds=-1)
    sessions.reload()
    assert sessions.ended == {session.id}
    clock.advance(hours=1)
    sessions.reload()
    assert sessions.ended == frozenset()


def test_an_end_tells_every_process_and_a_refresh_none(db, sessions, session):
    def revision() -> int:
        with db.reading() as tx:
            return tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "user_sessions"))

    before = revision()
    successor = sessions.refresh(session.refresh_token)
    assert revision() == before
    sessions.end(successor.id)
    assert revision() == before + 1


def test_all_open_sessions_of_one_user_end_at_once_and_no_others(db, sessions, session, people, clock):
    second, other = sessions.start(people[0]), sessions.start(people[1])
    sessions.end(second.id)
    third = sessions.start(people[0])
    clock.advance(seconds=1)
    assert sessions.end_all(people[0]) == 2
    assert sessions.end_all(people[0]) == sessions.end_all(people[2]) == 0
    sessions.reload()
    assert sessions.ended == {session.id, second.id, third.id}
    assert refused(sessions, session.refresh_token)
    assert refused(sessions, third.refresh_token)
    assert not refused(sessions, other.refresh_token)


def test_a_session_that_has_run_out_is_not_counted_as_ended(sessions, session, people, clock):
    clock.advance(days=8)
    assert sessions.end_all(people[0]) == 0
