"""Users' own keys in memory: whose calls they carry, what happens when they can't, and what it costs to hold them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from accounts.users import UpstreamChoice
from api_key_manager import REPORTED_AT_REST, ApiKeyManager
from db import Database, DatabaseError
from foundation.crypto import Envelopes
from foundation.errors import AppError, Busy, PaymentRequired, TooManyRequests
from pool import dedicated
from pool.choice import EXPIRY_MARGIN, PoolKey
from pool.keys import PoolKeys
from pool.life import PoolKeySource, PoolKeyState
from tables import pool_keys
from tests.support.movable_clock import MovableClock
from upstream.refusal import Refusal
from upstream.refusals import Other, classify

OWNER, OTHER, WITHOUT = 7, 8, 9
DEDICATED_FIRST, SHARED_FIRST, DEDICATED_ONLY = UpstreamChoice
LIMITED = (429, "Rate limit exceeded", "openrouter_requests_of_a_key")
DEAD = (401, "User not found.")
SPENT = (403, "Key limit exceeded (monthly limit).")
numbers = itertools.count(1)


class Pool(ApiKeyManager):
    """A pool over a database, in which rows can be made and calls be refused."""

    def __init__(self, db: Database, envelopes: Envelopes, clock: MovableClock) -> None:
        self.store, self.db, self.envelopes, self.clock = PoolKeys(db, envelopes, clock), db, envelopes, clock
        super().__init__(self.store, clock, choice_of=lambda _: DEDICATED_FIRST)

    def add(self, owner: int | None = None, account: str | None = None) -> int:
        """One more active key; returns its row's id."""
        number = next(numbers)
        expires_at = self.clock.now() + timedelta(days=9)
        row_id = self.store.intend(f"key {number}", expires_at, 5 * 10**9, None, owner)
        self.store.store(row_id, f"sk-or-v1-{number:064x}")
        self.store.switch(row_id, self.clock.now(), account)
        return row_id

    def picks(self, owner: int | None, choice: UpstreamChoice | None, times: int = 30, **how: object) -> set[int]:
        """The ids of the rows that so many calls get."""
        found = set()
        for _ in range(times):
            key = self.pick(owner=owner, choice=choice, **how)
            found.add(key.id)
            self.release(key)
        return found

    def refuse(self, key: PoolKey, status: int, message: str, limit_source: str = "") -> None:
        """A call is refused, and GET /key says the same."""
        error = {"message": message, "metadata": {"limit_source": limit_source}}
        refusal = Refusal(status, {"error": error})
        self.note_refusal(key, refusal, classify(refusal))
        if status == 401:
            self.verdicts.note_denied(key)
        elif status == 403:
            self.verdicts.note_confirmed(key, 0)

    def call_refused(self, owner: int, *refusal: Any) -> None:
        """A call of this user with their own key is refused."""
        key = self.pick(owner=owner, choice=DEDICATED_ONLY)
        self.refuse(key, *refusal)
        self.release(key)

    def error(self, owner: int, choice: UpstreamChoice = DEDICATED_ONLY) -> AppError:
        with pytest.raises(AppError) as raised:
            self.pick(owner=owner, choice=choice)
        return raised.value


@pytest.fixture
def pool(db: Database, envelopes: Envelopes, clock: MovableClock) -> Pool:
    return Pool(db, envelopes, clock)


@pytest.fixture
def queries(db: Database) -> Callable[[], int]:
    """How many statements the database has got since last asked."""
    count = [0]

    @sa.event.listens_for(db._engine, "before_cursor_execute")
    def executed(*_: object) -> None:
        count[0] += 1

    def take() -> int:
        taken, count[0] = count[0], 0
        return taken

    return take


def everybodys(pool: Pool) -> tuple[set[int], int, int]:
    """Two shared keys, and one of its own for each of two users."""
    made = {pool.add(), pool.add()}, pool.add(OWNER), pool.add(OTHER)
    pool.reload()
    return made


# ── whose calls a key carries


def test_each_of_three_people_gets_what_they_have_chosen(pool):
    shared, owners, others = everybodys(pool)
    assert pool.picks(OWNER, DEDICATED_FIRST) == pool.picks(OWNER, DEDICATED_ONLY) == {owners}
    assert pool.picks(OTHER, DEDICATED_FIRST) == pool.picks(OTHER, DEDICATED_ONLY) == {others}
    for user_id in (OWNER, OTHER, WITHOUT):
        assert pool.picks(user_id, SHARED_FIRST) == shared
    assert pool.picks(WITHOUT, DEDICATED_FIRST) == shared
    error = pool.error(WITHOUT)
    assert (type(error), error.headers["Retry-After"]) == (Busy, "30")
    assert "is being made" in error.message


def test_where_users_have_no_keys_of_their_own_all_calls_get_shared_ones(pool):
    shared, *_ = everybodys(pool)
    assert pool.picks(OWNER, None) == pool.picks(None, DEDICATED_ONLY) == pool.picks(None, None) == shared
    assert ApiKeyManager(pool.store, pool.clock).choice_of(OWNER) is None
    assert pool.choice_of(OWNER) is DEDICATED_FIRST


def test_shared_numbers_and_sticky_texts_know_shared_keys_only(pool):
    shared, *_ = everybodys(pool)
    assert pool.picks(OWNER, DEDICATED_FIRST)
    assert pool.usable_count() == pool.known_count() == 2
    assert {row.id for row in pool.store.in_use()} == shared
    stuck = set().union(*(pool.picks(WITHOUT, DEDICATED_FIRST, 1, sticky=f"user {n}") for n in range(50)))
    assert stuck == shared


@pytest.mark.parametrize("refusal", [LIMITED, DEAD, SPENT], ids=["limited", "refused", "spent"])
def test_a_key_that_rests_lets_shared_ones_step_in_unless_its_user_wants_none(pool, refusal):
    shared, _, others = everybodys(pool)
    pool.call_refused(OWNER, *refusal)
    assert pool.picks(OWNER, DEDICATED_FIRST) == pool.picks(OWNER, SHARED_FIRST) == shared
    error = pool.error(OWNER)
    if refusal is SPENT:
        assert (type(error), error.message) == (PaymentRequired, dedicated.own_key_is_spent().message)
    else:
        assert isinstance(error, TooManyRequests)
        assert "Your own OpenRouter key is resting" in error.message
        assert error.headers["Retry-After"] == "5"
    assert pool.picks(OTHER, DEDICATED_ONLY) == {others}


def test_a_users_own_key_steps_in_for_shared_ones_where_they_come_first(pool):
    shared, owners, _ = everybodys(pool)
    for _ in shared:
        key = pool.pick()
        pool.refuse(key, *LIMITED)
        pool.release(key)
    assert pool.picks(OWNER, SHARED_FIRST) == {owners}
    told = pool.error(WITHOUT, SHARED_FIRST)
    assert "Every OpenRouter key is resting" in told.message
    assert told.message == pool.error(WITHOUT, DEDICATED_FIRST).message


def test_a_resting_key_comes_back_by_itself(pool, clock):
    _, owners, _ = everybodys(pool)
    pool.call_refused(OWNER, *LIMITED)
    clock.advance(seconds=5)
    trying = pool.pick(owner=OWNER, choice=DEDICATED_ONLY)
    assert trying.owner_id == OWNER
    assert isinstance(pool.error(OWNER), TooManyRequests)  # one call at a time tries
    pool.note_success(trying)
    pool.release(trying)
    assert pool.picks(OWNER, DEDICATED_ONLY) == {owners}


def test_a_key_that_was_tried_or_is_of_a_tried_account_is_not_picked_again(pool):
    shared, owners, _ = everybodys(pool)
    own = pool.pick(owner=OWNER, choice=DEDICATED_FIRST)
    pool.release(own)
    assert own.id == owners
    assert pool.picks(OWNER, DEDICATED_FIRST, tried=[own]) == shared
    with pytest.raises(AppError):
        pool.pick([own], owner=OWNER, choice=DEDICATED_ONLY)
    with pytest.raises(AppError):
        pool.pick([own], Other.ACCOUNT, owner=OWNER, choice=DEDICATED_ONLY)


def test_a_key_carries_no_more_calls_than_it_may(db, envelopes, clock):
    pool = Pool(db, envelopes, clock)
    pool._max_in_flight = 2
    everybodys(pool)
    held = [pool.pick(owner=OWNER, choice=DEDICATED_ONLY) for _ in range(2)]
    assert pool.error(OWNER).headers["Retry-After"] == "1"
    assert pool.pick(owner=OWNER, choice=DEDICATED_FIRST).owner_id is None
    pool.release(held[0])
    assert pool.pick(owner=OWNER, choice=DEDICATED_ONLY) == held[1]


def test_a_key_is_not_picked_in_its_last_minutes(pool, clock):
    everybodys(pool)
    pool.picks(OWNER, DEDICATED_ONLY)
    clock.advance(days=9, seconds=-EXPIRY_MARGIN.total_seconds())
    assert "is being made" in pool.error(OWNER).message


def test_refusals_of_users_keys_are_no_outage(pool, caplog):
    for _ in range(3):
        pool.add()
    for owner in range(20, 26):
        pool.add(owner)
    pool.reload()
    for owner in range(20, 26):
        pool.call_refused(owner, *DEAD)
    assert "outage_suspected" not in caplog.messages
    for key in pool._shared.keys:
        pool.refuse(key, *DEAD)
    assert "outage_suspected" in caplog.messages


def test_shared_keys_are_asked_about_before_users_own(pool, clock):
    shared, _, _ = everybodys(pool)
    pool.call_refused(OWNER, *DEAD)
    key = pool.pick()
    pool.refuse(key, *DEAD)
    pool.release(key)
    clock.advance(seconds=60)
    asked = pool.verdicts.to_ask(10)
    assert [one.owner_id for one in asked] == [None, None, OWNER]
    assert {one.id for one in asked[:2]} == shared  # one of them for its account, which nobody knows
    pool.verdicts.note_confirmed(asked[2], 5)
    assert pool.pick(owner=OWNER, choice=DEDICATED_ONLY).id == asked[2].id


def test_the_report_has_users_keys_with_calls_and_not_endlessly_many_that_rest(pool):
    everybodys(pool)
    held = pool.pick(owner=OWNER, choice=DEDICATED_ONLY)
    assert pool.report()[str(held.id)]["in_flight"] == 1
    pool.call_refused(OTHER, *DEAD)
    [other] = [key for key in pool._dedicated.all() if key.owner_id == OTHER]
    assert pool.report()[str(other.id)]["health"] == "suspect"
    for number in range(REPORTED_AT_REST + 5):
        key = PoolKey(10**6 + number, "x", "sk", 9e9, 10**6 + number)
        key.rest.open(0, 9e9, "limited", 429, again=False)
        pool._dedicated._keys[key.owner_id] = key
    assert len(pool.report()) == REPORTED_AT_REST + 1
    assert str(held.id) in pool.report()


# ── what memory holds


def test_a_users_first_call_asks_the_database_and_no_other_does(pool, queries):
    everybodys(pool)
    queries()
    assert pool.picks(OWNER, DEDICATED_FIRST, 1)
    assert queries() > 0
    pool.picks(OWNER, DEDICATED_FIRST)
    assert queries() == 0
    pool.picks(WITHOUT, DEDICATED_FIRST, 1)
    assert queries() > 0
    pool.picks(WITHOUT, DEDICATED_FIRST)
    pool.picks(OTHER, SHARED_FIRST)
    assert queries() == 0


def test_a_reload_finds_new_keys_and_lets_go_those_that_are_withdrawn(pool, clock):
    _, owners, others = everybodys(pool)
    for user_id in (OWNER, OTHER, WITHOUT):
        pool.picks(user_id, DEDICATED_FIRST, 1)
    held = pool.pick(owner=OWNER, choice=DEDICATED_ONLY)
    new, renewed = pool.add(WITHOUT), pool.add(OWNER)
    pool.store.drain(owners, clock.now())
    pool.reload()
    assert pool.picks(WITHOUT, DEDICATED_ONLY) == {new}
    assert pool.picks(OWNER, DEDICATED_ONLY) == {renewed}
    assert pool.picks(OTHER, DEDICATED_ONLY) == {others}
    assert pool.report()[str(owners)]["in_flight"] == 1  # the rotation waits for it
    pool.release(held)
    assert str(owners) not in pool.report()
    pool.store.set_enabled(pool.store.rows(OTHER)[0].name, False)
    pool.reload()
    assert "is being made" in pool.error(OTHER).message


def test_a_key_that_comes_back_while_it_carries_a_call_is_the_same_object(pool):
    everybodys(pool)
    held = pool.pick(owner=OWNER, choice=DEDICATED_ONLY)
    name = pool.store.rows(OWNER)[0].name
    for enabled in (False, True):
        pool.store.set_enabled(name, enabled)
        pool.reload()
    assert pool.pick(owner=OWNER, choice=DEDICATED_ONLY) is held
    assert held.in_flight == 2


def test_a_key_keeps_its_rest_over_a_reload(pool):
    everybodys(pool)
    pool.call_refused(OWNER, *SPENT)
    pool.reload()
    assert isinstance(pool.error(OWNER), PaymentRequired)


def test_of_two_keys_of_a_user_the_newer_one_is_picked(pool):
    everybodys(pool)
    newer = pool.add(OWNER)
    assert pool.picks(OWNER, DEDICATED_ONLY) == {newer}


def test_a_damaged_text_is_no_key(pool, db):
    _, owners, _ = everybodys(pool)
    db.transact(lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == owners).values(api_key="gAAAA")))
    assert "is being made" in pool.error(OWNER).message
    assert pool.picks(OWNER, DEDICATED_FIRST)


def test_memory_is_bounded_and_keys_with_calls_stay_in_it(pool, monkeypatch):
    monkeypatch.setattr(dedicated, "MAX_USERS", 3)
    everybodys(pool)
    held = pool.pick(owner=OWNER, choice=DEDICATED_ONLY)
    for user_id in range(100, 120):
        pool.picks(user_id, DEDICATED_FIRST, 1)
        assert len(pool._dedicated._keys) <= 3
        assert pool.report()[str(held.id)]["in_flight"] == 1
    assert pool.pick(owner=OWNER, choice=DEDICATED_ONLY) is held


def test_a_key_that_was_just_forgotten_is_not_taken(pool, monkeypatch):
    """Its call would be in no report, and the rotation could stop the key under it."""
    everybodys(pool)
    monkeypatch.setattr(dedicated, "MAX_USERS", 1)
    find = pool._dedicated.find

    def find_late(owner: int) -> PoolKey | None:
        key = find(owner)
        find(WITHOUT)
        return key

    pool._dedicated.find = find_late
    assert isinstance(pool.error(OWNER), TooManyRequests)


def test_what_was_read_before_a_reload_is_not_kept_after_it(pool, clock):
    """The reload tells the rotation that this process knows of the withdrawal."""
    _, owners, _ = everybodys(pool)
    read, first = pool.store.dedicated, [True]

    def read_slowly(owner_ids: list[int]) -> object:
        found = read(owner_ids)
        if first and first.pop():
            pool.store.drain(owners, clock.now())
            pool.reload()
        return found

    pool.store.dedicated = read_slowly
    assert "is being made" in pool.error(OWNER).message


def test_calls_of_one_user_that_come_together_share_one_key_object(pool):
    everybodys(pool)
    together, found = threading.Barrier(8), []

    def call() -> None:
        together.wait()
        found.append(pool.pick(owner=OWNER, choice=DEDICATED_ONLY))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(key) for key in found}) == 1
    assert found[0].in_flight == 8


def test_without_the_database_known_users_go_on_and_others_wait_for_it_once(pool, clock, queries):
    shared, owners, _ = everybodys(pool)
    pool.picks(OWNER, DEDICATED_ONLY, 1)
    read, asked = pool.store.dedicated, []

    def away(owner_ids: list[int]) -> object:
        asked.append(owner_ids)
        raise DatabaseError

    pool.store.dedicated = away
    assert pool.picks(OWNER, DEDICATED_ONLY) == {owners}
    assert pool.picks(OTHER, DEDICATED_FIRST) == shared
    assert isinstance(pool.error(OTHER), Busy)
    assert len(asked) == 1
    pool.store.dedicated = read
    clock.advance(seconds=dedicated.ASK_AGAIN_SECONDS)
    assert pool.picks(OTHER, DEDICATED_ONLY)


# ── the rows


def test_rows_are_told_apart_by_their_owners(pool):
    shared, owners, others = everybodys(pool)
    ids = lambda rows: [row.id for row in rows]  # noqa: E731
    assert set(ids(pool.store.rows("shared"))) == shared
    assert ids(pool.store.rows(OWNER)) == [owners]
    assert ids(pool.store.rows(WITHOUT)) == []
    assert set(ids(pool.store.rows())) == {*shared, owners, others}
    assert pool.store.page("any", False, 1, 2)[1] == 4
    assert ids(pool.store.page("any", False, 1, 2)[0]) == ids(pool.store.rows())[::-1][1:3]
    assert {owner: row.id for owner, row in pool.store.dedicated({OWNER, OTHER, WITHOUT}).items()} == {
        OWNER: owners,
        OTHER: others,
    }
    pool.store.add("sk-or-v1-" + "f" * 64, "mine", PoolKeySource.OPERATOR)
    pool.store.move(owners, PoolKeyState.DEAD)
    assert pool.store.page(OWNER, False, 0, None) == ([], 0)
    assert pool.store.page(OWNER, True, 0, None)[1] == 1
