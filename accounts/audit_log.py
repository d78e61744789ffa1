"""Who changed what and who came in, and when: operators, and users to their own accounts. No secret."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from db import Database, Transaction
from foundation import json_text
from foundation.clock import Clock
from tables import audit_log as table


@dataclass(frozen=True)
class AuditEntry:
    """One change. subject: what was changed, as `upstream/openai`.

    actor: `admin-token`, `token/<name>`, `cli`, or `user/<id>`.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    user_id: int | None
    address: str | None
    request_id: str | None
    details: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"at": self.at.isoformat(timespec="milliseconds")}


READ = "person_read"  # by somebody with a right to; not listed among the changes
DELETED_AT_ONCE = 1000
WALKED_AT_ONCE = 500


class AuditLog:
    """Entries are added and read, never changed."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self.clock = clock

    def record(
        self,
        actor: str,
        action: str,
        subject: str,
        user_id: int | None = None,
        address: str | None = None,
        request_id: str | None = None,
        **details: object,
    ) -> None:
        """Write down a change that was made. user_id: whom it concerns. details: what is told of it."""
        row: dict[str, Any] = {"actor": actor, "action": action, "subject": subject, "user_id": user_id}
        self.record_all([row | {"address": address, "request_id": request_id, "details": details}])

    def record_all(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write down entries, all or none, each by the names of `record`'s parameters. Raises DatabaseError."""
        empty = {"at": self.clock.now(), "user_id": None, "address": None, "request_id": None}
        rows = [{**empty, **entry, "details": json_text.write(entry["details"]).decode()} for entry in entries]
        if rows:
            self._db.transact(lambda tx: tx.execute(table.insert(), rows))

    def page(
        self,
        page: int,
        page_size: int,
        action: str | None = None,
        user_id: int | None = None,
        with_reads: bool = False,
    ) -> tuple[list[AuditEntry], int]:
        """A page of entries, newest first, and how many there are in all. with_reads: what was read too."""
        wanted = [table.c.action != READ] if action is None and not with_reads else []
        wanted += [
            column == value
            for column, value in ((table.c.action, action), (table.c.user_id, user_id))
            if value is not None
        ]
        begin = (page - 1) * page_size
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(table).where(*wanted)) or 0
            size = min(page_size, total - begin)
            if size <= 0:
                return [], total
            after = total - begin - size
            # Rows that are skipped cost time. So it is counted from the nearer end, and by the index alone.
            order, skipped = (table.c.id.asc(), after) if after < begin else (table.c.id.desc(), begin)
            ids = sa.select(table.c.id).where(*wanted).order_by(order).limit(size).offset(skipped).subquery()
            query = sa.select(table).join(ids, table.c.id == ids.c.id).order_by(table.c.id.desc())
            rows = tx.execute(query).all()
        return [_entry(row) for row in rows], total

    def sum_of(self, actions: Collection[str], since: datetime, most_entries: int) -> int:
        """How often these happened since then, by the newest entries; each of those tells of one or of many."""
        newest = sa.select(table.c.at, table.c.details).where(table.c.action.in_(actions)).order_by(table.c.id.desc())
        with self._db.reading() as tx:
            rows = tx.execute(newest.limit(most_entries)).all()
        return sum(json_text.parse(row.details.encode()).get("count", 1) for row in rows if row.at >= since)

    def walk(self, user_id: int) -> Iterator[AuditEntry]:
        """All entries that concern somebody, oldest first, read in parts."""
        wanted = sa.select(table).where(table.c.user_id == user_id).order_by(table.c.id).limit(WALKED_AT_ONCE)
        last = 0
        while True:
            with self._db.reading() as tx:
                rows = tx.execute(wanted.where(table.c.id > last)).all()
            yield from map(_entry, rows)
            if len(rows) < WALKED_AT_ONCE:
                return
            last = rows[-1].id

    def delete_old(self, days: int) -> bool:
        """Delete some of the entries that are older than so many days; True if there may be more."""
        cutoff = self.clock.now() - timedelta(days=days)
        first = sa.select(table.c.id, table.c.at).order_by(table.c.id).limit(DELETED_AT_ONCE)

        def work(tx: Transaction) -> bool:
            found = [row.id for row in tx.execute(first) if row.at < cutoff]  # ids go with time: no index, no search
            tx.execute(table.delete().where(table.c.id.in_(found)))
            return len(found) == DELETED_AT_ONCE

        return self._db.transact(work)


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(**row._asdict() | {"details": json_text.parse(row.details.encode())})
