"""Refused log-ins: counted the same for everybody, written in few entries, and not lost with a database that is away."""

from __future__ import annotations

from collections import Counter

import pytest
import sqlalchemy as sa

from accounts.audit_log import AuditLog
from accounts.refused_log_ins import MAX_KINDS, RefusedLogIns
from accounts.sessions import Origin
from accounts.users import Users
from db import Database, DatabaseError
from tests.support.movable_clock import MovableClock

HOME, ELSEWHERE = Origin("key", "192.0.2.1", "one"), Origin("key", "192.0.2.2", "another")


def told(audit: AuditLog) -> Counter[tuple[str, int | None, str | None]]:
    found: Counter[tuple[str, int | None, str | None]] = Counter()
    for entry in audit.page(1, 2 * MAX_KINDS)[0]:
        found[entry.action, entry.user_id, entry.address] += entry.details["count"]
    return found


@pytest.fixture
def audit(db: Database, clock: MovableClock) -> AuditLog:
    return AuditLog(db, clock)


def test_what_happened_to_one_account_from_one_address_is_one_entry(db, clock, audit):
    owner, teammate = (Users(db, b"k" * 32, clock).create(name, "hash") for name in ("owner", "teammate"))
    refused = RefusedLogIns(audit)
    for origin in (HOME, HOME, ELSEWHERE):
        refused.note("login_failed", owner, origin)
    refused.note("login_refused", owner, HOME)
    refused.note("login_failed", teammate, HOME)
    refused.note("login_failed", None, HOME)
    refused.note("login_failed", None, ELSEWHERE)
    refused.write()
    once = {("login_failed", owner, "192.0.2.2"), ("login_refused", owner, "192.0.2.1")}
    once |= {("login_failed", teammate, "192.0.2.1")}
    twice = {("login_failed", owner, "192.0.2.1"), ("login_failed", None, None)}
    assert told(audit) == dict.fromkeys(once, 1) | dict.fromkeys(twice, 2)
    assert len(audit.page(1, 100)[0]) == 5
    [entry] = audit.page(1, 100, action="login_refused")[0]
    assert (entry.actor, entry.subject, entry.at) == ("nobody", f"user/{owner}", clock.now())
    assert entry.details == {"method": "key", "count": 1}
    refused.write()
    assert len(audit.page(1, 100)[0]) == 5


def test_memory_and_the_log_stay_small_under_attack_and_nothing_goes_uncounted(audit):
    refused = RefusedLogIns(audit)
    for number in range(1, MAX_KINDS + 501):
        refused.note("login_failed", number, HOME)
    refused.note("login_failed", 1, HOME)
    refused.write()
    found = told(audit)
    assert len(found) == MAX_KINDS + 1
    assert found["login_failed", 1, "192.0.2.1"] == 2
    assert found["login_failed", None, None] == 500


def test_a_database_that_is_away_loses_nothing(audit, clock, tmp_path):
    refused = RefusedLogIns(AuditLog(Database(sa.URL.create("sqlite", database=f"{tmp_path}/nowhere/x.db")), clock))
    refused.note("login_failed", None, HOME)
    with pytest.raises(DatabaseError):
        refused.write()
    refused.note("login_failed", None, HOME)
    refused._audit = audit  # it is back
    refused.write()
    assert told(audit) == {("login_failed", None, None): 2}
