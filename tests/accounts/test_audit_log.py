"""Changes are kept with who made them, and found again, newest first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import audit_log
from accounts.audit_log import AuditLog


@pytest.fixture
def audit(db, clock):
    return AuditLog(db, clock)


def test_an_entry_is_kept_as_it_was_recorded(audit, clock):
    audit.record("admin-token", "quota_set", "user/7", 7, "192.0.2.1", "f" * 32, limit_usd=2.5, note="π")
    [entry], total = audit.page(1, 20)
    assert total == 1
    assert entry.to_dict() == {
        "id": entry.id,
        "at": clock.now().isoformat(timespec="milliseconds"),
        "actor": "admin-token",
        "action": "quota_set",
        "subject": "user/7",
        "user_id": 7,
        "address": "192.0.2.1",
        "request_id": "f" * 32,
        "details": {"limit_usd": 2.5, "note": "π"},
    }


def test_entries_come_newest_first_in_pages_and_by_action_or_person(audit):
    for number in range(1, 6):
        audit.record("cli", "made" if number % 2 else "ended", f"key/{number}", number % 3)
    subjects = lambda *args, **wanted: [entry.subject for entry in audit.page(*args, **wanted)[0]]  # noqa: E731
    assert subjects(1, 2) == ["key/5", "key/4"]
    assert subjects(3, 2) == ["key/1"]
    assert subjects(4, 2) == []
    assert subjects(1, 20, action="ended") == ["key/4", "key/2"]
    assert subjects(1, 20, user_id=0) == ["key/3"]
    assert audit.page(1, 1, action="made")[1] == 3


@pytest.fixture
def kept(audit):
    """Forty-one entries, newest first, of two kinds about three people."""
    for number in range(41):
        audit.record("cli", ("made", "ended")[number % 2], f"key/{number}", (None, 1, 2)[number % 3])
    return audit.page(1, 100)[0]


# Pages are read from the nearer end of the log: each must be what a plain reading from its begin would give.
@given(st.integers(1, 30), st.integers(1, 100), st.sampled_from([None, "made", "none"]), st.sampled_from([None, 1, 9]))
def test_a_page_is_the_part_of_the_whole_that_it_says(audit, kept, page, page_size, action, user_id):
    whole = [one for one in kept if action in {None, one.action} and user_id in {None, one.user_id}]
    found, total = audit.page(page, page_size, action, user_id)
    assert found == whole[(page - 1) * page_size : page * page_size]
    assert total == len(whole)


def test_old_entries_are_deleted_a_little_at_a_time_and_newer_ones_stay(db, clock, monkeypatch):
    monkeypatch.setattr(audit_log, "DELETED_AT_ONCE", 2)
    log = AuditLog(db, clock)
    for number in range(3):
        log.record("cli", "tried", f"old/{number}")
    clock.advance(days=31)
    log.record("cli", "tried", "new")
    assert log.delete_old(30)
    assert not log.delete_old(30)
    assert [entry.subject for entry in log.page(1, 10)[0]] == ["new"]


def test_sums_of_some_actions_are_added_up_from_a_time_on(db, clock):
    log = AuditLog(db, clock)
    log.record("nobody", "login_failed", "user/1", count=5)
    clock.advance(minutes=1)
    for action, count in (("login_failed", 7), ("login_refused", 2), ("alias_set", 9)):
        log.record("nobody", action, "user/1", count=count)
    assert log.sum_of(["login_failed", "login_refused"], clock.now(), 100) == 9
    assert log.sum_of(["login_failed", "login_refused"], clock.now(), 1) == 2
    assert log.sum_of(["login_failed"], clock.now().replace(year=2000), 100) == 12
