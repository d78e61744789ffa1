"""What a call cost is asked for until OpenRouter tells it: on a schedule, once each time, with whatever key still works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest

from billing.cost_lookup import AT_ONCE, GRACE, ROWS_A_ROUND, CostLookup
from billing.ledger import ASK_AFTER, MAX_CALL, UsageLedger
from db import Database
from foundation.crypto import Envelopes
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from replicas.processes import GatewayProcess
from tests.billing.test_ledger import answered, dispatched, left, new_id, row, rows, settled, totals
from tests.conftest import MovableClock
from tests.sandbox.conftest import Running
from tests.support.scripted_upstream import ScriptedUpstream, json_answer
from upstream.http import UpstreamHttp
from upstream.openrouter.generation_records import GenerationRecords
from upstream.openrouter.video_jobs import VideoJobs


@dataclass
class Asker:
    """A gateway's lookup over two keys of one account at the stand-in."""

    db: Database
    clock: MovableClock
    stand_in: Running
    keys: list[dict[str, str]]
    key_ids: list[int]
    ledger: UsageLedger
    lookup: CostLookup
    upstream: UpstreamHttp

    def run(self) -> int:
        with ThreadPoolExecutor(AT_ONCE) as askers:
            return self.lookup.run_once(askers)

    def generation(self, key: int = 0, model: str = "openai/gpt-4o-mini") -> tuple[str, int]:
        """Let the stand-in make an answer; its name and cost."""
        made_id: str = self.stand_in.chat(self.keys[key]["key"], model).json()["id"]
        [made] = [made for made in self.stand_in.generations_of(self.keys[key]["hash"]) if made["id"] == made_id]
        return made_id, made["cost_nano"]

    def pending(self, generation_id: str, key_id: int | None = None, **facts: Any) -> str:
        """A call that is over, whose cost did not come."""
        request_id = new_id(self.clock.now())
        begin = dispatched(request_id, pool_key_id=self.key_ids[0] if key_id is None else key_id, **facts)
        self.ledger.apply("me", [begin, answered(request_id, generation_id), left(request_id)])
        return request_id

    def asked(self, generation_id: str | None = None) -> list[str]:
        """The keys' hashes with which OpenRouter was asked, in that order."""
        log = [e for e in self.stand_in.control("GET", "log")["requests"] if e["path"].endswith("/generation")]
        mine = [entry for entry in log if entry["key_hash"] in {key["hash"] for key in self.keys}]
        wanted = [e for e in mine if generation_id is None or parse_qs(e["query"])["id"] == [generation_id]]
        return [entry["key_hash"] for entry in wanted]

    def fault(self, name: str, key: int = 0, **more: Any) -> None:
        self.stand_in.control("POST", "faults", row=name, key=self.keys[key]["hash"], path="/generation", **more)

    def wait_for_row(self, request_id: str) -> None:
        due_at = row(self.db, request_id)["next_check_at"]
        assert due_at is not None
        self.clock.time = due_at


@pytest.fixture
def asker(db: Database, clock: MovableClock, envelopes: Envelopes, stand_in: Running) -> Iterator[Asker]:
    account = stand_in.new_account()["id"]
    keys = [stand_in.new_key(account=account) for _ in range(2)]
    pool = PoolKeys(db, envelopes, clock)
    key_ids = [pool.add(key["key"], f"key-{n}", PoolKeySource.OPERATOR) for n, key in enumerate(keys)]
    upstream = UpstreamHttp(stand_in.address, 5)
    ledger = UsageLedger(db, clock)
    asking = pool.authorizations, upstream
    lookup = CostLookup(db, ledger, GenerationRecords(*asking), VideoJobs(*asking), clock)
    yield Asker(db, clock, stand_in, keys, key_ids, ledger, lookup, upstream)
    upstream.close()
    stand_in.control("DELETE", "faults")
    stand_in.control("POST", "settings", generation_same_key_only=False, duplicate_generation_ids=False)


# ── when is asked


def test_it_is_asked_on_schedule_and_what_openrouter_never_tells_is_estimated(asker, clock, caplog):
    request_id, over_at = asker.pending("gen-nobody-knows", estimate_nano=50), clock.now()
    at = []
    while (due_at := row(asker.db, request_id)["next_check_at"]) is not None:
        clock.time = due_at - timedelta(microseconds=1)
        assert asker.run() == 0
        clock.time = due_at
        assert asker.run() == 1
        at.append(due_at - over_at)
    assert at == ASK_AFTER
    done = row(asker.db, request_id)
    assert (done["state"], done["source"], done["cost_nano"], done["outcome"]) == (
        "estimated",
        "estimate",
        50,
        "client_gone",
    )
    assert totals(asker.db) == (1, 0, 0, 0, 50, 0)
    assert len(asker.asked()) == len(ASK_AFTER) * 2  # the key of the call, and one more that might know
    assert "cost_estimated" in [record.getMessage() for record in caplog.records]
    clock.advance(days=30)
    assert asker.run() == 0


def test_what_is_not_found_at_first_is_settled_when_it_is(asker, clock):
    generation_id, cost_nano = asker.generation()
    request_id = asker.pending(generation_id)
    for key in (0, 1):
        asker.fault("404-generation", key, times=3)
    for state in ("pending", "pending", "pending", "settled"):
        asker.wait_for_row(request_id)
        asker.run()
        assert row(asker.db, request_id)["state"] == state
    done = row(asker.db, request_id)
    assert (done["cost_nano"], done["source"], done["outcome"]) == (cost_nano, "generation", "client_gone")
    assert cost_nano > 0
    assert done["prompt_tokens"] > 0
    assert done["completion_tokens"] > 0
    assert totals(asker.db)[4] == cost_nano
    assert asker.run() == 0


def test_many_that_are_due_are_asked_for_in_rounds_each_once(asker, clock):
    made = dict(asker.generation() for _ in range(3))
    known = {asker.pending(generation_id): cost_nano for generation_id, cost_nano in made.items()}
    unknown = [asker.pending(f"gen-unknown-{n}") for n in range(ROWS_A_ROUND)]
    clock.advance(seconds=2)
    assert (asker.run(), asker.run(), asker.run()) == (ROWS_A_ROUND, 3, 0)
    assert {request_id: row(asker.db, request_id)["cost_nano"] for request_id in known} == known
    assert {row(asker.db, request_id)["checks"] for request_id in unknown} == {1}
    assert all(len(asker.asked(generation_id)) == 1 for generation_id in made)


def test_two_gateways_never_ask_for_the_same_call_at_once(asker, clock):
    names = [f"gen-shared-{n}" for n in range(40)]
    for name in names:
        asker.pending(name)
    clock.advance(seconds=2)
    barrier = threading.Barrier(2)
    counts = []

    def gateway() -> None:
        barrier.wait()
        counts.append(asker.run())

    threads = [threading.Thread(target=gateway) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == len(names)
    for name in names:
        assert asker.asked(name) == [key["hash"] for key in asker.keys]


# ── with which key


@pytest.mark.parametrize("fault", ["500", "502-html", "503", "429c", "408"])
def test_an_openrouter_that_is_not_well_is_asked_later_and_not_with_another_key(asker, fault):
    generation_id, cost_nano = asker.generation()
    request_id = asker.pending(generation_id)
    asker.fault(fault, times=1)
    asker.wait_for_row(request_id)
    asker.run()
    assert (row(asker.db, request_id)["state"], row(asker.db, request_id)["checks"]) == ("pending", 1)
    assert asker.asked() == [asker.keys[0]["hash"]]
    asker.wait_for_row(request_id)
    asker.run()
    assert row(asker.db, request_id)["cost_nano"] == cost_nano


def test_an_answer_that_breaks_off_is_asked_for_later(asker):
    generation_id, cost_nano = asker.generation()
    request_id = asker.pending(generation_id)
    asker.stand_in.control(
        "POST", "faults", scenario="stream?break_at=middle", key=asker.keys[0]["hash"], path="/generation", times=1
    )
    asker.wait_for_row(request_id)
    asker.run()
    assert row(asker.db, request_id)["state"] == "pending"
    asker.wait_for_row(request_id)
    asker.run()
    assert row(asker.db, request_id)["cost_nano"] == cost_nano


def test_for_a_key_that_is_gone_from_the_pool_another_one_asks(asker):
    generation_id, cost_nano = asker.generation()
    request_id = asker.pending(generation_id, key_id=999)
    asker.wait_for_row(request_id)
    asker.run()
    assert row(asker.db, request_id)["cost_nano"] == cost_nano
    assert len(asker.asked()) == 1


@pytest.mark.parametrize("refusal", ["401b", "401c", "403c"])
def test_for_a_key_that_openrouter_refuses_another_one_asks(asker, refusal):
    generation_id, cost_nano = asker.generation()
    request_id = asker.pending(generation_id)
    asker.fault(refusal)
    asker.wait_for_row(request_id)
    asker.run()
    assert row(asker.db, request_id)["cost_nano"] == cost_nano
    assert asker.asked() == [key["hash"] for key in asker.keys]


def test_a_refused_call_that_openrouter_never_knows_costs_nothing(asker, clock):
    request_id = asker.pending("gen-of-a-refusal", estimate_nano=0)
    for _ in ASK_AFTER:
        clock.time = row(asker.db, request_id)["next_check_at"]
        asker.run()
    ended = row(asker.db, request_id)
    assert (ended["state"], ended["cost_nano"], ended["next_check_at"]) == ("void", None, None)


def test_if_only_the_calls_own_key_may_ask_and_is_gone_the_cost_is_estimated(asker, clock):
    asker.stand_in.control("POST", "settings", generation_same_key_only=True)
    generation_id, cost_nano = asker.generation()
    own, gone = asker.pending(generation_id), asker.pending("gen-of-a-key-that-is-gone", key_id=999, estimate_nano=7)
    for _ in ASK_AFTER:
        asker.wait_for_row(gone)
        asker.run()
    assert row(asker.db, own)["cost_nano"] == cost_nano
    assert (row(asker.db, gone)["state"], row(asker.db, gone)["cost_nano"]) == ("estimated", 7)


def test_with_no_key_at_all_it_waits(asker, db, clock, envelopes):
    request_id = asker.pending("gen-1", key_id=999)
    for number in range(2):
        PoolKeys(db, envelopes, clock).set_enabled(f"key-{number}", False)
    asker.wait_for_row(request_id)
    assert asker.run() == 1
    assert asker.asked() == []
    assert row(db, request_id)["state"] == "pending"


# ── what OpenRouter answers


@pytest.fixture
def told(db: Database, clock: MovableClock, envelopes: Envelopes) -> Iterator[Any]:
    """Ask an upstream that answers with these bytes; the row afterwards."""
    upstream = ScriptedUpstream()
    http = UpstreamHttp(upstream.url, 1)
    pool, ledger = PoolKeys(db, envelopes, clock), UsageLedger(db, clock)
    pool.add(f"sk-or-v1-{'a' * 64}", "key", PoolKeySource.OPERATOR)
    asking = pool.authorizations, http
    lookup = CostLookup(db, ledger, GenerationRecords(*asking), VideoJobs(*asking), clock)

    def ask(answer: bytes) -> dict[str, Any]:
        upstream.play("", json_answer("200 OK", answer))
        request_id = new_id(clock.now())
        ledger.apply("me", [dispatched(request_id), answered(request_id, f"gen-{request_id}"), left(request_id)])
        clock.time = row(db, request_id)["next_check_at"]
        with ThreadPoolExecutor(1) as askers:
            assert lookup.run_once(askers) == 1
        return row(db, request_id)

    yield ask
    http.close()
    upstream.close()


@pytest.mark.parametrize(
    ("cost", "nano"),
    [
        ("0", 0), ("0.0", 0), ("0e5", 0), ("1.5e-7", 150), ("0.1", 10**8), ("0.0000000005", 0), ("0.0000000015", 2),
        ("0.00000000150000000000001", 2), ("0.0000000024999999999999", 2), ("0.00000000250000000000001", 3),
        ("56.789012345", 56789012345), ("0.30000000000000004", 300000000),
    ],
)  # fmt: skip
def test_every_digit_counts_and_an_explicit_zero_is_a_cost(told, cost, nano):
    done = told(b'{"data":{"total_cost":%s,"native_tokens_prompt":3,"native_tokens_completion":4}}' % cost.encode())
    assert (done["state"], done["cost_nano"], done["source"]) == ("settled", nano, "generation")
    assert (done["prompt_tokens"], done["completion_tokens"]) == (3, 4)
    assert done["cost_nano"] == round(Decimal(cost) * 10**9)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"null", b"[]", b"{}", b"<html>", b'{"data":null}', b'{"data":[]}', b'{"data":{}}', b'{"data":{"total_cost":null}}',
        b'{"data":{"total_cost":-0.1}}', b'{"data":{"total_cost":"0.1"}}', b'{"data":{"total_cost":true}}',
        b'{"data":{"total_cost":NaN}}', b'{"data":{"total_cost":1e999990}}', b'{"data":{"total_cost":{}}}',
        b'{"data":{"total_cost":0.1}', b"[" * 5000, b" " * 100_000, b"\xff\xfe",
    ],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_no_cost(told, answer):
    done = told(answer)
    assert (done["state"], done["cost_nano"], done["checks"]) == ("pending", None, 1)


@pytest.mark.parametrize(
    ("counts", "tokens"),
    [
        (b'"native_tokens_prompt":3,"tokens_prompt":5,"native_tokens_completion":4,"tokens_completion":6', (3, 4)),
        (b'"native_tokens_prompt":null,"tokens_prompt":5,"tokens_completion":6', (5, 6)),
        (b'"native_tokens_prompt":"3","tokens_prompt":-1', (None, None)),
        (b'"native_tokens_prompt":0,"tokens_prompt":9,"native_tokens_completion":0', (0, 0)),
    ],
)
def test_tokens_are_the_models_own_if_openrouter_tells_them(told, counts, tokens):
    done = told(b'{"data":{"total_cost":0.1,%s}}' % counts)
    assert (done["prompt_tokens"], done["completion_tokens"]) == tokens


# ── of whom


def test_a_try_that_is_settled_does_not_end_its_request(asker):
    generation_id, cost_nano = asker.generation()
    for name in (generation_id, "gen-never"):
        request_id = new_id(asker.clock.now())
        first = left(request_id, is_last=False, outcome=None, generation_id=name)
        begin = dispatched(request_id, pool_key_id=asker.key_ids[0])
        asker.ledger.apply("me", [begin, first, dispatched(request_id, 2), settled(request_id, 150, 2)])
    for _ in ASK_AFTER:
        asker.wait_for_row(request_id)
        asker.run()
    told = [(r["state"], r["cost_nano"], r["is_last"]) for r in rows(asker.db)]
    assert told == [
        ("settled", cost_nano, False),
        ("settled", 150, True),
        ("estimated", 50, False),
        ("settled", 150, True),
    ]
    assert totals(asker.db)[:2] == (2, 0)


def test_nobody_pays_for_an_answer_whose_name_somebody_elses_has(asker, clock, caplog):
    asker.stand_in.control("POST", "settings", duplicate_generation_ids=True)
    generation_id, _ = asker.generation()
    same_id = asker.stand_in.chat(asker.keys[0]["key"]).json()["id"]
    assert same_id == generation_id
    mine, other = asker.pending(generation_id, user_id=1), asker.pending(same_id, user_id=2)
    clock.advance(seconds=2)
    assert asker.run() == 1
    assert row(asker.db, mine)["state"] == "settled"
    assert [row(asker.db, other)[name] for name in ("state", "cost_nano", "generation_id")] == ["unknown", None, None]
    assert totals(asker.db, 2)[4:] == (0, 1)
    assert "generation_id_twice" in [record.getMessage() for record in caplog.records]


# ── calls that take longer than any should


def test_no_call_is_on_its_way_for_ten_minutes_more_than_one_can_take(asker, clock):
    """Of a process that is gone with its disk, and of one that lives but could not write the ends down."""
    process = GatewayProcess(asker.db, clock)
    generations = [asker.generation() for _ in range(2)]
    calls: dict[str, str] = {}
    for process_id, (generation_id, _) in zip(("gone", process.id), generations, strict=True):
        named, nameless = new_id(clock.now()), new_id(clock.now())
        begin = dispatched(named, pool_key_id=asker.key_ids[0])
        asker.ledger.apply(process_id, [begin, answered(named, generation_id), dispatched(nameless)])
        calls |= {f"{process_id} named": named, f"{process_id} nameless": nameless}
    begun_at = clock.now()
    while clock.now() < begun_at + MAX_CALL + timedelta(minutes=10):
        process.beat(1, {})
        asker.run()
        clock.advance(seconds=30)
        if clock.now() < begun_at + MAX_CALL:
            clock.time = begun_at + MAX_CALL
            assert {r["state"] for r in rows(asker.db)} == {"dispatched", "streaming"}
    found = {name: row(asker.db, request_id) for name, request_id in calls.items()}
    told = {name: (r["state"], r["cost_nano"], r["is_last"], r["outcome"]) for name, r in found.items()}
    assert told == {
        "gone named": ("settled", generations[0][1], True, "lost"),
        "gone nameless": ("unknown", None, True, "lost"),
        f"{process.id} named": ("settled", generations[1][1], False, None),
        f"{process.id} nameless": ("unknown", None, False, None),
    }
    assert totals(asker.db)[:2] == (2, 2)


def test_a_stream_of_hours_is_settled_when_it_ends_and_its_end_is_its_processs(asker, clock):
    process = GatewayProcess(asker.db, clock)
    request_id = new_id(clock.now())
    asker.ledger.apply(
        process.id, [dispatched(request_id, pool_key_id=asker.key_ids[0]), answered(request_id, "gen-1")]
    )
    for wait in (MAX_CALL, GRACE, timedelta(seconds=2), timedelta(hours=1)):
        clock.time += wait
        process.beat(1, {})
        asker.run()
    assert (row(asker.db, request_id)["state"], row(asker.db, request_id)["is_last"]) == ("pending", False)
    asker.ledger.apply(process.id, [settled(request_id, 150)])
    done = row(asker.db, request_id)
    assert (done["state"], done["cost_nano"], done["source"], done["outcome"]) == ("settled", 150, "stream", "complete")
    assert totals(asker.db) == (1, 0, 3, 4, 150, 0)


def test_what_a_journal_still_holds_after_a_long_outage_is_waited_for(asker, clock):
    process = GatewayProcess(asker.db, clock)
    request_id = new_id(clock.now())
    asker.ledger.apply(process.id, [dispatched(request_id)])
    clock.time += MAX_CALL * 2  # the database was away
    process.beat(1, {})
    assert asker.run() == 1
    generation_id, cost_nano = asker.generation()
    asker.ledger.apply(process.id, [answered(request_id, generation_id), left(request_id)])
    asker.wait_for_row(request_id)
    asker.run()
    assert row(asker.db, request_id)["cost_nano"] == cost_nano
