"""Hashed secrets in memory: what changed reaches every process in order, and a look-up never asks the database."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from accounts.users import Users
from db import Database, DatabaseError, inserted_id
from foundation.crypto import sha256_hex
from foundation.errors import BadRequest
from replicas.revisions import bump
from tables import api_tokens as table
from tables import revisions
from tests.support.movable_clock import MovableClock
from vault.hashed import HashedSecrets, check_expiry, check_name, new_secret


@dataclass(frozen=True)
class Kept:
    id: int
    expires_at: float = inf


class House:
    """Two processes over one database."""

    def __init__(self, db: Database, clock: MovableClock) -> None:
        self.db, self.clock = db, clock
        self.owner = Users(db, b"k" * 32, clock).create("owner@example.com", "hash")
        self.here, self.there = self.process(), self.process()
        self.made = 0

    def process(self) -> HashedSecrets[Kept]:
        def kept(row: Any) -> Kept:
            return Kept(row.id, row.expires_at.timestamp() if row.expires_at else inf)

        return HashedSecrets(self.db, self.clock, table, table.c.token_hash, kept)

    def add(self, at: HashedSecrets[Kept] | None = None, **values: Any) -> tuple[int, str]:
        """A new secret: its row's id and its text."""
        text, token_hash, hint = new_secret("test_")
        row = {"user_id": self.owner, "token_hash": token_hash, "token_hint": hint, "name": "n"}
        row |= {"created_at": self.clock.now(), **values}
        insert = table.insert()
        work = lambda tx, revision: inserted_id(tx.execute(insert.values(row | {"revision": revision})))  # noqa: E731
        return (at or self.here).change(work), text

    def set(self, row_id: int, **values: Any) -> None:
        def work(tx: Any, revision: int) -> None:
            tx.execute(table.update().where(table.c.id == row_id).values(values | {"revision": revision}))

        self.here.change(work)

    def column(self, row_id: int, name: str) -> Any:
        with self.db.reading() as tx:
            return tx.scalar(sa.select(table.c[name]).where(table.c.id == row_id))


@pytest.fixture
def house(db: Database, clock: MovableClock) -> House:
    return House(db, clock)


def test_a_new_secret_has_256_random_bits_and_shows_two_characters():
    found = {new_secret("sk-auto-") for _ in range(1000)}
    assert len({text for text, _, _ in found}) == 1000
    for text, its_hash, hint in found:
        assert len(text) == len("sk-auto-") + 43
        assert its_hash == sha256_hex(text)
        assert hint == text[:10] + "****"


def test_a_secret_is_known_here_at_once_and_elsewhere_after_a_reload(house):
    row_id, text = house.add()
    assert house.here.find(text) == Kept(row_id)
    assert house.there.find(text) is None
    house.there.reload()
    assert house.there.find(text) == Kept(row_id)
    assert house.column(row_id, "token_hash") == sha256_hex(text)


@pytest.mark.parametrize("text", ["", "test_", "test_' OR 1=1-- ", "' OR ''='", "x" * 10_000, "test_%", "é"])
def test_what_is_no_secret_is_not_found(house, text):
    house.add()
    assert house.here.find(text) is None


def test_the_hash_is_no_secret(house):
    _, text = house.add()
    assert house.here.find(sha256_hex(text)) is None
    assert house.here.find(text[:-1]) is None
    assert house.here.find(text.swapcase()) is None


def test_what_is_revoked_is_refused_here_at_once_and_elsewhere_after_a_reload(house):
    row_id, text = house.add()
    house.there.reload()
    house.set(row_id, revoked_at=house.clock.now())
    assert house.here.find(text) is None
    assert house.there.find(text)
    house.there.reload()
    assert house.there.find(text) is None
    assert house.process().find(text) is None


def test_a_secret_expires_by_the_clock_alone_and_lives_on_if_that_is_changed(house):
    end = house.clock.now().replace(hour=13)
    row_id, text = house.add(expires_at=end)
    house.clock.advance(minutes=59, seconds=59)
    assert house.here.find(text)
    house.clock.advance(seconds=1)
    assert house.here.find(text) is None
    house.set(row_id, expires_at=None)
    assert house.here.find(text) == Kept(row_id)


def test_only_what_changed_since_is_read(house):
    ids = [house.add()[0] for _ in range(20)]
    house.there.reload()
    read: list[int] = []
    kept = house.there._kept
    house.there._kept = lambda row: read.append(row.id) or kept(row)  # what the database has sent
    house.there.reload()
    assert read == []
    house.set(ids[7], name="other")
    house.there.reload()
    assert read == [ids[7]]


def test_a_change_that_fails_changes_nothing(house):
    row_id, text = house.add()

    def work(tx: Any, revision: int) -> None:
        tx.execute(table.update().values(revoked_at=house.clock.now(), revision=revision))
        raise BadRequest("no")

    before = house.column(row_id, "revision")
    with pytest.raises(BadRequest):
        house.here.change(work)
    house.there.reload()
    assert house.there.find(text)
    assert house.column(row_id, "revision") == before


def test_writers_that_meet_are_all_seen_by_who_reads_meanwhile(house):
    """Broken if a revision could commit after a later one: the reader would never come back for it."""
    made: list[tuple[int, str]] = []
    over = threading.Event()

    def write() -> None:
        process = house.process()
        made.extend(house.add(process) for _ in range(15))

    def read() -> None:
        while not over.is_set():
            house.there.reload()

    writers, reader = [threading.Thread(target=write) for _ in range(4)], threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    reader.join()
    house.there.reload()
    assert len(made) == 60
    assert [house.there.find(text) for _, text in made] == [Kept(row_id) for row_id, _ in made]
    revisions_seen = [house.column(row_id, "revision") for row_id, _ in made]
    assert len(set(revisions_seen)) == 60


@given(st.lists(st.sampled_from(["add", "revoke", "reload", "expire", "wait"]), max_size=30))
def test_after_a_reload_every_process_knows_exactly_the_live_ones(house, steps):
    known: dict[str, int] = {}
    for step in steps:
        if step == "add":
            row_id, text = house.add()
            known[text] = row_id
        elif step == "revoke" and known:
            house.set(known.pop(next(iter(known))), revoked_at=house.clock.now())
        elif step == "expire" and known:
            house.set(known.pop(next(iter(known))), expires_at=house.clock.now())
        elif step == "reload":
            house.there.reload()
        elif step == "wait":
            house.clock.advance(hours=1)
    house.there.reload()
    fresh = house.process()
    fresh.reload()
    for process in (house.here, house.there, fresh):
        assert {text: found.id for text in known if (found := process.find(text))} == known
        is_live = [found for found in process._live.values() if found.expires_at > house.clock.timestamp()]
        assert {found.id for found in is_live} >= set(known.values())


def test_a_restored_backup_is_read_whole(house):
    _, kept = house.add()
    row_id, lost = house.add()
    house.there.reload()

    def restore(tx: Any) -> None:
        tx.execute(table.delete().where(table.c.id == row_id))
        tx.execute(revisions.update().where(revisions.c.name == table.name).values(value=1))

    house.db.transact(restore)
    house.there.reload()
    assert house.there.find(kept)
    assert house.there.find(lost) is None


def test_without_the_database_what_is_known_goes_on_and_changes_fail(tmp_path: Path, clock):
    db = Database(sa.URL.create("sqlite", database=f"{tmp_path}/x.db"))
    db.upgrade()
    house = House(db, clock)
    _, text = house.add()
    db.transact(lambda tx: tx.exec_driver_sql("ALTER TABLE api_tokens RENAME TO away"))
    for call in (house.here.reload, house.add, house.here.write_uses):
        assert house.here.find(text)
        with pytest.raises(DatabaseError):
            call()
    db.transact(lambda tx: tx.exec_driver_sql("ALTER TABLE away RENAME TO api_tokens"))
    house.here.write_uses()  # what could not be written is not forgotten
    assert house.column(house.here.find(text).id, "last_used") == clock.now()
    db.close()


def test_uses_are_written_later_and_never_set_back(house):
    row_id, text = house.add()
    house.there.reload()
    assert house.column(row_id, "last_used") is None
    house.here.find(text)
    first = house.clock.now()
    house.clock.advance(seconds=5)
    house.there.find(text)
    later = house.clock.now()
    house.there.write_uses()
    house.here.write_uses()
    assert house.column(row_id, "last_used") == later > first
    before = house.column(row_id, "revision")
    house.here.write_uses()  # nothing new
    assert house.column(row_id, "revision") == before


def test_a_bump_alone_is_no_change(house):
    _, text = house.add()
    house.there.reload()
    house.db.transact(lambda tx: bump(tx, table.name))
    house.there.reload()
    assert house.there.find(text)


# ── what people write


@pytest.mark.parametrize("name", ["nightly report", "Ünïcode 名前", "'; DROP TABLE users; --", "<script>", "x" * 190])
def test_a_name_is_any_text_that_can_be_shown(name):
    assert check_name(f" {name} ") == name


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "a\x00", "a\x1b[31m", "\u202eevil", "x" * 191])
def test_what_cannot_be_shown_is_refused(name):
    with pytest.raises(BadRequest, match="name must have 1 to 190 characters, all of them printable"):
        check_name(name)


def test_an_expiry_is_in_the_future(clock):
    check_expiry(None, clock.now())
    with pytest.raises(BadRequest, match="must be in the future"):
        check_expiry(clock.now(), clock.now())


def test_what_was_written_with_a_secret_is_read_before_the_secret_is_in_force(house):
    found_before = []
    _, text = house.add()
    columns = (table, table.c.token_hash, lambda row: Kept(row.id))
    late = HashedSecrets(house.db, house.clock, *columns, lambda: found_before.append(late.find(text)))
    late.reload()
    assert found_before == [None]
    assert late.find(text)
    late.reload()
    assert found_before == [None]  # nothing has changed
