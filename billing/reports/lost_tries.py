"""Tries that were sent and brought nobody an answer: what OpenRouter may have billed for nothing, day by day."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from billing.records import COUNTED, State
from billing.reports.request_log import request_id_at
from db import Database
from foundation.money import usd
from tables import usage_ledger as ledger

DAY = timedelta(days=1)


def lost_tries(db: Database, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Of each day, newest first: tries that another one followed, or whose end nobody knows. Days without are left out.

    since, until: aware, the beginnings of days; until is not included. tries: how many. unknown: of these, those whose
    cost nobody can tell; at_most_usd: what those may have cost. known_usd: what the others did cost, by OpenRouter's
    word, which is nobody's but the operator's to pay.
    """
    found = []
    while until > since:
        until -= DAY
        row = _of_day(db, until)
        if row["tries"]:
            found.append(row)
    return found


def _of_day(db: Database, day: datetime) -> dict[str, Any]:
    is_unknown = ledger.c.state == State.UNKNOWN
    was_followed = sa.and_(ledger.c.is_last == sa.false(), ledger.c.state.in_(COUNTED))
    of_day = ledger.c.request_id >= request_id_at(day), ledger.c.request_id < request_id_at(day + DAY)
    query = sa.select(
        sa.func.count(),
        sa.func.sum(sa.case((is_unknown, 1), else_=0)),
        sa.func.sum(sa.case((is_unknown, ledger.c.estimate_nano), else_=0)),
        sa.func.sum(sa.case((is_unknown, 0), else_=ledger.c.cost_nano)),
    ).where(*of_day, ledger.c.attempt > 0, sa.or_(is_unknown, was_followed))
    with db.reading() as tx:
        tries, unknown, at_most_nano, known_nano = (int(value or 0) for value in tx.execute(query).one())
    amounts = {"at_most_usd": usd(at_most_nano), "known_usd": usd(known_nano)}
    return {"day": day.date().isoformat(), "tries": tries, "unknown": unknown, **amounts}
