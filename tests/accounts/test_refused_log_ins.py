"""Refused log-ins: counted the same for everybody, and written in few entries."""

from __future__ import annotations

from collections import Counter

import pytest

from accounts.audit_log import AuditLog
from accounts.refused_log_ins import RefusedLogIns
from accounts.sessions import Origin
from accounts.users import Users
from db import Database
from foundation.counts import Counts
from tests.support.movable_clock import MovableClock

HOME, ELSEWHERE = Origin("key", "192.0.2.1", "one"), Origin("key", "192.0.2.2", "another")


def told(audit: AuditLog) -> Counter[tuple[str, int | None, str | None]]:
    found: Counter[tuple[str, int | None, str | None]] = Counter()
    for entry in audit.page(1, 100)[0]:
        found[entry.action, entry.user_id, entry.address] += entry.details["count"]
    return found


@pytest.fixture
def audit(db: Database, clock: MovableClock) -> AuditLog:
    return AuditLog(db, clock)


def test_what_happened_to_one_account_from_one_address_is_one_entry(db, clock, audit):
    owner, teammate = (Users(db, b"k" * 32, clock).create(name, "hash") for name in ("owner", "teammate"))
    refused = RefusedLogIns(audit, Counts())
    for origin in (HOME, HOME, ELSEWHERE):
        refused.note("login_failed", owner, origin)
    refused.note("login_refused", owner, HOME)
    refused.note("login_failed", teammate, HOME)
    refused.note("login_failed", None, HOME)
    refused.note("login_failed", None, ELSEWHERE)
    refused.sums.write()
    once = {("login_failed", owner, "192.0.2.2"), ("login_refused", owner, "192.0.2.1")}
    once |= {("login_failed", teammate, "192.0.2.1")}
    twice = {("login_failed", owner, "192.0.2.1"), ("login_failed", None, None)}
    assert told(audit) == dict.fromkeys(once, 1) | dict.fromkeys(twice, 2)
    assert len(audit.page(1, 100)[0]) == 5
    [entry] = audit.page(1, 100, action="login_refused")[0]
    assert (entry.actor, entry.subject, entry.at) == ("nobody", f"user/{owner}", clock.now())
    assert entry.details == {"method": "key", "count": 1}
    refused.sums.write()
    assert len(audit.page(1, 100)[0]) == 5
