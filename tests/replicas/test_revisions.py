"""Copies in memory: reloaded when, and only when, their table has changed; kept while the database is away."""

from __future__ import annotations

import logging
import time

import pytest
import sqlalchemy as sa

from config.settings import Config
from db import Database, DatabaseError, database_url
from foundation.clock import Clock
from replicas.revisions import RevisionWatcher, bump
from tables import revisions
from tests.support.movable_clock import MovableClock

NAMES = ("users", "user_sessions", "api_keys")


class Copies:
    """A watcher over all tables that writes down which were reloaded."""

    def __init__(self, db: Database) -> None:
        self.clock = MovableClock()
        self.watcher = RevisionWatcher(db, self.clock)
        self.reloaded: list[str] = []
        self.faults: dict[str, Exception] = {}
        for name in NAMES:
            self.watcher.watch(name, lambda name=name: self._reload(name))

    def _reload(self, name: str) -> None:
        if name in self.faults:
            raise self.faults[name]
        self.reloaded.append(name)

    def check(self) -> list[str]:
        """What one check reloads."""
        self.reloaded.clear()
        self.watcher.check()
        return self.reloaded


@pytest.fixture
def copies(db: Database) -> Copies:
    return Copies(db)


def changed(db: Database, name: str) -> None:
    db.transact(lambda tx: bump(tx, name))


def test_the_first_check_loads_every_copy_and_the_next_one_none(copies):
    assert sorted(copies.check()) == sorted(NAMES)
    assert copies.check() == []


@pytest.mark.parametrize("name", NAMES)
def test_only_what_has_changed_is_reloaded_and_only_once(db, copies, name):
    copies.check()
    changed(db, name)
    changed(db, name)
    assert copies.check() == [name]
    assert copies.check() == []
    changed(db, name)
    assert copies.check() == [name]


def test_every_process_notices(db, copies, empty_database_url):
    other_db = Database(database_url(Config(database_url=empty_database_url)))
    other = Copies(other_db)
    copies.check(), other.check()
    changed(other_db, "users")
    assert copies.check() == other.check() == ["users"]
    other_db.close()


def test_a_change_that_was_rolled_back_is_none(db, copies):
    copies.check()

    def work(tx: sa.Connection) -> None:
        bump(tx, "users")
        raise LookupError

    with pytest.raises(LookupError):
        db.transact(work)
    assert copies.check() == []


def test_a_number_that_went_back_is_a_change_too(db, copies):
    """As after the restore of a backup."""
    changed(db, "users")
    copies.check()
    db.transact(lambda tx: tx.execute(revisions.update().values(value=1)))
    assert copies.check() == ["users"]


def test_a_table_without_a_number_is_loaded_once(db, copies):
    db.transact(lambda tx: tx.execute(revisions.delete()))
    assert sorted(copies.check()) == sorted(NAMES)
    assert copies.check() == []


def test_a_reload_that_failed_is_tried_again_and_does_not_hold_up_the_others(copies):
    copies.faults["users"] = ValueError("a row that nobody understands")
    with pytest.raises(ValueError, match="nobody understands"):
        copies.check()
    assert sorted(copies.reloaded) == ["api_keys", "user_sessions"]
    assert copies.watcher.database_is_up
    del copies.faults["users"]
    assert copies.check() == ["users"]


def test_a_reload_that_the_database_failed_is_tried_again(copies):
    copies.faults["user_sessions"] = DatabaseError("away")
    copies.check()
    assert not copies.watcher.database_is_up
    del copies.faults["user_sessions"]
    assert sorted(copies.check()) == ["api_keys", "user_sessions"]
    assert copies.watcher.database_is_up


def test_an_outage_keeps_the_copies_and_is_logged_once_a_minute_and_with_its_end(mariadb, caplog):
    caplog.set_level(logging.INFO)
    db = Database(database_url(Config(database_url=mariadb.new_database())))
    db.upgrade()
    copies = Copies(db)
    copies.check()
    mariadb.stop()
    try:
        for _ in range(5):  # at 0, 29, 58, 87 and 116 seconds
            assert copies.check() == []
            copies.clock.advance(seconds=29)
        assert not copies.watcher.database_is_up
    finally:
        mariadb.start()
    changed(db, "users")
    assert copies.check() == ["users"]
    assert copies.watcher.database_is_up
    assert copies.check() == []
    events = [record.getMessage() for record in caplog.records if record.name == "revisions"]
    assert events == ["database_unreachable", "database_unreachable", "database_reachable_again"]
    db.close()


@pytest.mark.parametrize("hours", [26, -26])
def test_a_check_sets_the_clock_by_the_databases(db, hours):
    clock = Clock(lambda: time.time() + hours * 3600)
    RevisionWatcher(db, clock).check()
    assert abs(clock.timestamp() - time.time()) < 60  # the database of the tests is on this host
    assert round(clock.skew_seconds / 3600) == hours
