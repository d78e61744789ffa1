"""Counters of a minute: exact for threads and processes, and there whether Redis is or not."""

from __future__ import annotations

import itertools
import logging
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.quotas.window_counters import HOUR, MINUTE, Window, WindowCounters
from tests.support.gateway import in_processes, in_threads, wait_for
from tests.support.movable_clock import MovableClock
from tests.support.redis_server import PASSWORD

DEAD = "redis://:secret-word@127.0.0.1:1/0"


def minute(number: int) -> Window:
    return Window(MINUTE, number)


@pytest.fixture(params=["memory", "redis"])
def counters(request: pytest.FixtureRequest, clock: MovableClock) -> WindowCounters:
    """In memory and in Redis."""
    url = request.getfixturevalue("redis_server").url if request.param == "redis" else None
    made = WindowCounters(url, clock)
    made.check()
    assert made.status == ("ok" if url else "off")
    return made


@pytest.fixture
def stopping() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ── counting


def test_a_counter_counts_and_others_do_not(counters):
    window, _ = counters.window()
    assert [counters.add(window, "user/1"), counters.add(window, "user/1", 40)] == [1, 41]
    assert (counters.get(window, "user/1"), counters.get(window, "user/2")) == (41, 0)


def test_every_minute_of_the_clock_counts_anew(counters, clock):
    clock.advance(seconds=59)
    before, ends_in = counters.window()
    counters.add(before, "user/1", 7)
    assert ends_in == 1
    clock.advance(seconds=1)
    after, ends_in = counters.window()
    assert (after, ends_in) == (minute(before.number + 1), 60)
    assert counters.add(after, "user/1") == 1


def test_hours_are_counted_beside_minutes_and_outlast_them(counters, clock):
    hour, ends_in = counters.window(HOUR)
    assert ends_in == 3600
    assert [counters.add(hour, "token/1"), counters.add(counters.window()[0], "token/1")] == [1, 1]
    for _ in range(59):
        clock.advance(minutes=1)
        assert counters.add(counters.window()[0], "token/1") == 1
    assert counters.window(HOUR) == (hour, 60)
    assert counters.add(hour, "token/1") == 2
    clock.advance(minutes=1)
    assert counters.window(HOUR) == (Window(HOUR, hour.number + 1), 3600)
    assert counters.add(counters.window(HOUR)[0], "token/1") == 1


@given(st.floats(0, 4e9))
def test_a_window_is_over_when_it_is_said_to_be_and_lasts_at_most_a_minute(now):
    clock = MovableClock()
    clock.time = datetime.fromtimestamp(now, UTC)
    counters = WindowCounters(None, clock)
    window, ends_in = counters.window()
    assert 1 <= ends_in <= 60
    clock.advance(seconds=ends_in)
    assert counters.window()[0] == minute(window.number + 1)


def test_a_thread_that_comes_late_counts_in_its_own_window(counters):
    assert counters.add(minute(101), "user/1") == 1
    assert counters.add(minute(100), "user/1") == 1
    assert counters.add(minute(101), "user/1") == 2
    assert counters.add(minute(100), "user/1") == 2


def test_a_clock_that_is_set_back_leaves_nobody_counted_for_ever(counters, clock):
    window, _ = counters.window()
    counters.add(window, "user/1", 100)
    clock.advance(hours=-5)
    window, _ = counters.window()
    assert counters.add(window, "user/1") == 1


def test_memory_keeps_two_windows_and_no_more(clock):
    counters = WindowCounters(None, clock)
    for window in range(100):
        counters.add(minute(window), "user/1")
    assert [window for window in range(100) if counters.get(minute(window), "user/1")] == [98, 99]


def test_threads_that_meet_at_a_new_counter_are_all_counted(counters, quick_switches):
    window, _ = counters.window()
    for name in range(20):
        found = in_threads(8, lambda name=name: [counters.add(window, f"new/{name}") for _ in range(5)])
        assert sorted(itertools.chain(*found)) == list(range(1, 41))


def test_no_count_is_lost_or_given_twice_in_memory(clock, quick_switches):
    counters = WindowCounters(None, clock)
    found = in_threads(8, lambda: [counters.add(minute(1), "user/1") for _ in range(20_000)])
    assert sorted(itertools.chain(*found)) == list(range(1, 160_001))


# ── Redis


def test_processes_with_one_redis_count_together(redis_server):
    prepare = "from foundation.clock import Clock; from billing.quotas.window_counters import Window, WindowCounters\n"
    prepare += "counters = WindowCounters(sys.argv[1], Clock()); counters.check(); assert counters.status == 'ok'"
    race = "print(*[counters.add(Window(60, 7), 'user/1') for _ in range(300)])"
    printed = in_processes(2, prepare, race, redis_server.url)
    assert sorted(int(word) for line in printed for word in line.split()) == list(range(1, 601))


def test_what_is_left_in_redis_goes_away_by_itself(redis_server, clock):
    counters = WindowCounters(redis_server.url, clock)
    counters.check()
    for number in range(3):
        counters.add(minute(number), "address/192.0.2.7")
    keys = redis_server.client.keys("*")
    assert len(keys) == 3
    assert all(key.startswith("openrouter-proxy/") and 60 <= redis_server.client.ttl(key) <= 120 for key in keys)


def test_counting_does_not_stop_while_redis_is_killed_and_comes_back(redis_server, clock, stopping, caplog):
    caplog.set_level(logging.INFO)
    counters = WindowCounters(redis_server.url, clock)
    counters.start(stopping)
    wait_for(lambda: counters.status == "ok")
    over, counted = threading.Event(), []

    def load() -> None:
        mine = 0
        while not over.is_set():
            assert counters.add(minute(1), "user/1") > 0
            mine += 1
        counted.append(mine)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            redis_server.kill()
            wait_for(lambda: counters.status == "unreachable")
            in_memory = counters.get(minute(1), "user/1")
            wait_for(lambda before=in_memory: counters.get(minute(1), "user/1") > before)
            redis_server.start()
            wait_for(lambda: counters.status == "ok")
            wait_for(lambda: redis_server.client.keys("*1/user/1"))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert len(counted) == 4
    assert warnings(caplog) == ["redis_unreachable"]  # the clock stands: one for the whole minute
    assert [r.getMessage() for r in caplog.records].count("redis_in_use") == 3
    assert PASSWORD not in caplog.text
    assert PASSWORD not in str([vars(record) for record in caplog.records])


def test_a_redis_that_hangs_holds_up_no_call_for_long(redis_server, clock):
    counters = WindowCounters(redis_server.url, clock)
    counters.check()
    counters.add(minute(1), "user/1", 5)
    redis_server.send(signal.SIGSTOP)
    assert counters.status == "ok"  # nobody has asked, and this does not ask
    assert counters.add(minute(1), "user/1") == 1  # comes back, from memory
    assert counters.status == "unreachable"
    assert [counters.add(minute(1), "user/1") for _ in range(1000)] == list(range(2, 1002))
    redis_server.send(signal.SIGCONT)
    counters.check()
    assert counters.status == "ok"
    assert counters.get(minute(1), "user/1") in {5, 6}  # it may have done what it was asked, late


def test_a_redis_that_refuses_is_as_good_as_none(redis_server, clock, caplog):
    counters = WindowCounters(redis_server.url.replace(PASSWORD, "wrong-password"), clock)
    counters.check()
    assert counters.status == "unreachable"
    assert warnings(caplog) == ["redis_unreachable"]
    counters = WindowCounters(redis_server.url, clock)
    counters.check()
    redis_server.client.set("openrouter-proxy/window:60/1/user/1", "no number")
    assert counters.add(minute(1), "user/1") == 1
    assert counters.get(minute(1), "user/1") == 1


def test_a_dead_redis_is_reported_once_a_minute(clock, caplog):
    counters = WindowCounters(DEAD, clock)
    for _ in range(5):
        counters.check()
    assert warnings(caplog) == ["redis_unreachable"]
    clock.advance(seconds=59)
    counters.check()
    assert len(warnings(caplog)) == 1
    clock.advance(seconds=1)
    counters.check()
    assert len(warnings(caplog)) == 2
    assert "secret-word" not in str([vars(record) for record in caplog.records])


def test_redis_is_used_only_once_it_has_answered(redis_server, clock):
    counters = WindowCounters(redis_server.url, clock)
    assert counters.status == "unreachable"
    assert counters.add(minute(1), "user/1") == 1
    assert redis_server.client.keys("*") == []


def test_without_redis_no_thread_looks_for_one(clock, stopping):
    counters = WindowCounters(None, clock)
    counters.start(stopping)
    counters.check()
    assert counters.status == "off"
    assert "redis-watch" not in [thread.name for thread in threading.enumerate()]
