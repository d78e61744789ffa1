"""OpenRouter's word on watched keys, from the stand-in: taken in or not, hourly figures, refusals, silence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.settings import Config
from db import Database
from foundation.crypto import Envelopes
from foundation.errors import BadRequest, Busy, Conflict, Forbidden
from monitor.sync import KEYS_AT_ONCE, NO_ANSWER, NOT_UNDERSTOOD, REFUSED, UNREADABLE, WatchedKeySync
from monitor.watched_keys import CLAIM, WatchedKeys, WatchedKeyState
from tables import watched_keys
from tests.conftest import ENCRYPTION_KEY
from tests.monitor.test_watched_keys import ALL_DAYS, new_user
from tests.sandbox.conftest import Running
from tests.support.gateway import free_port, in_threads, wait_for
from tests.support.movable_clock import MovableClock
from tests.support.scripted_upstream import CLOSE, RESET, ScriptedUpstream, json_answer
from upstream.http import UpstreamHttp

GOING_ON = threading.Event()
NANO = 10**9


class Desk:
    """A user's keys, the stand-in, and what asks it; one clock for both."""

    def __init__(self, db: Database, stand_in: Running, clock: MovableClock, url: str) -> None:
        self.db, self.stand_in, self.clock = db, stand_in, clock
        self.at("2031-03-09T12:00:00")
        self.keys = WatchedKeys(db, Envelopes([ENCRYPTION_KEY]), clock, Config())
        self.upstream = UpstreamHttp(url, 1)
        self.sync = WatchedKeySync(self.keys, self.upstream)
        self.owner, self.stranger = new_user(db, clock), new_user(db, clock)

    def at(self, text: str) -> None:
        self.clock.time = datetime.fromisoformat(text + "+00:00")
        self.stand_in.set_time(text)

    def spend(self, key: Any) -> int:
        before = self.stand_in.spent(key["hash"])
        assert self.stand_in.chat(key["key"]).status_code == 200
        return self.stand_in.spent(key["hash"]) - before

    def days(self, key_id: int) -> dict[str, int]:
        return {f"{day:%m-%d}": nano for _, day, nano in self.keys.days([key_id], *ALL_DAYS)}

    def round(self) -> int:
        """One round when the next key is due."""
        self.clock.advance(hours=24)
        return self.sync.run_once(GOING_ON)


@pytest.fixture
def new_desk(db: Database, stand_in: Running, clock: MovableClock) -> Iterator[Callable[[str], Desk]]:
    made: list[Desk] = []

    def make(url: str = stand_in.address) -> Desk:
        made.append(Desk(db, stand_in, clock, url))
        return made[-1]

    yield make
    for desk in made:
        desk.upstream.close()
    stand_in.control("DELETE", "faults")
    stand_in.control("POST", "settings", clock_offset_seconds=0)


@pytest.fixture
def desk(new_desk: Callable[..., Desk]) -> Desk:
    return new_desk()


def test_a_key_is_taken_in_with_what_openrouter_says_of_it(desk, stand_in):
    made = stand_in.new_key(limit=5)
    spent = desk.spend(made)
    key = desk.sync.add(desk.owner, "laptop", made["key"])
    assert (key.usage_nano, key.limit_nano, key.remaining_nano) == (spent, 5 * NANO, 5 * NANO - spent)
    assert desk.days(key.id) == {"03-09": spent}


def test_each_hour_the_days_get_what_the_key_has_spent_anywhere(desk, stand_in):
    made = stand_in.new_key()
    key = desk.sync.add(desk.owner, "laptop", made["key"])
    sunday = desk.spend(made)
    desk.at("2031-03-09T13:00:00")
    assert desk.sync.run_once(GOING_ON) == 1
    assert desk.sync.run_once(GOING_ON) == 0
    assert desk.days(key.id) == {"03-09": sunday}
    late = desk.spend(made)
    desk.at("2031-03-10T00:30:00")
    monday = desk.spend(made)
    assert desk.sync.run_once(GOING_ON) == 1
    assert desk.days(key.id) == {"03-09": sunday + late, "03-10": monday}
    assert desk.keys.get(key.id, desk.owner).usage_nano == stand_in.spent(made["hash"])


def test_a_key_that_openrouter_refuses_is_not_taken_in(desk, stand_in):
    with pytest.raises(BadRequest, match="OpenRouter does not accept this key"):
        desk.sync.add(desk.owner, "made up", "sk-or-v1-" + "0" * 64)
    management = stand_in.new_account()["management_key"]
    with pytest.raises(BadRequest, match="management key"):
        desk.sync.add(desk.owner, "too strong", management)
    key = desk.sync.add(desk.owner, "good", stand_in.new_key()["key"])
    with pytest.raises(BadRequest, match="OpenRouter does not accept this key"):
        desk.sync.change(key.id, desk.owner, "bad", "sk-or-v1-" + "0" * 64)
    assert desk.keys.of_user(desk.owner) == [key]


ODD = [
    (json_answer("500 Server Error", b"{}"),),
    (json_answer("302 Found", b"{}"),),
    (json_answer("403 Forbidden", b"{}"),),
    (json_answer("200 OK", b"[]"),),
    (json_answer("200 OK", b'{"data": {"usage": "much"}}'),),
    (json_answer("200 OK", b'{"data": {"usage": -1}}'),),
    (json_answer("200 OK", b'{"data": {"usage": 1e30}}'),),
    (json_answer("200 OK", b'{"data": {}}'),),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", CLOSE),
    (RESET,),
]


@pytest.mark.parametrize("script", ODD)
def test_without_a_useful_answer_nothing_is_stored_and_nothing_lost(new_desk, script):
    upstream = ScriptedUpstream()
    desk = new_desk(upstream.url)
    upstream.play("", *script)
    with pytest.raises(Busy, match="was not stored"):
        desk.sync.add(desk.owner, "laptop", "sk-or-v1-" + "a" * 64)
    assert desk.keys.of_user(desk.owner) == []
    upstream.play("", json_answer("200 OK", b'{"data": {"usage": 3, "usage_daily": 1}}'))
    key = desk.sync.add(desk.owner, "laptop", "sk-or-v1-" + "a" * 64)
    upstream.play("", *script)
    with pytest.raises(Busy, match="was not stored"):
        desk.sync.change(key.id, desk.owner, "renamed", "sk-or-v1-" + "b" * 64)
    assert desk.keys.get(key.id, desk.owner) == key
    assert desk.round() == 1
    found = desk.keys.get(key.id, desk.owner)
    assert (found.state, found.failures, found.usage_nano) == (WatchedKeyState.VALID, 1, 3 * NANO)
    assert found.last_error in {NO_ANSWER, NOT_UNDERSTOOD} or found.last_error.startswith("OpenRouter answered with")
    assert desk.days(key.id) == {"03-09": NANO}


def test_while_nobody_listens_it_is_the_same(new_desk):
    desk = new_desk(f"http://127.0.0.1:{free_port()}/api/v1")
    with pytest.raises(Busy):
        desk.sync.add(desk.owner, "laptop", "sk-or-v1-" + "a" * 64)


def test_a_redirect_is_not_followed_with_the_key(new_desk):
    elsewhere, upstream = ScriptedUpstream(), ScriptedUpstream()
    elsewhere.play("", json_answer("200 OK", b'{"data": {"usage": 3}}'))
    location = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {elsewhere.url}/key\r\nContent-Length: 0\r\n\r\n"
    upstream.play("", location.encode())
    desk = new_desk(upstream.url)
    with pytest.raises(Busy):
        desk.sync.add(desk.owner, "laptop", "sk-or-v1-" + "a" * 64)
    assert elsewhere._connections == 0


def test_two_refusals_in_a_row_count_and_a_key_that_works_again_is_back(desk, stand_in):
    made = stand_in.new_key()
    key = desk.sync.add(desk.owner, "laptop", made["key"])
    stand_in.control("POST", "faults", row="401b", path="/key", key=made["hash"], times=3)
    states = []
    for _ in range(4):
        assert desk.round() == 1
        found = desk.keys.get(key.id, desk.owner)
        states.append((found.state.value, found.last_error))
    assert states == [("suspect", REFUSED), ("refused", REFUSED), ("refused", REFUSED), ("valid", None)]


def test_an_owner_sees_at_once_what_comes_of_asking(desk, stand_in):
    made = stand_in.new_key()
    key = desk.sync.add(desk.owner, "laptop", made["key"])
    spent = desk.spend(made)
    desk.clock.advance(minutes=2)
    with pytest.raises(Forbidden):
        desk.sync.sync_now(key.id, desk.stranger)
    assert desk.sync.sync_now(key.id, desk.owner).usage_nano == spent
    stand_in.control("POST", "faults", row="500", path="/key", key=made["hash"], times=1)
    desk.clock.advance(minutes=2)
    found = desk.sync.sync_now(key.id, desk.owner)
    assert (found.last_error, found.usage_nano) == ("OpenRouter answered with status 500", spent)


def test_the_same_text_again_is_no_replacement(desk, stand_in):
    made = stand_in.new_key()
    key = desk.sync.add(desk.owner, "laptop", made["key"])
    desk.spend(made)
    changed, is_replaced = desk.sync.change(key.id, desk.owner, "renamed", made["key"])
    assert (changed.name, is_replaced, desk.days(key.id)) == ("renamed", False, {})
    other = stand_in.new_key()["key"]
    assert desk.sync.change(key.id, desk.owner, "renamed", other)[1]
    desk.sync.add(desk.owner, "the first again", made["key"])
    with pytest.raises(Conflict):
        desk.sync.change(key.id, desk.owner, "both", made["key"])


def test_a_text_that_does_not_open_is_told_to_its_owner_and_to_operators(desk, stand_in, caplog):
    key = desk.sync.add(desk.owner, "laptop", stand_in.new_key()["key"])
    damage = watched_keys.update().where(watched_keys.c.id == key.id).values(api_key="gAAAAA")
    desk.db.transact(lambda tx: tx.execute(damage))
    assert desk.round() == 1
    assert desk.keys.get(key.id, desk.owner).last_error == UNREADABLE
    assert "personal_key_unreadable" in [record.getMessage() for record in caplog.records]


def test_a_round_asks_a_few_and_two_services_never_the_same(desk, stand_in):
    account = stand_in.new_account()["id"]
    users = [desk.owner, desk.stranger]
    made = [stand_in.new_key(account=account) for _ in range(KEYS_AT_ONCE + 3)]
    for number, one in enumerate(made):
        desk.sync.add(users[number % 2], f"key {number}", one["key"])
    stand_in.control("DELETE", "log")
    desk.clock.advance(hours=2)
    another = WatchedKeySync(WatchedKeys(desk.db, Envelopes([ENCRYPTION_KEY]), desk.clock, Config()), desk.upstream)
    syncs = iter([desk.sync, another])
    asked = in_threads(2, lambda: next(syncs).run_once(GOING_ON))
    assert max(asked) <= KEYS_AT_ONCE
    while desk.sync.run_once(GOING_ON):
        pass
    log = [entry["key_hash"] for entry in stand_in.control("GET", "log")["requests"] if entry["path"].endswith("/key")]
    assert sorted(log) == sorted(one["hash"] for one in made)


def test_a_stop_ends_the_round_and_leaves_the_rest(desk, stand_in):
    for number in range(2):
        desk.sync.add(desk.owner, f"key {number}", stand_in.new_key()["key"])
    desk.clock.advance(hours=2)
    stopping = threading.Event()
    stopping.set()
    assert desk.sync.run_once(stopping) == 0
    assert len(desk.keys.due(10)) == 2


def test_a_gateway_synchronises_by_itself_what_is_due_and_what_another_left(db, stand_in, empty_database_url, start):
    """The one that took the key in, or was killed, may have been another process. No management key is needed."""
    clock = MovableClock()
    clock.time = datetime.now(UTC) - 2 * CLAIM - timedelta(hours=1)
    keys = WatchedKeys(db, Envelopes([ENCRYPTION_KEY]), clock, Config())
    upstream = UpstreamHttp(stand_in.address, 1)
    owner = new_user(db, clock)
    made = [stand_in.new_key() for _ in range(2)]
    rows = [WatchedKeySync(keys, upstream).add(owner, "laptop", one["key"]) for one in made]
    upstream.close()
    clock.advance(hours=1)
    assert keys.claim_due(rows[0].id)  # and died
    for one in made:
        assert stand_in.chat(one["key"]).status_code == 200
    settings = {"DATABASE_URL": empty_database_url, "OPENROUTER_API_URL": stand_in.address}
    gateway = start(**settings, ENCRYPTION_KEY=ENCRYPTION_KEY, OPENROUTER_API_KEYS=stand_in.new_key()["key"])
    wait_for(lambda: all(key.usage_nano for key in keys.of_user(owner)))
    assert gateway.stop() == 0
    found = keys.of_user(owner)
    assert [key.usage_nano for key in found] == [stand_in.spent(one["hash"]) for one in reversed(made)]
    assert all(key.next_sync_at > datetime.now(UTC) for key in found)
    assert not any(one["key"][9:] in gateway.log() for one in made)
