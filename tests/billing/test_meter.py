"""One call's accounting: what is written down when, and that memory and the ledger move a reservation alike."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from accounts.caller import Caller
from accounts.client_keys import ClientKey
from billing import journal
from billing.call_counts import CallCounts
from billing.details import cost_of, count_of
from billing.forecast import CostForecasts, Forecast
from billing.journal import UsageJournal
from billing.ledger import UsageLedger
from billing.meter import AttemptResult, CallMeter, UsageMeter
from billing.prices import ModelPrices
from billing.quotas.rows import Quotas
from billing.quotas.slices import QuotaSlices
from billing.records import OPEN
from config.settings import Config
from db import Database, database_url
from foundation.counts import Counts
from foundation.crypto import Envelopes
from foundation.errors import Busy, QuotaExceeded
from pool.keys import PoolKeys
from replicas.processes import GatewayProcess
from tables import quota_slices, quotas, usage_ledger
from tests.conftest import ENCRYPTION_KEY, MovableClock
from tests.support.data_plane import WHOLE, request, whole
from tests.support.rows import each_row
from tests.support.scripted_upstream import json_answer
from upstream.http import UpstreamHttp

MOST_NANO = 500
KEY = 7
COSTS_200 = {"cost": Decimal("0.0000002"), "prompt_tokens": 3, "completion_tokens": 4}


def request_id(number: int) -> str:
    """One of the time at which the clock stands."""
    return f"{round(MovableClock().timestamp() * 1000):012x}{number:020x}"


def connect(db: Database, clock: MovableClock, user_id: int) -> int:
    """A key of this user's own account; returns its row's id."""
    keys = PoolKeys(db, Envelopes([ENCRYPTION_KEY]), clock)
    return db.transact(lambda tx: keys.add_connected(tx, user_id, "sk-or-v1-" + "c" * 64, None))


class Office:
    """A process with its journal, slices and ledger, and a user (1) who may spend 10,000 nano-dollars."""

    def __init__(self, db: Database, clock: MovableClock, folder: Path, counts_byok: bool = False) -> None:
        self.db = db
        self.counts_byok = counts_byok
        self.process = GatewayProcess(db, clock)
        self.process.beat(1, {})
        self.journal = UsageJournal(folder, self.process.id)
        self.journal.check()
        self.journal.open()
        limits = Quotas(db, clock, Config())
        limits.set("user/1", 10_000, None, "month", "reset")
        self.slices = QuotaSlices(db, self.process.id, limits, clock)
        self.slices.reload()
        self.slices.top_up()
        self.ledger = UsageLedger(db, clock, counts_byok)
        self.forecasts = CostForecasts(db, ModelPrices(UpstreamHttp("http://127.0.0.1:9", 1.0), folder))
        self.made = 0

    def call(self, stream: bool = True, user_id: int = 1, client_key: ClientKey | None = None) -> CallMeter:
        self.made += 1
        meters = UsageMeter(self.journal, self.slices, self.forecasts, CallCounts(Counts()), self.counts_byok)
        forecast = Forecast(MOST_NANO, MOST_NANO)
        return meters.call(request_id(self.made), Caller(user_id, "s", 9e9, client_key), "a/b", stream, forecast)

    def written(self) -> list[dict[str, Any]]:
        """What the journal holds that was not drained."""
        files = journal.segments_of(self.journal.folder, self.process.id)
        return [record for file in files for record in journal.read(file)]

    def drain(self) -> None:
        for segment in self.journal.take():
            self.ledger.apply(self.process.id, journal.read(segment))
            segment.unlink()

    def rows(self) -> list[Any]:
        with self.db.reading() as tx:
            return list(tx.execute(sa.select(usage_ledger).order_by(*usage_ledger.primary_key)))

    def in_memory(self) -> int:
        return self.slices._slices["user/1"].nano

    def in_database(self) -> tuple[int, int, int]:
        """The slice, and what the quota has reserved and spent."""
        with self.db.reading() as tx:
            [slice_nano] = tx.scalars(sa.select(quota_slices.c.nano))
            quota = tx.execute(sa.select(quotas)).one()
        return slice_nano, quota.reserved_nano, quota.spent_nano

    def check(self, has_owed: bool = False) -> None:
        """Once all is drained, the slice in memory is the one in the database, and reserved is what slice and rows hold.

        has_owed: calls cost more than their slice had, so that it may have paid what the ledger had already.
        """
        slice_nano, reserved, spent = self.in_database()
        rows = self.rows()
        assert self.in_memory() == slice_nano or (has_owed and self.in_memory() < slice_nano)
        assert reserved == slice_nano + sum(row.reserved_nano for row in rows if row.state in OPEN)
        assert spent == sum(
            (row.cost_nano or 0) + (row.byok_nano or 0) * self.counts_byok for row in rows if row.is_last
        )


@pytest.fixture
def office(db: Database, clock: MovableClock, tmp_path: Path) -> Iterator[Office]:
    office = Office(db, clock, tmp_path / "journal")
    yield office
    office.journal.close()


def finish(meter: CallMeter, result: AttemptResult | None, outcome: str = "complete", status: int = 200) -> None:
    meter.finish(result, http_status=status, outcome=outcome, first_byte_ms=1, total_ms=2)


# ── who pays


def test_a_call_that_the_users_own_account_pays_for_reserves_and_spends_nothing_of_the_quota(office, clock):
    key = connect(office.db, clock, 1)
    for number in range(30):  # thrice what the quota would let in
        meter = office.call()
        meter.dispatch(key, user_pays=True)
        finish(meter, AttemptResult(f"gen-{number}", {"cost": Decimal("0.000001")}))
    office.drain()
    assert {(row.state, row.cost_nano, row.reserved_nano, row.user_quota_id) for row in office.rows()} == {
        ("settled", 1000, 0, None)
    }
    with office.db.reading() as tx:
        [quota] = tx.execute(sa.select(quotas))
    assert (quota.spent_nano, quota.reserved_nano) == (0, 0)
    other = office.call()  # with a shared key again
    other.dispatch(KEY)
    finish(other, AttemptResult("gen-x", COSTS_200))
    office.drain()
    assert office.in_database()[2] == 200


def test_another_try_with_a_shared_key_is_admitted_by_the_quota(office, clock):
    key = connect(office.db, clock, 1)
    meter = office.call()
    meter.dispatch(key, user_pays=True)
    meter.end_attempt(AttemptResult(refused=True), error_type="key-refused")
    meter.dispatch(KEY)
    finish(meter, AttemptResult("gen-1", COSTS_200))
    office.drain()
    assert [(row.pool_key_id, row.user_quota_id is None) for row in office.rows()] == [(key, True), (KEY, False)]
    assert office.in_database()[2] == 200
    office.check()


def test_an_account_connected_after_the_call_was_admitted_gives_its_reservation_back(office, clock):
    meter = office.call()
    meter.admit()
    meter.dispatch(connect(office.db, clock, 1), user_pays=True)
    finish(meter, AttemptResult("gen-1", COSTS_200))
    office.drain()
    slice_nano, reserved_nano, spent_nano = office.in_database()
    assert spent_nano == 0
    assert reserved_nano == slice_nano == office.in_memory()


def test_a_client_keys_quota_counts_whoever_pays(office, clock):
    key = connect(office.db, clock, 1)
    office.slices._quotas.set("key/5", 900, None, "month", "reset")
    office.slices.reload()
    client_key = ClientKey(5, 1)
    meter = office.call(client_key=client_key)
    meter.dispatch(key, user_pays=True)
    finish(meter, AttemptResult("gen-1", {"cost": Decimal("0.0000005")}))
    with pytest.raises(QuotaExceeded, match="This key's quota"):
        office.call(client_key=client_key).dispatch(key, user_pays=True)
    office.drain()
    with office.db.reading() as tx:
        assert dict(tx.execute(sa.select(quotas.c.subject, quotas.c.spent_nano)).all()) == {"user/1": 0, "key/5": 500}


def test_a_quota_that_begins_leaves_out_what_own_accounts_have_paid(office, clock):
    meter, own = office.call(), office.call()
    meter.dispatch(KEY)
    finish(meter, AttemptResult("gen-1", COSTS_200))
    own.dispatch(connect(office.db, clock, 1), user_pays=True)
    finish(own, AttemptResult("gen-2", {"cost": Decimal("0.000001")}))
    office.drain()
    assert office.slices._quotas.set("user/1", 10_000, None, "week", "reset").spent_nano == 200


@pytest.mark.parametrize("counts_byok", [False, True])
def test_what_a_provider_bills_for_its_own_key_counts_where_the_operator_wants_it(db, clock, tmp_path, counts_byok):
    office = Office(db, clock, tmp_path / "journal", counts_byok)
    meter, another = office.call(), office.call()
    for one in (meter, another):
        one.dispatch(KEY)
    byok = {"is_byok": True, "cost_details": {"upstream_inference_cost": Decimal("0.0000003")}}
    details = {"prompt_tokens_details": {"cached_tokens": 3}}
    finish(meter, AttemptResult("gen-1", COSTS_200 | byok | details))
    finish(another, AttemptResult("gen-2", COSTS_200))
    office.drain()
    office.check()
    first, second = office.rows()
    assert (first.cost_nano, first.byok_nano, first.cached_tokens) == (200, 300, 3)
    assert (second.cost_nano, second.byok_nano, second.cached_tokens) == (200, None, None)
    assert office.in_database()[2] == (700 if counts_byok else 400)
    office.journal.close()


# ── what each ending means

ENDINGS: dict[str, tuple[AttemptResult, tuple[Any, ...]]] = {
    "a stream's cost": (AttemptResult("gen-1", COSTS_200, streamed=True), ("settled", "stream", 200, "gen-1")),
    "a body's cost": (AttemptResult("gen-1", COSTS_200), ("settled", "body", 200, "gen-1")),
    "a cost without a name": (AttemptResult(None, COSTS_200), ("settled", "body", 200, None)),
    "a cost of nothing": (AttemptResult("gen-1", {"cost": 0}), ("settled", "body", 0, "gen-1")),
    "a cost above what was reserved": (AttemptResult(None, {"cost": 0.000002}), ("settled", "body", 2000, None)),
    "an error that has a cost": (AttemptResult("gen-1", COSTS_200, refused=True), ("settled", "body", 200, "gen-1")),
    "a name without a cost": (AttemptResult("gen-1"), ("pending", None, None, "gen-1")),
    "a name and a cost of null": (AttemptResult("gen-1", {"cost": None}), ("pending", None, None, "gen-1")),
    "a refusal": (AttemptResult(refused=True), ("void", None, None, None)),
    "nothing sent": (AttemptResult(sent=False), ("void", None, None, None)),
    "nothing known": (AttemptResult(), ("unknown", None, None, None)),
    "a name too long for its column": (AttemptResult("g" * 65), ("unknown", None, None, None)),
    "a name that is no ASCII": (AttemptResult("gen-é"), ("unknown", None, None, None)),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_way_a_try_ends_has_its_state_and_memory_moves_as_the_ledger_does(office, ending):
    result, expected = ENDINGS[ending]
    meter = office.call()
    meter.admit()
    meter.dispatch(KEY)
    office.drain()
    assert [row.state for row in office.rows()] == ["dispatched"]
    office.check()
    finish(meter, result)
    office.drain()
    [row] = office.rows()
    assert (row.state, row.source, row.cost_nano, row.generation_id) == expected
    assert (row.is_last, row.outcome, row.http_status, row.pool_key_id) == (True, "complete", 200, KEY)
    office.check()


@pytest.mark.parametrize("ending", ENDINGS)
def test_so_it_does_when_all_of_a_call_is_drained_at_once(office, ending):
    result, expected = ENDINGS[ending]
    meter = office.call()
    meter.admit()
    meter.dispatch(KEY)
    finish(meter, result)
    office.drain()
    [row] = office.rows()
    assert (row.state, row.source, row.cost_nano, row.generation_id) == expected
    office.check()


STEP = st.tuples(
    st.lists(st.sampled_from(sorted(ENDINGS)), min_size=1, max_size=3),
    st.booleans(),  # the answer's name is noted before its end
    st.booleans(),  # drained in the middle
)


@pytest.fixture(scope="module")
def one_office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """For all examples: what they leave behind is one more thing that the next ones must not mind."""
    folder = tmp_path_factory.mktemp("office")
    db = Database(database_url(Config(database_url=f"sqlite:///{folder}/x.db")))
    db.upgrade()
    office = Office(db, MovableClock(), folder / "journal")
    yield office
    office.journal.close()
    db.close()


@given(calls=st.lists(STEP, min_size=1, max_size=4))
def test_any_calls_and_tries_leave_memory_and_ledger_alike(one_office, calls):
    for endings, is_named, is_drained in calls:
        meter = one_office.call()
        try:
            meter.admit()
        except QuotaExceeded:
            finish(meter, None, "refused", 402)
            continue
        for attempt, ending in enumerate(endings):
            result, _ = ENDINGS[ending]
            name = result.generation_id and result.generation_id.replace("gen-1", f"gen-{one_office.made}-{attempt}")
            result = replace(result, generation_id=name)
            try:
                meter.dispatch(KEY)
            except QuotaExceeded:
                break
            if is_named:
                meter.note_answer(name)
            if is_drained:
                one_office.drain()
                one_office.check(has_owed=True)
            if attempt + 1 < len(endings):
                meter.end_attempt(result, error_type="failing")
        finish(meter, result)
    one_office.drain()
    one_office.check(has_owed=True)


# ── when what is written down


def test_a_call_is_written_down_before_it_goes_up_with_all_that_a_row_needs(office):
    meter = office.call()
    meter.admit()
    assert office.written() == []
    meter.dispatch(KEY)
    [record] = office.written()
    quota_id = record.pop("user_quota_id")
    assert quota_id is not None
    assert record == {
        "request_id": request_id(1),
        "attempt": 1,
        "state": "dispatched",
        "user_id": 1,
        "client_key_id": None,
        "pool_key_id": KEY,
        "upstream_id": None,
        "model": "a/b",
        "is_stream": True,
        "reserved_nano": MOST_NANO,
        "estimate_nano": MOST_NANO,
    }


def test_the_answers_name_is_written_down_once(office):
    meter = office.call()
    meter.admit()
    meter.dispatch(KEY)
    for name in (None, "gen-1", "gen-1", "g" * 65):
        meter.note_answer(name)
    assert [record.get("generation_id") for record in office.written()] == [None, "gen-1"]
    finish(meter, None, "client_gone")
    office.drain()
    [row] = office.rows()
    assert (row.state, row.generation_id) == ("pending", "gen-1")  # whoever saw the name need not repeat it
    assert row.next_check_at is not None


def test_each_try_has_its_row_and_its_reservation_and_only_the_last_one_ends_the_request(office):
    meter = office.call()
    meter.admit()
    for result in (AttemptResult("gen-1"), AttemptResult(refused=True)):
        meter.dispatch(KEY)
        meter.end_attempt(result, error_type="failing")
    meter.dispatch(KEY + 1)
    finish(meter, AttemptResult("gen-3", COSTS_200))
    office.drain()
    told = [(r.attempt, r.state, r.pool_key_id, r.reserved_nano, r.is_last, r.outcome) for r in office.rows()]
    assert told == [
        (1, "pending", 7, MOST_NANO, False, None),
        (2, "void", 7, MOST_NANO, False, None),
        (3, "settled", 8, MOST_NANO, True, "complete"),
    ]
    office.check()


def test_a_request_that_never_went_up_is_a_row_zero_and_gives_its_reservation_back(office):
    meter = office.call()
    meter.admit()
    finish(meter, None, "failed", 503)
    office.drain()
    [row] = office.rows()
    assert (row.attempt, row.state, row.reserved_nano, row.cost_nano) == (0, "void", 0, None)
    assert (row.outcome, row.http_status, row.is_last, row.model) == ("failed", 503, True, "a/b")
    office.check()


def test_a_request_that_the_quota_refuses_is_a_row_zero(office):
    held = [office.call() for _ in range(20)]
    for meter in held:
        meter.admit()
        meter.dispatch(KEY)
    refused = office.call()
    with pytest.raises(QuotaExceeded):
        refused.admit()
    finish(refused, None, "refused", 402)
    for meter in held:
        finish(meter, AttemptResult(refused=True))
    office.drain()
    assert [row.attempt for row in office.rows()] == [1] * 20 + [0]
    office.check()


def test_a_second_try_that_the_quota_refuses_ends_the_request_with_the_first(office):
    meter = office.call()
    meter.admit()
    meter.dispatch(KEY)
    meter.end_attempt(AttemptResult("gen-1"), error_type="failing")
    others = [office.call() for _ in range(19)]
    for other in others:
        other.admit()
        other.dispatch(KEY)
    with pytest.raises(QuotaExceeded):
        meter.dispatch(KEY)
    finish(meter, AttemptResult(), "failed", 402)
    for other in others:
        finish(other, AttemptResult(sent=False))
    office.drain()
    first = office.rows()[0]
    assert (first.attempt, first.state, first.is_last, first.outcome) == (1, "pending", True, "failed")
    assert [row.attempt for row in office.rows()] == [1] * 20
    office.check()


# ── when nothing can be written down


class FullDisk:
    """Within, no file can grow."""

    def __enter__(self) -> None:
        self.limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self.limit[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limit)
        signal.signal(signal.SIGXFSZ, self.handler)


def test_a_call_that_cannot_be_written_down_is_refused_and_gives_its_reservation_back(office):
    before = office.call()
    before.admit()
    finish(before, None, "failed", 503)  # the slice is there
    office.drain()
    in_memory = office.in_memory()
    meter = office.call()
    meter.admit()
    with FullDisk():
        with pytest.raises(Busy):
            meter.dispatch(KEY)
        finish(meter, None, "failed", 503)
    office.drain()
    assert office.in_memory() == in_memory
    assert [row.attempt for row in office.rows()] == [0]
    office.check()


def test_an_end_that_cannot_be_written_down_waits_and_is_billed_when_the_disk_takes_it(office):
    meter = office.call()
    meter.admit()
    meter.dispatch(KEY)
    refused = office.call()
    refused.admit()
    with FullDisk():
        meter.note_answer("gen-1")
        finish(meter, AttemptResult("gen-1", COSTS_200))
        with pytest.raises(Busy):
            refused.dispatch(KEY)
        finish(refused, None, "failed", 503)
    office.drain()
    [row] = office.rows()
    assert (row.state, row.cost_nano) == ("dispatched", None)
    office.journal.retry()
    office.drain()
    [row] = office.rows()
    assert (row.state, row.cost_nano, row.generation_id) == ("settled", 200, "gen-1")
    office.check()


@pytest.mark.parametrize("dollars", [Decimal("9.2e9"), 101, 1e6])
def test_a_cost_that_no_call_can_have_is_unknown_reported_and_spoils_no_sum(office, caplog, dollars):
    absurd, innocent = office.call(), office.call(user_id=2)
    for meter, cost in ((absurd, dollars), (innocent, Decimal("0.0000002"))):
        meter.admit()
        meter.dispatch(KEY)
        finish(meter, AttemptResult(f"gen-{cost}", COSTS_200 | {"cost": cost}))
    office.drain()
    assert [(row.user_id, row.state, row.cost_nano) for row in office.rows()] == [
        (1, "unknown", None),
        (2, "settled", 200),
    ]
    assert "implausible_cost" in [record.getMessage() for record in caplog.records]


def test_without_a_journal_the_proxy_answers_503_and_nothing_goes_up(make_proxy, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))
    proxy = make_proxy()
    whole(proxy.forward(request()))
    proxy.usage._journal.close()
    for stream in (False, True):
        with pytest.raises(Busy):
            proxy.forward(request(stream=stream))
    assert len(upstream.received) == 1


def test_what_goes_up_is_in_the_journal_already(make_proxy, upstream):
    """At the moment of the send the record is in the file, whatever becomes of the process then."""
    upstream.play("m", json_answer("200 OK", WHOLE))
    proxy = make_proxy()
    seen: list[bytes] = []
    exchange = proxy.destinations.openrouter.http.exchange

    def watched(head: bytes, body: bytes, **how: bool) -> Any:
        seen.append(proxy.usage._journal._path.read_bytes())
        return exchange(head, body, **how)

    proxy.destinations.openrouter.http.exchange = watched
    whole(proxy.forward(request()))
    assert b'"dispatched"' in seen[0]


# ── odd usage blocks


@each_row(
    ("cost", "nano"),
    [
        (0, 0), (0.0, 0), (Decimal(0), 0), (Decimal("-0.0"), 0), (1, 10**9), (0.00000015, 150),
        (Decimal("0.000000000499999999999999999999999"), 0), (Decimal("0.0000000005"), 0),
        (Decimal("0.0000000015"), 2), (Decimal("0.0000000025"), 2), (Decimal("0.00000000250000000000000001"), 3),
        (Decimal("1234567.123456789"), 1234567123456789), (Decimal("9223372036.854775807"), 2**63 - 1),
        (Decimal("9223372036.854775808"), None), (10**400, None), (1e300, None), (Decimal("1e999990"), None),
        (-0.000001, None), (-1, None), (Decimal("-1e-30"), 0), (float("nan"), None), (float("inf"), None),
        (float("-inf"), None), (None, None), (True, None), (False, None), ("0.1", None), ("", None), ([], None), ({}, None),
    ],
)  # fmt: skip
def test_a_cost_is_a_number_from_zero_on_to_the_last_digit_or_none(cost, nano):
    assert cost_of(cost) == nano


@each_row(
    ("count", "tokens"),
    [
        (0, 0),
        (7, 7),
        (10**12, 10**12),
        (10**12 + 1, None),
        (-1, None),
        (True, None),
        (12.0, 12),
        (1.5, None),
        ("7", None),
        (None, None),
    ],
)
def test_a_number_of_tokens_is_a_whole_one_from_zero_on_or_none(count, tokens):
    assert count_of(count) == tokens


@pytest.mark.parametrize("cost", [None, -1, "0.1", True, 10**400, [], {"usd": 1}])
def test_a_cost_that_is_none_is_asked_for(office, cost):
    meter = office.call()
    meter.admit()
    meter.dispatch(KEY)
    finish(
        meter, AttemptResult("gen-1", {"cost": cost, "prompt_tokens": -5, "completion_tokens": "x"}, estimate=lambda: 9)
    )
    office.drain()
    [row] = office.rows()
    assert (row.state, row.cost_nano, row.estimate_nano, row.prompt_tokens) == ("pending", None, 9, None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("usage", "state", "cost_nano"),
    [
        (b'{"cost":0.1234567891,"prompt_tokens":1}', "settled", 123456789),
        (b'{"cost":0.1234567885000000001}', "settled", 123456789),
        (b'{"cost":0}', "settled", 0),
        (b'{"cost":1e-9}', "settled", 1),
        (b'{"cost":-0.5}', "pending", None),
        (b'{"cost":"0.5"}', "pending", None),
        (b'{"cost":true}', "pending", None),
        (b'{"cost":null}', "pending", None),
        (b'{"cost":1e400}', "pending", None),
        (b'{"prompt_tokens":3}', "pending", None),
        (b"null", "pending", None),
        (b"[]", "pending", None),
        (b'{"cost":NaN}', "pending", None),
    ],
)
def test_what_a_usage_block_says_is_what_the_journal_gets(make_proxy, upstream, stream, usage, state, cost_nano):
    if stream:
        chunk = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"hi"}}],"usage":%s}\n\n' % usage
        upstream.play("m", _sse(chunk + b"data: [DONE]\n\n"))
    else:
        upstream.play("m", json_answer("200 OK", b'{"id":"gen-1","choices":[],"usage":%s}' % usage))
    proxy = make_proxy()
    whole(proxy.forward(request(stream=stream)))
    records = [json.loads(line) for line in proxy.usage._journal._path.read_bytes().splitlines()]
    assert (records[-1]["state"], records[-1].get("cost_nano")) == (state, cost_nano)
    assert records[-1]["generation_id"] == "gen-1"
    if state == "pending":
        assert records[-1]["estimate_nano"] > 0


def _sse(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
