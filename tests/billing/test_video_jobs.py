"""Which call started a job, what the job's answers mean for its cost, and that it is billed once whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from billing import video_jobs
from billing.cost_lookup import AT_ONCE, CostLookup
from billing.ledger import ASK_AFTER, UsageLedger
from billing.records import State
from billing.reports.retention import LogRetention
from billing.video_jobs import facts_of
from db import Database
from foundation.crypto import Envelopes
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tables import video_jobs as table
from tests.billing.test_ledger import dispatched, left, new_id, row, rows, totals
from tests.conftest import MovableClock
from tests.support.scripted_upstream import ScriptedUpstream, json_answer
from upstream.http import UpstreamHttp
from upstream.openrouter.generation_records import GenerationRecords
from upstream.openrouter.video_jobs import VideoJobs


class World:
    """A ledger, and a lookup that asks an upstream which answers as it is told."""

    def __init__(self, db: Database, clock: MovableClock, pool: PoolKeys, upstream: ScriptedUpstream) -> None:
        self.db, self.clock, self.upstream = db, clock, upstream
        self.key_id = pool.add("sk-or-v1-" + "a" * 64, "key", PoolKeySource.OPERATOR)
        self.http = UpstreamHttp(upstream.url, 5)
        self.ledger = UsageLedger(db, clock)
        asking = pool.authorizations, self.http
        self.lookup = CostLookup(db, self.ledger, GenerationRecords(*asking), VideoJobs(*asking), clock)

    def start(self, job_id: str, user_id: int = 1, **facts: Any) -> tuple[str, list[dict[str, Any]]]:
        """Apply the records of a call that started a job; its id, and the records."""
        request_id = new_id(self.clock.now())
        records = [
            dispatched(request_id, pool_key_id=self.key_id, user_id=user_id, estimate_nano=70, **facts),
            left(request_id, job_id=job_id, outcome="complete", http_status=202),
        ]
        self.ledger.apply("me", records)
        return request_id, records

    def tell(self, *answers: bytes) -> None:
        self.upstream.play_in_turn("", *((json_answer("200 OK", answer),) for answer in answers))

    def run(self) -> int:
        with ThreadPoolExecutor(AT_ONCE) as askers:
            return self.lookup.run_once(askers)

    def wait_for(self, request_id: str) -> None:
        self.clock.time = row(self.db, request_id)["next_check_at"]


@pytest.fixture
def world(db: Database, clock: MovableClock, envelopes: Envelopes) -> Iterator[World]:
    upstream = ScriptedUpstream()
    made = World(db, clock, PoolKeys(db, envelopes, clock), upstream)
    yield made
    made.http.close()
    upstream.close()


@pytest.mark.parametrize(
    ("job", "facts"),
    [
        ({"status": "pending"}, None),
        ({"status": "in_progress", "usage": {"cost": 1}}, None),
        ({"status": "a new word", "usage": {"cost": 1}}, None),
        ({"usage": {"cost": 1}}, None),
        ({"status": "completed"}, None),
        ({"status": "completed", "usage": {"cost": None}}, None),
        ({"status": "completed", "usage": {"cost": -1}}, None),
        ({"status": "completed", "usage": {"cost": Decimal("0.123456789")}}, ("settled", 123456789)),
        ({"status": "completed", "usage": {"cost": 0}}, ("settled", 0)),
        ({"status": "failed"}, ("void", None)),
        ({"status": "failed", "usage": {"cost": 0}}, ("void", None)),
        ({"status": "failed", "usage": {"cost": 1}}, ("settled", 10**9)),
        ({"status": "cancelled", "usage": "?"}, ("void", None)),
        ({"status": "expired", "usage": {"cost": None}}, ("void", None)),
    ],
)
def test_what_a_job_says_of_its_cost(job, facts):
    found = facts_of(job)
    assert (found and (found["state"], found.get("cost_nano"))) == facts


@pytest.mark.mysql
def test_a_job_belongs_to_who_started_it_and_to_its_client_key(world):
    request_id, _ = world.start("job-1", user_id=1, client_key_id=5)
    world.start("job-2", user_id=2)
    found = video_jobs.find(world.db, "job-1", 1)
    assert found is not None
    assert (found.call, found.pool_key_id, found.is_open) == ((request_id, 1), world.key_id, True)
    assert video_jobs.find(world.db, "job-1", 1, 5) == found
    for user_id, client_key_id, job_id in ((2, None, "job-1"), (1, 6, "job-1"), (1, None, "JOB-1"), (1, None, "job-2")):
        assert video_jobs.find(world.db, job_id, user_id, client_key_id) is None


@pytest.mark.mysql
def test_it_is_billed_once_however_often_it_is_told(world, clock):
    request_id, records = world.start("job-1")
    world.tell(b'{"status":"in_progress"}', b'{"status":"completed","usage":{"cost":0.5},"generation_id":"gen-7"}')
    world.wait_for(request_id)
    assert world.run() == 1
    assert row(world.db, request_id)["state"] == "pending"
    world.wait_for(request_id)
    started = video_jobs.find(world.db, "job-1", 1)
    assert world.run() == 1
    for _ in range(2):  # its caller asked at the same moment, and the journal of the dead process comes once more
        world.lookup.note_job(started, {"status": "completed", "usage": {"cost": 0.9}})
        assert world.ledger.apply("me", records) == []
    done = row(world.db, request_id)
    assert (done["state"], done["source"], done["cost_nano"], done["generation_id"]) == (
        *("settled", "job"),
        *(500_000_000, "gen-7"),
    )
    assert totals(world.db) == (1, 0, 0, 0, 500_000_000, 0)
    assert [one["id"] for one in rows(world.db, table)] == ["job-1"]
    clock.advance(days=30)
    assert world.run() == 0


def test_what_its_caller_hears_settles_it_too(world):
    request_id, _ = world.start("job-1")
    other, _ = world.start("job-2")
    world.lookup.note_job(video_jobs.find(world.db, "job-1", 1), {"status": "failed"})
    assert (row(world.db, request_id)["state"], row(world.db, other)["state"]) == ("void", "pending")


def test_a_completed_job_without_a_cost_is_asked_for_by_its_generation(world):
    request_id, _ = world.start("job-1")
    world.tell(b'{"status":"completed","generation_id":"gen-7"}', b'{"data":{"total_cost":0.25}}')
    world.wait_for(request_id)
    world.run()
    done = row(world.db, request_id)
    assert (done["state"], done["source"], done["cost_nano"]) == ("settled", "generation", 250_000_000)


def test_a_cost_that_can_not_be_true_is_counted_as_unknown(world):
    request_id, _ = world.start("job-1")
    world.tell(b'{"status":"completed","usage":{"cost":1e9}}')
    world.wait_for(request_id)
    world.run()
    assert (row(world.db, request_id)["state"], totals(world.db)[4:]) == ("unknown", (0, 1))


def test_a_job_that_never_ends_is_estimated_after_a_day(world):
    request_id, _ = world.start("job-1")
    world.tell(b'{"status":"in_progress"}')
    asked = 0
    while row(world.db, request_id)["next_check_at"] is not None:
        world.wait_for(request_id)
        asked += world.run()
    done = row(world.db, request_id)
    assert (asked, done["state"], done["cost_nano"]) == (len(ASK_AFTER), "estimated", 70)


def test_an_id_that_is_told_twice_stays_with_the_first_call(world, clock):
    first, _ = world.start("job-1", user_id=1)
    second, _ = world.start("job-1", user_id=2)
    assert video_jobs.find(world.db, "job-1", 2) is None
    assert video_jobs.find(world.db, "job-1", 1).call == (first, 1)
    world.tell(b'{"status":"pending"}')
    clock.advance(seconds=2)
    world.run()
    assert (row(world.db, first)["state"], row(world.db, second)["state"]) == ("pending", State.UNKNOWN)


def test_a_process_that_dies_leaves_its_jobs_to_be_asked_for(world):
    request_id, _ = world.start("job-1")
    world.ledger.close_dead("me")
    world.tell(b'{"status":"completed","usage":{"cost":0.5}}')
    world.wait_for(request_id)
    world.run()
    assert row(world.db, request_id)["cost_nano"] == 500_000_000


@pytest.mark.mysql
def test_jobs_go_with_the_rows_of_their_calls(world, clock):
    old, _ = world.start("job-old")
    still_open, _ = world.start("job-open")
    world.ledger.settle((old, 1), state=State.VOID)
    clock.advance(days=40)
    young, _ = world.start("job-young")
    world.ledger.settle((young, 1), state=State.VOID)
    retention = LogRetention(world.db, clock, days=30)
    assert sum(retention.delete_before(retention.cutoff(30), lambda _: None)) == 1
    assert [one["request_id"] for one in rows(world.db, table)] == sorted(
        [still_open, young], key=lambda r: r != still_open
    )
