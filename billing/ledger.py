"""The ledger: one row for each call upstream, and how its cost becomes known. The only writer of `usage_ledger`.

    dispatched ──> streaming ──┬─> settled     OpenRouter said what it cost: in the body, the stream, or GET /generation
        │              │       ├─> pending     it is over, and GET /generation (of a job: GET /videos) will be asked
        │              │       │                 ──> settled | estimated | void
        └──────────────┴───────┼─> void        surely not billed: nothing was sent, or OpenRouter refused
                               └─> unknown     maybe billed, and there is no id to ask for

Facts come from journals, in any number of copies, and from cost_lookup. A row's state decides what counts: a cost is
added to quotas and roll-ups in the transaction that settles its row, and a settled row is never settled again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from billing import details, latency_rollups, rollups, video_jobs
from billing.effects import Effects
from billing.quotas import moves as quota_moves
from billing.records import FINAL, OPEN, State, Unusable, fault_of
from db import BadValue, Database, Duplicate, Transaction
from foundation.clock import Clock
from foundation.logs import event
from pool.life import PoolKeySource
from storage.many_rows import insert_rows
from tables import pool_keys
from tables import usage_ledger as table
from tables import video_jobs as jobs

log = logging.getLogger("ledger")

Row = dict[str, Any]
RowKey = tuple[str, int]

BATCH_ROWS = 1000
# Longer than a call takes, however long its stream: what is open after that is looked into.
MAX_CALL = timedelta(hours=2)
# When GET /generation is asked, counted from the end of the call: OpenRouter's record comes late, and after a broken
# stream much later.
ASK_AFTER = [timedelta(seconds=s) for s in (2, 5, 15, 60, 300, 1800, 7200, 43_200, 86_400)]
LATEST_CHECK = max(ASK_AFTER[-1], MAX_CALL) + timedelta(hours=1)
MONEY_FACTS = frozenset({"state", "source", "cost_nano", "generation_id", "prompt_tokens", "completion_tokens"})
MONEY_FACTS |= {"estimate_nano", "next_check_at", *details.NAMES}
# What the database says of a row that it can't hold. Whatever else fails is no fault of a record, and tried again.
REFUSED = (Duplicate, BadValue)
ENDING_FACTS = frozenset(
    {"is_last", "outcome", "http_status", "first_byte_ms", "total_ms", "error_type", "error_message"}
)
EMPTY_ROW: Row = dict.fromkeys(table.c.keys()) | {"is_last": False, "checks": 0, "team_id": 0}


class JournalOrigin(NamedTuple):
    """A journal: whose it is, and the time before which no call in it can have begun."""

    process_id: str
    earliest: datetime


class UsageLedger:
    """Applies facts about calls to the database. counts_byok: what providers bill for own keys counts in quotas."""

    def __init__(self, db: Database, clock: Clock, counts_byok: bool = False) -> None:
        self._db = db
        self._clock = clock
        self._counts_byok = counts_byok

    def apply(self, process_id: str, records: Iterable[Row], waited_seconds: float = 0.0) -> list[Unusable]:
        """Apply a journal's records, in their order. May be done again with the same ones. Raises DatabaseError.

        waited_seconds: since the last of them was written. A call that says it began later than now, or before any that
        could be in there, was told a wrong time, and counts in the window of now or of then.

        Returns those that no row can hold, for what they say themselves: they are reported and left out, since what
        comes after them must not wait for ever.
        """
        origin = JournalOrigin(process_id, self._clock.now() - MAX_CALL - timedelta(seconds=waited_seconds))
        calls: dict[RowKey, list[Row]] = {}
        unusable: list[Unusable] = []
        for record in records:
            if reason := fault_of(record):
                unusable.append(Unusable(record, reason))
                continue
            calls.setdefault((record["request_id"], record["attempt"]), []).append(record)
            if len(calls) >= BATCH_ROWS:
                unusable += self._change_usable(calls, origin)
                calls = {}
        unusable += self._change_usable(calls, origin)
        for each in unusable:
            event(log, "facts_unusable", logging.ERROR, request_id=each.request_id, reason=each.reason)
        return unusable

    def _change_usable(self, calls: Mapping[RowKey, list[Row]], origin: JournalOrigin) -> list[Unusable]:
        facts = {
            key: {name: value for record in records for name, value in record.items()} for key, records in calls.items()
        }
        try:
            reasons = dict.fromkeys(self._change(facts, origin), "its call is not known")
        except REFUSED as error:
            if len(calls) > 1:  # by halves, so that a thousand calls do not need a thousand transactions
                both, half = list(calls.items()), len(calls) // 2
                first, second = dict(both[:half]), dict(both[half:])
                return self._change_usable(first, origin) + self._change_usable(second, origin)
            reasons = dict.fromkeys(calls, f"the database takes no such row ({type(error).__name__})")
        return [Unusable(record, reason) for key, reason in reasons.items() for record in calls[key]]

    def settle(self, key: RowKey, **facts: Any) -> None:
        """Apply what became known of a row otherwise than from its process's journal. Raises DatabaseError."""
        self._change({key: facts}, None)

    def close_dead(self, process_id: str) -> None:
        """Decide about the calls that a dead process was carrying; its journal was applied. Raises DatabaseError."""
        now = self._clock.now()
        for row in self._unfinished(process_id):
            facts: Row = {}
            if row.state != State.PENDING:
                facts = {"state": State.UNKNOWN}
                if row.generation_id:
                    facts = {"state": State.PENDING, "next_check_at": now}
            self.settle((row.request_id, row.attempt), is_last=True, outcome="lost", **facts)

    def _unfinished(self, process_id: str) -> list[Any]:
        """The last tries of a process's requests that are not over."""
        later = table.alias()
        is_followed = sa.exists().where(later.c.request_id == table.c.request_id, later.c.attempt > table.c.attempt)
        mine = sa.and_(table.c.process_id == process_id, table.c.is_last.is_(sa.false()))
        columns = table.c.request_id, table.c.attempt, table.c.state, table.c.generation_id
        # Through the index of open rows.
        query = sa.select(*columns).where(table.c.next_check_at.is_not(None), mine, ~is_followed)
        with self._db.reading() as tx:
            return list(tx.execute(query))

    def claim_due(self, count: int, claimed_for: timedelta) -> list[Row]:
        """Open rows whose time to be looked into has come, with the job's id; nobody else gets them for that time.

        A time that is later than any that is ever set was set by a clock that went wrong, and has come.
        """
        now = self._clock.now()
        is_due = sa.or_(table.c.next_check_at <= now, table.c.next_check_at > now + LATEST_CHECK)
        with self._db.reading() as tx:
            columns = (*table.c, jobs.c.id.label("job_id"))
            query = sa.select(*columns).select_from(table.outerjoin(jobs, video_jobs.IS_OF_CALL)).where(is_due)
            rows = [dict(row) for row in tx.execute(query.order_by(table.c.next_check_at).limit(count)).mappings()]
        return [row for row in rows if self._postpone(row, now + claimed_for)]

    def find_pool_key(self, generation_id: str, user_id: int, client_key_id: int | None = None) -> int | None:
        """The pool key that made a generation of this user's; None if it is somebody else's, or was not made here.

        client_key_id: only if it was made with this key.
        """
        columns = table.c.user_id, table.c.client_key_id, table.c.pool_key_id
        with self._db.reading() as tx:
            row = tx.execute(sa.select(*columns).where(table.c.generation_id == generation_id)).one_or_none()
        is_own = row and row.user_id == user_id and client_key_id in {None, row.client_key_id}
        return row.pool_key_id if row and is_own else None

    def _postpone(self, row: Row, until: datetime) -> bool:
        """True if nobody else has touched the row's time since it was read."""
        seen = sa.and_(
            table.c.request_id == row["request_id"],
            table.c.attempt == row["attempt"],
            table.c.next_check_at == row["next_check_at"],
        )
        update = table.update().where(seen).values(next_check_at=until)
        return self._db.transact(lambda tx: tx.execute(update).rowcount) == 1

    def ask_again(self, row: Row, checks: int, next_check_at: datetime) -> None:
        """Note that a row was looked into in vain. Raises DatabaseError."""
        this = sa.and_(table.c.request_id == row["request_id"], table.c.attempt == row["attempt"])
        update = table.update().where(this, table.c.state.in_(OPEN))
        self._db.transact(lambda tx: tx.execute(update.values(checks=checks, next_check_at=next_check_at)))

    # ── one transaction

    def _change(self, facts: Mapping[RowKey, Row], origin: JournalOrigin | None) -> list[RowKey]:
        """origin: the journal that the facts are from; None if they are from elsewhere.

        Returns the keys of facts that are of no known call.
        """
        if not facts:
            return []
        for tries_left in (2, 1, 0):
            try:
                return self._db.transact(lambda tx: self.write(tx, facts, origin))
            except Duplicate:  # another process inserted the same row, or generation id, at the same moment
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    def write(self, tx: Transaction, facts: Mapping[RowKey, Row], origin: JournalOrigin | None) -> list[RowKey]:
        """As _change, in this transaction."""
        now = self._clock.now()
        job_ids, facts = video_jobs.taken_out(facts)
        ids = sorted({request_id for request_id, _ in facts})
        query = sa.select(table).where(table.c.request_id.in_(ids)).with_for_update()
        before = {(row["request_id"], row["attempt"]): dict(row) for row in tx.execute(query).mappings()}
        after = dict(before)
        for key in sorted(facts):
            row = _merged(before.get(key), facts[key], origin, now)
            if row is not None:
                after[key] = row
        callless = [key for key in facts if key not in after]
        changed = [key for key in sorted(after) if after[key] != before.get(key)]
        _refuse_known_generations(tx, before, after, changed)
        connected = _connected(tx, {after[key]["pool_key_id"] for key in changed})
        effects = Effects(origin is not None, connected, self._counts_byok)
        for key in changed:
            effects.add(before.get(key), after[key])
        # A changed row is written anew as a whole: two statements for any number of rows, where updates need one each.
        rewritten = {request_id for request_id, _ in changed if (request_id, _) in before}
        if rewritten:
            tx.execute(table.delete().where(table.c.request_id.in_(sorted(rewritten))))
        is_written = set(changed)
        rows = [after[key] for key in sorted(after) if key in is_written or key[0] in rewritten]
        if rows:
            insert_rows(tx, table, rows)
        video_jobs.insert(tx, {key: job_id for key, job_id in job_ids.items() if key in after})
        quota_moves.apply(tx, effects.moves, effects.spent)
        rollups.add(tx, effects.sums)
        latency_rollups.add(tx, effects.latency.by_place())
        return callless


def created_at(request_id: str) -> datetime:
    """When a request came, which its id says: 12 hex digits of milliseconds since 1970."""
    milliseconds = int(request_id[:12], 16)
    return datetime.fromtimestamp(milliseconds // 1000, UTC) + timedelta(milliseconds=milliseconds % 1000)


def _merged(before: Row | None, facts: Row, origin: JournalOrigin | None, now: datetime) -> Row | None:
    """The row with these facts; None if there is nothing to say them of."""
    if before is None:
        if "user_id" not in facts or origin is None:
            event(log, "facts_without_call", logging.ERROR, request_id=facts.get("request_id"))
            return None
        began_at = min(max(created_at(facts["request_id"]), origin.earliest), now)
        row = EMPTY_ROW | {"process_id": origin.process_id, "created_at": began_at} | facts
    else:
        row = before | _news(before, facts)
    state = row["state"]
    if state not in OPEN:
        row["next_check_at"] = None
        if before is None or before["state"] != state:
            row["settled_at"] = now
    elif row["next_check_at"] is None or (state == State.PENDING and before and before["state"] != state):
        first = row["created_at"] + MAX_CALL if state != State.PENDING else now + ASK_AFTER[0]
        row["next_check_at"] = facts.get("next_check_at") or first
    return row


def _news(before: Row, facts: Row) -> Row:
    """Those of the facts that may still change the row."""
    state, said = before["state"], facts.get("state")
    late = (
        state in FINAL
        or (state == State.UNKNOWN and said != State.SETTLED)
        or (state == State.PENDING and said in {State.DISPATCHED, State.STREAMING})
    )
    old = MONEY_FACTS if late else frozenset()
    if before["is_last"]:
        old = old | ENDING_FACTS
    return {name: value for name, value in facts.items() if name not in old}


def _refuse_known_generations(
    tx: Transaction, before: Mapping[RowKey, Row], after: dict[RowKey, Row], changed: Sequence[RowKey]
) -> None:
    """Only the first row with a generation id has it. What the others cost nobody knows: nobody pays for another."""
    claims: dict[str, list[RowKey]] = defaultdict(list)
    for key in changed:
        generation = after[key]["generation_id"]
        if generation and (before.get(key) or {}).get("generation_id") != generation:
            claims[generation].append(key)
    if not claims:
        return
    taken = set(tx.scalars(sa.select(table.c.generation_id).where(table.c.generation_id.in_(sorted(claims)))))
    for generation, keys in claims.items():
        for key in keys if generation in taken else keys[1:]:
            event(log, "generation_id_twice", logging.ERROR, request_id=key[0], attempt=key[1])
            cleared = {"generation_id": None, "cost_nano": None, "source": None, "next_check_at": None}
            after[key] = after[key] | cleared | {"state": State.UNKNOWN}


def _connected(tx: Transaction, pool_key_ids: Collection[int | None]) -> set[int]:
    """Those of these keys that belong to users' own accounts: nobody else pays for what they carry."""
    wanted = [row_id for row_id in pool_key_ids if row_id is not None]
    if not wanted:
        return set()
    is_connected = pool_keys.c.source == PoolKeySource.CONNECTED
    return set(tx.scalars(sa.select(pool_keys.c.id).where(pool_keys.c.id.in_(wanted), is_connected)))
