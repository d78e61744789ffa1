"""The ledger: every fact counts once, whoever brings it, however often, in whatever order; sums are those of the rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from billing.ledger import ASK_AFTER, MAX_CALL, UsageLedger, created_at
from billing.records import OPEN, State
from config.settings import Config
from db import Database, database_url
from tables import quota_slices, quotas, usage_ledger, usage_rollups
from tests.support.gateway import in_processes
from tests.support.movable_clock import MovableClock

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
numbers = itertools.count(1)


def new_id(at: datetime = NOON) -> str:
    return f"{round(at.timestamp() * 1000):012x}{next(numbers):020x}"


def dispatched(request_id: str, attempt: int = 1, **facts: Any) -> dict[str, Any]:
    record = {"request_id": request_id, "attempt": attempt, "state": "dispatched", "user_id": 1, "client_key_id": None}
    record |= {"pool_key_id": 7, "model": "openai/gpt-4o-mini", "is_stream": True, "user_quota_id": None}
    return record | {"key_quota_id": None, "reserved_nano": 0, "estimate_nano": 50, **facts}


def answered(request_id: str, generation_id: str, attempt: int = 1) -> dict[str, Any]:
    return {"request_id": request_id, "attempt": attempt, "state": "streaming", "generation_id": generation_id}


def settled(request_id: str, cost_nano: int, attempt: int = 1, **facts: Any) -> dict[str, Any]:
    record = {"request_id": request_id, "attempt": attempt, "state": "settled", "source": "stream"}
    record |= {"cost_nano": cost_nano, "prompt_tokens": 3, "completion_tokens": 4, "is_last": True}
    return record | {"http_status": 200, "outcome": "complete", "total_ms": 5, **facts}


def left(request_id: str, state: str = "pending", attempt: int = 1, **facts: Any) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "attempt": attempt,
        "state": state,
        "is_last": True,
        "outcome": "client_gone",
    } | facts


@pytest.fixture
def ledger(db: Database, clock: MovableClock) -> UsageLedger:
    return UsageLedger(db, clock)


def rows(db: Database, table: sa.Table = usage_ledger) -> list[dict[str, Any]]:
    with db.reading() as tx:
        return [dict(row) for row in tx.execute(sa.select(table).order_by(*table.primary_key)).mappings()]


def row(db: Database, request_id: str, attempt: int = 1) -> dict[str, Any]:
    [found] = [r for r in rows(db) if (r["request_id"], r["attempt"]) == (request_id, attempt)]
    return found


def totals(db: Database, user_id: int = 0, period: str = "d") -> tuple[int, ...]:
    """Requests, errors, tokens in, tokens out, cost, unknown."""
    names = "requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown"
    found = [r for r in rows(db, usage_rollups) if (r["user_id"], r["period"]) == (user_id, period)]
    return tuple(sum(r[name] for r in found) for name in names)


@pytest.mark.mysql
def test_a_call_goes_from_dispatched_to_settled_and_is_added_up_once(db, ledger):
    request_id = new_id()
    ledger.apply("me", [dispatched(request_id)])
    assert (row(db, request_id)["state"], row(db, request_id)["cost_nano"]) == ("dispatched", None)
    assert row(db, request_id)["next_check_at"] == NOON + MAX_CALL
    ledger.apply("me", [answered(request_id, "gen-1")])
    assert (row(db, request_id)["state"], row(db, request_id)["generation_id"]) == ("streaming", "gen-1")
    assert totals(db) == (0, 0, 0, 0, 0, 0)
    ledger.apply("me", [settled(request_id, 150)])
    done = row(db, request_id)
    assert (done["state"], done["cost_nano"], done["source"], done["is_last"]) == ("settled", 150, "stream", True)
    assert (done["next_check_at"], done["settled_at"], done["created_at"]) == (None, NOON, NOON)
    for user_id, period in itertools.product((0, 1), "hd"):
        assert totals(db, user_id, period) == (1, 0, 3, 4, 150, 0)


def test_a_generation_is_found_by_whom_it_was_made_for(db, ledger, clock):
    request_id = new_id(clock.now())
    ledger.apply("me", [dispatched(request_id, user_id=3), answered(request_id, "gen-1")])
    assert ledger.find_pool_key("gen-1", 3) == 7
    assert ledger.find_pool_key("gen-1", 4) is ledger.find_pool_key("gen-2", 3) is None
    assert ledger.find_pool_key("gen-1", 3, client_key_id=5) is None
    ledger.apply("me", [dispatched(new_id(clock.now()), user_id=3, client_key_id=5) | {"generation_id": "gen-3"}])
    assert ledger.find_pool_key("gen-3", 3) == ledger.find_pool_key("gen-3", 3, client_key_id=5) == 7
    assert ledger.find_pool_key("gen-3", 3, client_key_id=6) is None


def test_facts_that_come_again_change_nothing(db, ledger):
    first, second, third = new_id(), new_id(), new_id()
    records = [dispatched(first), answered(first, "gen-1"), dispatched(second), settled(first, 150)]
    records += [left(second, "unknown"), dispatched(third), answered(third, "gen-3"), left(third)]
    ledger.apply("me", records)
    before = rows(db), rows(db, usage_rollups)
    for again in (records, records[:1], records[1:2], records[3:4], records[::-1]):
        ledger.apply("me", again)
    assert (rows(db), rows(db, usage_rollups)) == before
    assert totals(db) == (3, 0, 3, 4, 150, 1)


@pytest.mark.mysql
def test_a_cost_that_is_settled_twice_counts_once_and_the_first_stays(db, ledger):
    request_id = new_id()
    ledger.apply("me", [dispatched(request_id), answered(request_id, "gen-1"), settled(request_id, 150)])
    ledger.settle((request_id, 1), state=State.SETTLED, source="generation", cost_nano=151)
    ledger.apply("me", [settled(request_id, 999)])
    assert row(db, request_id)["cost_nano"] == totals(db)[4] == 150
    assert row(db, request_id)["source"] == "stream"


def test_what_was_unknown_may_still_be_settled(db, ledger):
    request_id = new_id()
    ledger.apply("me", [dispatched(request_id)])
    ledger.settle((request_id, 1), state=State.UNKNOWN)
    assert totals(db)[4:] == (0, 1)
    ledger.apply("me", [settled(request_id, 150)])
    assert totals(db) == (1, 0, 3, 4, 150, 0)
    assert row(db, request_id)["state"] == "settled"


def test_each_try_is_a_row_and_the_request_is_counted_once(db, ledger):
    request_id = new_id()
    first_over = left(request_id, "void", outcome=None, is_last=False)
    ledger.apply("me", [dispatched(request_id), first_over, dispatched(request_id, 2)])
    ledger.apply("me", [settled(request_id, 150, 2)])
    assert [(r["attempt"], r["state"], r["is_last"]) for r in rows(db)] == [(1, "void", False), (2, "settled", True)]
    assert totals(db)[:2] == (1, 0)


def test_a_request_that_never_went_up_is_a_row_without_cost_and_an_error(db, ledger):
    request_id = new_id()
    refused = dispatched(request_id, 0, state="void", pool_key_id=None, outcome="failed", http_status=402, is_last=True)
    ledger.apply("me", [refused])
    assert (row(db, request_id, 0)["cost_nano"], row(db, request_id, 0)["state"]) == (None, "void")
    assert totals(db) == (1, 1, 0, 0, 0, 0)


@pytest.mark.mysql
@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_generation_id_that_came_twice_is_paid_for_by_nobody_but_the_first(db, ledger, caplog, in_one_batch):
    mine, other = new_id(), new_id()
    first = [dispatched(mine), answered(mine, "gen-1"), settled(mine, 150)]
    second = [dispatched(other, user_id=2), answered(other, "gen-1"), settled(other, 150)]
    for records in [first + second] if in_one_batch else [first, second]:
        ledger.apply("me", records)
    assert row(db, mine)["cost_nano"] == 150
    assert [row(db, other)[name] for name in ("state", "cost_nano", "generation_id")] == ["unknown", None, None]
    assert totals(db, 2)[4:] == (0, 1)
    assert "generation_id_twice" in [record.getMessage() for record in caplog.records]
    ledger.apply("me", second)
    assert totals(db, 2)[4:] == (0, 1)


def test_facts_of_no_known_call_are_reported_and_change_nothing(db, ledger, caplog):
    facts = settled(new_id(), 150)
    assert [each.record for each in ledger.apply("me", [facts])] == [facts]
    assert rows(db) == rows(db, usage_rollups) == []
    assert "facts_without_call" in [record.getMessage() for record in caplog.records]


@pytest.mark.mysql
@pytest.mark.parametrize(
    "damage",
    [
        {"request_id": 7},
        {"request_id": ["a"]},
        {"request_id": "x" * 32},
        {"attempt": None},
        {"attempt": 2**20},
        {"cost_nano": "x"},
        {"cost_nano": 2**70},
        {"cost_nano": 9_200_000_000 * 10**9},
        {"model": None},
        {"model": "m" * 300},
        {"state": "paid"},
        {"is_last": 1},
    ],
)
def test_facts_that_no_row_can_hold_do_not_keep_the_others_waiting(db, ledger, caplog, damage):
    first, broken, last = new_id(), new_id(), new_id()
    odd = dispatched(broken) | settled(broken, 1) | damage
    records = [dispatched(first), settled(first, 1), odd, dispatched(last), settled(last, 2)]
    assert [each.record for each in ledger.apply("me", records)] == [odd]
    assert {r["request_id"]: r["cost_nano"] for r in rows(db)} == {first: 1, last: 2}
    assert totals(db)[4] == 3
    assert "facts_unusable" in [record.getMessage() for record in caplog.records]


@pytest.mark.mysql
def test_a_dead_processs_calls_are_asked_about_or_unknown_and_another_processs_are_left_alone(db, ledger, clock):
    named, nameless, over, other = (new_id() for _ in range(4))
    records = [dispatched(named), answered(named, "gen-1"), dispatched(nameless), dispatched(over), settled(over, 5)]
    ledger.apply("dead", records)
    ledger.apply("alive", [dispatched(other)])
    clock.advance(minutes=1)
    ledger.close_dead("dead")
    found = {r["request_id"]: (r["state"], r["outcome"], r["is_last"]) for r in rows(db)}
    assert found == {
        named: ("pending", "lost", True),
        nameless: ("unknown", "lost", True),
        over: ("settled", "complete", True),
        other: ("dispatched", None, False),
    }
    assert [r["request_id"] for r in ledger.claim_due(10, timedelta(minutes=1))] == [named]


def test_a_request_whose_process_died_between_two_tries_is_over_and_counted_once(db, ledger):
    between, tried_again = new_id(), new_id()
    for request_id in (between, tried_again):
        first = left(request_id, is_last=False, outcome=None, generation_id=f"gen-{request_id}")
        ledger.apply("dead", [dispatched(request_id), first])
    ledger.apply("dead", [dispatched(tried_again, 2)])
    for _ in range(2):
        ledger.close_dead("dead")
        found = [(r["request_id"], r["attempt"], r["state"], r["is_last"], r["outcome"]) for r in rows(db)]
        assert found == [
            (between, 1, "pending", True, "lost"),
            (tried_again, 1, "pending", False, None),
            (tried_again, 2, "unknown", True, "lost"),
        ]
        assert totals(db) == (2, 2, 0, 0, 0, 1)


@pytest.mark.mysql
def test_a_row_that_is_due_is_claimed_by_one_and_by_the_next_when_that_one_has_died(db, ledger, clock):
    request_id = new_id()
    ledger.apply("me", [dispatched(request_id), answered(request_id, "gen-1"), left(request_id)])
    assert ledger.claim_due(10, timedelta(minutes=1)) == []
    clock.time = row(db, request_id)["next_check_at"]
    assert clock.time == NOON + ASK_AFTER[0]
    [claimed] = ledger.claim_due(10, timedelta(minutes=1))
    assert ledger.claim_due(10, timedelta(minutes=1)) == []
    clock.advance(minutes=1)
    assert len(ledger.claim_due(10, timedelta(minutes=1))) == 1
    ledger.ask_again(claimed, 1, NOON + timedelta(hours=1))
    assert (row(db, request_id)["checks"], row(db, request_id)["next_check_at"]) == (1, NOON + timedelta(hours=1))


def test_what_a_clock_that_was_wrong_has_put_off_until_tomorrow_is_due_when_it_is_right(db, ledger, clock):
    request_id = new_id(clock.now())
    clock.advance(hours=50)
    ledger.apply("me", [dispatched(request_id), answered(request_id, "gen-1"), left(request_id)])
    clock.advance(hours=-50)
    [claimed] = ledger.claim_due(10, timedelta(minutes=1))
    assert claimed["request_id"] == request_id
    assert ledger.claim_due(10, timedelta(minutes=1)) == []


def test_a_row_that_was_settled_meanwhile_is_not_asked_about_again(db, ledger, clock):
    request_id = new_id()
    ledger.apply("me", [dispatched(request_id), answered(request_id, "gen-1"), left(request_id)])
    clock.advance(minutes=1)
    [claimed] = ledger.claim_due(10, timedelta(minutes=1))
    ledger.settle((request_id, 1), state=State.SETTLED, source="generation", cost_nano=9)
    ledger.ask_again(claimed, 1, NOON)
    assert row(db, request_id)["next_check_at"] is None
    assert ledger.claim_due(10, timedelta(minutes=1)) == []


def test_a_request_id_says_when_it_was_made():
    assert created_at(new_id(NOON + timedelta(milliseconds=7))) == NOON + timedelta(milliseconds=7)


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("told", "waited", "counted"),
    [
        (NOON + DAY, timedelta(), NOON),
        (NOON - DAY, timedelta(), NOON - MAX_CALL),
        (NOON - DAY, timedelta(hours=5), NOON - MAX_CALL - timedelta(hours=5)),
        (NOON - DAY, 2 * DAY, NOON - DAY),
        (NOON - MAX_CALL, timedelta(), NOON - MAX_CALL),
    ],
    ids=["tomorrow", "yesterday", "after an outage", "after a long one", "a long call"],
)
def test_a_call_that_was_told_a_wrong_time_counts_when_it_can_have_been(db, ledger, told, waited, counted):
    wrong, innocent = new_id(told), new_id()
    records = [fact for call in (wrong, innocent) for fact in (dispatched(call), settled(call, 5))]
    ledger.apply("me", records, waited.total_seconds())
    assert (row(db, wrong)["created_at"], row(db, innocent)["created_at"]) == (counted, NOON)
    assert totals(db)[4] == 10


@pytest.mark.parametrize("copies", [10, pytest.param(100, marks=pytest.mark.torture)])
def test_a_million_calls_of_15_hundred_millionths_of_a_dollar_are_exactly_15_cents(db, ledger, copies):
    """Ten thousand by the ledger, of which the database makes copies: ten of each are a tenth of a million."""
    calls = [new_id() for _ in range(10_000)]
    ledger.apply("me", (fact for call in calls for fact in (dispatched(call), settled(call, 150))))
    assert totals(db)[4] == totals(db, 1)[4] == totals(db, 1, "h")[4] == 10_000 * 150
    made = 1
    while made < copies:  # each statement doubles them
        columns = [c + made if c.name == "attempt" else c for c in usage_ledger.c]
        chosen = sa.select(*columns).where(usage_ledger.c.attempt <= copies - made)
        db.transact(lambda tx, rows=chosen: tx.execute(usage_ledger.insert().from_select(usage_ledger.c.keys(), rows)))
        made += min(made, copies - made)
    with db.reading() as tx:
        count, cost = tx.execute(sa.select(sa.func.count(), sa.func.sum(usage_ledger.c.cost_nano))).one()
    assert (count, Decimal(int(cost)) / 10**9) == (copies * 10**4, Decimal("0.15") * copies / 100)


APPLY = """
ledger = ledger.UsageLedger(database, clock.Clock())
records = orjson.loads(open(sys.argv[2], "rb").read())
for _ in range(3):
    ledger.apply("me", records)
"""


@pytest.mark.mysql
def test_processes_that_apply_the_same_journal_at_once_count_it_once(db, empty_database_url, tmp_path):
    calls = [new_id() for _ in range(300)]
    records = [fact for n, call in enumerate(calls) for fact in (dispatched(call, user_id=n % 5 + 1), settled(call, n))]
    (tmp_path / "records").write_bytes(orjson.dumps(records))
    prepare = (
        "import orjson, db; from foundation import clock; from config import settings; from billing import ledger\n"
    )
    prepare += "database = db.Database(db.database_url(settings.Config(database_url=sys.argv[1])))"
    in_processes(3, prepare, APPLY, empty_database_url, str(tmp_path / "records"))
    assert len(rows(db)) == 300
    assert totals(db) == (300, 0, 900, 1200, sum(range(300)), 0)


# ── any sequence of facts


QUOTAS = {1: "user/1", 2: "user/2"}


def history(number: int, user_id: int, kind: str, cost: int, reserved: int) -> list[dict[str, Any]]:
    """The facts of one call, as a journal holds them."""
    request_id = f"{round(NOON.timestamp() * 1000):012x}{number:020x}"
    begin = dispatched(request_id, user_id=user_id, user_quota_id=user_id, reserved_nano=reserved)
    named = answered(request_id, f"gen-{number}")
    return {
        "settled": [begin, named, settled(request_id, cost)],
        "plain": [begin, settled(request_id, cost, generation_id=f"gen-{number}")],
        "pending": [begin, named, left(request_id)],
        "unknown": [begin, left(request_id, "unknown")],
        "void": [begin, left(request_id, "void")],
        "cut": [begin, named],
        "lost": [begin],
    }[kind]


CALL = st.tuples(
    st.sampled_from([1, 2]),
    st.sampled_from(["settled", "plain", "pending", "unknown", "void", "cut", "lost"]),
    st.integers(0, 2000),
    st.integers(0, 1000),
)


@pytest.fixture(scope="module")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One database for all examples; each begins with it empty."""
    folder: Path = tmp_path_factory.mktemp("ledger")
    database = Database(database_url(Config(database_url=f"sqlite:///{folder}/x.db")))
    database.upgrade()
    yield database
    database.close()


@given(data=st.data(), calls=st.lists(CALL, min_size=1, max_size=12))
def test_sums_slices_and_reservations_hold_for_any_journal_cut_anywhere_and_applied_again(emptied, clock, data, calls):
    def clear(tx: Any) -> None:
        for table in (usage_ledger, usage_rollups, quotas, quota_slices):
            tx.execute(table.delete())
        for quota_id, subject in QUOTAS.items():
            limits = {"limit_nano": 10**9, "period": "day", "recovery": "reset", "is_default": False}
            times = {"window_start": NOON.replace(hour=0), "updated_at": NOON}
            tx.execute(
                quotas.insert().values(
                    id=quota_id, subject=subject, spent_nano=0, reserved_nano=10**6, **limits, **times
                )
            )
            tx.execute(quota_slices.insert().values(process_id="me", quota_id=quota_id, nano=10**6))

    emptied.transact(clear)
    ledger = UsageLedger(emptied, clock)
    # The calls' facts interleaved in any way that keeps each call's own order.
    queues = [history(n, *call) for n, call in enumerate(calls)]
    journal = []
    while queue := [q for q in queues if q]:
        journal.append(data.draw(st.sampled_from(queue)).pop(0))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(journal)), max_size=4)))
    segments = [journal[a:b] for a, b in zip([0, *cuts], [*cuts, len(journal)], strict=True)]
    for segment in segments:
        ledger.apply("me", segment)
        if data.draw(st.booleans()):
            ledger.apply("me", segment)
        _check_invariants(emptied)
    if data.draw(st.booleans()):
        ledger.close_dead("me")
        _check_invariants(emptied)
    for claimed in rows(emptied):
        if claimed["state"] == "pending" and data.draw(st.booleans()):
            for _ in range(2):
                ledger.settle((claimed["request_id"], 1), state=State.SETTLED, source="generation", cost_nano=77)
            _check_invariants(emptied)
    for segment in segments:
        ledger.apply("me", segment)
    _check_invariants(emptied)


def _check_invariants(db: Database) -> None:
    ledger_rows = rows(db)
    slices = {r["quota_id"]: r["nano"] for r in rows(db, quota_slices)}
    for quota in rows(db, quotas):
        mine = [r for r in ledger_rows if r["user_id"] == quota["id"]]
        assert quota["spent_nano"] == sum(r["cost_nano"] or 0 for r in mine)
        held = sum(r["reserved_nano"] for r in mine if r["state"] in OPEN)
        assert slices[quota["id"]] >= 0
        assert quota["reserved_nano"] == slices[quota["id"]] + held
    for user_id in (0, 1, 2):
        mine = [r for r in ledger_rows if user_id in {0, r["user_id"]}]
        assert totals(db, user_id) == totals(db, user_id, "h")
        assert totals(db, user_id)[0] == sum(r["is_last"] for r in mine)
        assert totals(db, user_id)[4] == sum(r["cost_nano"] or 0 for r in mine)
        assert totals(db, user_id)[5] == sum(r["state"] == "unknown" for r in mine)
    for r in ledger_rows:
        assert (r["cost_nano"] is None) == (r["state"] not in {"settled", "estimated"})
        assert (r["next_check_at"] is None) == (r["state"] not in OPEN)
