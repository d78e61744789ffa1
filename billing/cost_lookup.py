"""Asks what calls have cost that ended without saying so: clients left, streams broke, processes died, a video is made.

GET /generation tells it; of a video GET /videos, once its job is over, be it asked here or for its caller. OpenRouter's
record of a generation comes some time after it, sometimes hours; so it is asked for again and again at growing
intervals (usage_ledger.ASK_AFTER). What is never told is estimated in the end, or counted as unknown.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from billing import video_jobs
from billing.details import cost_of, count_of, details_of, is_plausible
from billing.ledger import ASK_AFTER, Row, RowKey, UsageLedger
from billing.records import State
from billing.video_jobs import StartedJob
from db import Database
from formats.videos import generation_id_in
from foundation import json_text
from foundation.clock import Clock
from foundation.deadline import TimeIsUp
from foundation.logs import event
from replicas.processes import reports
from replicas.repeating import repeat
from upstream.connection import UpstreamError
from upstream.openrouter.generation_records import GenerationRecords
from upstream.openrouter.video_jobs import VideoJobs

log = logging.getLogger("ledger")

ROUND_SECONDS = 1.0
ROWS_A_ROUND = 64
AT_ONCE = 8
CLAIM = timedelta(minutes=2)  # longer than all questions of a round take
GRACE = timedelta(minutes=5)  # for a living process's journal, before its call is given up


class CostLookup:
    """Runs in a thread of its own, in every gateway; a row is claimed, so each is asked for once."""

    def __init__(
        self, db: Database, ledger: UsageLedger, records: GenerationRecords, videos: VideoJobs, clock: Clock
    ) -> None:
        self._db = db
        self._ledger = ledger
        self._records = records
        self._videos = videos
        self._clock = clock

    def run(self, stopping: threading.Event) -> None:
        """Look into what is due until told to stop."""
        with ThreadPoolExecutor(AT_ONCE, "cost-lookup") as askers:
            repeat(lambda: self.run_once(askers), ROUND_SECONDS, stopping)

    def run_once(self, askers: ThreadPoolExecutor) -> int:
        """Look into the rows that are due; returns how many there were. Raises DatabaseError."""
        rows = self._ledger.claim_due(ROWS_A_ROUND, CLAIM)
        for _ in askers.map(self._look_into, rows):
            pass
        return len(rows)

    def note_job(self, started: StartedJob, job: dict[str, Any]) -> None:
        """Settle what a job cost, if it says so and nobody did before. Raises DatabaseError."""
        if started.is_open and (facts := self._facts_of_job(job, started.pool_key_id)):
            self._settle(started.call, facts)

    def _look_into(self, row: Row) -> None:
        key, generation_id = (row["request_id"], row["attempt"]), row["generation_id"]
        if row["state"] != State.PENDING:
            self._wait_no_longer(row)
            return
        if row["job_id"]:
            job = self._videos.find(row["job_id"], row["pool_key_id"])
            facts = self._facts_of_job(job, row["pool_key_id"]) if job else None
        elif generation_id:
            facts = self._ask(generation_id, row["pool_key_id"])
        else:  # of a job whose id another call has
            facts = {"state": State.UNKNOWN}
        if facts is not None:
            self._settle(key, facts)
        elif row["checks"] + 1 < len(ASK_AFTER):
            checks = row["checks"] + 1
            pause = ASK_AFTER[checks] - ASK_AFTER[checks - 1]
            self._ledger.ask_again(row, checks, self._clock.now() + pause)
        elif not row["estimate_nano"]:  # refused, or free: what OpenRouter has no record of, it does not bill
            self._ledger.settle(key, state=State.VOID)
        else:
            cost_nano = row["estimate_nano"]
            self._ledger.settle(key, state=State.ESTIMATED, source="estimate", cost_nano=cost_nano)
            event(log, "cost_estimated", logging.WARNING, request_id=row["request_id"], cost_nano=cost_nano)

    def _wait_no_longer(self, row: Row) -> None:
        """A call on its way for longer than MAX_CALL: its end could not be written down, or is lost with a disk.

        It may be a stream of hours: what its process says of its end counts all the same when it comes.
        """
        is_alive = self._is_alive(row["process_id"])
        if is_alive and not row["checks"]:  # after a long outage of the database its journal may hold the end
            self._ledger.ask_again(row, 1, self._clock.now() + GRACE)
            return
        facts: Row = {"state": State.PENDING if row["generation_id"] else State.UNKNOWN}
        if not is_alive:
            facts |= {"is_last": True, "outcome": "lost"}
        self._ledger.settle((row["request_id"], row["attempt"]), **facts)
        event(log, "call_overdue", logging.WARNING, request_id=row["request_id"], state=facts["state"])

    def _is_alive(self, process_id: str) -> bool:
        return any(process.id == process_id for process in reports(self._db, self._clock.now()))

    def _settle(self, key: RowKey, facts: Row) -> None:
        if not is_plausible(facts.get("cost_nano")):
            event(log, "implausible_cost", logging.ERROR, request_id=key[0], nano=facts["cost_nano"])
            facts = {"state": State.UNKNOWN}
        self._ledger.settle(key, **facts)

    def _facts_of_job(self, job: dict[str, Any], pool_key_id: int) -> Row | None:
        """What a job's call cost; None if nobody says so yet."""
        if facts := video_jobs.facts_of(job):
            return facts
        generation_id = generation_id_in(job)
        is_completed = job.get("status") == video_jobs.COMPLETED
        return self._ask(generation_id, pool_key_id) if is_completed and generation_id else None

    def _ask(self, generation_id: str, pool_key_id: int) -> Row | None:
        """What OpenRouter has noted of a generation; None if it does not say yet."""
        try:
            status, body = self._records.ask(generation_id, pool_key_id)
        except (UpstreamError, TimeIsUp):
            return None
        return _facts(body) if status == 200 else None


def _facts(body: bytes) -> Row | None:
    try:
        told = json_text.parse_exact(body)["data"]
        cost_nano = cost_of(told["total_cost"])
    except (json_text.BadJson, KeyError, TypeError):
        return None
    if cost_nano is None:
        return None
    counts = {
        "prompt_tokens": ("native_tokens_prompt", "tokens_prompt"),
        "completion_tokens": ("native_tokens_completion", "tokens_completion"),
    }
    tokens = {
        name: next((count for field in fields if (count := count_of(told.get(field))) is not None), None)
        for name, fields in counts.items()
    }
    settled: Row = {"state": State.SETTLED, "source": "generation", "cost_nano": cost_nano}
    return settled | tokens | details_of(told)
