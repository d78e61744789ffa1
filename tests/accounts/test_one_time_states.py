"""States of log-ins: for one return, of one browser, to one provider, within ten minutes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from accounts.one_time_states import OneTimeState, OneTimeStates, SessionOver
from db import Database
from foundation.clock import Clock
from foundation.crypto import Envelopes
from foundation.errors import BadRequest
from tables import oauth_states as table
from tables import user_sessions, users
from tests.support.movable_clock import MovableClock
from tests.support.usage_rows import NOON

NOTED = OneTimeState({"verifier": "v" * 43, "nonce": "n"}, 7, "s" * 32, "/keys?page=2")
BROWSER = "the cookie of this browser"


@pytest.fixture
def states(db: Database, envelopes: Envelopes, clock: MovableClock) -> OneTimeStates:
    """The states, and the session in which NOTED was begun."""
    user = {"id": 7, "username_hash": "u", "key_hash": "k", "state": "active"}
    session = {"id": NOTED.session_id, "user_id": 7, "refreshed_at": clock.now(), "expires_at": clock.now()}
    made = {"created_at": clock.now()}
    db.transact(lambda tx: tx.execute(users.insert(), user | made | {"updated_at": clock.now()}))
    db.transact(lambda tx: tx.execute(user_sessions.insert(), session | made))
    return OneTimeStates(db, envelopes, clock)


def rows(db: Database) -> list[dict[str, object]]:
    with db.reading() as tx:
        return [row._asdict() for row in tx.execute(sa.select(table))]


def test_what_was_noted_comes_back_once(db, states):
    state = states.begin("github", BROWSER, NOTED)
    assert len(state) == 43
    assert states.consume("github", BROWSER, state) == NOTED
    assert rows(db) == []
    with pytest.raises(BadRequest, match="begin again"):
        states.consume("github", BROWSER, state)


def test_nothing_is_stored_that_ends_a_log_in(db, states):
    state = states.begin("github", BROWSER, NOTED)
    stored = str(rows(db))
    assert not any(text in stored for text in (state, BROWSER, NOTED.secrets["verifier"]))


@pytest.mark.parametrize(
    ("provider", "browser", "state"),
    [("linuxdo", BROWSER, None), ("github", "another browser", None), ("github", BROWSER, "x" * 43)],
)
def test_another_provider_browser_or_state_is_refused(states, provider, browser, state):
    begun = states.begin("github", BROWSER, NOTED)
    with pytest.raises(BadRequest, match="not begun here"):
        states.consume(provider, browser, state or begun)


def test_a_state_tells_its_provider_without_being_used_up(states):
    state = states.begin("github", BROWSER, NOTED)
    assert states.provider_of(state) == "github"
    assert states.consume("github", BROWSER, state) == NOTED
    with pytest.raises(BadRequest, match="not begun here"):
        states.provider_of(state)


def test_whoever_shows_a_state_in_another_browser_uses_it_up(states):
    state = states.begin("github", BROWSER, NOTED)
    with pytest.raises(BadRequest):
        states.consume("github", "another browser", state)
    with pytest.raises(BadRequest):
        states.consume("github", BROWSER, state)


@pytest.mark.parametrize("state", ["", "x" * 201, None, 7, ["a"], "\x00"])
def test_what_can_not_be_a_state_is_refused(states, state):
    with pytest.raises(BadRequest):
        states.consume("github", BROWSER, state)


def test_after_ten_minutes_it_is_over_and_the_next_one_clears_it_away(db, states, clock):
    early, late = (states.begin("github", BROWSER, replace(NOTED, next_path=path)) for path in ("/1", "/2"))
    clock.advance(minutes=10, microseconds=-1)
    assert states.consume("github", BROWSER, early).next_path == "/1"
    clock.advance(microseconds=1)
    with pytest.raises(BadRequest):
        states.consume("github", BROWSER, late)
    states.begin("github", BROWSER, NOTED)
    clock.advance(minutes=11)
    states.begin("github", BROWSER, NOTED)
    assert len(rows(db)) == 1


@pytest.mark.parametrize("change", [{"ended_at": NOON}, {"user_id": 8}])
def test_what_was_begun_in_a_session_is_over_with_it(states, db, change):
    """However long ago that ended; and it was the user's own."""
    theirs = user_sessions.update().where(user_sessions.c.id == NOTED.session_id).values(change)
    other = {"id": 8, "username_hash": "other", "key_hash": "k", "state": "active"}
    other |= {"created_at": NOON, "updated_at": NOON}
    begun, without = states.begin("github", BROWSER, NOTED), replace(NOTED, user_id=None, session_id=None)
    db.transact(lambda tx: (tx.execute(users.insert(), other), tx.execute(theirs)))
    with pytest.raises(SessionOver) as over:
        states.consume("github", BROWSER, begun)
    assert over.value.next_path == NOTED.next_path
    assert rows(db) == []
    assert states.consume("github", BROWSER, states.begin("github", BROWSER, without)) == without


def test_of_parallel_returns_one_gets_it(states, db, envelopes):
    states = OneTimeStates(db, envelopes, Clock())
    for _ in range(10):
        state = states.begin("github", BROWSER, NOTED)

        def come_back(_: int, state: str = state) -> bool:
            try:
                return states.consume("github", BROWSER, state) == NOTED
            except BadRequest:
                return False

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(come_back, range(8))).count(True) == 1


def test_secrets_of_another_row_do_not_open(db, states):
    one, other = (states.begin("github", BROWSER, NOTED) for _ in range(2))
    first, second = rows(db)
    swap = {first["state_hash"]: second["secrets_encrypted"], second["state_hash"]: first["secrets_encrypted"]}
    for state_hash, sealed in swap.items():
        this = table.c.state_hash == state_hash
        db.transact(
            lambda tx, this=this, sealed=sealed: tx.execute(table.update().where(this).values(secrets_encrypted=sealed))
        )
    for state in (one, other):
        with pytest.raises(BadRequest, match="begin again"):
            states.consume("github", BROWSER, state)
