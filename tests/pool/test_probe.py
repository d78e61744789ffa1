"""GET /key, asked in the background: suspects come back, accounts and limits are learned, nothing is hurried."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from api_key_manager import ApiKeyManager
from config.settings import Config
from db import Database, database_url
from pool.choice import PoolKey
from pool.keys import PoolKeys
from pool.life import PoolKeyRow, PoolKeySource
from pool.probe import KEYS_AT_ONCE, PoolKeyProbe
from tables import pool_keys
from tests.sandbox.conftest import Running
from tests.support.gateway import wait_for
from tests.support.movable_clock import MovableClock
from tests.support.scripted_upstream import CLOSE, RESET, ScriptedUpstream, json_answer
from upstream.http import UpstreamHttp
from upstream.refusal import Refusal
from upstream.refusals import classify

NANO = 10**9
DEAD = Refusal(401, {"error": {"message": "User not found."}})
SPENT = Refusal(403, {"error": {"message": "Key limit exceeded (total limit)."}})


class Pool:
    """A pool of these keys, and what asks about them."""

    def __init__(self, db: Database, store: PoolKeys, clock: MovableClock, url: str, texts: list[str]) -> None:
        self.db, self.store, self.clock = db, store, clock
        for number, text in enumerate(texts):
            store.add(text, f"key {number}", PoolKeySource.OPERATOR)
        self.memory = ApiKeyManager(store, clock)
        self.memory.reload()
        self.upstream = UpstreamHttp(url, 1)
        self.probe = PoolKeyProbe(self.memory.verdicts, store, self.upstream)

    @property
    def keys(self) -> list[PoolKey]:
        return list(self.memory._shared.keys)

    def rows(self) -> list[PoolKeyRow]:
        return self.store.rows()

    def refuse(self, key: PoolKey, refusal: Refusal) -> None:
        self.memory.note_refusal(key, refusal, classify(refusal))

    def close(self) -> None:
        self.upstream.close()
        self.db.close()


@pytest.fixture
def make(tmp_path, envelopes, clock) -> Iterator[Callable[..., Pool]]:
    made: list[Pool] = []

    def begin(url: str, *texts: str) -> Pool:
        db = Database(database_url(Config(database_url=f"sqlite:///{tmp_path}/probe-{len(made)}.db")))
        db.upgrade()
        made.append(Pool(db, PoolKeys(db, envelopes, clock), clock, url, list(texts)))
        return made[-1]

    yield begin
    for pool in made:
        pool.close()


@pytest.fixture
def fault(stand_in: Running) -> Iterator[Callable[..., None]]:
    """Let GET /key with a key be answered with a row, until the test ends."""
    yield lambda key, row: stand_in.control("POST", "faults", row=row, key=key["hash"], path="/key")
    stand_in.control("DELETE", "faults")


def test_accounts_and_limits_are_learned_once(make, stand_in):
    account = stand_in.new_account()["id"]
    texts = [stand_in.new_key(account=account, limit=5)["key"] for _ in range(2)]
    pool = make(stand_in.address, *texts, stand_in.new_key()["key"])
    for _ in range(2):
        pool.probe.run_once()
    first, second, third = pool.rows()
    assert (first.limit_nano, first.remaining_nano) == (5 * NANO, 5 * NANO)
    assert first.account_id == second.account_id
    assert account not in str(pool.rows())
    pool.probe._write()  # the third waits for its turn, so that processes do not reload all the time
    third = pool.rows()[2]
    assert third.account_id not in {None, first.account_id}
    assert (third.limit_nano, third.remaining_nano) == (None, None)
    pool.memory.reload()
    assert pool.keys[0].account is pool.keys[1].account is not pool.keys[2].account
    stand_in.control("DELETE", "log")
    pool.clock.advance(minutes=9)
    pool.probe.run_once()
    assert stand_in.control("GET", "log")["requests"] == []


def test_few_keys_are_asked_about_at_once(make, stand_in):
    texts = [stand_in.new_key()["key"] for _ in range(5)]
    pool = make(stand_in.address, *texts)
    stand_in.control("DELETE", "log")
    pool.probe.run_once()
    asked = stand_in.control("GET", "log")["requests"]
    assert [request["path"] for request in asked] == ["/api/v1/key"] * KEYS_AT_ONCE


def test_a_suspect_is_back_when_openrouter_accepts_it_again(make, stand_in, fault):
    key = stand_in.new_key()
    pool = make(stand_in.address, key["key"])
    fault(key, "401b")
    pool.refuse(pool.keys[0], DEAD)
    for _ in range(3):
        pool.clock.advance(seconds=60)
        pool.probe.run_once()
        assert pool.memory.report()[str(pool.keys[0].id)]["health"] == "suspect"
    stand_in.control("DELETE", "faults")
    pool.clock.advance(seconds=60)
    pool.probe.run_once()
    assert pool.memory.usable_count() == 1


def test_a_spent_limit_is_back_when_it_was_raised(make, stand_in):
    account = stand_in.new_account()
    key = stand_in.new_key(account=account["id"], limit=0)
    pool = make(stand_in.address, key["key"])
    pool.refuse(pool.keys[0], SPENT)
    pool.clock.advance(seconds=5)
    pool.probe.run_once()
    assert pool.memory.usable_count() == 0
    raised = stand_in.call("PATCH", f"/keys/{key['hash']}", account["management_key"], json={"limit": 7})
    assert raised.status_code == 200
    pool.clock.advance(hours=1)
    pool.probe.run_once()
    assert pool.memory.usable_count() == 1
    assert pool.keys[0].remaining_nano == 7 * NANO


def test_what_a_suspect_has_left_is_written_if_it_has_changed(make, stand_in):
    pool = make(stand_in.address, stand_in.new_key(limit=5)["key"])
    pool.probe.run_once()
    pool.store.set_limits({pool.keys[0].id: (5 * NANO, 1)})
    pool.memory.reload()
    pool.refuse(pool.keys[0], DEAD)
    pool.clock.advance(seconds=5)
    pool.probe.run_once()
    pool.probe._write()
    assert pool.rows()[0].remaining_nano == 5 * NANO


@pytest.mark.parametrize("row", ["403c", "429d", "500", "502-html", "307"])
def test_an_answer_of_any_other_kind_lets_a_call_try_the_suspect(make, stand_in, fault, row):
    key = stand_in.new_key()
    pool = make(stand_in.address, key["key"])
    pool.refuse(pool.keys[0], DEAD)
    pool.memory.verdicts.note_denied(pool.keys[0])
    fault(key, row)
    pool.clock.advance(seconds=5)
    pool.probe.run_once()
    assert pool.memory.report()[str(pool.keys[0].id)]["health"] == "half-open"
    assert pool.rows()[0].account_id is None


NONSENSE = [
    [json_answer("200 OK", b"not json")],
    [json_answer("200 OK", b"[]")],
    [json_answer("200 OK", b'{"data":null}')],
    [json_answer("200 OK", b'{"data":{"limit":"much"}}')],
    [json_answer("200 OK", b" " * 100_000)],
    [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", CLOSE],
    [b"nonsense", CLOSE],
    [CLOSE],
    [RESET],
]


@pytest.mark.parametrize("steps", NONSENSE)
def test_nonsense_is_no_answer(make, steps):
    upstream = ScriptedUpstream()
    upstream.play("", *steps)
    pool = make(upstream.url, f"sk-or-v1-{1:064x}")
    pool.probe.run_once()
    upstream.close()
    assert pool.memory.usable_count() == 1
    assert pool.rows()[0].account_id is None
    pool.clock.advance(seconds=1)
    assert pool.memory.verdicts.to_ask(9) == []
    pool.clock.advance(hours=1)
    assert pool.memory.verdicts.to_ask(9) == pool.keys


def test_a_management_key_is_out_for_it_carries_no_calls(make, stand_in):
    pool = make(stand_in.address, stand_in.new_account()["management_key"])
    pool.probe.run_once()
    assert (pool.memory.usable_count(), pool.memory.refused_count()) == (0, 1)


def test_nobody_there_is_no_answer(make):
    pool = make("http://127.0.0.1:1/api/v1", f"sk-or-v1-{1:064x}")
    pool.probe.run_once()
    assert pool.memory.usable_count() == 1


def test_what_was_learned_waits_for_a_database_that_is_away(make, stand_in, monkeypatch):
    pool = make(stand_in.address, stand_in.new_key(limit=3)["key"])
    broken = pool.db.transact

    def fail(work):
        raise OSError("away")

    pool.db.transact = fail
    with pytest.raises(OSError, match="away"):
        pool.probe.run_once()
    pool.db.transact = broken
    pool.probe.run_once()
    assert pool.rows()[0].account_id
    assert pool.rows()[0].limit_nano == 3 * NANO


def test_it_runs_in_a_thread_until_told_to_stop_and_outlives_faults(make, stand_in, caplog):
    pool = make(stand_in.address, stand_in.new_key(limit=3)["key"])
    waiting, to_ask = [True], pool.memory.verdicts.to_ask

    def fail_at_first(count):
        if waiting:
            waiting.clear()
            raise KeyError("a fault")
        return to_ask(count)

    pool.memory.verdicts.to_ask = fail_at_first
    stopping = threading.Event()
    thread = threading.Thread(target=pool.probe.run, args=(stopping,))
    thread.start()
    wait_for(lambda: pool.rows()[0].account_id)
    stopping.set()
    thread.join(60)
    assert not thread.is_alive()
    assert [record.getMessage() for record in caplog.records if record.name == "services"] == ["background_fault"]


def test_an_operator_learns_at_once_what_becomes_of_each_key(make, stand_in):
    account = stand_in.new_account(balance=10)["id"]
    first, second = (stand_in.new_key(account=account)["key"] for _ in range(2))
    unknown = "sk-or-v1-" + "0f" * 32
    pool = make(stand_in.address, first, unknown, second)
    damaged = pool.rows()[2].id
    pool.db.transact(lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == damaged).values(api_key="gAAAA")))
    pool.store.set_enabled("key 0", True)
    assert pool.probe.statuses() == {"key 0": 200, "key 1": 401, "key 2": None}
    pool.store.set_enabled("key 0", False)
    assert set(pool.probe.statuses()) == {"key 1", "key 2"}


def test_an_operator_learns_that_nobody_answers(make):
    pool = make("http://127.0.0.1:9", "sk-or-v1-" + "0f" * 32)
    assert pool.probe.statuses() == {"key 0": 0}
