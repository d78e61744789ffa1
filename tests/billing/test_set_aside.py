"""Records that no row can hold: they stop nobody, are kept, and count once they are mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing import set_aside
from billing.drain import UsageDrain
from billing.journal import UsageJournal
from billing.ledger import UsageLedger
from billing.quotas.rows import Quotas
from billing.quotas.slices import QuotaSlices
from config.settings import Config
from db import Database
from tests.billing.test_ledger import dispatched, new_id, rows, settled, totals
from tests.support.movable_clock import MovableClock


class Books:
    """A journal, its drain and the ledger."""

    def __init__(self, db: Database, clock: MovableClock, folder: Path) -> None:
        self.db = db
        self.ledger = UsageLedger(db, clock)
        self.journal = UsageJournal(folder, "me")
        self.journal.check()
        self.journal.open()
        slices = QuotaSlices(db, "me", Quotas(db, clock, Config()), clock)
        self.drain = UsageDrain(db, self.journal, self.ledger, slices)

    def costs(self) -> dict[str, int | None]:
        return {row["request_id"]: row["cost_nano"] for row in rows(self.db)}

    def damaged(self) -> list[Path]:
        return sorted(self.journal.folder.glob("*.damaged"))


@pytest.fixture
def books(db: Database, clock: MovableClock, tmp_path: Path) -> Iterator[Books]:
    books = Books(db, clock, tmp_path / "journal")
    yield books
    books.journal.close()


def test_a_list_as_request_id_stops_nobody_and_counts_once_it_is_mended(books):
    mine, others = new_id(), new_id()
    for record in (dispatched(mine), settled(mine, 150) | {"request_id": [mine]}):
        books.journal.append(record)
    for record in (dispatched(others, user_id=2), settled(others, 70)):
        books.journal.append(record)
    books.drain.drain()
    assert books.costs() == {mine: None, others: 70}
    assert books.drain.behind_seconds == 0
    [file] = books.damaged()
    assert set_aside.count(books.journal.folder) == 1
    applied, [left] = set_aside.repair(books.journal.folder, books.ledger)
    assert (applied, left.file, left.line) == (0, file.name, 1)
    assert left.reason.startswith("request_id can't be ['")
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"request_id": mine}) + "\n")
    assert set_aside.repair(books.journal.folder, books.ledger) == (1, [])
    assert books.costs() == {mine: 150, others: 70}
    assert (totals(books.db)[4], totals(books.db, 2)[4], books.damaged()) == (220, 70, [])


def test_a_flipped_cost_is_seen_by_its_checksum_and_counts_once_somebody_vouches_for_it(books):
    mine, others = new_id(), new_id()
    for record in (dispatched(mine), settled(mine, 150), dispatched(others, user_id=2), settled(others, 70)):
        books.journal.append(record)
    [segment] = books.journal.take()
    segment.write_bytes(segment.read_bytes().replace(b'"cost_nano":150', b'"cost_nano":950'))
    books.drain.drain()
    assert books.costs() == {mine: None, others: 70}
    [file] = books.damaged()
    assert set_aside.repair(books.journal.folder, books.ledger)[0] == 0
    record = json.loads(file.read_text())
    del record["crc"]
    file.write_text(json.dumps(record | {"cost_nano": 150}))
    assert set_aside.repair(books.journal.folder, books.ledger) == (1, [])
    assert books.costs() == {mine: 150, others: 70}


def test_facts_whose_call_is_unknown_are_kept_until_the_call_is_known(books):
    mine = new_id()
    books.journal.append(settled(mine, 150))
    books.drain.drain()
    [file] = books.damaged()
    file.write_text(json.dumps(dispatched(mine)) + "\n" + file.read_text())
    assert set_aside.repair(books.journal.folder, books.ledger) == (2, [])
    assert books.costs() == {mine: 150}


def test_a_database_that_refuses_is_no_fault_of_the_records(books):
    mine = new_id()
    for record in (dispatched(mine), settled(mine, 150)):
        books.journal.append(record)
    books.db.transact(lambda tx: tx.exec_driver_sql("ALTER TABLE usage_rollups RENAME TO moved_away"))
    with pytest.raises(Exception, match="usage_rollups"):
        books.drain.drain()
    assert books.damaged() == []
    books.db.transact(lambda tx: tx.exec_driver_sql("ALTER TABLE moved_away RENAME TO usage_rollups"))
    books.drain.drain()
    assert books.costs() == {mine: 150}
