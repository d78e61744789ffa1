"""What happens often is a few entries whose counts add up, however often, and loses nothing to a database that is away."""

from __future__ import annotations

from collections import Counter

import pytest
import sqlalchemy as sa

from accounts.audit_log import AuditLog
from accounts.audit_sums import MAX_KINDS, AuditSums, SumKind
from db import Database, DatabaseError
from tests.support.movable_clock import MovableClock

KIND = SumKind("user/1", "person_read", ("what", "requests"), 7, "192.0.2.1")
OTHER = KIND._replace(user_id=8)


@pytest.fixture
def audit(db: Database, clock: MovableClock) -> AuditLog:
    return AuditLog(db, clock)


def told(audit: AuditLog) -> Counter[int | None]:
    found: Counter[int | None] = Counter()
    for entry in audit.page(1, 10 * MAX_KINDS, "person_read")[0]:
        found[entry.user_id] += entry.details["count"]
    return found


def test_the_first_is_told_soon_and_a_thousand_more_of_an_hour_in_few_entries(audit, clock):
    sums = AuditSums(audit)
    sums.count(KIND)
    sums.write()
    assert told(audit) == {7: 1}
    for _ in range(1000):
        sums.count(KIND)
        sums.write()
    sums.count(OTHER)
    sums.write()
    assert told(audit)[8] == 1  # waits for nobody
    clock.advance(hours=1)
    sums.write()
    assert told(audit) == {7: 1001, 8: 1}
    assert len(audit.page(1, 100, "person_read", user_id=7)[0]) <= 12
    sums.count(KIND)
    sums.write()
    assert told(audit) == {7: 1002, 8: 1}  # a new hour begins anew


def test_the_last_words_of_a_process_hold_all(audit):
    sums = AuditSums(audit)
    for count in (1, 2, 1):
        for _ in range(count):
            sums.count(KIND)
        sums.write()
    assert told(audit) == {7: 3}
    sums.write(all_of_it=True)
    assert told(audit) == {7: 4}


def test_an_hour_has_so_many_kinds_and_nothing_goes_uncounted(audit):
    sums = AuditSums(audit)
    for number in range(MAX_KINDS):
        sums.count(KIND._replace(user_id=number + 1))
    sums.write()
    for number in range(MAX_KINDS + 50):  # the first of these have no entry of their own but for their address
        sums.count(KIND._replace(user_id=MAX_KINDS + number + 1))
    sums.write()
    entries, total = audit.page(1, 10 * MAX_KINDS, "person_read")
    assert total == 2 * MAX_KINDS + 1
    assert sum(entry.details["count"] for entry in entries) == 2 * MAX_KINDS + 50
    assert [entry.details["count"] for entry in entries if entry.user_id is None] == [50]
    assert all(entry.address is None for entry in entries if entry.user_id and entry.user_id > MAX_KINDS)


def test_a_database_that_is_away_loses_nothing(audit, clock, tmp_path):
    sums = AuditSums(AuditLog(Database(sa.URL.create("sqlite", database=f"{tmp_path}/nowhere/x.db")), clock))
    sums.count(KIND)
    with pytest.raises(DatabaseError):
        sums.write()
    sums.count(KIND)
    sums._audit = audit  # it is back
    sums.write()
    assert told(audit) == {7: 2}
