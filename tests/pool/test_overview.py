"""The pool as operators see it: the worst that any living process reports, and the calls of all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import Database
from foundation.clock import Clock
from foundation.crypto import Envelopes
from pool.keys import SHARED, PoolKeys
from pool.life import PoolKeySource, PoolKeyState
from pool.overview import SILENT_AFTER, PoolOverview, pool_overview, renewals, upstream_overview
from replicas.processes import GatewayProcess
from tables import gateway_processes, pool_keys
from upstream.dial import GuardedDial
from upstream.registry import Upstreams

TEXT = "sk-or-v1-" + "a1b2" * 16
Report = Callable[..., str]


@pytest.fixture
def keys(db: Database, envelopes: Envelopes) -> PoolKeys:
    return PoolKeys(db, envelopes, Clock())


@pytest.fixture
def mine(keys: PoolKeys) -> int:
    """The row of a key in use."""
    return keys.add(TEXT, "mine", PoolKeySource.OPERATOR)


@pytest.fixture
def report(db: Database, mine: int) -> Report:
    """Let one more process report, some seconds ago, what it has to tell of the key."""

    def beat(seconds_ago: float = 0, **told: Any) -> str:
        process = GatewayProcess(db, Clock())
        process.beat(7, {str(mine): told} if told else {})
        beat_at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        wanted = gateway_processes.c.id == process.id
        db.transact(lambda tx: tx.execute(gateway_processes.update().where(wanted).values(beat_at=beat_at)))
        return process.id

    return beat


def overview(keys: PoolKeys, db: Database, **more: Any) -> PoolOverview:
    return pool_overview(keys, db, datetime.now(UTC), **more)


def health(keys: PoolKeys, db: Database) -> tuple[str | None, str | None, str | None]:
    [key] = overview(keys, db).keys
    return key.health, key.reason, key.until


def change(db: Database, **values: Any) -> None:
    db.transact(lambda tx: tx.execute(pool_keys.update().values(values)))


def test_without_processes_nothing_is_known_of_health(keys, db, mine):
    assert health(keys, db) == (None, None, None)
    assert overview(keys, db).processes == []


def test_a_key_in_use_of_which_a_process_has_nothing_to_tell_is_in_order(keys, db, report):
    report()
    assert health(keys, db) == ("ok", None, None)


@pytest.mark.parametrize("values", [{"enabled": False}, {"state": PoolKeyState.DRAINING}])
def test_a_key_that_is_not_picked_has_no_health_unless_it_is_reported(keys, db, report, values):
    change(db, **values)
    report(in_flight=1)
    assert health(keys, db) == (None, None, None)
    report(health="suspect")
    assert health(keys, db)[0] == "suspect"


@pytest.mark.parametrize(
    ("told", "worst"),
    [
        (["ok", "half-open"], "half-open"),
        (["half-open", "resting", "ok"], "resting"),
        (["suspect", "resting"], "suspect"),
        (["suspect", "on fire"], "on fire"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_worst_that_a_process_reports_counts(keys, db, report, told, worst, order):
    for word in told[::order]:
        report(health=word, reason=f"because {word}")
    assert health(keys, db) == (worst, f"because {worst}", None)


def test_an_upstream_shows_the_worst_that_any_living_process_reports(db, envelopes):
    upstreams = Upstreams(db, envelopes, Clock(), GuardedDial(allow_private=False))
    on, off = (
        upstreams.add(upstreams.check({"name": name, "base_url": "https://api.example", "is_active": active}), None)
        for name, active in (("on", True), ("off", False))
    )

    def shown() -> list[tuple[str | None, str | None]]:
        return [(one["health"], one["reason"]) for one in upstream_overview([on, off], db, datetime.now(UTC))]

    assert shown() == [(None, None), (None, None)]
    GatewayProcess(db, Clock()).beat(7, {})
    assert shown() == [("ok", None), (None, None)]
    resting = {"health": "resting", "reason": "away", "until": "2026-11-21T00:00:00+00:00"}
    GatewayProcess(db, Clock()).beat(7, {f"upstream/{on.id}": resting, str(on.id): {"health": "suspect"}})
    assert shown() == [("resting", "away"), (None, None)]
    assert upstream_overview([on], db, datetime.now(UTC))[0].items() >= on.to_dict().items()


@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        ("active", "intent", "minting"),
        ("active", "stored", "checking"),
        ("draining", "active", "draining"),
        ("disabled", "active", "disabled"),
        ("disabled", "draining", "disabled"),  # the new one is being replaced in its turn
        ("deleted", "active", None),
        ("active", "abandoned", None),
    ],
)
def test_how_far_a_renewal_is_can_be_told_from_the_two_keys(keys, db, mine, old, new, step):
    other = keys.intend("new", datetime.now(UTC), None, replaces_id=mine)
    for row_id, state in ((mine, old), (other, new)):
        wanted = pool_keys.c.id == row_id
        db.transact(lambda tx, w=wanted, s=state: tx.execute(pool_keys.update().where(w).values(state=s)))
    told = [{"old": "mine", "new": "new", "step": step}] if step else []
    assert renewals(keys.page(SHARED, False, 0, None)[0], datetime.now(UTC)) == told


def test_a_renewal_that_was_asked_for_waits_for_its_pass(keys, db, mine):
    now = datetime.now(UTC)
    change(db, source=PoolKeySource.MINTED)
    keys.ask_renewal("mine")
    rows = keys.page(SHARED, False, 0, None)[0]
    assert renewals(rows, now - timedelta(hours=1)) == []
    assert renewals(rows, now + timedelta(hours=1)) == [{"old": "mine", "new": None, "step": "asked for"}]
    keys.intend("new", now, None, replaces_id=mine)
    [told] = renewals(keys.page(SHARED, False, 0, None)[0], now + timedelta(hours=1))
    assert told["step"] == "minting"


def test_of_equal_rests_the_longer_one_is_shown(keys, db, report):
    times = ["2026-11-21T12:00:00+00:00", "2026-11-21T12:05:00+00:00", None]
    for number, until in enumerate(times):
        report(health="resting", reason=str(number), until=until)
    assert health(keys, db) == ("resting", "1", times[1])


def test_calls_are_added_up_over_all_processes_even_silent_ones(keys, db, report):
    report(in_flight=2)
    report(in_flight=3, health="ok")
    report(health="ok")
    report(SILENT_AFTER.total_seconds() + 5, in_flight=4)
    assert overview(keys, db).keys[0].in_flight == 9


def test_a_silent_process_is_listed_and_not_believed(keys, db, report):
    fresh = report(in_flight=1)
    silent = report(SILENT_AFTER.total_seconds() + 5, health="suspect", in_flight=4)
    assert health(keys, db) == ("ok", None, None)
    found = overview(keys, db).processes
    assert all(datetime.fromisoformat(process.pop("beat_at")) for process in found)
    assert found == [
        {"id": fresh[:8], "silent": False, "keys_revision": 7, "in_flight": 1},
        {"id": silent[:8], "silent": True, "keys_revision": 7, "in_flight": 4},
    ]


def test_a_report_about_a_key_that_is_not_there_changes_nothing(keys, db, mine):
    GatewayProcess(db, Clock()).beat(1, {"999": {"health": "suspect"}})
    assert health(keys, db) == ("ok", None, None)


def test_the_newest_comes_first_and_what_is_over_only_if_asked_for(keys, db):
    for number, state in enumerate(PoolKeyState):
        row_id = keys.add(f"sk-or-v1-{number:064x}", f"key {number}", PoolKeySource.OPERATOR)
        moved = pool_keys.update().where(pool_keys.c.id == row_id).values(state=state)
        db.transact(lambda tx, moved=moved: tx.execute(moved))
    states = list(reversed(PoolKeyState))
    over = {PoolKeyState.DELETED, PoolKeyState.ABANDONED, PoolKeyState.DEAD}
    assert [key.row.state for key in overview(keys, db, with_gone=True).keys] == states
    assert [key.row.state for key in overview(keys, db).keys] == [state for state in states if state not in over]


@pytest.mark.parametrize(
    ("values", "told", "usable"),
    [
        ({"enabled": True}, None, 1),
        ({"enabled": True}, {"health": "ok"}, 1),
        ({"enabled": True}, {"health": "half-open"}, 1),
        ({"enabled": True}, {"health": "resting"}, 0),
        ({"enabled": True}, {"health": "suspect"}, 0),
        ({"enabled": False}, None, 0),
        ({"state": PoolKeyState.QUARANTINED}, None, 0),
        ({"expires_at": datetime(2001, 1, 1, tzinfo=UTC)}, None, 0),
        ({"expires_at": datetime(2101, 1, 1, tzinfo=UTC)}, None, 1),
    ],
)
def test_usable_is_what_calls_may_get(keys, db, report, values, told, usable):
    change(db, **values)
    if told:
        report(**told)
    assert overview(keys, db).usable == usable


def test_as_json_it_has_dollars_and_no_text(keys, db, mine):
    change(db, limit_nano=10_000_000_000, remaining_nano=2_500_000_000, use_count=3)
    told = overview(keys, db).keys[0].to_dict()
    assert (told["limit_usd"], told["remaining_usd"], told["used"]) == (10.0, 2.5, 3)
    assert TEXT not in str(told)
    assert len(told["hash"]) == 12


@pytest.mark.parametrize(
    ("values", "told", "status"),
    [
        ({}, None, "silent"),
        ({}, {}, "ok"),
        ({}, {"health": "resting"}, "resting"),
        ({"enabled": False}, {"health": "resting"}, "off"),
        ({"state": "draining"}, {"health": "ok"}, "draining"),
        ({"state": "disabled", "enabled": False}, None, "disabled"),
    ],
)
def test_one_word_says_how_a_key_is(keys, db, report, values, told, status):
    if values:
        db.transact(lambda tx: tx.execute(pool_keys.update().values(**values)))
    if told is not None:
        report(**told)
    [key] = overview(keys, db).keys
    assert (key.status, key.to_dict()["status"]) == (status, status)
