"""Slices: calls are admitted from memory, never beyond the limit, whatever processes do to each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from accounts.caller import Caller
from billing.quotas import moves
from billing.quotas.leased import AHEAD_SECONDS, CALLS
from billing.quotas.leases import RECLAIM
from billing.quotas.slices import (
    AWAY_SECONDS,
    FORGET_SECONDS,
    IDLE_SECONDS,
    REFUSED_SECONDS,
    UNLIMITED,
    QuotaSlices,
    Reservation,
)
from config.settings import Config
from db import Database, DatabaseError, Transaction, database_url
from foundation.clock import Clock
from foundation.errors import Busy, QuotaExceeded
from tables import client_keys, gateway_processes, quota_slices, quotas, usage_ledger, usage_rollups, users
from tests.support.gateway import in_processes
from tests.support.movable_clock import MovableClock
from tests.support.quota_world import Call, Process, World, at, caller

MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(db: Database, clock: MovableClock) -> MakeWorld:
    return lambda **settings: World(db, clock, **settings)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """Where each user may spend 1000 nano-dollars a month."""
    return make_world(quota_usd=0.000001)


def admitted(process: Any, nano: int, who: Any = None) -> bool:
    try:
        process.slices.reserve(who or caller(), nano)
    except QuotaExceeded:
        return False
    return True


def test_without_quota_a_call_is_admitted_and_nothing_written(make_world):
    process = make_world().process()
    assert process.slices.reserve(caller(), 10**18) is UNLIMITED
    assert Reservation(0, {}) == UNLIMITED
    assert process.slices.headers(caller()) == []
    assert process.world.rows_of_slices() == {}


def test_calls_are_admitted_up_to_the_limit_and_no_further(world):
    process = world.process()
    assert [admitted(process, 100) for _ in range(12)] == [True] * 10 + [False] * 2
    assert world.row("user/1").reserved_nano == 1000
    world.check()


def test_the_refusal_says_whose_limit_it_is_and_when_it_resets(world):
    process = world.process()
    with pytest.raises(QuotaExceeded) as refused:
        process.slices.reserve(caller(), 1001)
    assert refused.value.message == (
        "Your quota of $0.000001 per month does not cover this call, which may cost $0.000001001; "
        "it resets at 2026-12-01T00:00:00Z"
    )
    assert refused.value.headers == {"x-should-retry": "false"}


def test_what_a_call_did_not_use_is_there_for_the_next_one_at_once(world):
    process = world.process()
    call = process.begin(1000)
    assert not admitted(process, 600)
    process.end(call, 400)
    assert admitted(process, 600)
    assert not admitted(process, 1)
    process.drain()
    world.check()
    row = world.row("user/1")
    assert (row.spent_nano, row.reserved_nano) == (400, 600)


def test_user_and_client_key_must_both_admit_and_the_first_gets_back_what_the_second_refuses(world):
    world.quotas.set("key/7", 50, None, "day", "reset")
    process = world.process()
    with pytest.raises(QuotaExceeded, match=r"This key's quota of .* per day"):
        process.slices.reserve(caller(1, 7), 60)
    both = process.slices.reserve(caller(1, 7), 50)
    assert both == Reservation(50, {"user_quota_id": world.row("user/1").id, "key_quota_id": world.row("key/7").id})
    assert admitted(process, 950)
    assert not admitted(process, 1)
    process.slices.give_back(both, 10)
    assert admitted(process, 10, caller(2, 7))
    assert not admitted(process, 1, caller(2, 7))
    assert admitted(process, 10)
    world.check()


def test_of_a_hundred_calls_at_once_in_two_processes_exactly_those_are_admitted_that_are_paid_for(world):
    processes = [world.process(), world.process()]
    admissions: list[bool] = []
    barrier = threading.Barrier(100)

    def call(number: int) -> None:
        barrier.wait()
        admissions.append(admitted(processes[number % 2], 100))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admissions.count(True) == 10
    world.check()
    assert world.row("user/1").reserved_nano == 1000


@pytest.mark.mysql
def test_of_a_teams_calls_at_once_in_two_processes_exactly_those_are_admitted_that_it_pays_for(make_world):
    """A hundred calls of five members, one with a quota of their own, and twenty of somebody who is in no team."""
    world = make_world()
    world.quotas.set("team/3", 1000, None, "month", "reset")
    world.quotas.set("user/1", 100, None, "month", "reset")
    processes = [world.process(), world.process()]
    admissions: list[tuple[int, bool]] = []
    barrier = threading.Barrier(120)

    def call(number: int) -> None:
        who = caller(9) if number >= 100 else caller(1 + number % 5, 10 + number % 5, team_id=3)
        barrier.wait()
        try:
            processes[number % 2].begin(50, who)
            admissions.append((who.user_id, True))
        except QuotaExceeded:
            admissions.append((who.user_id, False))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(120)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(is_in for user_id, is_in in admissions if user_id != 9) == 20
    assert all(is_in for user_id, is_in in admissions if user_id == 9)
    assert admissions.count((1, True)) <= 2
    world.check()
    assert world.row("team/3").reserved_nano == 1000
    for process in processes:
        for one in list(process.running):
            process.end(one, 20)
        process.drain()
    assert (world.row("team/3").spent_nano, world.row("user/1").spent_nano % 20) == (400, 0)
    world.check()


def test_what_a_team_refuses_its_member_gets_back_and_others_are_not_asked(world):
    world.quotas.set("team/3", 50, None, "month", "reset")
    process = world.process()
    with pytest.raises(QuotaExceeded, match="Your team's quota of"):
        process.slices.reserve(caller(1, 7, team_id=3), 60)
    assert admitted(process, 50, caller(2, team_id=3))
    assert not admitted(process, 1, caller(1, team_id=3))
    assert admitted(process, 1000)  # as soon as they have left it, by their own quota alone
    world.check()


def test_a_call_that_a_members_own_account_pays_for_is_held_against_its_key_alone(world):
    for subject in ("team/3", "key/7"):
        world.quotas.set(subject, 50, None, "month", "reset")
    process = world.process()
    reserved = process.slices.reserve(caller(1, 7, team_id=3), 40, user_pays=True)
    assert reserved == Reservation(40, {"key_quota_id": world.row("key/7").id})


def test_what_an_old_call_did_not_use_is_not_there_twice_after_its_slice_was_reclaimed(world):
    world.quotas.set("user/1", 1000, None, "day", "reset")
    silent, other = world.process(), world.process()
    call = silent.begin(100)
    silent.drain()
    world.clock.advance(seconds=RECLAIM.total_seconds() + 1)
    other.beat()
    other.slices.reclaim_expired()
    silent.beat()
    silent.slices.headers(caller())  # knows the quota again, and has nothing of it
    silent.end(call, 1)
    silent.drain()  # which gives the other 99 back to the quota
    assert admitted(silent, 999)
    assert not admitted(silent, 1)
    world.check()


# ── whatever happens, in whatever order


class Money:
    """Some processes, which admit, settle, die, fall silent and come back, while windows pass. Every step takes three
    numbers, and does what comes nearest to them."""

    STEPS = ("call",) * 8 + ("end",) * 5 + ("drain",) * 3 + ("tick",) * 3
    STEPS += ("unsent", "idle", "next_window", "set_limit", "start", "kill", "bury", "fall_silent")

    def __init__(self, db: Database) -> None:
        def clear(tx: Transaction) -> None:
            for name in (quota_slices, quotas, usage_ledger, usage_rollups, gateway_processes):
                tx.execute(name.delete())

        db.transact(clear)
        self.db = db
        self.clock = MovableClock()
        self.world = World(db, self.clock, quota_usd=0.000001, quota_period="day")
        self.world.quotas.set("key/7", 600, None, "week", "reset")
        self.alive = [self.world.process(), self.world.process()]
        self.dead: list[Process] = []
        self.calls: list[Call] = []

    def one(self, number: int) -> Process:
        return self.alive[number % len(self.alive)]

    def overdraft(self, subject: str) -> int:
        """By how much more than the limit is promised, but for what calls cost beyond their reservations."""
        found = self.world.quotas.find(subject)
        since = found.terms.window_of(self.clock.now())
        mine = [call for call in self.calls if subject in call.subjects()]
        ended = [call for call in mine if call.cost is not None and call.created_at >= since]
        promised = sum(min(call.cost, call.reservation.nano) for call in ended)
        promised += sum(call.reservation.nano for call in mine if call.cost is None and found.id in call.quota_ids())
        for process in self.alive:
            promised += sum(each.nano for each in process.slices._slices.values() if each.subject == subject)
        return promised - found.terms.limit_nano

    def call(self, number: int, nano: int, key: int) -> None:
        try:
            self.calls.append(self.one(number).begin(nano, caller(1, 7 if key % 2 else None)))
        except QuotaExceeded:
            return
        for subject in self.calls[-1].subjects():
            assert self.overdraft(subject) <= 0

    def unsent(self, number: int, nano: int, key: int) -> None:
        slices = self.one(number).slices
        try:
            slices.give_back(slices.reserve(caller(1, 7 if key % 2 else None), nano), nano)
        except QuotaExceeded:
            pass

    def end(self, number: int, cost: int, which: int) -> None:
        process = self.one(number)
        if process.running:
            call = process.running[which % len(process.running)]
            process.end(call, cost if which % 3 else min(cost, call.reservation.nano))

    def drain(self, number: int, *_: int) -> None:
        self.one(number).drain()

    def tick(self, number: int, seconds: int, _: int) -> None:
        self.clock.advance(seconds=seconds % 5)
        self.one(number).beat()

    def idle(self, number: int, *_: int) -> None:
        self.wait(seconds=FORGET_SECONDS if number % 2 else IDLE_SECONDS)
        for process in self.alive:
            process.drain()
            process.slices.return_idle()

    def next_window(self, number: int, *_: int) -> None:
        self.wait(days=number % 8)

    def wait(self, **delta: float) -> None:
        self.clock.advance(**delta)
        for process in self.alive:
            process.beat()

    def set_limit(self, number: int, limit: int, _: int) -> None:
        self.world.quotas.set("key/7" if number % 2 else "user/1", 2 * limit, None, "day", "reset")
        for process in self.alive:
            process.slices.reload()

    def start(self, *_: int) -> None:
        if len(self.alive) < 3:
            self.alive.append(self.world.process())

    def kill(self, number: int, unwritten: int, _: int) -> None:
        """Before, or after its latest call has reached the journal."""
        if len(self.alive) > 1:
            process = self.one(number)
            self.alive.remove(process)
            self.dead.append(process)
            if unwritten % 2 and process.running and process.journal and process.journal[-1] is process.running[-1]:
                self.calls.remove(process.journal.pop())
                process.running.pop()

    def bury(self, _: int, cost: int, __: int) -> None:
        """Another process adopts the journals, returns the slices, and finds out what the calls cost."""
        for process in self.dead:
            process.drain()
            self.alive[0].slices.return_slices_of([process.id])
            for call in process.running:
                call.cost = cost
            self.world.settle(process.running, from_journal=False)
        self.dead.clear()

    def fall_silent(self, number: int, cost: int, which: int) -> None:
        silent = self.one(number)
        silent.drain()
        self.bury(number, cost, which)
        self.clock.advance(seconds=RECLAIM.total_seconds() + 1)
        others = [process for process in self.alive if process is not silent]
        for process in others:  # before any of them looks: they were not silent meanwhile
            process.beat()
        for process in others if which % 2 else ():
            process.slices.reclaim_expired()
        with pytest.raises(Busy):
            silent.slices.reserve(caller(), 1)
        self.end(number, cost, which)
        silent.beat()

    def rest(self) -> None:
        """All calls end, all processes leave: nothing is reserved any more."""
        self.bury(0, 5, 0)
        for process in self.alive:
            for call in list(process.running):
                process.end(call, 1)
            process.drain()
            process.slices.return_all()
        self.world.check()
        assert self.world.rows_of_slices() == {}
        with self.db.reading() as tx:
            assert set(tx.scalars(sa.select(quotas.c.reserved_nano))) == {0}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One SQLite database for many examples, with the user and the client key whose quotas these are."""
    found = Database(database_url(Config(database_url=f"sqlite:///{tmp_path_factory.mktemp('money')}/x.db")))
    found.upgrade()
    made = dict.fromkeys(("created_at", "updated_at"), at("2026-01-01"))
    key = dict.fromkeys(("key_hash", "key_hint", "name", "description"), "k") | {"revision": 1}

    def make(tx: Transaction) -> None:
        tx.execute(users.insert().values(id=1, username_hash="u", key_hash="k", state="active", **made))
        tx.execute(client_keys.insert().values(id=7, user_id=1, **key, **made))

    found.transact(make)
    yield found
    found.close()


steps = st.tuples(st.sampled_from(Money.STEPS), st.integers(0, 9), st.integers(1, 700), st.integers(0, 9))


@given(st.lists(steps, min_size=30, max_size=60))
def test_whatever_happens_no_more_is_promised_than_the_limit_and_nothing_is_lost(file, chosen):
    money = Money(file)
    for name, *numbers in chosen:
        getattr(money, name)(*numbers)
        money.world.check()
    money.rest()


# ── in the background


def slices_of(world: World, process: Process, subject: str = "user/1") -> int:
    return world.rows_of_slices().get((process.id, world.row(subject).id), 0)


def use(process: Process, nano: int, who: Caller | None = None) -> None:
    """A call that costs all that it may."""
    process.end(process.begin(nano, who), nano)
    process.drain()


def test_a_slice_is_enlarged_before_anybody_waits(make_world, clock):
    world = make_world(quota_usd=1)
    process = world.process()
    use(process, 1000)
    assert slices_of(world, process) == (CALLS - 1) * 1000
    process.slices.give_back(process.slices.reserve(caller(), 1000), 1)
    for _ in range(CALLS // 2):
        use(process, 1000)
    assert slices_of(world, process) < CALLS // 2 * 1000
    clock.advance(seconds=1)
    process.beat()
    assert CALLS // 2 * 1000 <= slices_of(world, process) <= CALLS * 1000
    world.check()


def test_a_slice_holds_a_minutes_use_if_that_is_more(make_world, clock):
    world = make_world(quota_usd=1)
    process = world.process()
    for _ in range(AHEAD_SECONDS):
        for _ in range(10):
            use(process, 1000)
        clock.advance(seconds=1)
        process.beat()
    assert 5 * AHEAD_SECONDS * 1000 <= slices_of(world, process) <= 10 * AHEAD_SECONDS * 1000
    world.check()


def test_what_a_slice_held_for_dear_calls_goes_back_when_calls_are_cheap_again(make_world, clock):
    world = make_world(quota_usd=1)
    process = world.process()
    use(process, 100_000)
    assert slices_of(world, process) > 10 * 100_000
    for _ in range(3):
        use(process, 100)
        clock.advance(seconds=AHEAD_SECONDS)
        process.beat()
    assert CALLS // 2 * 100 <= slices_of(world, process) <= 2 * CALLS * 100
    world.check()


@pytest.mark.parametrize("nano", [1000, 1_000_000])
def test_in_steady_state_less_than_one_call_in_twenty_writes_to_the_database(make_world, clock, nano):
    """nano: what each call costs; a million times as much might be reserved."""
    world = make_world(quota_usd=10**6)
    process = world.process()
    use(process, 1000)
    commits = 0

    def count(connection: sa.Connection) -> None:
        nonlocal commits
        commits += not connection.get_execution_options().get("reading")

    sa.event.listen(world.db._engine, "commit", count)
    calls = 0
    for _ in range(120):
        for _ in range(2):
            process.slices.give_back(process.slices.reserve(caller(), 10**6), 10**6 - nano)
            calls += 1
        process.slices.top_up()
        clock.advance(seconds=1)
        process.slices._trusted_until = float("inf")
    assert commits < calls / 20


def test_a_slice_is_never_enlarged_beyond_a_quarter_of_what_is_left(world, clock):
    process = world.process()
    use(process, 500)
    clock.advance(seconds=1)
    process.beat()
    assert slices_of(world, process) == 0  # 500 are left: a quarter holds no such call
    use(process, 20)
    assert slices_of(world, process) == 500 // 4 // 20 * 20 - 20
    for _ in range(5):
        use(process, 20)
    clock.advance(seconds=1)
    process.beat()
    assert slices_of(world, process) == 380 // 4 // 20 * 20


def test_what_calls_cost_beyond_their_reservations_their_slice_pays_at_once(world, clock):
    process = world.process()
    call = process.begin(100)
    assert admitted(process, 100)
    process.end(call, 300)  # which no other process knows before it is drained
    assert not admitted(process, 601)
    clock.advance(seconds=REFUSED_SECONDS)
    assert admitted(process, 600)
    assert not admitted(process, 1)
    world.check()


def test_what_a_slice_owes_is_let_go_of_when_the_ledger_has_it(world, clock):
    process, other = world.process(), world.process()
    call = process.begin(300)
    process.end(call, 500)
    process.drain()
    for _ in range(2):
        clock.advance(seconds=1)
        process.beat()
    assert world.row("user/1").spent_nano == 500
    process.slices.return_idle()
    assert admitted(other, 500 - slices_of(world, process))
    assert admitted(process, slices_of(world, process)) or not slices_of(world, process)
    assert not admitted(other, 1)
    world.check()


def test_a_slice_shrinks_when_others_have_used_up_the_rest(world, clock):
    process, other = world.process(), world.process()
    for reservation in [process.slices.reserve(caller(), 20) for _ in range(10)]:
        process.slices.give_back(reservation, 20)
    assert slices_of(world, process) >= 200
    use(other, 700)
    clock.advance(seconds=1)
    process.beat()
    assert slices_of(world, process) == 300 // 4
    use(other, 225)
    assert admitted(process, 75)
    world.check()


def test_a_slice_that_nobody_uses_goes_back_and_is_forgotten_later(world, clock):
    process = world.process()
    process.slices.give_back(process.slices.reserve(caller(), 100), 100)
    clock.advance(seconds=IDLE_SECONDS - 1)
    process.slices.return_idle()
    assert world.row("user/1").reserved_nano >= 100
    clock.advance(seconds=1)
    process.slices.return_idle()
    assert world.row("user/1").reserved_nano == 0
    assert slices_of(world, process) == 0
    clock.advance(seconds=FORGET_SECONDS)
    process.beat()
    process.slices.return_idle()
    assert world.rows_of_slices() == {}
    assert admitted(process, 1000)
    world.check()


def test_a_lease_whose_commit_was_lost_comes_back_when_its_slice_is_forgotten(world, clock):
    process = world.process()
    use(process, 100)
    quota_id = world.row("user/1").id
    world.db.transact(lambda tx: moves.take(tx, process.id, quota_id, clock.now(), lambda left: 700))
    assert not admitted(process, 300)
    clock.advance(seconds=FORGET_SECONDS)
    process.beat()
    process.slices.return_idle()
    assert admitted(process, 900)
    world.check()


def test_a_refused_call_leaves_what_its_process_held_to_others(world):
    process, other = world.process(), world.process()
    process.slices.give_back(process.slices.reserve(caller(), 300), 300)
    assert admitted(other, 600)
    assert not admitted(process, 500)
    assert admitted(other, 400)
    world.check()


def test_refusals_are_remembered_for_a_moment_only_and_smaller_calls_may_ask(world, clock):
    process, other = world.process(), world.process()
    held = other.slices.reserve(caller(), 900)
    assert not admitted(process, 200)
    other.slices.give_back(held, 900)
    other.slices.return_all()
    assert not admitted(process, 200)
    assert admitted(process, 100)
    clock.advance(seconds=REFUSED_SECONDS)
    assert admitted(process, 200)


# ── changed limits


def test_a_new_limit_is_in_force_when_it_is_reloaded(world):
    process = world.process()
    assert not admitted(process, 1500)
    world.quotas.set("user/1", 2000, None, "month", "reset")
    process.slices.reload()
    assert admitted(process, 1500)
    world.quotas.set("user/1", None, None, "month", "reset")
    process.slices.reload()
    assert process.slices.reserve(caller(), 10**12) is UNLIMITED
    assert process.slices.headers(caller()) == []
    assert not admitted(process, 1500, caller(2))
    world.quotas.reset("user/1")
    process.slices.reload()
    assert not admitted(process, 1500)
    world.check()


def test_nothing_is_admitted_below_a_lowered_limit_and_slices_go_back(world, clock):
    process = world.process()
    first, second = process.begin(600), process.begin(300)
    process.end(second, 100)
    process.drain()
    world.quotas.set("user/1", 500, None, "month", "reset")
    process.slices.reload()
    row = world.row("user/1")
    assert (row.spent_nano, row.reserved_nano, slices_of(world, process)) == (100, 600, 0)
    process.end(first, 500)  # 100 come back to memory, and must not be used
    assert not admitted(process, 1)
    process.drain()
    clock.advance(seconds=REFUSED_SECONDS)
    assert not admitted(process, 1)
    process.beat()
    assert world.row("user/1").reserved_nano == 0
    world.check()


def test_a_quota_whose_row_is_gone_is_made_anew(world, clock):
    """As after the restore of a backup."""
    process = world.process()
    process.begin(600)
    world.db.transact(lambda tx: [tx.execute(each.delete()) for each in (quotas, quota_slices)])
    process.beat()
    assert admitted(process, 900)
    world.check()


# ── deaths and silence


def test_before_its_first_report_a_process_admits_nobody_with_a_quota(db, clock, world):
    slices = QuotaSlices(db, "new", world.quotas, clock)
    slices.top_up()
    with pytest.raises(Busy):
        slices.reserve(caller(), 1)


def test_at_the_end_everything_is_returned_and_nobody_admitted(world):
    process = world.process()
    process.slices.give_back(process.slices.reserve(caller(), 300), 300)
    process.slices.return_all()
    assert world.rows_of_slices() == {}
    assert world.row("user/1").reserved_nano == 0
    with pytest.raises(Busy):
        process.slices.reserve(caller(), 1)


# ── what answers say


def test_answers_say_what_remains_until_when(world, clock):
    process = world.process()
    assert process.slices.headers(caller()) == []  # nothing is known yet
    call = process.begin(300)
    reset = ("X-Quota-Reset", str(int((at("2026-12-01") - clock.now()).total_seconds())))
    limit = ("X-Quota-Limit", "0.000001")
    assert process.slices.headers(caller()) == [limit, ("X-Quota-Remaining", "0.0000007"), reset]
    process.end(call, 100)
    assert process.slices.headers(caller()) == [limit, ("X-Quota-Remaining", "0.0000009"), reset]
    process.end(process.begin(900), 2000)
    process.drain()
    process.beat()
    assert process.slices.headers(caller()) == [limit, ("X-Quota-Remaining", "0"), reset]
    assert process.slices.headers(caller(2)) == []


@pytest.mark.parametrize(("period", "recovery"), [("none", "reset"), ("day", "steady")])
def test_what_never_resets_has_no_such_header(world, period, recovery):
    world.quotas.set("user/1", 1000, None, period, recovery)
    process = world.process()
    use(process, 1)
    assert [name for name, _ in process.slices.headers(caller())] == ["X-Quota-Limit", "X-Quota-Remaining"]


def test_a_soft_limit_warns_and_refuses_nobody(make_world, clock):
    world = make_world(quota_soft_usd=0.000001)
    process = world.process()
    for cost in (1000, 1):
        assert process.slices.reserve(caller(), 10**9) is UNLIMITED
        process.beat()
        assert process.slices.headers(caller()) == []
        world.settle([Call(caller(), UNLIMITED, clock.now(), process.id, cost)])
    process.beat()
    assert process.slices.headers(caller()) == [("X-Quota-Warning", "more than $0.000001 spent")]
    assert process.slices.headers(caller(2)) == []
    world.check()


def test_the_tighter_of_two_quotas_is_told(world):
    world.quotas.set("key/7", 50, None, "none", "reset")
    process = world.process()
    process.begin(10, caller(1, 7))
    assert dict(process.slices.headers(caller(1, 7)))["X-Quota-Remaining"] == "0.00000004"


# ── many processes, and no database


def test_processes_that_race_admit_exactly_what_is_paid_for(db, empty_database_url):
    prepare = """
import threading
from foundation.clock import Clock
from config.settings import Config
from db import Database, database_url
from foundation.errors import QuotaExceeded
from tests.support.quota_world import World, caller
db = Database(database_url(Config(database_url=sys.argv[1])))
process = World(db, Clock(), quota_usd=0.000001).process()
admitted = []
def run():
    for _ in range(5):
        try:
            process.slices.reserve(caller(), 50)
            admitted.append(1)
        except QuotaExceeded:
            pass
threads = [threading.Thread(target=run) for _ in range(5)]
"""
    race = "[t.start() for t in threads]; [t.join() for t in threads]; print(len(admitted))"
    printed = in_processes(3, prepare, race, empty_database_url)
    assert sum(map(int, printed)) == 20
    World(db, Clock()).check()


def test_with_the_database_away_slices_go_on_and_what_exceeds_them_is_refused(mariadb, clock):
    db = Database(database_url(Config(database_url=mariadb.new_database())))
    db.upgrade()
    world = World(db, clock, quota_usd=0.000001)
    process = world.process()
    process.slices.give_back(process.slices.reserve(caller(), 300), 300)
    world.quotas.set("user/3", None, None, "month", "reset")
    process.slices.reload()
    without_quotas = World(db, clock).process()
    mariadb.stop()
    try:
        assert admitted(process, 200)
        assert without_quotas.slices.reserve(caller(4), 10**12) is UNLIMITED
        for who, nano in ((caller(), 200), (caller(), 200), (caller(2), 1)):
            with pytest.raises(Busy) as refused:
                process.slices.reserve(who, nano)
            assert "Retry-After" in refused.value.headers
        assert process.slices.reserve(caller(3), 10**12) is UNLIMITED
        assert admitted(process, 100)
        with pytest.raises(DatabaseError):
            process.slices.top_up()
    finally:
        mariadb.start()
    clock.advance(seconds=AWAY_SECONDS)
    assert admitted(process, 700)
    assert not admitted(process, 1)
    world.check()
    db.close()


def test_what_can_not_be_returned_stays_in_use(mariadb, clock):
    db = Database(database_url(Config(database_url=mariadb.new_database())))
    db.upgrade()
    world = World(db, clock, quota_usd=0.000001)
    process = world.process()
    process.slices.give_back(process.slices.reserve(caller(), 1000), 1000)
    clock.advance(seconds=IDLE_SECONDS)
    mariadb.stop()
    try:
        with pytest.raises(DatabaseError):
            process.slices.return_idle()
        assert admitted(process, 400)
    finally:
        mariadb.start()
    clock.advance(seconds=IDLE_SECONDS)
    process.slices.return_idle()
    assert world.row("user/1").reserved_nano == 400
    world.check()
    db.close()
