"""How things are: read from what the database has of the pool, of money, of hosts and of log-ins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.audit_log import AuditLog
from accounts.refused_log_ins import ACTIONS, RefusedLogIns
from accounts.sessions import Origin
from alerts.facts import Fact, Facts
from alerts.host import HOST
from alerts.kinds import KINDS
from billing.quotas.rows import Quotas
from config.settings import Config
from db import Database
from foundation.clock import Clock
from foundation.counts import Counts
from foundation.crypto import Envelopes
from foundation.money import NANO
from pool.keys import PoolKeys
from pool.life import PoolKeySource, PoolKeyState
from replicas.processes import GatewayProcess
from tables import openrouter_credit, pool_keys, quotas, usage_checks
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY

pytestmark = pytest.mark.mysql

Look = Callable[..., Facts]


@pytest.fixture
def keys(db: Database, envelopes: Envelopes) -> PoolKeys:
    return PoolKeys(db, envelopes, Clock())


@pytest.fixture
def look(db: Database, keys: PoolKeys) -> Look:
    clock = Clock()

    def make(**settings: Any) -> Facts:
        config = Config(encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY, **settings)
        return Facts(db, clock, config, keys, Quotas(db, clock, config), AuditLog(db, clock))

    return make


def add_key(keys: PoolKeys, number: int, source: PoolKeySource = PoolKeySource.OPERATOR) -> int:
    return keys.add(f"sk-or-v1-{number:064x}", f"key-{number}", source)


def set_row(db: Database, row_id: int, **values: Any) -> None:
    db.transact(lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == row_id).values(values)))


def beat(db: Database, **told: Any) -> None:
    GatewayProcess(db, Clock()).beat(1, told)


def values(facts: Any) -> list[tuple[str, float]]:
    return [(fact.subject, fact.value) for fact in facts]


def test_the_pool_is_what_all_processes_say_of_it(db, keys, look):
    assert values(look().usable_keys()) == [("pool", 0)]
    assert values(look().usable_share()) == []
    first, second = add_key(keys, 1), add_key(keys, 2)
    beat(db)
    assert values(look().usable_keys()) == [("pool", 2)]
    assert values(look().usable_share()) == [("pool", 1.0)]
    assert values(look().refused_keys()) == []
    beat(db, **{str(first): {"in_flight": 0, "health": "suspect", "reason": "key-refused", "until": None}})
    [half] = look().usable_share()
    assert (half.value, half.parts) == (0.5, {"usable": 1, "wanted": 2})
    assert values(look().refused_keys()) == [("key/key-1", 1)]
    set_row(db, second, source=PoolKeySource.MINTED)
    assert values(look(pool_size=4).usable_share()) == [("pool", 0.25)]


def test_a_key_that_openrouter_does_not_know_any_more_is_told_for_a_day(db, keys, look):
    gone, long_gone = add_key(keys, 1), add_key(keys, 2)
    set_row(db, gone, state=PoolKeyState.DEAD, updated_at=datetime.now(UTC) - timedelta(hours=23))
    set_row(db, long_gone, state=PoolKeyState.DEAD, updated_at=datetime.now(UTC) - timedelta(hours=25))
    assert values(look().refused_keys()) == [("key/key-1", 1)]


def test_credit_is_the_accounts_and_that_of_keys_that_were_brought(db, keys, look):
    assert values(look().credit()) == []
    row = {"name": "openrouter", "left_nano": 4 * NANO, "told_at": datetime.now(UTC)}
    db.transact(lambda tx: tx.execute(openrouter_credit.insert().values(row)))
    brought, small, minted = add_key(keys, 1), add_key(keys, 2), add_key(keys, 3, PoolKeySource.MINTED)
    set_row(db, brought, limit_nano=100 * NANO, remaining_nano=2 * NANO)
    set_row(db, small, limit_nano=NANO, remaining_nano=NANO // 10)
    set_row(db, minted, limit_nano=NANO, remaining_nano=0)  # the rotation's own, which begins anew each period
    found = list(look(alert_credit_usd=8).credit())
    assert values(found) == [("account", 0.5), ("key/key-1", 0.25), ("key/key-2", 0.5)]
    assert found[1].parts == {"whose": "Key key-1", "left": "$2.00"}
    assert values(look(alert_credit_usd=0).credit()) == []


def test_quotas_are_told_of_from_three_quarters_on_as_of_now(db, look):
    facts = look(quota_usd=None)
    clock = Clock()
    stored = Quotas(db, clock, Config(encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY, quota_usd=None))
    for number, spent in ((1, 74), (2, 80), (3, 130), (4, 99)):
        stored.set(f"user/{number}", 100 * NANO, None, "month", "reset")
        changed = {"spent_nano": spent * NANO}
        if number == 4:  # of the month before: all of it is free again
            changed["window_start"] = datetime(2020, 1, 1, tzinfo=UTC)
        which = quotas.c.subject == f"user/{number}"
        db.transact(lambda tx, which=which, changed=changed: tx.execute(quotas.update().where(which).values(changed)))
    stored.set("user/5", 0, None, "month", "reset")  # may spend nothing: no news
    stored.set("key/1", NANO, None, "month", "reset")
    assert values(facts.quotas_used()) == [("user/3", 1.3), ("user/4", 0.0), ("user/2", 0.8)]
    assert next(iter(facts.quotas_used())).parts == {"account": "3", "percent": 130, "quota": "$100 per month"}


def test_hosts_are_the_worst_that_their_processes_report(db, look):
    one = {"name": "one", "behind_seconds": 0, "fault": None, "skew_seconds": -6.0, "free_bytes": 5e9}
    other = one | {"behind_seconds": 400, "fault": "No space", "skew_seconds": 1.0, "free_bytes": 4e8}
    for told in (one, other, one | {"name": "two"}):
        beat(db, **{HOST: told})
    beat(db)  # of a version that does not report it
    facts = look()
    assert dict(values(facts.drain_behind())) == {"host/one": 400, "host/two": 0}
    assert dict(values(facts.journal_faults())) == {"host/one": True, "host/two": False}
    assert dict(values(facts.free_bytes())) == {"host/one": 4e8, "host/two": 5e9}
    assert dict(values(facts.clock_skew())) == {"host/one": 6.0, "host/two": 6.0}
    parts = {fact.subject: fact.parts for fact in facts.clock_skew()}
    assert parts["host/one"] == {"host": "one", "seconds": "-6.0"}


def test_only_the_newest_day_of_the_daily_check_counts(db, keys, look):
    assert values(look().differences()) == [("usage-check", 0)]
    first, second = add_key(keys, 1, PoolKeySource.MINTED), add_key(keys, 2, PoolKeySource.MINTED)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def note(day: int, key: int, ours: int, theirs: int) -> None:
        row = {"day": today - timedelta(days=day), "pool_key_id": key, "our_nano": ours, "activity_nano": theirs}
        row |= {"our_total_nano": 0, "checked_at": datetime.now(UTC)}
        db.transact(lambda tx: tx.execute(usage_checks.insert().values(row)))

    note(2, first, 5 * NANO, 9 * NANO)
    assert values(look().differences()) == [("usage-check", 1)]
    note(1, first, NANO, NANO)
    assert values(look().differences()) == [("usage-check", 0)]
    note(1, second, NANO, 2 * NANO)
    [differs] = look().differences()
    assert (differs.value, differs.parts["keys"]) == (1, 1)


def test_refused_log_ins_of_the_latest_minutes_are_added_up(db, look):
    class Earlier(Clock):
        def now(self) -> datetime:
            return super().now() - timedelta(minutes=11)

    for clock, times in ((Earlier(), 50), (Clock(), 30)):
        refused = RefusedLogIns(AuditLog(db, clock), Counts())
        for number in range(times):
            refused.note(ACTIONS[number % len(ACTIONS)], None, Origin("key", "192.0.2.1", "one"))
        refused.sums.write()
    AuditLog(db, Clock()).record("cli", "alias_set", "alias/x")
    assert values(look().refused_log_ins()) == [("log-ins", 30)]


def test_every_kinds_sentence_is_filled_by_its_facts(db, keys, look):
    """With something wrong of every kind."""
    row_id = add_key(keys, 1)
    set_row(db, row_id, limit_nano=NANO, remaining_nano=0)
    host = {"name": "one", "behind_seconds": 400, "fault": "No space", "skew_seconds": 9.0, "free_bytes": 0}
    suspect = {"in_flight": 0, "health": "suspect", "reason": "key-refused", "until": None}
    beat(db, **{HOST: host, str(row_id): suspect})
    stored = Quotas(db, Clock(), Config(encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY))
    stored.set("user/1", NANO, None, "month", "reset")
    db.transact(lambda tx: tx.execute(quotas.update().values(spent_nano=2 * NANO)))
    facts = look()
    for kind in KINDS.values():
        found = list(kind.ask(facts))
        assert found, kind.name
        for fact in found:
            assert isinstance(fact, Fact)
            assert "{" not in kind.words(fact.subject).format(**fact.parts)
