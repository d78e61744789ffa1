"""Sessions: a refresh token works once, an ended session never again, one person's never for another."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from accounts.sessions import GRACE, EndedBy, Origin, TokenReused, UserSession, UserSessions
from accounts.users import Users
from config.settings import Config
from db import Database, database_url
from foundation.clock import Clock
from foundation.errors import NotFound, Unauthorized
from tables import revisions
from tables import user_sessions as table
from tests.support.gateway import in_processes
from tests.support.movable_clock import MovableClock

ACCESS, REFRESH = timedelta(hours=24), timedelta(days=7)
REFRESH_KEY = b"r" * 32


@pytest.fixture
def sessions(db: Database, clock: MovableClock) -> UserSessions:
    return UserSessions(db, clock, ACCESS, REFRESH, REFRESH_KEY)


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
        assert "log in again" in error.message
        return True
    return False


def test_a_session_lasts_as_long_as_its_refresh_token(db, session, clock, people):
    [row] = rows(db)
    assert (row["id"], row["user_id"], row["ended_at"]) == (session.id, people[0], None)
    assert row["created_at"] == row["refreshed_at"] == clock.now()
    assert row["expires_at"] == clock.now() + REFRESH


def test_nothing_that_is_stored_makes_a_refresh_token(db, session, clock):
    [row] = rows(db)
    mac = session.refresh_token.rpartition(".")[2]
    assert len(mac) == 43
    assert mac not in str(row)
    with_another_key = UserSessions(db, clock, ACCESS, REFRESH, b"x" * 32)
    assert refused(with_another_key, session.refresh_token)
    assert rows(db) == [row]


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


def test_the_token_just_before_gives_the_same_successor_for_ten_seconds(db, sessions, session, clock):
    successor = sessions.refresh(session.refresh_token)
    clock.advance(seconds=10)
    assert sessions.refresh(session.refresh_token) == successor
    assert sessions.refresh(successor.refresh_token).id == session.id
    assert rows(db)[0]["ended_at"] is None


@pytest.mark.parametrize("seconds", [11, 3600 * 24 * 6])
def test_later_the_use_of_an_old_token_ends_the_session(db, sessions, session, people, clock, seconds):
    mine, theirs = sessions.start(people[0]), sessions.start(people[1])
    successor = sessions.refresh(session.refresh_token)
    clock.advance(seconds=seconds)
    with pytest.raises(TokenReused) as reused:
        sessions.refresh(session.refresh_token)
    assert (reused.value.user_id, reused.value.session_id) == (people[0], session.id)
    assert refused(sessions, successor.refresh_token)
    sessions.reload()
    assert sessions.ended == {session.id}
    assert {row["id"]: row["ended_by"] for row in rows(db)} == {session.id: "reuse", mine.id: None, theirs.id: None}


def test_a_token_from_before_the_last_ends_the_session_at_once(sessions, session):
    successor = sessions.refresh(session.refresh_token)
    newest = sessions.refresh(successor.refresh_token)
    with pytest.raises(TokenReused):
        sessions.refresh(session.refresh_token)
    assert refused(sessions, newest.refresh_token)


def test_a_session_ends_after_thirty_days_however_often_it_is_refreshed(sessions, session, clock):
    token = session.refresh_token
    for _ in range(5):
        clock.advance(days=5)
        token = sessions.refresh(token).refresh_token
    clock.advance(days=5, microseconds=-1)
    token = sessions.refresh(token).refresh_token
    clock.advance(microseconds=1)
    assert refused(sessions, token)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=15))
def test_whoever_shows_what_when_there_is_one_line_of_tokens(db, sessions, people, clock, shown):
    """Every answer is the one successor of what was shown; once a token is older than that, nothing is answered."""
    session = sessions.start(people[0])
    line, moved_at, over = [session.refresh_token], clock.now(), False
    for back, seconds in shown:
        clock.advance(seconds=seconds)
        token = line[max(0, len(line) - 1 - back)]
        is_newest, is_former = token == line[-1], token in line[-2:-1]
        allowed = is_newest or (is_former and clock.now() - moved_at <= GRACE)
        try:
            successor = sessions.refresh(token).refresh_token
        except Unauthorized:
            assert over or not allowed
            over = True
            continue
        assert allowed
        assert not over
        if is_newest:
            line.append(successor)
            moved_at = clock.now()
        assert successor == line[-1]


# What one client did: the generations that it showed, and for each that of the answer, 0 for a refusal.
Calls = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Line:
    """A session's tokens as they should be: which generation is the newest, since when, and whether it is all over."""

    newest: int
    moved_at: datetime
    is_over: bool = False

    def exchange(self, generation: int, now: datetime) -> tuple[Line, int]:
        """What somebody who shows a token leaves behind, and the generation that they get; 0 for none."""
        if self.is_over:
            return self, 0
        if generation == self.newest:
            return Line(generation + 1, now), generation + 1
        if generation == self.newest - 1 and now - self.moved_at <= GRACE:
            return self, self.newest
        return replace(self, is_over=True), 0

    def ends(self, clients: list[Calls], now: datetime) -> set[Line]:
        """All that parallel clients may leave behind: the ends of those orders of their calls that explain all answers."""
        left, known = [(self, tuple(sorted(clients)))], set()
        while left:
            line, waiting = state = left.pop()
            if state in known:
                continue
            known.add(state)
            for client in set(waiting):
                [(shown, answered), *later] = client
                after, right = line.exchange(shown, now)
                if right == answered:
                    others = list(waiting)
                    others.remove(client)
                    left.append((after, tuple(sorted([*others, *([tuple(later)] if later else [])]))))
        return {line for line, waiting in known if not waiting}


@pytest.fixture
def processes(db: Database, empty_database_url: str, clock: MovableClock) -> Iterator[list[UserSessions]]:
    """Several gateways' sessions, each with connections of its own."""
    databases = [Database(database_url(Config(database_url=empty_database_url))) for _ in range(3)]
    yield [UserSessions(database, clock, ACCESS, REFRESH, REFRESH_KEY) for database in databases]
    for database in databases:
        database.close()


# Clients that begin in one instant: how far back from the newest is the token that each shows, and how often it goes on
# with what it got. Mostly it is the newest and no more, as with parallel tabs.
CLIENT = st.tuples(st.sampled_from([0, 0, 0, 1, 1, 2, 3]), st.sampled_from([0, 0, 1, 2]))
CLIENTS = st.lists(st.just((0, 0)) | CLIENT, min_size=2, max_size=8) | st.lists(st.just((0, 0)), min_size=2, max_size=8)
RACES = st.lists(st.tuples(st.sampled_from([0, 1, 10, 11]), CLIENTS), min_size=1, max_size=4)


def generation_of(token: str) -> int:
    return int(token.split(".")[1])


def race(processes: list[UserSessions], threads: Executor, begins: list[tuple[str, int]]) -> list[list[str]]:
    """What each client was answered, all together. begins: the token that it shows first, and how often it goes on."""
    together = threading.Barrier(len(begins))

    def client(number: int, token: str, more: int) -> list[str]:
        answers = []
        together.wait()
        for step in range(1 + more):
            try:
                token = processes[(number + step) % len(processes)].refresh(token).refresh_token
            except Unauthorized:
                break
            answers.append(token)
        return answers

    return list(threads.map(client, range(len(begins)), *zip(*begins, strict=True)))


def calls_of(begin: tuple[str, int], answers: list[str]) -> Calls:
    token, more = begin
    shown = [generation_of(text) for text in (token, *answers)][: 1 + more]
    return tuple(zip(shown, [*map(generation_of, answers), 0], strict=False))


@pytest.mark.parametrize("examples", [100, pytest.param(1000, marks=pytest.mark.torture)])
def test_parallel_exchanges_are_as_if_one_came_after_the_other(db, processes, people, clock, examples):
    """Of any token there is one successor, and the line never forks: whoever lags behind ends it for all."""

    # Not shrunk: a race that went wrong once may go well the next time.
    @settings(max_examples=examples, phases=[Phase.generate])
    @given(RACES)
    def holds(races: list[tuple[int, list[tuple[int, int]]]]) -> None:
        session = processes[0].start(people[0])
        texts, line = {1: session.refresh_token}, Line(1, clock.now())
        for seconds, clients in races:
            clock.advance(seconds=seconds)
            begins = [(texts[max(1, line.newest - back)], more) for back, more in clients]
            answers = race(processes, threads, begins)
            for text in itertools.chain(*answers):
                assert texts.setdefault(generation_of(text), text) == text
            with db.reading() as tx:
                row = tx.execute(sa.select(table).where(table.c.id == session.id)).one()
            found = Line(row.generation, row.refreshed_at, row.ended_at is not None)
            calls = list(map(calls_of, begins, answers))
            assert found in line.ends(calls, clock.now()), f"{line} and {calls} make {found}"
            line = found
        if line.is_over:
            assert all(refused(processes[1], text) for text in texts.values())

    with ThreadPoolExecutor(8) as threads:
        holds()


PREPARE = """
import datetime, db; from foundation import clock, errors; from config import settings; from accounts.sessions import UserSessions
database = db.Database(db.database_url(settings.Config(database_url=sys.argv[1])))
week = datetime.timedelta(days=7)
sessions = UserSessions(database, clock.Clock(), week, week, b"r" * 32)
database.is_current()
"""
EXCHANGE = """
for token in sys.argv[2:]:
    try:
        print(token, sessions.refresh(token).refresh_token)
    except errors.Unauthorized:
        pass
"""


def test_exchanges_in_several_processes_make_one_successor(db, people, empty_database_url):
    sessions = UserSessions(db, Clock(), ACCESS, REFRESH, REFRESH_KEY)
    tokens = [sessions.start(people[0]).refresh_token for _ in range(10)]
    printed = "".join(in_processes(3, PREPARE, EXCHANGE, empty_database_url, *tokens)).splitlines()
    assert len(printed) == 30
    assert {line.split()[0] for line in printed} == set(tokens)
    assert len(set(printed)) == 10
    assert {row["generation"] for row in rows(db)} == {2}


def test_a_refresh_token_runs_out_to_the_second(sessions, session, clock):
    clock.advance(days=7, microseconds=-1)
    successor = sessions.refresh(session.refresh_token)
    clock.advance(days=7)
    assert refused(sessions, successor.refresh_token)


def test_a_session_whose_time_has_long_been_over_is_forgotten_and_no_other(db, sessions, session, people, clock):
    sessions.end(session.id)
    clock.advance(days=7 + 30, seconds=-1)
    current = sessions.start(people[1])
    assert {row["id"] for row in rows(db)} == {session.id, current.id}
    clock.advance(seconds=2)
    newest = sessions.start(people[1])
    assert {row["id"] for row in rows(db)} == {current.id, newest.id}


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


def test_another_spelling_of_a_refresh_token_is_refused(db, sessions, session):
    session_id, number, mac = session.refresh_token.split(".")
    for other in ("01", "+1", " 1", "1 ", "1_", "\u0661", ""):
        assert refused(sessions, f"{session_id}.{other}.{mac}")
    for token in (
        f"{session_id}0.{number}.{mac}",
        f"{session_id}.{number}.{mac}=",
        f"{session.refresh_token}\n",
    ):
        assert refused(sessions, token)
    assert rows(db)[0]["generation"] == 1


def test_an_old_token_does_not_make_a_newer_one(sessions, session):
    """Else its thief would get on, and nobody would notice the reuse."""
    newest = sessions.refresh(sessions.refresh(session.refresh_token).refresh_token)
    session_id, _, mac = session.refresh_token.split(".")
    for generation in (2, 3, 4):
        assert refused(sessions, f"{session_id}.{generation}.{mac}")
    assert not refused(sessions, newest.refresh_token)


def test_ending_an_unknown_session_changes_nothing(db, sessions, session):
    sessions.end("f" * 32)
    assert rows(db)[0]["ended_at"] is None


@given(st.data())
def test_no_other_text_refreshes(db, sessions, session, data):
    token = session.refresh_token
    text = st.text(st.characters(codec="ascii"), max_size=80)
    changed = st.builds(lambda at, new: token[:at] + new + token[at + 1 :], st.integers(0, len(token) - 1), text)
    begun = st.builds(lambda at: token[:at], st.integers(0, len(token)))
    garbage = data.draw(text | changed | begun | text.map(lambda more: f"{session.id}.{more}"))
    if garbage != token:
        assert refused(sessions, garbage)
    assert rows(db)[0]["generation"] == 1


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


def test_all_but_one_end_and_that_one_goes_on(sessions, session, people):
    second, other = sessions.start(people[0]), sessions.start(people[1])
    assert sessions.end_all(people[0], EndedBy.LOGOUT_ALL, session.id) == 1
    assert sessions.end_all(people[0], EndedBy.LOGOUT_ALL, session.id) == 0
    sessions.reload()
    assert sessions.ended == {second.id}
    assert [refused(sessions, one.refresh_token) for one in (session, second, other)] == [False, True, False]
    # Somebody else's session spares none of one's own.
    assert sessions.end_all(people[0], EndedBy.LOGOUT_ALL, other.id) == 1


def test_a_session_that_has_run_out_is_not_counted_as_ended(sessions, session, people, clock):
    clock.advance(days=8)
    assert sessions.end_all(people[0]) == 0


def test_the_list_shows_ones_own_open_sessions(sessions, people, clock):
    first = sessions.start(people[0], Origin("key", "192.0.2.1", "x" * 300))
    clock.advance(hours=1)
    second = sessions.start(people[0], Origin("github"))
    sessions.start(people[1])
    ended = sessions.start(people[0])
    sessions.end(ended.id)
    clock.advance(hours=1)
    sessions.refresh(first.refresh_token)
    listed = sessions.open_ones(people[0])
    assert [one.id for one in listed] == [first.id, second.id]
    assert (listed[0].method, listed[0].address, listed[0].user_agent) == ("key", "192.0.2.1", "x" * 200)
    assert listed[0].refreshed_at == clock.now()
    assert sessions.open_ones(people[2]) == []


def test_one_ends_ones_own_sessions_and_nobody_elses(db, sessions, session, people):
    theirs = sessions.start(people[1])
    for not_mine in (theirs.id, "f" * 32, "", "é", "😀", "\0", "x" * 5000):
        with pytest.raises(NotFound):
            sessions.end_own(people[0], not_mine)
    sessions.end_own(people[0], session.id)
    with pytest.raises(NotFound):
        sessions.end_own(people[0], session.id)
    assert {row["id"]: row["ended_by"] for row in rows(db)} == {session.id: EndedBy.LOGOUT, theirs.id: None}
