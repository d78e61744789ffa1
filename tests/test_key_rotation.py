"""The rotation, against the stand-in: the pool is full and fresh, and no crash or lost answer leaves a key behind."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

import sealed_secrets
from api_key_manager import ApiKeyManager
from config import Config
from crypto import Envelopes, SealBroken, sha256_hex
from db import Database, database_url
from errors import NotFound
from gateway_processes import SILENT_IS_DEAD, GatewayProcess
from key_rotation import KeyRotation
from management_api import KeyAccount, ManagementApi, ManagementError
from pool_keys import KeyRow, KeySource, KeyState, PoolKeys
from reencrypt import reencrypt
from revisions import current
from rotation_lease import LEASE, LeaseLost, WrongDeployment
from rotation_plan import Step, Timing, plan
from tables import api_keys, rotator
from tests.conftest import ENCRYPTION_KEY, MovableClock
from tests.gateway import ROOT, environment, run, wait_for
from tests.sandbox.conftest import Running

DEPLOYMENT = "11111111-2222-3333-4444-555555555555"
PREFIX = f"gw/{DEPLOYMENT}/"
AT_ONCE = Timing(confirm_pauses_seconds=(0, 0))


class Account:
    """An account at the stand-in, as its owner sees it."""

    def __init__(self, stand_in: Running) -> None:
        self.stand_in = stand_in
        made = stand_in.new_account()
        self.id, self.management_key = made["id"], made["management_key"]

    def manage(self, method: str, path: str, **more: Any) -> Any:
        return self.stand_in.call(method, path, self.management_key, **more).json()

    def listed(self) -> dict[str, dict[str, Any]]:
        """All keys by name."""
        found: dict[str, dict[str, Any]] = {}
        everything = "/keys?include_disabled=true&include_expired=true"
        while page := self.manage("GET", f"{everything}&offset={len(found)}")["data"]:
            found |= {key["name"]: key for key in page}
        return found

    def make(self, name: str) -> Any:
        """A key that no rotation has minted: its text and its hash."""
        return self.manage("POST", "/keys", json={"name": name})

    def fail(self, scenario: str, path: str = "/keys", method: str = "POST", **more: Any) -> None:
        """Make a call fail, once unless told otherwise."""
        rule = {"scenario": scenario, "path": path, "method": method, "account": self.id, "times": 1}
        self.stand_in.control("POST", "faults", **rule | more)

    def calls(self, method: str, path: str) -> int:
        """How many such requests this account's management key has made."""
        log = self.stand_in.control("GET", "log")["requests"]
        mine = [entry for entry in log if entry["key_hash"] == sha256_hex(self.management_key)]
        return sum(entry["method"] == method and entry["path"].startswith(f"/api/v1{path}") for entry in mine)


class Rotor:
    """A rotation over a database of its own, with a clock to set forward."""

    def __init__(self, db: Database, envelopes: Envelopes, account: Account, **settings: Any) -> None:
        self.db, self.envelopes, self.account, self.clock = db, envelopes, account, MovableClock()
        self.clock.time = datetime.now(UTC)  # expiries are in the future for the stand-in too
        self.settings = Config(**{"deployment_id": DEPLOYMENT, "pool_size": 3} | settings)
        self.keys = PoolKeys(db, envelopes, self.clock)
        self.api = ManagementApi(account.stand_in.address, account.management_key)
        self.timing = Timing()
        self.fewest: int | None = None  # usable keys between any two steps

    def rotation(self) -> KeyRotation:
        """What a process of its own would have."""
        parts = self.db, self.envelopes, self.api, self.settings, self.clock
        return KeyRotation(*parts, timing=self.timing, progress=self._sampled)

    def _sampled(self, steps: Sequence[Step]) -> Iterable[Step]:
        for step in steps:
            yield step
            if self.fewest is not None:
                self.fewest = min(self.fewest, self.usable())

    def run(self) -> bool:
        return self.rotation().run_once()

    def steps(self) -> list[Step]:
        return plan(self.rotation().situation())

    def settle(self, **delta: float) -> None:
        """Let time pass, then run passes until nothing is left to do."""
        self.clock.advance(**delta)
        for _ in range(5):
            self.run()
            if not self.steps():
                return
        raise AssertionError(self.steps())

    def usable(self) -> int:
        pool = ApiKeyManager(self.keys, self.clock)
        pool.reload()
        return pool.usable_count()

    def states(self) -> dict[str, int]:
        return dict(Counter(row.state.value for row in self.keys.rows()))

    def names(self, state: KeyState) -> set[str]:
        return {row.name for row in self.keys.rows() if row.state is state}

    def row(self, name: str) -> KeyRow:
        return next(row for row in self.keys.rows() if row.name == name)

    def stored(self, **lifetime: float) -> tuple[str, str]:
        """What a crash after the text was stored leaves behind: the key's name and text."""
        expires_at = self.clock.now() + timedelta(**lifetime or {"hours": 72})
        name = PREFIX + "a" * 32
        row_id = self.keys.intend(name, expires_at, 10 * 10**9, None)
        text = self.api.create(name, 10, "daily", expires_at)
        self.keys.store(row_id, text)
        return name, text


@pytest.fixture
def account(stand_in: Running) -> Iterator[Account]:
    yield Account(stand_in)
    stand_in.control("DELETE", "faults")


@pytest.fixture
def rotor(db: Database, envelopes: Envelopes, account: Account) -> Rotor:
    return Rotor(db, envelopes, account)


@pytest.fixture
def new_rotor(tmp_path: Path, envelopes: Envelopes, account: Account) -> Iterator[Callable[..., Rotor]]:
    """A rotation with other settings, on SQLite; all share one database."""
    db = Database(database_url(Config(database_url=f"sqlite:///{tmp_path}/rotor.db")))
    db.upgrade()
    yield lambda **settings: Rotor(db, envelopes, account, **settings)
    db.close()


@pytest.fixture
def one(new_rotor: Callable[..., Rotor]) -> Rotor:
    """A rotation on SQLite, for what the kind of database does not change."""
    return new_rotor()


def events(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    return Counter(record.getMessage() for record in caplog.records if record.name == "rotation")


# ── a full pool


def test_an_empty_pool_is_filled_with_named_limited_expiring_keys(rotor, account):
    assert rotor.run()
    assert rotor.states() == {"active": 3}
    remote = account.listed()
    assert set(remote) == rotor.names(KeyState.ACTIVE)
    for row in rotor.keys.rows():
        key = remote[row.name]
        assert row.name.startswith(PREFIX)
        assert len(row.name) == len(PREFIX) + 32
        assert (row.source, row.api_key_hash) == (KeySource.MINTED, key["hash"])
        assert (key["limit"], key["limit_reset"], key["disabled"]) == (10, "daily", False)
        expires_at = datetime.fromisoformat(key["expires_at"])
        assert abs(expires_at - row.expires_at) < timedelta(seconds=1)
        assert abs(expires_at - rotor.clock.now() - timedelta(hours=72)) < timedelta(seconds=1)


def test_the_minted_keys_work_and_are_picked(rotor, account):
    rotor.run()
    pool = ApiKeyManager(rotor.keys, rotor.clock)
    pool.reload()
    text = pool.pick().authorization.decode().split()[2]
    assert account.stand_in.chat(text).status_code == 200
    assert pool.usable_count() == 3


def test_limit_reset_and_lifetime_are_settings(new_rotor, account):
    new_rotor(key_limit_usd=None, key_limit_reset="none", pool_size=1, key_lifetime_hours=25).run()
    [key] = account.listed().values()
    assert (key["limit"], key["limit_reset"]) == (None, None)
    left = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=24.9) < left < timedelta(hours=25.1)


@pytest.mark.parametrize("limit", [0.1, 1.1, 0.000000001, 1.0000000004, 1.0000000006, 123456.789])
def test_any_limit_is_recognised_when_openrouter_tells_it_back(new_rotor, limit):
    assert new_rotor(pool_size=1, key_limit_usd=limit).run()


def test_a_second_pass_changes_nothing_on_either_side(rotor, account):
    rotor.run()
    before, rows = account.listed(), rotor.keys.rows()
    account.stand_in.control("DELETE", "log")
    rotor.clock.advance(minutes=1)
    assert rotor.steps() == []
    assert rotor.run()
    assert account.calls("POST", "/keys") == account.calls("PATCH", "/keys") == account.calls("DELETE", "/keys") == 0
    assert account.listed() == before
    assert rotor.keys.rows() == [dataclasses.replace(row, remaining_nano=10**10) for row in rows]


def test_a_pass_notes_what_openrouter_says_about_limits_and_accounts(rotor, account):
    rotor.run()
    [first, *others] = rotor.keys.rows()
    account.stand_in.chat(rotor.keys.text(first.id))
    rotor.run()
    row = rotor.row(first.name)
    assert row.limit_nano == 10**10
    assert row.remaining_nano == 10**10 - account.stand_in.spent(first.api_key_hash)
    assert len({row.account_id for row in rotor.keys.rows()}) == 1
    assert len(first.account_id) == 64
    assert account.id not in first.account_id
    assert {row.remaining_nano for row in rotor.keys.rows() if row.id != first.id} == {10**10}
    assert len(others) == 2


def test_keys_that_people_brought_count_and_are_never_touched(rotor, account):
    mine = account.make("mine")
    rotor.keys.add(mine["key"], "mine", KeySource.OPERATOR)
    rotor.keys.add("sk-or-v1-" + "b" * 64, "env/1", KeySource.ENVIRONMENT)
    before = account.listed()["mine"]
    assert rotor.run()
    assert len(account.listed()) == 2
    for _ in range(3):
        rotor.settle(days=30)
    assert {"mine", "env/1"} <= rotor.names(KeyState.ACTIVE)
    assert account.listed()["mine"] == before
    assert len(rotor.names(KeyState.ACTIVE)) == 3


def test_a_persons_key_that_is_disabled_at_openrouter_is_made_up_for_and_stays_theirs(rotor, account):
    mine = account.make("mine")
    rotor.keys.add(mine["key"], "mine", KeySource.OPERATOR)
    account.manage("PATCH", f"/keys/{mine['data']['hash']}", json={"disabled": True})
    rotor.run()
    assert rotor.states() == {"active": 4}
    account.manage("PATCH", f"/keys/{mine['data']['hash']}", json={"disabled": True})
    before = account.listed()["mine"]
    rotor.fewest = 99
    rotor.settle(hours=25)
    assert account.listed()["mine"] == before
    assert "mine" in rotor.names(KeyState.ACTIVE)
    assert len(rotor.names(KeyState.ACTIVE)) == rotor.fewest == 4  # theirs, which the copies in memory can't know


def test_a_disabled_key_is_replaced_and_left_alone_until_it_is_due(rotor, account):
    rotor.run()
    disabled = rotor.keys.rows()[0]
    rotor.keys.set_enabled(disabled.name, False)
    assert rotor.run()
    assert rotor.states() == {"active": 4}
    rotor.settle(hours=23)
    assert rotor.row(disabled.name).state is KeyState.ACTIVE
    assert not account.listed()[disabled.name]["disabled"]
    rotor.settle(hours=2)
    assert rotor.row(disabled.name).state is KeyState.DRAINING


def test_foreign_keys_and_those_of_other_deployments_are_never_touched(rotor, account):
    names = ["mine", "gw/another-deployment/" + "0" * 32, f"gw/{DEPLOYMENT}x/" + "0" * 32, f"gw/{DEPLOYMENT}"]
    for name in names:
        account.make(name)
    before = account.listed()
    rotor.run()
    for hours in (1, 25, 2, 48):
        rotor.settle(hours=hours)
    assert {name: account.listed()[name] for name in names} == before
    assert not {row.name for row in rotor.keys.rows()} & set(names)


# ── creating fails


@pytest.mark.parametrize("scenario", ["302", "500", "502-html", "429c", "402d", "401b", "403g", "drop", "drop-reset"])
def test_a_failed_create_ends_the_pass_and_the_next_one_fills_the_pool(one, account, scenario):
    account.fail(scenario)
    with pytest.raises(ManagementError) as raised:
        one.run()
    assert account.management_key not in str(raised.value)
    assert one.states() == {"intent": 1}
    assert one.run()
    assert one.states() == {"intent": 1, "active": 3}
    made = len(account.listed())
    assert made == (4 if scenario.startswith("drop") else 3)  # of a lost call nobody knows whether it arrived


def test_a_pass_that_fails_halfway_keeps_what_it_has_done(rotor, account):
    account.fail("stream", times=2)  # the first two get what they ask for
    account.fail("500")
    with pytest.raises(ManagementError, match="status 500"):
        rotor.run()
    assert rotor.states() == {"active": 2, "intent": 1}
    assert len(account.listed()) == 2
    rotor.run()
    assert len(rotor.names(KeyState.ACTIVE)) == 3


@pytest.mark.parametrize("scenario", ["500", "429c", "drop", "drop-reset"])
def test_a_key_whose_create_answer_was_lost_is_deleted_after_five_minutes(rotor, account, scenario):
    """OpenRouter made the key, and nobody has its text."""
    account.fail(scenario, after=True)
    with pytest.raises(ManagementError):
        rotor.run()
    [orphan] = account.listed()
    assert {orphan} == rotor.names(KeyState.INTENT)
    assert rotor.run()
    rotor.clock.advance(minutes=4, seconds=59)
    assert rotor.run()
    assert orphan in account.listed()
    rotor.clock.advance(seconds=2)
    assert rotor.run()
    assert orphan not in account.listed()
    assert rotor.names(KeyState.ABANDONED) == {orphan}
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)


def test_an_orphan_is_found_among_hundreds_of_keys_and_no_foreign_key_is_touched(rotor, account):
    account.fail("drop", after=True)
    with pytest.raises(ManagementError):
        rotor.run()
    [orphan] = account.listed()
    foreign = [f"foreign {number}" for number in range(205)]  # newer ones stand before it: it is on the third page
    for name in foreign:
        account.make(name)
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    assert set(account.listed()) == set(foreign) | rotor.names(KeyState.ACTIVE)
    assert rotor.names(KeyState.ABANDONED) == {orphan}


def test_an_intent_that_openrouter_never_saw_is_given_up(rotor, account):
    account.fail("500")
    with pytest.raises(ManagementError):
        rotor.run()
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    assert rotor.states() == {"abandoned": 1, "active": 3}
    assert account.calls("DELETE", "/keys") == 0


def test_a_create_that_never_answers_does_not_fill_the_account(rotor, account):
    account.fail("drop", after=True, times=None)
    for _ in range(3):
        with pytest.raises(ManagementError):
            rotor.run()
    for _ in range(3):
        assert not rotor.run()
    assert rotor.states() == {"intent": 3}
    assert len(account.listed()) == 3
    account.stand_in.control("DELETE", "faults")
    rotor.settle(minutes=6)
    assert rotor.states() == {"abandoned": 3, "active": 3}
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)


def test_a_create_that_arrives_late_is_swept_though_its_intent_was_given_up(rotor, account):
    """A leader that slept for minutes between its intent and its call."""
    name = PREFIX + "a" * 32
    rotor.keys.intend(name, rotor.clock.now() + timedelta(hours=72), None, None)
    rotor.clock.advance(minutes=6)
    rotor.run()
    assert rotor.names(KeyState.ABANDONED) == {name}
    account.make(name)
    rotor.run()
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)


def test_a_create_that_was_carried_out_twice_leaves_one_key(rotor, account):
    rotor.run()
    row = rotor.keys.rows()[0]
    twin = account.make(row.name)["data"]["hash"]
    assert rotor.run()
    left = [key["hash"] for key in account.manage("GET", "/keys")["data"]]
    assert twin not in left
    assert row.api_key_hash in left
    assert rotor.states() == {"active": 3}


# ── between stored and active


def test_a_key_that_was_stored_but_never_used_is_completed(rotor, account):
    name, _ = rotor.stored()
    assert rotor.run()
    assert name in rotor.names(KeyState.ACTIVE)
    assert len(account.listed()) == 3


def test_a_stored_key_that_is_gone_at_openrouter_is_dead_and_replaced(rotor, account):
    name, text = rotor.stored()
    account.manage("DELETE", f"/keys/{sha256_hex(text)}")
    rotor.run()
    assert rotor.row(name).state is KeyState.DEAD
    assert rotor.run()
    assert rotor.states() == {"dead": 1, "active": 3}


def test_a_stored_key_that_openrouter_goes_on_refusing_is_deleted_and_replaced(rotor, account):
    name, text = rotor.stored()
    account.manage("PATCH", f"/keys/{sha256_hex(text)}", json={"disabled": True})
    rotor.run()
    assert rotor.row(name).state is KeyState.STORED
    rotor.clock.advance(minutes=6)
    rotor.run()
    assert rotor.row(name).state is KeyState.ABANDONED
    assert rotor.run()
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)
    assert len(account.listed()) == 3


class Odd(ManagementApi):
    """The API, but the first answers about keys are these."""

    def __init__(self, api: ManagementApi, *answers: KeyAccount | ManagementError | None) -> None:
        self.__dict__ |= api.__dict__
        self.answers = list(answers)

    def ask(self, text: str) -> KeyAccount | None:
        if not self.answers:
            return super().ask(text)
        answer = self.answers.pop(0)
        if isinstance(answer, ManagementError):
            raise answer
        return answer


def test_a_new_key_that_openrouter_does_not_know_yet_is_asked_about_again(one):
    one.api = Odd(one.api, None, None)
    assert one.run()
    assert one.states() == {"active": 3}


def test_a_new_key_that_openrouter_goes_on_refusing_waits_and_no_other_is_tried(one):
    one.timing = AT_ONCE
    one.api = Odd(one.api, None, None)
    with pytest.raises(ManagementError, match="key just minted"):
        one.run()
    assert one.states() == {"stored": 1}
    assert one.run()
    assert one.states() == {"active": 3}


def test_a_new_key_that_cannot_be_checked_now_is_checked_in_the_next_pass(one, account):
    one.api = Odd(one.api, ManagementError("GET /key", 500))
    with pytest.raises(ManagementError, match="status 500"):
        one.run()
    assert one.states() == {"stored": 1}
    assert one.run()
    assert one.states() == {"active": 3}
    assert len(account.listed()) == 3


def test_a_new_key_with_another_limit_than_asked_for_is_never_used_and_deleted(one, account):
    for told in (None, 10**12):
        one.api = Odd(one.api, KeyAccount(None, told, None))
        with pytest.raises(ManagementError, match="limit is not the one asked for"):
            one.run()
    assert one.states() == {"abandoned": 2}
    assert account.listed() == {}
    assert one.run()
    assert one.states() == {"abandoned": 2, "active": 3}


def test_a_rotation_that_runs_on_with_a_replaced_encryption_key_takes_no_row_for_damaged(rotor, account):
    sealed_secrets.username_key(rotor.db, Envelopes([ENCRYPTION_KEY]), rotor.clock.now())
    rotor.run()
    before, newest = rotor.states(), Fernet.generate_key().decode()
    list(reencrypt(rotor.db, Envelopes([newest, ENCRYPTION_KEY])))
    with pytest.raises(SealBroken, match="sealed_secrets"):
        rotor.run()
    assert rotor.states() == before
    assert account.calls("DELETE", "/keys") == 0


def test_a_damaged_text_is_quarantined_and_neither_used_nor_deleted(rotor, account, caplog):
    rotor.run()
    first = rotor.keys.rows()[0]
    rotor.db.transact(
        lambda tx: tx.execute(api_keys.update().where(api_keys.c.id == first.id).values(api_key="gAAAAx"))
    )
    assert rotor.run()
    assert rotor.states() == {"quarantined": 1, "active": 3}
    rotor.settle(hours=48)
    assert rotor.row(first.name).state is KeyState.QUARANTINED
    assert first.name in account.listed()
    assert events(caplog)["key_quarantined"] == 1


# ── renewal


def test_due_keys_are_replaced_one_by_one_then_drained_then_disabled_then_deleted(rotor, account):
    rotor.run()
    first = rotor.names(KeyState.ACTIVE)
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert rotor.states() == {"active": 3}
    rotor.clock.advance(minutes=2)
    rotor.fewest = 99
    assert rotor.run()
    assert rotor.fewest == 3
    assert rotor.states() == {"active": 3, "draining": 3}
    assert rotor.names(KeyState.DRAINING) == first
    ids = {row.id for row in rotor.keys.rows() if row.name in first}
    assert {row.replaces_id for row in rotor.keys.rows() if row.state is KeyState.ACTIVE} == ids
    rotor.clock.advance(seconds=59)
    rotor.run()
    assert not any(account.listed()[name]["disabled"] for name in first)
    rotor.clock.advance(seconds=2)
    rotor.run()
    assert rotor.states() == {"active": 3, "disabled": 3}
    assert all(account.listed()[name]["disabled"] for name in first)
    rotor.clock.advance(minutes=59)
    rotor.run()
    assert first <= set(account.listed())
    rotor.clock.advance(minutes=2)
    assert rotor.run()
    assert rotor.names(KeyState.DELETED) == first
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)
    assert rotor.states() == {"active": 3, "deleted": 3}
    assert rotor.fewest == 3


def test_what_a_key_has_spent_is_kept_and_its_text_is_not(rotor, account):
    rotor.run()
    first = rotor.keys.rows()[0]
    account.stand_in.chat(rotor.keys.text(first.id))
    rotor.settle(hours=25)
    rotor.settle(minutes=2)
    rotor.settle(minutes=61)
    assert rotor.row(first.name).state is KeyState.DELETED
    assert rotor.row(first.name).usage_nano == account.stand_in.spent(first.api_key_hash) > 0
    with rotor.db.reading() as tx:
        texts = tx.execute(sa.select(api_keys.c.api_key).where(api_keys.c.state == "deleted")).scalars().all()
    assert texts == [None] * 3


def test_a_draining_key_works_until_no_process_can_have_a_call_on_it(rotor, account):
    rotor.run()
    old = rotor.keys.rows()[0]
    gateway = GatewayProcess(rotor.db, rotor.clock)
    with rotor.db.reading() as tx:
        before = current(tx, "api_keys")
    rotor.keys.ask_renewal(old.name)
    rotor.run()
    revision = rotor.row(old.name).drain_revision
    assert revision > before

    def state_after(keys_revision: int, in_flight: int, **delta: float) -> KeyState:
        gateway.beat(keys_revision, {str(old.id): {"in_flight": in_flight}})
        rotor.clock.advance(**delta)
        rotor.run()
        assert account.listed()[old.name]["disabled"] is (rotor.row(old.name).state is not KeyState.DRAINING)
        return rotor.row(old.name).state

    assert state_after(before, 0, minutes=5) is KeyState.DRAINING  # it may not know of the switch
    assert state_after(revision, 1, hours=1) is KeyState.DRAINING
    assert state_after(revision, 1, hours=1) is KeyState.DRAINING
    assert account.stand_in.chat(rotor.keys.text(old.id)).status_code == 200
    assert state_after(revision, 0, seconds=1) is KeyState.DISABLED


def test_a_process_that_is_silent_for_two_hours_blocks_nothing_any_more(rotor):
    rotor.run()
    old = rotor.keys.rows()[0]
    GatewayProcess(rotor.db, rotor.clock).beat(0, {str(old.id): {"in_flight": 1}})
    begun = rotor.clock.now()
    rotor.keys.ask_renewal(old.name)
    rotor.run()
    rotor.clock.time = begun + SILENT_IS_DEAD - timedelta(seconds=1)
    rotor.run()
    assert rotor.row(old.name).state is KeyState.DRAINING
    rotor.clock.advance(seconds=1)
    rotor.run()
    assert rotor.row(old.name).state is KeyState.DISABLED


@pytest.mark.parametrize("scenario", ["500", "402d", "drop"])
def test_no_key_is_drained_while_its_successor_cannot_be_minted(rotor, account, scenario):
    rotor.run()
    rotor.clock.advance(hours=25)
    account.fail(scenario, times=None)
    for _ in range(3):
        with pytest.raises(ManagementError):
            rotor.run()  # tries to mint
        assert rotor.states().keys() - {"abandoned"} == {"active", "intent"}
        assert rotor.states()["active"] == rotor.usable() == 3
        rotor.clock.advance(minutes=6)
        rotor.run()  # gives up what was lost


@pytest.mark.parametrize("after", [False, True], ids=["lost", "answer-lost"])
@pytest.mark.parametrize("scenario", ["500", "429c", "drop", "drop-reset"])
@pytest.mark.parametrize(("method", "before"), [("PATCH", "draining"), ("DELETE", "disabled")])
def test_a_disable_or_delete_that_fails_is_done_by_the_next_pass(one, account, scenario, after, method, before):
    one.run()
    one.settle(hours=25)
    if method == "DELETE":
        one.settle(minutes=2)
    one.clock.advance(minutes=70)
    account.fail(scenario, method=method, after=after)
    with pytest.raises(ManagementError):
        one.run()
    assert one.states()[before] == 1  # of the three: one fault does not keep the others waiting
    one.run()
    assert before not in one.states()
    one.settle(minutes=70)
    assert one.states() == {"active": 3, "deleted": 3}
    assert set(account.listed()) == one.names(KeyState.ACTIVE)


def test_what_cannot_be_tidied_up_keeps_no_new_key_from_being_minted(new_rotor, account):
    new_rotor(pool_size=4).run()
    rotor = new_rotor(pool_size=4)
    rotor.clock.advance(hours=25)
    rotor.run()
    rotor.clock.advance(minutes=2)
    account.fail("403g", method="PATCH", times=None)
    account.stand_in.control("DELETE", "log")
    rotor = new_rotor(pool_size=6)
    rotor.clock.advance(hours=26)
    with pytest.raises(ManagementError, match="PATCH"):
        rotor.run()
    assert rotor.states() == {"active": 6, "draining": 4}
    assert account.calls("PATCH", "/keys") == 3


def test_keys_that_are_about_to_expire_are_replaced_though_not_due(new_rotor):
    new_rotor(key_lifetime_hours=25, key_rotation_interval_hours=24).run()
    rotor = new_rotor(key_lifetime_hours=100, key_rotation_interval_hours=90)
    rotor.clock.advance(hours=24, minutes=51)
    assert rotor.run()
    assert rotor.states() == {"active": 3, "draining": 3}


def test_a_smaller_pool_keeps_its_keys_until_they_are_due(new_rotor):
    new_rotor(pool_size=4).run()
    rotor = new_rotor(pool_size=2)
    rotor.run()
    assert rotor.states() == {"active": 4}
    rotor.fewest = 99
    rotor.settle(hours=25)
    assert rotor.states() == {"active": 2, "draining": 4}
    assert rotor.fewest == 2


def test_one_key_is_renewed_when_asked_though_not_due(rotor):
    rotor.run()
    names = rotor.names(KeyState.ACTIVE)
    [chosen, *others] = sorted(names)
    rotor.fewest = 99
    assert rotor.rotation().renew(chosen)
    assert rotor.names(KeyState.DRAINING) == {chosen}
    assert rotor.names(KeyState.ACTIVE) > set(others)
    assert rotor.fewest == rotor.usable() == 3
    assert rotor.steps() == []


def test_a_key_is_renewed_by_whoever_rotates_at_the_moment(one):
    one.run()
    chosen = one.keys.rows()[0].name
    leader, other = one.rotation(), one.rotation()
    assert leader._lease.take()
    assert other.renew(chosen)
    assert one.states() == {"active": 3}
    leader._lease.release()
    one.run()
    assert one.names(KeyState.DRAINING) == {chosen}


def test_only_a_minted_key_in_use_can_be_renewed(one, account):
    one.keys.add(account.make("mine")["key"], "mine", KeySource.OPERATOR)
    for name in ("mine", "nobody's"):
        with pytest.raises(NotFound, match="no minted key in use"):
            one.rotation().renew(name)
    assert len(account.listed()) == 1


# ── keys that change at OpenRouter


def test_a_key_that_was_deleted_at_openrouter_is_dead_and_replaced(rotor, account, caplog):
    rotor.run()
    gone = rotor.keys.rows()[0]
    account.manage("DELETE", f"/keys/{gone.api_key_hash}")
    assert rotor.run()
    assert rotor.row(gone.name).state is KeyState.DEAD
    assert events(caplog)["key_dead"] == 1
    assert rotor.states() == {"dead": 1, "active": 3}


def test_a_key_that_has_expired_at_openrouter_is_dead_and_replaced(rotor, account):
    expires_at = rotor.clock.now() - timedelta(minutes=1)
    row_id = rotor.keys.intend(PREFIX + "a" * 32, expires_at, 10**9, None)
    rotor.keys.store(row_id, rotor.api.create(PREFIX + "a" * 32, 1, None, expires_at))
    rotor.keys.switch(row_id, expires_at, None)
    assert rotor.run()
    assert rotor.states() == {"dead": 1, "active": 3}


def test_a_key_that_was_disabled_at_openrouter_is_replaced_at_once_then_cleared_away(rotor, account):
    rotor.run()
    off = rotor.keys.rows()[0]
    account.manage("PATCH", f"/keys/{off.api_key_hash}", json={"disabled": True})
    assert rotor.run()
    assert rotor.states() == {"active": 3, "draining": 1}
    rotor.settle(minutes=2)
    rotor.settle(hours=2)
    assert rotor.row(off.name).state is KeyState.DELETED
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)


class Short(ManagementApi):
    """The API, but its list lacks some keys: with pages by offset, a key deleted meanwhile hides another."""

    def __init__(self, api: ManagementApi, lacking: set[str]) -> None:
        self.__dict__ |= api.__dict__
        self.lacking = lacking

    def list_keys(self) -> list[Any]:
        return [key for key in super().list_keys() if key.name not in self.lacking]


def test_a_list_that_lacks_keys_in_use_costs_none_of_them(rotor, account):
    rotor.run()
    draining = rotor.keys.rows()[0]
    GatewayProcess(rotor.db, rotor.clock).beat(1 << 40, {str(draining.id): {"in_flight": 1}})
    rotor.rotation().renew(draining.name)
    rotor.clock.advance(minutes=2)
    states, whole = rotor.states(), rotor.api
    rotor.api = Short(whole, {row.name for row in rotor.keys.rows()})
    assert rotor.run()
    rotor.api = whole
    assert rotor.run()
    assert rotor.states() == states
    assert len(account.listed()) == 4
    assert account.stand_in.chat(rotor.keys.text(draining.id)).status_code == 200


def test_a_draining_key_that_vanished_is_over(rotor, account):
    rotor.run()
    draining = rotor.keys.rows()[0]
    rotor.rotation().renew(draining.name)
    account.manage("DELETE", f"/keys/{draining.api_key_hash}")
    rotor.run()
    assert rotor.states() == {"active": 3, "deleted": 1}


def test_a_missing_key_that_cannot_be_asked_now_stays(rotor):
    rotor.run()
    rotor.api = Short(Odd(rotor.api), rotor.names(KeyState.ACTIVE))
    rotor.api.ask = lambda text: (_ for _ in ()).throw(ManagementError("GET /key", 429))
    with pytest.raises(ManagementError, match="status 429"):
        rotor.run()
    assert rotor.states() == {"active": 3}


@pytest.mark.parametrize("scenario", ["500", "429c", "drop", "drop-reset"])
def test_a_list_that_fails_changes_nothing(one, account, scenario):
    account.fail("drop", after=True)
    with pytest.raises(ManagementError):
        one.run()
    for number in range(101):
        account.make(f"foreign {number}")
    account.make(PREFIX + "f" * 32)
    before, rows = account.listed(), one.keys.rows()
    one.clock.advance(minutes=6)
    account.fail("stream", method="GET")  # the first page comes
    account.fail(scenario, method="GET")
    with pytest.raises(ManagementError):
        one.run()
    assert account.listed() == before
    assert one.keys.rows() == rows
    one.run()
    assert len(one.names(KeyState.ACTIVE)) == 3


# ── keys with our name that no row knows


def unknown(account: Account, count: int) -> dict[str, str]:
    """Keys with our name, as a database that was set back would find them: their hashes by name."""
    names = [PREFIX + f"{number:032x}" for number in range(count)]
    return {name: account.make(name)["data"]["hash"] for name in names}


def test_an_unknown_key_is_disabled_and_deleted_only_a_day_later(rotor, account, caplog):
    rotor.run()
    [(name, key_hash)] = unknown(account, 1).items()
    rotor.run()
    assert not account.listed()[name]["disabled"]  # too young: another process may be just minting it
    rotor.clock.advance(minutes=6)
    rotor.run()
    assert account.listed()[name]["disabled"]
    row = rotor.row(name)
    assert (row.state, row.source, row.api_key_hash) == (KeyState.QUARANTINED, KeySource.UNKNOWN, key_hash)
    assert events(caplog)["unknown_key_found"] == 1
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert name in account.listed()
    rotor.clock.advance(minutes=2)
    rotor.run()
    assert name not in account.listed()
    assert rotor.row(name).state is KeyState.DELETED
    assert events(caplog)["unknown_key_found"] == 1


def test_of_many_unknown_keys_three_are_disabled_in_a_pass(rotor, account):
    unknown(account, 7)
    rotor.clock.advance(minutes=6)
    for disabled in (3, 6, 7):
        rotor.run()
        assert sum(key["disabled"] for key in account.listed().values()) == disabled
    assert rotor.states() == {"active": 3, "quarantined": 7}


def test_nothing_is_deleted_for_a_day_after_an_unknown_key_was_found(rotor, account):
    """The database may be an old copy."""
    rotor.run()
    first = rotor.names(KeyState.ACTIVE)
    rotor.settle(hours=25)
    rotor.clock.advance(minutes=2)
    rotor.run()
    account.fail("drop", after=True)
    rotor.keys.ask_renewal(next(iter(rotor.names(KeyState.ACTIVE))))
    with pytest.raises(ManagementError):
        rotor.run()
    [lost] = rotor.names(KeyState.INTENT)
    unknown(account, 1)
    rotor.clock.advance(minutes=66)
    rotor.run()
    everything = set(account.listed())
    assert first | {lost} < everything
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert everything <= set(account.listed())
    assert rotor.names(KeyState.DISABLED) == first
    rotor.clock.advance(minutes=2)
    rotor.run()
    assert not (first | {lost}) & set(account.listed())


@pytest.mark.parametrize(
    "name", [PREFIX + "x" * 300, PREFIX, PREFIX + "é", PREFIX + "A" * 32], ids=["long", "short", "accent", "upper"]
)
def test_an_unknown_key_may_have_any_name_after_our_prefix(rotor, account, name):
    hashes = [account.make(name)["data"]["hash"], account.make(name)["data"]["hash"]]
    if name.endswith("A"):
        hashes.append(account.make(name.lower())["data"]["hash"])
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    assert {row.api_key_hash for row in rotor.keys.rows() if row.state is KeyState.QUARANTINED} == set(hashes)
    assert [account.manage("GET", f"/keys/{key_hash}")["data"]["disabled"] for key_hash in hashes] == [True] * len(
        hashes
    )
    rotor.run()
    assert rotor.states() == {"active": 3, "quarantined": len(hashes)}


def test_unknown_keys_of_one_name_are_all_disabled(rotor, account):
    hashes = {account.make(PREFIX + "a" * 32)["data"]["hash"] for _ in range(2)}
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    assert {row.api_key_hash for row in rotor.keys.rows() if row.state is KeyState.QUARANTINED} == hashes
    assert all(account.manage("GET", f"/keys/{key_hash}")["data"]["disabled"] for key_hash in hashes)


def test_an_unknown_key_that_somebody_enables_again_is_disabled_again(rotor, account):
    [(name, key_hash)] = unknown(account, 1).items()
    rotor.clock.advance(minutes=6)
    rotor.run()
    account.manage("PATCH", f"/keys/{key_hash}", json={"disabled": False})
    rotor.run()
    assert account.listed()[name]["disabled"]


def test_an_unknown_key_that_somebody_deletes_is_over(rotor, account):
    [(name, key_hash)] = unknown(account, 1).items()
    rotor.clock.advance(minutes=6)
    rotor.run()
    account.manage("DELETE", f"/keys/{key_hash}")
    rotor.settle()
    assert rotor.row(name).state is KeyState.DELETED


def test_a_database_that_was_set_back_costs_no_key_for_a_day(rotor, account):
    rotor.run()
    rotor.db.transact(lambda tx: tx.execute(api_keys.delete()))
    before = set(account.listed())
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert before <= set(account.listed())


# ── crashes, and other rotators


class Killed(BaseException):
    """What ends a process without its saying so."""


class Deadly(ManagementApi):
    """The API, but this call of this method is the process's last: it never comes back, or never goes out."""

    def __init__(self, api: ManagementApi, method: str, number: int, after: bool) -> None:
        self.__dict__ |= api.__dict__
        self.method, self.left, self.after = method, number, after
        for name in ("list_keys", "create", "ask", "disable", "delete"):
            setattr(self, name, self._watched(name, getattr(super(), name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            self.left -= name == self.method
            dies = name == self.method and self.left == 0
            if dies and not self.after:
                raise Killed
            answer = call(*arguments)
            if dies:
                raise Killed
            return answer

        return watched


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("method", ["list_keys", "create", "ask", "disable", "delete"])
def test_a_crash_at_any_call_is_repaired_and_never_leaves_fewer_keys(one, account, method, number, after):
    one.run()
    one.fewest = 99
    whole = one.api
    one.api = Deadly(whole, method, number, after)
    died = False
    for delta in ({"hours": 25}, {"minutes": 2}, {"minutes": 61}, {"minutes": 6}, {"hours": 2}, {"hours": 2}):
        one.clock.advance(**delta)
        try:
            one.run()
        except Killed:
            died, one.api = True, whole
    assert died
    assert one.fewest == one.usable() == 3
    one.settle()
    assert set(account.listed()) == one.names(KeyState.ACTIVE)
    assert one.states()["active"] == 3


def test_while_another_process_rotates_a_pass_does_nothing(rotor, account, caplog):
    leader, other = rotor.rotation(), rotor.rotation()
    assert leader._lease.take()
    caplog.set_level("INFO")
    assert not other.run_once()
    assert rotor.states() == {}
    assert events(caplog) == {"another_process_rotates": 1}
    assert account.calls("GET", "/keys") == 0
    rotor.clock.advance(seconds=LEASE.total_seconds())
    assert other.run_once()


class Sleepy(ManagementApi):
    """The API, but during its first create another process becomes the leader."""

    def __init__(self, rotor: Rotor) -> None:
        self.__dict__ |= rotor.api.__dict__
        self.rotor: Rotor | None = rotor
        self.other = rotor.rotation()

    def create(self, *arguments: Any) -> str:
        text = super().create(*arguments)
        if self.rotor:
            self.rotor.clock.advance(seconds=LEASE.total_seconds() + 1)
            self.rotor = None
            assert self.other.run_once()
        return text


def test_a_leader_that_slept_writes_nothing_more(rotor, account):
    rotor.api = Sleepy(rotor)
    with pytest.raises(LeaseLost):
        rotor.run()
    assert rotor.states() == {"intent": 1, "active": 3}
    assert len(account.listed()) == 4
    rotor.settle(minutes=6)
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)


def test_the_lease_is_given_back_even_when_the_pass_fails(one, account):
    account.fail("500", method="GET")
    with pytest.raises(ManagementError):
        one.run()
    assert one.run()  # a rotation of its own


# ── copies of a database


def test_a_copied_database_is_refused_until_it_is_claimed(new_rotor, account):
    new_rotor().run()
    before = account.listed()
    copy = new_rotor(deployment_id="copy")
    rows = copy.keys.rows()
    for attempt in (copy.run, copy.steps):
        with pytest.raises(WrongDeployment, match="--claim"):
            attempt()
    assert copy.keys.rows() == rows
    assert sorted(copy.rotation().claim()) == sorted(before)
    assert copy.states() == {"dead": 3}
    assert copy.usable() == 0
    assert copy.run()
    assert copy.states() == {"dead": 3, "active": 3}
    copy.settle(hours=30)
    assert {name: account.listed()[name] for name in before} == before


def test_claiming_keeps_the_keys_that_people_brought(new_rotor, account):
    rotor = new_rotor()
    rotor.keys.add(account.make("mine")["key"], "mine", KeySource.OPERATOR)
    rotor.run()
    copy = new_rotor(deployment_id="copy")
    assert len(copy.rotation().claim()) == 2
    assert copy.names(KeyState.ACTIVE) == {"mine"}


def test_a_database_that_is_being_rotated_cannot_be_claimed(new_rotor):
    rotor = new_rotor()
    rotor.run()
    leader = rotor.rotation()
    leader._lease.take()
    copy = new_rotor(deployment_id="copy")
    with pytest.raises(LeaseLost):
        copy.rotation().claim()
    leader._lease.release()
    assert rotor.run()
    assert rotor.states() == {"active": 3}


def test_keys_minted_under_another_deployment_id_are_used_up_and_not_renewed(new_rotor, account):
    """A database from before deployments were told apart."""
    rotor = new_rotor()
    rotor.run()
    rotor.db.transact(lambda tx: tx.execute(rotator.update().values(deployment_hash=None)))
    other = new_rotor(deployment_id="other")
    other.settle(hours=30)
    assert other.states() == {"active": 3}
    other.settle(hours=42)
    assert len(other.names(KeyState.ACTIVE)) == 6
    assert other.usable() == 3
    assert sum(name.startswith("gw/other/") for name in account.listed()) == 3
    assert not any(key["disabled"] for key in account.listed().values())


# ── the program


def settings_of(url: str, account: Account, folder: Path) -> dict[str, Any]:
    """The environment of key_rotation.py on an empty database."""
    return {
        "DATABASE_URL": url,
        "DATA_DIR": folder / "data",
        "OPENROUTER_API_URL": account.stand_in.address,
        "OPENROUTER_PROVISION_KEY": account.management_key,
        "DEPLOYMENT_ID": DEPLOYMENT,
        "POOL_SIZE": 2,
        "LOG_LEVEL": "DEBUG",
    }


@pytest.fixture
def program(account: Account, tmp_path: Path) -> dict[str, Any]:
    return settings_of(f"sqlite:///{tmp_path}/x.db", account, tmp_path)


@pytest.fixture
def program_on_each(empty_database_url: str, account: Account, tmp_path: Path) -> dict[str, Any]:
    return settings_of(empty_database_url, account, tmp_path)


def opened(program: dict[str, Any]) -> Database:
    return Database(database_url(Config(database_url=program["DATABASE_URL"])))


def all_rows(program: dict[str, Any]) -> list[dict[str, Any]]:
    db = opened(program)
    with db.reading() as tx:
        found = [row._asdict() for row in tx.execute(sa.select(api_keys).order_by(api_keys.c.id))]
    db.close()
    return found


def test_once_fills_the_pool_ends_with_0_and_shows_no_secret(program_on_each, account):
    program = program_on_each
    ended = run("key_rotation.py", "--once", **program)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert [row["state"] for row in all_rows(program)] == ["active", "active"]
    assert len(account.listed()) == 2
    assert ended.stderr.count("key_minted") == ended.stderr.count("key_active") == 2
    for shown in (ended.stderr, str(all_rows(program))):
        assert account.management_key not in shown
        assert "sk-or-v1" not in shown
    assert run("key_rotation.py", "--once", **program).returncode == 0
    assert len(account.listed()) == 2


def test_neither_the_management_key_nor_a_minted_one_is_in_any_file(program, account, tmp_path):
    run("key_rotation.py", "--once", **program)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert PREFIX.encode() in kept
    assert b"sk-or-v1" not in kept
    assert account.management_key.removeprefix("sk-or-v1-").encode() not in kept


@pytest.mark.parametrize("scenario", ["500", "429c", "402d", "drop"])
def test_once_ends_with_1_and_one_clear_line_when_openrouter_fails(program, account, scenario):
    account.fail(scenario)
    ended = run("key_rotation.py", "--once", **program | {"LOG_LEVEL": "ERROR"})
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("OpenRouter's management API failed: POST /keys: ")
    assert (f"status {scenario[:3]}" if scenario != "drop" else "no answer") in line


def test_once_ends_with_1_when_nobody_listens(program):
    ended = run("key_rotation.py", "--once", **program | {"OPENROUTER_API_URL": "http://127.0.0.1:1/api/v1"})
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("GET /keys: no answer (ConnectionError)")


def test_a_database_that_is_away_ends_it_with_1_and_one_clear_line(program, account):
    ended = run("key_rotation.py", "--once", **program | {"DATABASE_URL": "mysql://root:geheim12@127.0.0.1:1/x"})
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("Cannot start: the database does not answer (")
    assert "geheim12" not in line
    assert account.listed() == {}


def test_a_wrong_encryption_key_ends_it_before_openrouter_is_asked(program, account):
    db = opened(program)
    db.upgrade()
    sealed_secrets.username_key(db, Envelopes([ENCRYPTION_KEY]), datetime.now(UTC))
    db.close()
    ended = run("key_rotation.py", "--once", **program)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "does not open with ENCRYPTION_KEY" in line
    assert all_rows(program) == []
    assert account.listed() == {}


class Service:
    """`python key_rotation.py`, running."""

    def __init__(self, log: Path, settings: dict[str, Any]) -> None:
        self._log = log
        with log.open("wb") as out:
            command = [sys.executable, "key_rotation.py"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment(**settings), stdout=out, stderr=out)

    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start_service(program: dict[str, Any], tmp_path: Path) -> Iterator[Callable[[], Service]]:
    started: list[Service] = []

    def begin() -> Service:
        started.append(Service(tmp_path / "log", program))
        return started[-1]

    yield begin
    for service in started:
        service.process.kill()
        service.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_fills_the_pool_and_ends_cleanly_when_told(start_service, number):
    service = start_service()
    wait_for(lambda: service.log().count("key_active") == 2)
    assert service.end(number) == 0
    assert "Traceback" not in service.log()


def test_a_service_that_is_told_to_end_finishes_its_pass_first(start_service, account):
    account.fail("stream", delay_ms=300, times=2)
    service = start_service()
    wait_for(lambda: "key_active" in service.log())
    assert service.end() == 0
    assert service.log().count("key_active") == 2
    assert len(account.listed()) == 2


def test_the_service_outlives_a_failed_pass_and_says_so_in_one_line(start_service, account):
    account.fail("500")
    service = start_service()
    wait_for(lambda: "pass_failed" in service.log())
    assert "Traceback" not in service.log()
    assert service.process.poll() is None
    assert service.end() == 0


# ── status


def test_status_on_a_pipe_is_one_json_line_a_state(program, account):
    run("key_rotation.py", "--once", **program)
    shown = run("key_rotation.py", "--status", **program | {"OPENROUTER_PROVISION_KEY": ""})
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["state"] for line in lines] == [state.value for state in KeyState]
    assert {line["state"]: line["keys"] for line in lines if line["keys"]} == {"active": 2}
    first = min(row["expires_at"] for row in all_rows(program))
    [active] = [line for line in lines if line["keys"]]
    assert active["first_expires_at"] == first.isoformat(timespec="seconds")


def on_a_terminal(*command: str, **settings: object) -> str:
    """What a program shows to a person."""
    reading, writing = pty.openpty()
    env = environment(**{"COLUMNS": 100, "TERM": "dumb"} | settings)
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env, stdout=writing, stderr=writing)
    os.close(writing)
    shown = b""
    try:
        while data := os.read(reading, 4096):
            shown += data
    except OSError:  # how a terminal ends
        pass
    os.close(reading)
    process.wait(20)
    return shown.decode()


def test_status_says_by_its_exit_code_whether_the_pool_is_full(program):
    assert run("key_rotation.py", "--status", **program).returncode == 1
    run("key_rotation.py", "--once", **program)
    assert run("key_rotation.py", "--status", **program).returncode == 0
    assert run("key_rotation.py", "--status", **program | {"POOL_SIZE": 3}).returncode == 1


def test_status_on_a_terminal_is_a_table(program):
    shown = on_a_terminal("key_rotation.py", "--status", **program)
    assert "Key pool" in shown
    assert "first_expires_at" in shown
    assert all(state.value in shown for state in KeyState)


def test_a_pass_on_a_terminal_shows_its_progress_and_prints_nothing_into_a_pipe(program):
    assert "Rotating" in on_a_terminal("key_rotation.py", "--once", **program | {"LOG_LEVEL": "ERROR", "TERM": "xterm"})
    reading, writing = pty.openpty()
    env = environment(**program | {"POOL_SIZE": 3})
    command = [sys.executable, "key_rotation.py", "--once"]
    ended = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=writing, timeout=60, check=True)
    os.close(writing), os.close(reading)
    assert ended.stdout == b""


# ── what operators ask for


def test_a_dry_run_prints_the_steps_and_changes_nothing(program, account):
    run("key_rotation.py", "--once", **program)
    unknown(account, 1)
    rows, keys = all_rows(program), account.listed()
    account.stand_in.control("DELETE", "log")
    shown = run("key_rotation.py", "--dry-run", **program | {"POOL_SIZE": 4})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [json.loads(line) for line in shown.stdout.splitlines()] == [{"step": "mint", "key": None}] * 2
    assert all_rows(program) == rows
    assert account.listed() == keys
    assert [account.calls(method, "/keys") for method in ("POST", "PATCH", "DELETE")] == [0, 0, 0]
    shown = on_a_terminal("key_rotation.py", "--dry-run", **program | {"POOL_SIZE": 4})
    assert "The next pass" in shown
    assert shown.count("mint") == 2
    assert "nothing to do" in on_a_terminal("key_rotation.py", "--dry-run", **program)


def test_now_renews_one_key(program, account):
    run("key_rotation.py", "--once", **program)
    [first, second] = all_rows(program)
    ended = run("key_rotation.py", "--now", first["name"], **program)
    assert ended.returncode == 0, ended.stderr
    assert [row["state"] for row in all_rows(program)] == ["draining", "active", "active"]
    assert all_rows(program)[1] == second | {"remaining_nano": all_rows(program)[1]["remaining_nano"]}
    assert len(account.listed()) == 3


def test_now_with_an_unknown_name_ends_with_1_and_one_clear_line(program, account):
    ended = run("key_rotation.py", "--now", "nobody's", **program)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == 'There is no minted key in use named "nobody\'s"\n'
    assert account.listed() == {}


def test_a_cloned_database_is_refused_until_claimed(program, account):
    run("key_rotation.py", "--once", **program)
    names = sorted(account.listed())
    clone = program | {"DEPLOYMENT_ID": "clone"}
    for option in ("--once", "--dry-run"):
        refused = run("key_rotation.py", option, **clone)
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1].startswith("this database belongs to a deployment with another")
    claimed = run("key_rotation.py", "--claim", **clone)
    assert claimed.returncode == 0
    assert sorted(json.loads(line)["key"] for line in claimed.stdout.splitlines()) == names
    assert run("key_rotation.py", "--once", **clone).returncode == 0
    assert [row["state"] for row in all_rows(program)] == ["dead", "dead", "active", "active"]
    assert set(names) < set(account.listed())


@pytest.mark.parametrize("other", ["--status", "--dry-run", "--now=x", "--claim"])
def test_two_modes_together_are_refused(other):
    ended = run("key_rotation.py", "--once", other)
    assert ended.returncode == 2
    assert "not allowed with" in ended.stderr
