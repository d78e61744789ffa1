"""A ledger in small, to hold quotas against: calls with their journals, what each process applies, and the invariants."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from accounts.caller import Caller
from accounts.client_keys import ClientKey
from accounts.teams import Team
from billing import rollups
from billing.quotas.moves import Move, apply
from billing.quotas.rows import Quotas
from billing.quotas.slices import QuotaSlices, Reservation
from billing.quotas.subjects import COLUMNS, subjects_of
from billing.rollups import Bucket, UsageSums
from config.settings import Config
from db import Database, Transaction
from foundation.clock import Clock
from replicas.processes import GatewayProcess
from tables import quota_slices, quotas, usage_ledger

NUMBERS = itertools.count(1)
OPEN = ("dispatched", "streaming", "pending")


def caller(user_id: int = 1, client_key_id: int | None = None, team_id: int = 0) -> Caller:
    key = None if client_key_id is None else ClientKey(client_key_id, user_id)
    return Caller(user_id, "session", 2e9, key, team=Team(team_id) if team_id else None)


@dataclass
class Call:
    """One call upstream, as its process journals it. cost None: not known yet."""

    caller: Caller
    reservation: Reservation
    created_at: datetime
    process_id: str
    cost: int | None = None
    id: str = field(default_factory=lambda: f"{next(NUMBERS):032x}")

    def subjects(self) -> list[str]:
        return subjects_of(self.caller.user_id, self.caller.client_key_id, self.caller.team_id)

    def quota_ids(self) -> list[int]:
        return list(self.reservation.quota_ids.values())


class World:
    """One database, with as many processes as are made."""

    def __init__(self, db: Database, clock: Clock, **settings: Any) -> None:
        self.db = db
        self.clock = clock
        self.quotas = Quotas(db, clock, Config(**{"quota_usd": None} | settings))

    def process(self) -> Process:
        return Process(self)

    def settle(self, calls: Iterable[Call], from_journal: bool = True) -> None:
        """Apply what is known of these calls, in one transaction, as the ledger does."""
        calls = list(calls)
        self.db.transact(lambda tx: self._settle(tx, calls, from_journal))

    def _settle(self, tx: Transaction, calls: list[Call], from_journal: bool) -> None:
        moves: dict[tuple[str, int], Move] = {}
        spent: list[tuple[str, datetime, int]] = []
        for call in calls:
            state = tx.scalar(sa.select(usage_ledger.c.state).where(usage_ledger.c.request_id == call.id))
            if state == "settled" or (state and call.cost is None):
                continue
            reserved, cost = call.reservation.nano, call.cost
            if cost is None:
                self._write(tx, call, "dispatched")
                move = Move(opened=reserved)
            elif state is None:
                self._write(tx, call, "settled")
                move = Move(through=cost)
            else:
                self._write(tx, call, "settled", is_new=False)
                move = Move(closed=reserved, back=reserved - cost if from_journal else 0)
            for quota_id in call.quota_ids():
                old = moves.get((call.process_id, quota_id), Move())
                moves[call.process_id, quota_id] = Move(
                    old.opened + move.opened,
                    old.closed + move.closed,
                    old.through + move.through,
                    old.back + move.back,
                )
            if cost is not None:
                spent += [(subject, call.created_at, cost) for subject in call.subjects()]
                whose = call.caller.user_id, call.caller.client_key_id
                bucket = Bucket(*whose, None, "m", call.created_at, team_id=call.caller.team_id)
                rollups.add(tx, {bucket: UsageSums(cost_nano=cost)})
        apply(tx, moves, spent)

    def _write(self, tx: Transaction, call: Call, state: str, is_new: bool = True) -> None:
        if not is_new:
            this = usage_ledger.c.request_id == call.id
            tx.execute(usage_ledger.update().where(this).values(state=state, cost_nano=call.cost))
            return
        row: dict[str, Any] = {"request_id": call.id, "attempt": 1, "process_id": call.process_id, "state": state}
        row |= {"user_id": call.caller.user_id, "client_key_id": call.caller.client_key_id, "model": "m"}
        row |= {"team_id": call.caller.team_id, **call.reservation.quota_ids}
        row |= {"reserved_nano": call.reservation.nano, "estimate_nano": 0, "cost_nano": call.cost, "checks": 0}
        row |= {"is_stream": False, "is_last": True, "created_at": call.created_at}
        tx.execute(usage_ledger.insert().values(row))

    # ── what must hold

    def check(self) -> None:
        """reserved is what slices and open rows hold; spent is what calls of the window cost."""
        with self.db.reading() as tx:
            kept = tx.execute(sa.select(quotas)).all()
            slices = tx.execute(sa.select(quota_slices)).all()
            calls = tx.execute(sa.select(usage_ledger)).all()
        for row in kept:
            mine = sum(each.nano for each in slices if each.quota_id == row.id)
            is_open = [call for call in calls if call.state in OPEN]
            mine += sum(
                call.reserved_nano for call in is_open if row.id in [getattr(call, name) for name in COLUMNS.values()]
            )
            assert row.reserved_nano == mine, f"{row.subject}: {row.reserved_nano} reserved, {mine} held"
            assert min([each.nano for each in slices], default=0) >= 0
            if row.recovery == "reset":
                assert row.spent_nano == self.cost_of(calls, row.subject, row.window_start), row.subject

    @staticmethod
    def cost_of(calls: Iterable[Any], subject: str, since: datetime) -> int:
        """The known costs of a subject's calls since then."""
        kind, _, number = subject.partition("/")
        column = {"user": "user_id", "key": "client_key_id", "team": "team_id"}[kind]
        mine = [call for call in calls if getattr(call, column) == int(number) and call.created_at >= since]
        return sum(call.cost_nano for call in mine if call.state == "settled")

    def row(self, subject: str) -> Any:
        with self.db.reading() as tx:
            return tx.execute(sa.select(quotas).where(quotas.c.subject == subject)).one()

    def rows_of_slices(self) -> dict[tuple[str, int], int]:
        with self.db.reading() as tx:
            return {(row.process_id, row.quota_id): row.nano for row in tx.execute(sa.select(quota_slices))}


class Process:
    """A gateway process: its slices, and its journal."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.row = GatewayProcess(world.db, world.clock)
        self.id = self.row.id
        self.slices = QuotaSlices(world.db, self.id, world.quotas, world.clock)
        self.journal: list[Call] = []
        self.running: list[Call] = []
        self.beat()

    def beat(self) -> None:
        """What the background thread does each second."""
        self.row.beat(1, {})
        self.slices.reload()
        self.slices.top_up()

    def begin(self, nano: int, who: Caller | None = None) -> Call:
        """Reserve, journal. Raises what reserve raises."""
        who = who or caller()
        call = Call(who, self.slices.reserve(who, nano), self.world.clock.now(), self.id)
        self.running.append(call)
        self.journal.append(call)
        return call

    def end(self, call: Call, cost: int) -> None:
        """The cost is known: journal it, and give back the rest."""
        self.running.remove(call)
        call.cost = cost
        self.journal.append(call)
        self.slices.give_back(call.reservation, call.reservation.nano - cost)

    def drain(self) -> None:
        """Move the journal to the ledger."""
        calls, self.journal = list({call.id: call for call in self.journal}.values()), []
        self.world.settle(calls)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def call_of(world: World, cost: int, when: str = "2026-11-21", user_id: int = 1, key_id: int | None = None) -> Call:
    """A call that nothing was reserved for."""
    return Call(caller(user_id, key_id), Reservation(0, {}), at(when), "p", cost)
