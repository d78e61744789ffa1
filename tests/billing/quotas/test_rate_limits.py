"""Rate limits: exactly so many, for the right ones, with the truth about when to come again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.caller import Caller
from accounts.client_keys import ClientKey
from billing.quotas.rate_limits import UNLIMITED, Admission, RateLimits
from config.settings import Config
from foundation.errors import TooManyRequests
from tests.support.gateway import in_processes, in_threads, rate_limits_in, wait_for
from tests.support.movable_clock import MovableClock

OWNER, COLLEAGUE, STRANGER = (Caller(number, "s", 9e9) for number in (1, 2, 3))
OWNERS_KEY, OWNERS_OTHER_KEY = (Caller(1, "", 9e9, ClientKey(number, 1)) for number in (8, 9))
HOME, ELSEWHERE = "192.0.2.7", "2001:db8:1:2::/64"


# What is not off by default.
OFF = dict.fromkeys((f"rate_limit_{kind}_concurrent" for kind in ("user", "key", "address")), 0)


@pytest.fixture
def make(clock: MovableClock) -> Callable[..., RateLimits]:
    return lambda **settings: RateLimits(Config(**OFF | settings), clock)


def is_let_in(limits: RateLimits, caller: Caller = OWNER, address: str = HOME) -> bool:
    try:
        limits.admit(caller, address)
    except TooManyRequests:
        return False
    return True


def refusal(limits: RateLimits, caller: Caller = OWNER, address: str = HOME) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as raised:
        limits.admit(caller, address)
    return raised.value


def left(admission: Admission) -> dict[str, int]:
    return {name: item["r"] for name, item in rate_limits_in(dict(admission.headers)["RateLimit"]).items()}


# ── requests a minute


def test_without_any_limit_any_number_of_calls_is_let_in_and_nothing_is_said(make):
    limits = make()
    for _ in range(1000):
        admission = limits.admit(OWNERS_KEY, HOME)
        assert admission is UNLIMITED
    admission.release(5)
    assert admission.headers == []


@pytest.mark.parametrize("kind", ["user", "key", "address"])
def test_exactly_so_many_are_let_in_however_many_come_at_once(make, kind, quick_switches):
    limits = make(**{f"rate_limit_{kind}_rpm": 100})
    let_in = in_threads(8, lambda: sum(is_let_in(limits, OWNERS_KEY) for _ in range(50)))
    assert sum(let_in) == 100


def test_each_user_each_key_and_each_address_has_its_own(make):
    user = make(rate_limit_user_rpm=1)
    assert [is_let_in(user, who) for who in (OWNER, OWNER, COLLEAGUE, STRANGER)] == [True, False, True, True]
    assert not is_let_in(user, OWNER, ELSEWHERE)
    assert not is_let_in(user, OWNERS_KEY)
    key = make(rate_limit_key_rpm=1)
    assert [is_let_in(key, who) for who in (OWNERS_KEY, OWNERS_KEY, OWNERS_OTHER_KEY)] == [True, False, True]
    assert all(is_let_in(key, OWNER) for _ in range(10))
    address = make(rate_limit_address_rpm=1)
    assert [is_let_in(address, who) for who in (OWNER, COLLEAGUE)] == [True, False]
    assert is_let_in(address, STRANGER, ELSEWHERE)


@given(st.integers(0, 119))
def test_who_waits_as_told_gets_in_and_a_second_earlier_nobody_does(make, clock, seconds):
    clock.advance(seconds=seconds)
    limits = make(rate_limit_user_rpm=2)
    assert [is_let_in(limits) for _ in range(3)] == [True, True, False]
    wait = int(refusal(limits).headers["Retry-After"])
    assert 1 <= wait <= 60
    clock.advance(seconds=wait - 1)
    assert not is_let_in(limits)
    clock.advance(seconds=1)
    assert is_let_in(limits)


def test_a_refused_call_counts_for_the_other_limits_too(make):
    limits = make(rate_limit_user_rpm=1, rate_limit_address_rpm=3)
    assert [is_let_in(limits) for _ in range(3)] == [True, False, False]
    assert not is_let_in(limits, COLLEAGUE)
    assert is_let_in(limits, STRANGER, ELSEWHERE)


def with_rpm(rpm: int, number: int = 8) -> Caller:
    return Caller(1, "", 9e9, ClientKey(number, 1, rpm=rpm))


@pytest.mark.parametrize("usual", [0, 2, 5])
def test_a_limit_of_the_keys_own_counts_where_it_is_below_that_of_the_settings(make, usual):
    """A user's wish never lifts what the operator has set."""
    limits = make(rate_limit_key_rpm=usual)
    caller, allowed = with_rpm(3), min(usual or 3, 3)
    assert [is_let_in(limits, caller) for _ in range(4)] == [number < allowed for number in range(4)]
    assert f"allows {allowed} a minute per key" in refusal(limits, caller).message
    assert [is_let_in(limits, OWNERS_OTHER_KEY) for _ in range(3)] == [True, True, usual != 2]


@pytest.mark.parametrize("threads", [8, 64, 1100])
def test_by_default_nobody_has_more_than_a_share_of_the_calls_at_once(clock, threads):
    limits = RateLimits(Config(server_threads=threads), clock)
    share, of_address = max(4, threads // 8), max(4, threads // 2)
    held = [limits.admit(OWNERS_KEY, HOME) for _ in range(share)]
    for caller in (OWNERS_KEY, OWNERS_OTHER_KEY, OWNER):
        assert "calls at once" in refusal(limits, caller, ELSEWHERE).message
    assert limits.admit(STRANGER, ELSEWHERE)
    others = [Caller(user_id, "", 9e9) for user_id in range(100, 100 + of_address)]
    let_in = [is_let_in(limits, other) for other in others]
    assert sum(let_in) == of_address - share
    assert all(is_let_in(limits, other, ELSEWHERE) for other in others[:3])
    held[0].release(None)
    assert limits.admit(OWNERS_KEY, HOME)


def test_a_limit_that_is_changed_holds_for_the_next_call(make):
    limits = make()
    assert [is_let_in(limits, with_rpm(2)) for _ in range(3)] == [True, True, False]
    assert is_let_in(limits, with_rpm(9))
    assert is_let_in(limits, with_rpm(2, number=77))


def test_an_api_token_has_an_hour(make, clock):
    limits = make(api_token_rate_limit_per_hour=2)
    for _ in range(2):
        limits.check_api_token(7)
        clock.advance(minutes=10)
    with pytest.raises(TooManyRequests, match="allows 2 an hour per token") as raised:
        limits.check_api_token(7)
    assert raised.value.headers["Retry-After"] == str(40 * 60)
    assert raised.value.headers["RateLimit-Policy"] == '"token-requests";q=2;w=3600'
    limits.check_api_token(8)
    clock.advance(minutes=40)
    limits.check_api_token(7)


# ── tokens a minute


@pytest.mark.parametrize(("setting", "caller"), [("user", OWNER), ("key", OWNERS_KEY)])
def test_calls_are_let_in_while_the_minute_has_tokens_left(make, clock, setting, caller):
    limits = make(**{f"rate_limit_{setting}_tpm": 100})
    name = f"{setting}-tokens"
    first, second = limits.admit(caller, HOME), limits.admit(caller, HOME)
    assert left(first) == left(second) == {name: 100}
    first.release(99)
    third = limits.admit(caller, HOME)
    assert left(third) == {name: 1}
    second.release(500)
    refused = refusal(limits, caller)
    assert rate_limits_in(refused.headers["RateLimit"])[name]["r"] == 0
    assert is_let_in(limits, COLLEAGUE)
    assert is_let_in(limits, OWNERS_OTHER_KEY) == (setting == "key")
    clock.advance(seconds=int(refused.headers["Retry-After"]))
    assert left(limits.admit(caller, HOME)) == {name: 100}
    third.release(30)  # it counts in the minute in which it ends
    assert left(limits.admit(caller, HOME)) == {name: 70}


def test_a_call_of_which_nobody_knows_the_tokens_costs_none(make):
    limits = make(rate_limit_user_tpm=100)
    limits.admit(OWNER, HOME).release(None)
    assert left(limits.admit(OWNER, HOME)) == {"user-tokens": 100}


def test_only_the_first_release_counts_whichever_thread_it_comes_from(make, quick_switches):
    limits = make(rate_limit_user_tpm=1000, rate_limit_user_concurrent=3)
    for _ in range(50):
        admission = limits.admit(OWNER, HOME)
        in_threads(4, lambda admission=admission: admission.release(10))
    assert left(limits.admit(OWNER, HOME)) == {"user-tokens": 500, "user-calls-at-once": 2}


# ── calls at once


@pytest.mark.parametrize("kind", ["user", "key", "address"])
def test_exactly_so_many_run_at_once(make, kind, quick_switches):
    limits = make(**{f"rate_limit_{kind}_concurrent": 3})
    running, most, lock = 0, 0, threading.Lock()

    def work() -> int:
        nonlocal running, most
        done = 0
        for _ in range(200):
            try:
                admission = limits.admit(OWNERS_KEY, HOME)
            except TooManyRequests:
                continue
            with lock:
                running += 1
                most = max(most, running)
            with lock:
                running -= 1
            admission.release(None)
            done += 1
        return done

    assert sum(in_threads(8, work)) > 0
    assert most <= 3
    held = [limits.admit(OWNERS_KEY, HOME) for _ in range(3)]
    refused = refusal(limits, OWNERS_KEY)
    assert refused.headers["Retry-After"] == "1"
    assert "calls at once" in refused.message
    assert f"3 per {kind}" in refused.message
    held[1].release(None)
    assert is_let_in(limits, OWNERS_KEY)


def test_a_call_that_is_refused_runs_nowhere(make, clock):
    limits = make(rate_limit_address_concurrent=2, rate_limit_user_concurrent=1, rate_limit_user_rpm=3)
    held = limits.admit(OWNER, HOME)
    assert not is_let_in(limits)  # the user's one is in use: the address has still one free
    assert is_let_in(limits, COLLEAGUE)
    held.release(None)
    limits.admit(OWNER, HOME).release(None)
    assert "requests" in refusal(limits).message  # its fourth in this minute
    clock.advance(minutes=1)
    assert is_let_in(limits)


@given(st.lists(st.tuples(st.sampled_from("abr"), st.integers(0, 5), st.sampled_from([HOME, ELSEWHERE])), max_size=60))
def test_what_runs_is_never_more_than_allowed_and_nothing_is_left_behind(make, steps):
    limits = make(rate_limit_user_concurrent=2, rate_limit_key_concurrent=1, rate_limit_address_concurrent=3)
    callers = [OWNER, COLLEAGUE, STRANGER, OWNERS_KEY, OWNERS_OTHER_KEY, OWNER]
    running: list[tuple[Caller, str, Admission]] = []
    for action, number, address in steps:
        if action == "r" and running:
            running.pop(number % len(running))[2].release(None)
        elif action != "r":
            caller = callers[number]
            fits = (
                sum(c.user_id == caller.user_id for c, _, _ in running) < 2
                and sum(a == address for _, a, _ in running) < 3
                and not (caller.client_key_id and any(c.client_key_id == caller.client_key_id for c, _, _ in running))
            )
            if fits:
                running.append((caller, address, limits.admit(caller, address)))
            else:
                refusal(limits, caller, address)
    for _, _, admission in running:
        admission.release(None)
    assert left(limits.admit(OWNERS_KEY, HOME)) == {
        "address-calls-at-once": 2,
        "user-calls-at-once": 1,
        "key-calls-at-once": 0,
    }
    assert len(limits._running) == 3  # what nobody uses takes no memory


# ── what is said


ALL = {
    "rate_limit_address_rpm": 50,
    "rate_limit_user_rpm": 40,
    "rate_limit_user_tpm": 3000,
    "rate_limit_address_concurrent": 20,
    "rate_limit_user_concurrent": 10,
    "rate_limit_key_rpm": 5,
    "rate_limit_key_tpm": 700,
    "rate_limit_key_concurrent": 2,
}


def test_the_headers_say_each_limit_that_applies_and_what_is_left_of_it(make, clock):
    clock.advance(seconds=18)
    headers = dict(make(**ALL).admit(OWNERS_KEY, HOME).headers)
    assert rate_limits_in(headers["RateLimit-Policy"]) == {
        "address-requests": {"q": 50, "w": 60},
        "user-requests": {"q": 40, "w": 60},
        "user-tokens": {"q": 3000, "w": 60},
        "address-calls-at-once": {"q": 20, "qu": "concurrent-requests"},
        "user-calls-at-once": {"q": 10, "qu": "concurrent-requests"},
        "key-requests": {"q": 5, "w": 60},
        "key-tokens": {"q": 700, "w": 60},
        "key-calls-at-once": {"q": 2, "qu": "concurrent-requests"},
    }
    assert rate_limits_in(headers["RateLimit"]) == {
        "address-requests": {"r": 49, "t": 42},
        "user-requests": {"r": 39, "t": 42},
        "user-tokens": {"r": 3000, "t": 42},
        "key-requests": {"r": 4, "t": 42},
        "key-tokens": {"r": 700, "t": 42},
        "address-calls-at-once": {"r": 19},
        "user-calls-at-once": {"r": 9},
        "key-calls-at-once": {"r": 1},
    }
    assert not any(name.startswith("key") for name in left(make(**ALL).admit(OWNER, HOME)))


def test_a_refusal_says_which_limit_it_was_and_has_the_same_headers(make):
    limits = make(**ALL)
    for _ in range(5):
        last = limits.admit(OWNERS_KEY, HOME)
        last.release(1)
    refused = refusal(limits, OWNERS_KEY)
    assert refused.status == 429
    assert refused.message == "Too many requests: this service allows 5 a minute per key"
    assert refused.headers["RateLimit-Policy"] == dict(last.headers)["RateLimit-Policy"]
    state = rate_limits_in(refused.headers["RateLimit"])
    assert state["key-requests"]["r"] == 0
    assert state["user-requests"]["r"] == 34
    assert refused.headers["Retry-After"] == str(state["key-requests"]["t"])


def test_who_is_refused_by_two_limits_is_told_the_longer_wait(make):
    limits = make(rate_limit_user_rpm=1, rate_limit_user_concurrent=1)
    limits.admit(OWNER, HOME)
    assert refusal(limits).headers["Retry-After"] == "60"


# ── log-ins and administration


def is_let_through(check: Callable[..., None], *arguments: Any) -> bool:
    try:
        check(*arguments)
    except TooManyRequests:
        return False
    return True


def test_each_door_counts_each_address_by_itself(make):
    limits = make(login_rate_limit_per_minute=2, check_username_rate_limit_per_minute=4, admin_rate_limit_per_minute=3)
    numbers = {
        "log-ins": 2,
        "registrations": 2,
        "refreshes": 2,
        "connections": 2,
        "username checks": 4,
        "admin requests": 3,
    }
    for door, number in numbers.items():
        assert [is_let_through(limits.check_address, door, HOME) for _ in range(5)].count(True) == number
        assert is_let_through(limits.check_address, door, ELSEWHERE)


def test_by_default_an_address_has_five_log_ins_an_account_ten_and_the_operator_120_requests(make, clock):
    limits = make()
    assert sum(is_let_through(limits.check_address, "username checks", HOME) for _ in range(20)) == 10
    assert sum(is_let_through(limits.check_address, "log-ins", HOME) for _ in range(20)) == 5
    assert sum(is_let_through(limits.check_account, "a" * 64) for _ in range(20)) == 10
    assert sum(is_let_through(limits.check_address, "admin requests", HOME) for _ in range(200)) == 120
    with pytest.raises(TooManyRequests) as raised:
        limits.check_address("log-ins", HOME)
    assert raised.value.message == "Too many log-ins: this service allows 5 a minute per address"
    assert rate_limits_in(raised.value.headers["RateLimit-Policy"]) == {"address-log-ins": {"q": 5, "w": 60}}
    assert rate_limits_in(raised.value.headers["RateLimit"]) == {"address-log-ins": {"r": 0, "t": 60}}
    clock.advance(seconds=int(raised.value.headers["Retry-After"]))
    limits.check_address("log-ins", HOME)
    limits.check_account("a" * 64)


def test_zero_is_any_number(make):
    limits = make(login_rate_limit_per_minute=0, login_rate_limit_account_per_minute=0, admin_rate_limit_per_minute=0)
    for _ in range(300):
        limits.check_address("log-ins", HOME)
        limits.check_address("admin requests", HOME)
        limits.check_account("a" * 64)


# ── replicas

PREPARE = """
from accounts.caller import Caller; from foundation.clock import Clock; from config.settings import Config
from foundation.errors import TooManyRequests; from billing.quotas.rate_limits import RateLimits
class Standing(Clock):
    def timestamp(self): return 1e9
limits = RateLimits(Config(redis_url=sys.argv[1], rate_limit_user_rpm=100), Standing())
import threading
limits.start(threading.Event())
import time
while limits.cache_status != sys.argv[2]: time.sleep(0.01)
"""
RACE = """
count = 0
for _ in range(80):
    try: limits.admit(Caller(1, "s", 9e9), "192.0.2.7"); count += 1
    except TooManyRequests: pass
print(count)
"""


def test_two_processes_with_one_redis_share_a_limit(redis_server):
    assert sum(map(int, in_processes(2, PREPARE, RACE, redis_server.url, "ok"))) == 100


def test_two_processes_whose_redis_is_dead_limit_each_for_itself():
    assert in_processes(2, PREPARE, RACE, "redis://127.0.0.1:1/0", "unreachable") == ["80\n", "80\n"]
    dead = RACE.replace("range(80)", "range(500)")
    assert in_processes(2, PREPARE, dead, "redis://127.0.0.1:1/0", "unreachable") == ["100\n", "100\n"]


def test_a_redis_that_dies_and_comes_back_under_load_opens_nothing(make, clock, redis_server):
    limits, stopping, over = make(redis_url=redis_server.url, rate_limit_user_rpm=50), threading.Event(), []
    limits.start(stopping)
    wait_for(lambda: limits.cache_status == "ok")

    def work() -> int:
        count = 0
        while not over:
            count += is_let_in(limits)
        return count

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        redis_server.kill()
        wait_for(lambda: limits.cache_status == "unreachable")
        redis_server.start()  # empty
        wait_for(lambda: limits.cache_status == "ok")
        wait_for(lambda: not is_let_in(limits))
    finally:
        over.append(True)
        for thread in threads:
            thread.join()
        stopping.set()
    # At most the limit in Redis before, in memory meanwhile, and in Redis after that.
    assert len(results) == 4
    assert 50 <= sum(results) <= 150
