"""How a process is, from memory alone: true numbers, and no query."""

from __future__ import annotations

import shutil
import threading
from datetime import timedelta

import pytest

from metrics.families import GAUGES
from pool.life import PoolKeySource
from tables import pool_keys


def add_key(services, hours):
    """Put a key into the pool that expires then."""
    name, at = f"in-{hours}", services.clock.now() + timedelta(hours=hours)
    services.pool_keys.add(f"sk-or-v1-{hours:064x}", name, PoolKeySource.OPERATOR)
    services.db.transact(
        lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.name == name).values(expires_at=at))
    )
    services.pool.reload()


def test_every_gauge_has_a_family_and_every_family_a_gauge(new):
    services = new()
    services.start()
    add_key(services, hours=5)
    services.metrics.gauges.lanes = {"calls": lambda: (2, 64)}
    found = services.metrics.gauges.read()
    assert {name for name, *_ in found} == {gauge.name for gauge in GAUGES}
    labels = {gauge.name: len(gauge.labels) for gauge in GAUGES}
    assert all(len(key) == 1 + labels[key[0]] for key in found)


def test_the_numbers_are_those_of_this_process(new):
    services = new(pool_size=3)
    services.start()
    services.metrics.gauges.lanes = {"calls": lambda: (2, 64), "others": lambda: (0, 8)}
    found = services.metrics.gauges.read()
    assert found["requests_in_flight", "calls"] == 2
    assert found["requests_limit", "others"] == 8
    assert found["threads",] == threading.active_count()
    assert [found["pool_keys", state] for state in ("usable", "resting", "refused")] == [1, 0, 0]
    assert found["pool_size",] == 3
    assert ("pool_expires_in_seconds",) not in found, "no key of the pool expires"
    assert found["database_up",] == found["openrouter_up",] == found["journal_writable",] == 1
    assert abs(found["clock_skew_seconds",]) < 1
    assert found["data_free_bytes",] == pytest.approx(shutil.disk_usage(services.journal.folder).free, rel=0.1)


def test_what_is_written_down_and_not_in_the_database_is_told(new):
    services = new()
    services.journal.open()
    before = services.metrics.gauges.read()
    services.journal.append({"request_id": "0" * 32, "attempt": 1})
    after = services.metrics.gauges.read()
    assert (before["journal_bytes",], before["journal_segments",]) == (0, 1)
    assert after["journal_bytes",] > 0
    [segment] = services.journal.take()
    segment.unlink()
    assert services.metrics.gauges.read()["journal_bytes",] == 0
    services.journal.fault = "No space left on device"
    assert services.metrics.gauges.read()["journal_writable",] == 0
    services.journal.fault = None


def test_the_first_key_to_expire_tells_whether_the_rotation_goes_on(new):
    services = new()
    services.start()
    for hours in (5, 50):
        add_key(services, hours)
    left = services.metrics.gauges.read()["pool_expires_in_seconds",]
    assert 4.5 * 3600 < left <= 5 * 3600


def test_to_read_them_asks_the_database_nothing(new):
    services = new()
    services.start()
    services.db.is_shut = True  # every use would raise
    assert services.metrics.gauges.read()["processes",] == 1
    services.db.is_shut = False
