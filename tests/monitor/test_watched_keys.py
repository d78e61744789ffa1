"""People's own keys: whose they are, how many, which; days that add up; claims that only one process gets."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from accounts.users import UserState
from config.settings import Config
from db import Database
from foundation.clock import Clock
from foundation.crypto import Envelopes, SealBroken, sha256_hex
from foundation.errors import BadRequest, Conflict, Forbidden, NotFound, TooManyRequests
from foundation.money import MAX_NANO
from monitor.watched_keys import ASK_AGAIN, CLAIM, WatchedKeys, WatchedKeyState
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tables import users, watched_key_days, watched_keys
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import in_threads
from tests.support.movable_clock import MovableClock
from upstream.openrouter.key_facts import KeyAccount

numbers = itertools.count(1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TODAY, YESTERDAY = date(2026, 11, 21), date(2026, 11, 20)  # of the movable clock, at noon
ALL_DAYS = date(2000, 1, 1), date(2999, 1, 1)


def text() -> str:
    return f"sk-or-v1-{next(numbers):064x}"


def told(usage: int = 0, today: int | None = 0, **more: int) -> KeyAccount:
    return KeyAccount(None, more.get("limit"), more.get("remaining"), usage, today)


def new_user(db: Database, clock: Clock) -> int:
    row = {"username_hash": sha256_hex(str(next(numbers))), "key_hash": "x", "state": UserState.ACTIVE}
    row |= {"created_at": clock.now(), "updated_at": clock.now()}
    return db.transact(lambda tx: tx.execute(users.insert().values(row)).inserted_primary_key[0])


@pytest.fixture
def keys(db: Database, envelopes: Envelopes, clock: MovableClock) -> WatchedKeys:
    return WatchedKeys(db, envelopes, clock, Config(max_api_keys_per_user=3, sync_interval_minutes=60))


@pytest.fixture
def owner(db: Database, clock: MovableClock) -> int:
    return new_user(db, clock)


@pytest.fixture
def stranger(db: Database, clock: MovableClock) -> int:
    return new_user(db, clock)


def days_of(keys: WatchedKeys, key_id: int) -> dict[date, int]:
    return {day: nano for _, day, nano in keys.days([key_id], *ALL_DAYS)}


def sync(keys: WatchedKeys, clock: MovableClock, key_id: int, answer: KeyAccount) -> None:
    claim = keys.claim_due(key_id)
    assert claim
    keys.note_told(claim, answer)


# ── rows


def test_a_key_is_stored_encrypted_at_its_place_and_shown_by_its_first_characters(db, keys, owner, envelopes, clock):
    secret = text()
    key = keys.add(owner, "  laptop ", secret, told(5, 2, limit=9, remaining=4))
    assert key.to_dict() == {
        "id": key.id,
        "name": "laptop",
        "key_hint": "sk-or-v1-00****",
        "state": "valid",
        "usage_usd": 5e-9,
        "limit_usd": 9e-9,
        "remaining_usd": 4e-9,
        "failures": 0,
        "last_error": None,
        "next_sync_at": (clock.now() + HOUR).isoformat(timespec="seconds"),
        **dict.fromkeys(
            ["created_at", "updated_at", "asked_at", "checked_at", "synced_at"],
            clock.now().isoformat(timespec="seconds"),
        ),
    }
    with db.reading() as tx:
        row = tx.execute(sa.select(watched_keys)).one()
    assert secret[9:] not in repr(row)
    assert envelopes.open("personal_keys", "api_key", key.id, row.api_key) == secret
    for place in (("api_keys", "api_key", key.id), ("personal_keys", "api_key", key.id + 1)):
        with pytest.raises(SealBroken):
            envelopes.open(*place, row.api_key)
    assert keys.get(key.id, owner) == key


def test_the_keys_of_others_are_neither_listed_nor_touched(keys, owner, stranger):
    key = keys.add(owner, "mine", text(), told())
    theirs = keys.add(stranger, "theirs", text(), told())
    assert [one.id for one in keys.of_user(owner)] == [key.id]
    assert [one.id for one in keys.page(stranger, 1, 10)[0]] == [theirs.id]
    for refused in (
        lambda: keys.get(key.id, stranger),
        lambda: keys.change(key.id, stranger, "stolen"),
        lambda: keys.change(key.id, stranger, "stolen", (text(), told())),
        lambda: keys.has_text(key.id, stranger, "x"),
        lambda: keys.remove(key.id, stranger),
        lambda: keys.claim_own(key.id, stranger),
    ):
        with pytest.raises(Forbidden):
            refused()
    assert keys.get(key.id, owner) == key
    with pytest.raises(NotFound):
        keys.get(10**6, owner)


def test_a_user_has_so_many_keys_and_each_once(keys, owner, stranger):
    secret = text()
    keys.add(owner, "first", secret, told())
    with pytest.raises(Conflict, match="here already"):
        keys.add(owner, "again", secret, told())
    keys.add(stranger, "shared by a team", secret, told())
    keys.add(owner, "second", text(), told())
    third = keys.add(owner, "third", text(), told())
    with pytest.raises(Conflict, match="You have 3 keys"):
        keys.add(owner, "fourth", text(), told())
    with pytest.raises(Conflict, match="here already"):
        keys.change(third.id, owner, "third", (secret, told()))
    keys.remove(third.id, owner)
    keys.add(owner, "fourth", text(), told())
    with pytest.raises(BadRequest):
        keys.change(keys.of_user(owner)[0].id, owner, "a\nb")


def test_parallel_additions_stay_within_the_limit(keys, owner):
    def add() -> bool:
        try:
            keys.add(owner, "one of many", text(), told())
        except Conflict:
            return False
        return True

    assert sum(in_threads(8, add)) == 3
    assert keys.page(owner, 1, 100)[1] == 3


@pytest.mark.parametrize("source", [PoolKeySource.MINTED, PoolKeySource.ENVIRONMENT, PoolKeySource.OPERATOR])
def test_a_key_of_the_services_own_pool_is_not_taken_in(db, envelopes, keys, owner, clock, source):
    secret = text()
    PoolKeys(db, envelopes, clock).add(secret, "in the pool", source)
    with pytest.raises(BadRequest, match="own pool"):
        keys.add(owner, "sly", secret, told())
    key = keys.add(owner, "honest", text(), told())
    with pytest.raises(BadRequest, match="own pool"):
        keys.change(key.id, owner, "sly", (secret, told()))
    assert keys.get(key.id, owner) == key


def test_a_key_is_renamed_or_replaced_and_keeps_its_days(keys, owner, clock):
    key = keys.add(owner, "old", text(), told(70, 30))
    clock.advance(days=1)
    assert keys.change(key.id, owner, "new").name == "new"
    assert keys.get(key.id, owner).usage_nano == 70
    secret = text()
    changed = keys.change(key.id, owner, "newer", (secret, told(1000, 4)))
    assert (changed.id, changed.name, changed.usage_nano) == (key.id, "newer", 1000)
    assert days_of(keys, key.id) == {TODAY + DAY: 4, TODAY: 30}
    assert keys.has_text(key.id, owner, secret)
    clock.advance(hours=2)
    claim = keys.claim_due(key.id)
    assert keys.text(claim) == secret


def test_a_removed_key_leaves_nothing(db, keys, owner):
    key = keys.add(owner, "gone", text(), told(7, 7))
    keys.remove(key.id, owner)
    with db.reading() as tx:
        assert [tx.execute(sa.select(table)).all() for table in (watched_keys, watched_key_days)] == [[], []]
    with pytest.raises(NotFound):
        keys.get(key.id, owner)


# ── days


def test_each_synchronisation_adds_what_was_spent_since_the_one_before(keys, owner, clock):
    key = keys.add(owner, "busy", text(), told(1000, 100))
    for usage, today in ((1500, 600), (1500, 600), (1700, 800)):
        clock.advance(hours=1)
        sync(keys, clock, key.id, told(usage, today))
    assert days_of(keys, key.id) == {TODAY: 800}
    assert keys.get(key.id, owner).usage_nano == 1700
    assert keys.days([key.id], TODAY, TODAY) == [(key.id, TODAY, 800)]
    assert keys.days([key.id], YESTERDAY, YESTERDAY) == []


def test_what_was_spent_before_midnight_and_not_seen_belongs_to_yesterday(keys, owner, clock):
    key = keys.add(owner, "busy", text(), told(1000, 100))
    clock.advance(hours=13)  # one o'clock
    sync(keys, clock, key.id, told(1450, 50))
    assert days_of(keys, key.id) == {TODAY + DAY: 50, TODAY: 500}


def test_days_without_an_answer_count_on_the_last_of_them(keys, owner, clock):
    key = keys.add(owner, "busy", text(), told(1000, 100))
    clock.advance(days=4)
    sync(keys, clock, key.id, told(1450, 50))
    assert days_of(keys, key.id) == {TODAY + 4 * DAY: 50, TODAY + 3 * DAY: 400, TODAY: 100}


def test_a_day_that_openrouter_does_not_tell_gets_the_difference(keys, owner, clock):
    key = keys.add(owner, "old server", text(), told(1000, None))
    assert days_of(keys, key.id) == {}
    clock.advance(hours=13)
    sync(keys, clock, key.id, told(1450, None))
    assert days_of(keys, key.id) == {TODAY + DAY: 450}


@pytest.mark.parametrize("today", [-5, 10**6, MAX_NANO])
def test_no_figure_of_a_day_makes_more_or_less_of_the_sum(keys, owner, clock, today):
    key = keys.add(owner, "odd", text(), told(1000, today))
    assert sum(days_of(keys, key.id).values()) in {0, 1000}
    before = sum(days_of(keys, key.id).values())
    clock.advance(days=1)
    sync(keys, clock, key.id, told(1300, today))
    assert sum(days_of(keys, key.id).values()) == before + 300
    clock.advance(hours=1)
    sync(keys, clock, key.id, told(200, today))  # less than before: no cost is taken back
    assert sum(days_of(keys, key.id).values()) == before + 300


# ── claims and turns


def test_a_key_is_due_after_the_interval_and_claimed_once(keys, owner, clock):
    key = keys.add(owner, "one", text(), told())
    assert keys.due(10) == []
    assert keys.claim_due(key.id) is None
    clock.advance(minutes=60)
    assert keys.due(10) == [key.id]
    claims = in_threads(6, lambda: keys.claim_due(key.id))
    assert sum(claim is not None for claim in claims) == 1
    assert keys.due(10) == []
    clock.time += CLAIM  # whoever claimed it has died
    assert keys.due(10) == [key.id]


def test_those_that_have_waited_longest_come_first(keys, owner, stranger, clock):
    first = keys.add(owner, "first", text(), told())
    clock.advance(minutes=1)
    second = keys.add(stranger, "second", text(), told())
    clock.advance(hours=2)
    assert keys.due(1) == [first.id]
    assert keys.due(5) == [first.id, second.id]


def test_what_comes_after_a_later_claim_or_another_text_is_not_written(keys, owner, clock):
    key = keys.add(owner, "slow", text(), told(100, 0))
    clock.advance(hours=1)
    late = keys.claim_due(key.id)
    clock.time += CLAIM
    sync(keys, clock, key.id, told(150, 50))
    keys.note_told(late, told(140, 40))
    keys.note_refused(late, "too late")
    keys.note_unanswered(late, "too late")
    found = keys.get(key.id, owner)
    assert (found.usage_nano, found.state, found.failures, found.last_error) == (150, "valid", 0, None)
    assert days_of(keys, key.id) == {TODAY: 50}
    clock.advance(hours=1)
    late = keys.claim_due(key.id)
    clock.advance(seconds=1)
    keys.change(key.id, owner, "replaced", (text(), told(5, 0)))
    keys.note_told(late, told(900, 900))
    assert keys.get(key.id, owner).usage_nano == 5
    keys.remove(key.id, owner)
    keys.note_told(late, told(900, 900))
    assert days_of(keys, key.id) == {}


def test_an_owner_may_ask_once_a_minute(keys, owner, clock):
    key = keys.add(owner, "one", text(), told())
    clock.advance(seconds=20)
    with pytest.raises(TooManyRequests) as refused:
        keys.claim_own(key.id, owner)
    assert refused.value.headers["Retry-After"] == "40"
    clock.time += ASK_AGAIN
    assert keys.claim_own(key.id, owner)
    with pytest.raises(TooManyRequests):
        keys.claim_own(key.id, owner)
    with pytest.raises(NotFound):
        keys.claim_own(10**6, owner)


def test_a_key_is_refused_for_good_only_after_two_refusals_in_a_row(keys, owner, clock):
    key = keys.add(owner, "one", text(), told())

    def refuse() -> WatchedKeyState:
        claim = keys.claim_due(key.id)
        assert claim
        return keys.note_refused(claim, "not accepted")

    clock.advance(hours=1)
    assert refuse() is WatchedKeyState.SUSPECT
    clock.advance(hours=1)
    sync(keys, clock, key.id, told())  # it was OpenRouter's mistake
    assert keys.get(key.id, owner).state is WatchedKeyState.VALID
    clock.advance(hours=1)
    assert refuse() is WatchedKeyState.SUSPECT
    clock.advance(hours=2)
    assert refuse() is WatchedKeyState.REFUSED
    found = keys.get(key.id, owner)
    assert (found.failures, found.last_error, found.checked_at) == (2, "not accepted", clock.now())
    assert found.next_sync_at == clock.now() + DAY
    clock.advance(days=1)
    assert refuse() is WatchedKeyState.REFUSED
    clock.advance(days=1)
    sync(keys, clock, key.id, told(3, 3))
    found = keys.get(key.id, owner)
    assert (found.state, found.failures, found.last_error) == (WatchedKeyState.VALID, 0, None)


def test_pauses_double_up_to_a_day_while_nobody_answers(keys, owner, clock):
    key = keys.add(owner, "one", text(), told())
    pauses = []
    for _ in range(40):
        clock.time = keys.get(key.id, owner).next_sync_at
        keys.note_unanswered(keys.claim_due(key.id), "no answer")
        found = keys.get(key.id, owner)
        pauses.append((found.next_sync_at - clock.now()) / HOUR)
    assert pauses[:6] == [1, 2, 4, 8, 16, 24]
    assert set(pauses[6:]) == {24}
    assert (found.state, found.failures, found.last_error) == (WatchedKeyState.VALID, 40, "no answer")
    assert found.checked_at == datetime(2026, 11, 21, 12, tzinfo=UTC)
    sync_at = found.next_sync_at
    clock.time = sync_at
    sync(keys, clock, key.id, told())
    assert keys.get(key.id, owner).next_sync_at == sync_at + HOUR


def test_keys_of_a_disabled_user_are_left_alone(db, keys, owner, clock):
    keys.add(owner, "one", text(), told())
    clock.advance(hours=2)
    change = users.update().where(users.c.id == owner)
    db.transact(lambda tx: tx.execute(change.values(state=UserState.DISABLED)))
    assert keys.due(10) == []
    assert keys.status()[0]["due"] == 0
    db.transact(lambda tx: tx.execute(change.values(state=UserState.SILENCED)))
    assert len(keys.due(10)) == 1


def test_a_text_that_was_moved_to_another_row_does_not_open(db, keys, owner, clock):
    first, second = (keys.add(owner, name, text(), told()) for name in ("first", "second"))
    with db.reading() as tx:
        stored = dict(map(tuple, tx.execute(sa.select(watched_keys.c.id, watched_keys.c.api_key)).all()))
    move = watched_keys.update().where(watched_keys.c.id == second.id).values(api_key=stored[first.id])
    db.transact(lambda tx: tx.execute(move))
    clock.advance(hours=1)
    with pytest.raises(SealBroken):
        keys.text(keys.claim_due(second.id))
    foreign = Envelopes([ENCRYPTION_KEY]).seal("personal_keys", "api_key", second.id, text())
    swap = watched_keys.update().where(watched_keys.c.id == second.id).values(api_key=foreign)
    db.transact(lambda tx: tx.execute(swap))
    clock.time += CLAIM
    with pytest.raises(SealBroken, match="not the one that its hash names"):
        keys.text(keys.claim_due(second.id))


def test_operators_see_how_many_wait_and_fail(keys, owner, stranger, clock):
    assert keys.status() == [{"state": s, "keys": 0, "due": 0, "failing": 0} for s in ("valid", "suspect", "refused")]
    key = keys.add(owner, "one", text(), told())
    keys.add(stranger, "two", text(), told())
    clock.advance(hours=1)
    keys.note_refused(keys.claim_due(key.id), "no")
    assert keys.status() == [
        {"state": "valid", "keys": 1, "due": 1, "failing": 0},
        {"state": "suspect", "keys": 1, "due": 0, "failing": 1},
        {"state": "refused", "keys": 0, "due": 0, "failing": 0},
    ]
