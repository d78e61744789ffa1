"""The steps of a rotation, against the stand-in: what each does, and what is left when OpenRouter fails in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from foundation.crypto import Envelopes, SealBroken, sha256_hex
from foundation.errors import NotFound
from pool.life import PoolKeySource, PoolKeyState
from replicas.processes import SILENT_IS_DEAD, GatewayProcess
from replicas.revisions import current
from tables import pool_keys
from tests.conftest import ENCRYPTION_KEY
from tests.support.rotor import AT_ONCE, PREFIX, events, unknown
from upstream.openrouter.management_api import KeyAccount, ManagementApi, ManagementError
from vault import sealed
from vault.reencrypt import reencrypt

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
    assert len(rotor.names(PoolKeyState.ACTIVE)) == 3


@pytest.mark.parametrize("scenario", ["500", "429c", "drop", "drop-reset"])
def test_a_key_whose_create_answer_was_lost_is_deleted_after_five_minutes(rotor, account, scenario):
    """OpenRouter made the key, and nobody has its text."""
    account.fail(scenario, after=True)
    with pytest.raises(ManagementError):
        rotor.run()
    [orphan] = account.listed()
    assert {orphan} == rotor.names(PoolKeyState.INTENT)
    assert rotor.run()
    rotor.clock.advance(minutes=4, seconds=59)
    assert rotor.run()
    assert orphan in account.listed()
    rotor.clock.advance(seconds=2)
    assert rotor.run()
    assert orphan not in account.listed()
    assert rotor.names(PoolKeyState.ABANDONED) == {orphan}
    assert set(account.listed()) == rotor.names(PoolKeyState.ACTIVE)


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
    assert set(account.listed()) == set(foreign) | rotor.names(PoolKeyState.ACTIVE)
    assert rotor.names(PoolKeyState.ABANDONED) == {orphan}


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
    assert set(account.listed()) == rotor.names(PoolKeyState.ACTIVE)


def test_a_create_that_arrives_late_is_swept_though_its_intent_was_given_up(rotor, account):
    """A leader that slept for minutes between its intent and its call."""
    name = PREFIX + "a" * 32
    rotor.keys.intend(name, rotor.clock.now() + timedelta(hours=72), None, None)
    rotor.clock.advance(minutes=6)
    rotor.run()
    assert rotor.names(PoolKeyState.ABANDONED) == {name}
    account.make(name)
    rotor.run()
    assert set(account.listed()) == rotor.names(PoolKeyState.ACTIVE)


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
    assert name in rotor.names(PoolKeyState.ACTIVE)
    assert len(account.listed()) == 3


def test_a_stored_key_that_is_gone_at_openrouter_is_dead_and_replaced(rotor, account):
    name, text = rotor.stored()
    account.manage("DELETE", f"/keys/{sha256_hex(text)}")
    rotor.run()
    assert rotor.row(name).state is PoolKeyState.DEAD
    assert rotor.run()
    assert rotor.states() == {"dead": 1, "active": 3}


def test_a_stored_key_that_openrouter_goes_on_refusing_is_deleted_and_replaced(rotor, account):
    name, text = rotor.stored()
    account.manage("PATCH", f"/keys/{sha256_hex(text)}", json={"disabled": True})
    rotor.run()
    assert rotor.row(name).state is PoolKeyState.STORED
    rotor.clock.advance(minutes=6)
    rotor.run()
    assert rotor.row(name).state is PoolKeyState.ABANDONED
    assert rotor.run()
    assert set(account.listed()) == rotor.names(PoolKeyState.ACTIVE)
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


@pytest.mark.parametrize(
    "told",
    [
        KeyAccount(None, 9_999_999_999, None, states_limit=True),
        KeyAccount(None, None, None),
        KeyAccount(None, None, None, states_limit=True),
    ],
    ids=["rounded", "missing", "null"],
)
def test_a_key_whose_limit_get_key_words_otherwise_is_used_by_what_the_list_says(one, account, told, caplog):
    one.api = Odd(one.api, told)
    assert one.run()
    assert one.states() == {"active": 3}
    assert {key["limit"] for key in account.listed().values()} == {10}
    assert events(caplog)["key_limit_worded_otherwise"] == 1


def test_a_key_that_may_spend_more_by_all_that_is_said_of_it_is_not_used_and_given_up_after_minutes(one, account):
    name, text = one.stored()
    account.manage("PATCH", f"/keys/{one.row(name).api_key_hash}", json={"limit": 1000})
    with pytest.raises(ManagementError, match="may spend more"):
        one.run()
    assert one.row(name).state is PoolKeyState.STORED
    one.clock.advance(minutes=6)
    one.run()
    assert one.row(name).state is PoolKeyState.ABANDONED
    assert name not in account.listed()
    assert text


def test_a_rotation_that_runs_on_with_a_replaced_encryption_key_takes_no_row_for_damaged(rotor, account):
    sealed.open_deployment_key(rotor.db, Envelopes([ENCRYPTION_KEY]), sealed.USERNAME_KEY, rotor.clock.now())
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
        lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == first.id).values(api_key="gAAAAx"))
    )
    assert rotor.run()
    assert rotor.states() == {"quarantined": 1, "active": 3}
    rotor.settle(hours=48)
    assert rotor.row(first.name).state is PoolKeyState.QUARANTINED
    assert first.name in account.listed()
    assert events(caplog)["key_quarantined"] == 1


# ── renewal


def test_due_keys_are_replaced_one_by_one_then_drained_then_disabled_then_deleted(rotor, account):
    rotor.run()
    first = rotor.names(PoolKeyState.ACTIVE)
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert rotor.states() == {"active": 3}
    rotor.clock.advance(minutes=2)
    rotor.fewest = 99
    assert rotor.run()
    assert rotor.fewest == 3
    assert rotor.states() == {"active": 3, "draining": 3}
    assert rotor.names(PoolKeyState.DRAINING) == first
    ids = {row.id for row in rotor.keys.rows() if row.name in first}
    assert {row.replaces_id for row in rotor.keys.rows() if row.state is PoolKeyState.ACTIVE} == ids
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
    assert rotor.names(PoolKeyState.DELETED) == first
    assert set(account.listed()) == rotor.names(PoolKeyState.ACTIVE)
    assert rotor.states() == {"active": 3, "deleted": 3}
    assert rotor.fewest == 3


@pytest.mark.parametrize("state", ["active", "unknown", "disabled by hand", "late"])
def test_what_a_key_has_spent_is_noted_before_it_is_disabled_or_deleted(rotor, account, state, caplog):
    """Whichever way it goes: OpenRouter's list says nothing about a key that is gone."""
    rotor.run()
    if state == "unknown":
        made = account.make(PREFIX + "f" * 32)
        text, name = made["key"], made["data"]["name"]
    else:
        row = rotor.keys.rows()[0]
        text, name = rotor.keys.text(row.id), row.name
    key_hash = sha256_hex(text)
    account.stand_in.chat(text)
    spent = account.stand_in.spent(key_hash)
    assert spent > 0
    if state == "disabled by hand":
        account.manage("PATCH", f"/keys/{key_hash}", json={"disabled": True})
    if state == "late":  # its answers were counted by OpenRouter only after it was disabled
        rotor.settle(hours=25)
        rotor.settle(minutes=2)
        account.manage("PATCH", f"/keys/{key_hash}", json={"disabled": False})
        account.stand_in.chat(text)
        account.manage("PATCH", f"/keys/{key_hash}", json={"disabled": True})
        spent = account.stand_in.spent(key_hash)
    for hours in (0.1, 1.1, 24, 24, 24, 24):
        rotor.settle(hours=hours)
    assert name not in account.listed()
    assert rotor.row(name).usage_nano == spent
    assert rotor.row(name).state is PoolKeyState.DELETED


def test_what_a_key_has_spent_is_known_although_it_expired_while_nobody_looked(one, account):
    one.run()
    row = one.keys.rows()[0]
    account.stand_in.chat(one.keys.text(row.id))
    one.run()
    account.manage("DELETE", f"/keys/{row.api_key_hash}")
    one.settle(minutes=10)
    assert one.row(row.name).state is PoolKeyState.DEAD
    assert one.row(row.name).usage_nano == account.stand_in.spent(row.api_key_hash) > 0


def test_what_a_key_has_spent_is_kept_and_its_text_is_not(rotor, account):
    rotor.run()
    first = rotor.keys.rows()[0]
    account.stand_in.chat(rotor.keys.text(first.id))
    rotor.settle(hours=25)
    rotor.settle(minutes=2)
    rotor.settle(minutes=61)
    assert rotor.row(first.name).state is PoolKeyState.DELETED
    assert rotor.row(first.name).usage_nano == account.stand_in.spent(first.api_key_hash) > 0
    with rotor.db.reading() as tx:
        texts = tx.execute(sa.select(pool_keys.c.api_key).where(pool_keys.c.state == "deleted")).scalars().all()
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

    def state_after(keys_revision: int, in_flight: int, **delta: float) -> PoolKeyState:
        gateway.beat(keys_revision, {str(old.id): {"in_flight": in_flight}})
        rotor.clock.advance(**delta)
        rotor.run()
        assert account.listed()[old.name]["disabled"] is (rotor.row(old.name).state is not PoolKeyState.DRAINING)
        return rotor.row(old.name).state

    assert state_after(before, 0, minutes=5) is PoolKeyState.DRAINING  # it may not know of the switch
    assert state_after(revision, 1, hours=1) is PoolKeyState.DRAINING
    assert state_after(revision, 1, hours=1) is PoolKeyState.DRAINING
    assert account.stand_in.chat(rotor.keys.text(old.id)).status_code == 200
    assert state_after(revision, 0, seconds=1) is PoolKeyState.DISABLED


def test_a_process_that_is_silent_for_two_hours_blocks_nothing_any_more(rotor):
    rotor.run()
    old = rotor.keys.rows()[0]
    GatewayProcess(rotor.db, rotor.clock).beat(0, {str(old.id): {"in_flight": 1}})
    begun = rotor.clock.now()
    rotor.keys.ask_renewal(old.name)
    rotor.run()
    rotor.clock.time = begun + SILENT_IS_DEAD - timedelta(seconds=1)
    rotor.run()
    assert rotor.row(old.name).state is PoolKeyState.DRAINING
    rotor.clock.advance(seconds=1)
    rotor.run()
    assert rotor.row(old.name).state is PoolKeyState.DISABLED


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
    assert set(account.listed()) == one.names(PoolKeyState.ACTIVE)


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
    names = rotor.names(PoolKeyState.ACTIVE)
    [chosen, *others] = sorted(names)
    rotor.fewest = 99
    assert rotor.rotation().renew(chosen)
    assert rotor.names(PoolKeyState.DRAINING) == {chosen}
    assert rotor.names(PoolKeyState.ACTIVE) > set(others)
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
    assert one.names(PoolKeyState.DRAINING) == {chosen}


def test_only_a_minted_key_in_use_can_be_renewed(one, account):
    one.keys.add(account.make("mine")["key"], "mine", PoolKeySource.OPERATOR)
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
    assert rotor.row(gone.name).state is PoolKeyState.DEAD
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
    assert rotor.row(off.name).state is PoolKeyState.DELETED
    assert set(account.listed()) == rotor.names(PoolKeyState.ACTIVE)


class Short(ManagementApi):
    """The API, but its list lacks some keys: with pages by offset, a key deleted meanwhile hides another."""

    def __init__(self, api: ManagementApi, lacking: set[str]) -> None:
        self.__dict__ |= api.__dict__
        self.lacking = lacking

    def list_keys(self, *arguments: Any) -> list[Any]:
        return [key for key in super().list_keys(*arguments) if key.name not in self.lacking]


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
    rotor.api = Short(Odd(rotor.api), rotor.names(PoolKeyState.ACTIVE))
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
    assert len(one.names(PoolKeyState.ACTIVE)) == 3


# ── keys with our name that no row knows


def test_an_unknown_key_is_disabled_and_deleted_only_a_day_later(rotor, account, caplog):
    rotor.run()
    [(name, key_hash)] = unknown(account, 1).items()
    rotor.run()
    assert not account.listed()[name]["disabled"]  # too young: another process may be just minting it
    rotor.clock.advance(minutes=6)
    rotor.run()
    assert account.listed()[name]["disabled"]
    row = rotor.row(name)
    assert (row.state, row.source, row.api_key_hash) == (PoolKeyState.QUARANTINED, PoolKeySource.UNKNOWN, key_hash)
    assert events(caplog)["unknown_key_found"] == 1
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert name in account.listed()
    rotor.clock.advance(minutes=2)
    rotor.run()
    assert name not in account.listed()
    assert rotor.row(name).state is PoolKeyState.DELETED
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
    first = rotor.names(PoolKeyState.ACTIVE)
    rotor.settle(hours=25)
    rotor.clock.advance(minutes=2)
    rotor.run()
    account.fail("drop", after=True)
    rotor.keys.ask_renewal(next(iter(rotor.names(PoolKeyState.ACTIVE))))
    with pytest.raises(ManagementError):
        rotor.run()
    [lost] = rotor.names(PoolKeyState.INTENT)
    unknown(account, 1)
    rotor.clock.advance(minutes=66)
    rotor.run()
    everything = set(account.listed())
    assert first | {lost} < everything
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert everything <= set(account.listed())
    assert rotor.names(PoolKeyState.DISABLED) == first
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
    assert {row.api_key_hash for row in rotor.keys.rows() if row.state is PoolKeyState.QUARANTINED} == set(hashes)
    assert [account.manage("GET", f"/keys/{key_hash}")["data"]["disabled"] for key_hash in hashes] == [True] * len(
        hashes
    )
    rotor.run()
    assert rotor.states() == {"active": 3, "quarantined": len(hashes)}


def test_unknown_keys_of_one_name_are_all_disabled(rotor, account):
    hashes = {account.make(PREFIX + "a" * 32)["data"]["hash"] for _ in range(2)}
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    assert {row.api_key_hash for row in rotor.keys.rows() if row.state is PoolKeyState.QUARANTINED} == hashes
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
    assert rotor.row(name).state is PoolKeyState.DELETED


def test_a_database_that_was_set_back_costs_no_key_for_a_day(rotor, account):
    rotor.run()
    rotor.db.transact(lambda tx: tx.execute(pool_keys.delete()))
    before = set(account.listed())
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert before <= set(account.listed())
