"""A gateway, its database and the stand-in's bill, to hold against each other: what must be true whatever breaks.

`Watch` looks all the time, also while things break; `World.check` when all is over.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from billing import journal
from billing.ledger import UsageLedger
from billing.quotas.subjects import COLUMNS
from billing.records import OPEN
from config.settings import Config
from db import Database, DatabaseError, database_url
from foundation.clock import Clock
from tables import gateway_processes, quota_slices, quotas, usage_ledger, usage_rollups
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, read_all, wait_for

PLACES = ("headers", "body", "middle", "usage", "done", "end")
PLAIN_PLACES = ("headers", "body", "middle", "done")  # the other two are the same ones, of a whole body
Expected = dict[tuple[str, bool], tuple[str, ...]]
LIMIT_NANO = 1000 * 10**9


@dataclass(frozen=True)
class Call:
    """One client's call, which breaks at one place. model: names the case, and its user, everywhere.

    expected: what is told of its rows afterwards, see `told`.
    """

    place: str
    stream: bool
    user_id: int
    model: str
    connection: socket.socket
    expected: tuple[str, ...]

    def read_until(self, text: bytes) -> None:
        """Until the client has seen this."""
        received = b""
        while text not in received:
            data = self.connection.recv(65536)
            assert data, received
            received += data


class World:
    """Two users with a quota each, before gateways that share a DATA_DIR and a database, over keys of their own."""

    def __init__(self, start: Callable[..., Gateway], stand_in: Running, url: str, folder: Path, **settings: Any):
        account = stand_in.new_account()["id"]
        keys = [stand_in.new_key(account=account) for _ in range(2)]
        self.stand_in = stand_in
        self.key_hashes = {key["hash"] for key in keys}
        self.folder = folder
        self._start = start
        self._settings = {
            "OPENROUTER_API_URL": stand_in.address,
            "OPENROUTER_API_KEYS": ",".join(key["key"] for key in keys),
            "DATABASE_URL": url,
            "DATA_DIR": folder / "data",
            "SERVER_THREADS": 64,
            "SECRET_KEY": "jW4vT9mQ2xK7pR8sY3nB6cF1gH5dL0aZ-for-tests",
            "QUOTA_USD": LIMIT_NANO // 10**9,
            "QUOTA_PERIOD": "none",
            "KEEPALIVE_SECONDS": 1,
            **settings,
        }
        self.gateway = self.start()
        self.db = Database(database_url(Config(database_url=url)))
        self.tokens = {user_id: self.gateway.new_user() for user_id in (1, 2)}
        self.watch = Watch(self.db, folder)

    def start(self) -> Gateway:
        """Start a gateway, again, on the same DATA_DIR and database."""
        self.gateway = self._start(**self._settings)
        return self.gateway

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.gateway.process.pid).children(recursive=True)

    def kill_workers(self) -> None:
        for worker in self.workers():
            with suppress(psutil.NoSuchProcess):
                worker.kill()

    def kill(self) -> None:
        """Kill the gateway with all its processes, so that none of them can say anything any more."""
        workers = self.workers()
        self.gateway.stop(signal.SIGKILL)
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    # ── calls

    def call(
        self, place: str, stream: bool, user_id: int, how: str, expected: tuple[str, ...], **knobs: object
    ) -> Call:
        """Send a call that breaks there; comment_ms does nothing but tell the users' models apart."""
        given = {"chunks": 6, "pace_ms": 1, "break_at": place, "break_how": how, "comment_ms": 10 + user_id, **knobs}
        model = "sandbox/stream?" + "&".join(f"{knob}={value}" for knob, value in given.items())
        connection = self.gateway.open_chat(self.tokens[user_id], model, stream, max_tokens=100)
        return Call(place, stream, user_id, model, connection, expected)

    def calls(self, how: str, expected: Expected, **knobs: object) -> list[Call]:
        """Both users' calls of all places, streams and plain ones. expected: by place and stream."""
        return [
            self.call(place, stream, user_id, how, told_of_it, **knobs)
            for (place, stream), told_of_it in expected.items()
            for user_id in self.tokens
        ]

    def received(self) -> list[tuple[str, bool, Any]]:
        """What came to the stand-in with our keys: model, stream, the log's entry."""
        found = []
        for entry in self.stand_in.control("GET", "log")["requests"]:
            if entry["path"].endswith("/chat/completions") and entry["key_hash"] in self.key_hashes:
                body = json.loads(base64.b64decode(entry["body_base64"]))
                found.append((body["model"], body["stream"], entry))
        return found

    def wait_for_breaks(self, calls: list[Call]) -> None:
        """Until every call has come to its place."""
        wait_for(lambda: sum(entry["at_break"] for _, _, entry in self.received()) >= len(calls))

    def wait_for_names(self, calls: list[Call]) -> None:
        """Until the names of the calls' answers are in the journal, where there can be any."""
        wanted = {(call.model, call.stream) for call in calls if call.place != "headers"}

        def all_named() -> bool:
            records = [record for path in sorted(self.watch.kept.glob("*.jsonl")) for record in journal.read(path)]
            named = {record["request_id"] for record in records if record.get("state") == "streaming"}
            return wanted <= {
                (r["model"], r["is_stream"]) for r in records if "model" in r and r["request_id"] in named
            }

        wait_for(all_named)

    def read(self, calls: Iterable[Call]) -> dict[tuple[str, bool, int], bytes]:
        """What the clients got, by place, stream and user; until the gateway ends it, however it does."""
        answers = {}
        for call in calls:
            try:
                answers[call.place, call.stream, call.user_id] = read_all(call.connection)
            except ConnectionError:
                answers[call.place, call.stream, call.user_id] = b""
        return answers

    # ── afterwards

    def rows(self, table: sa.Table = usage_ledger) -> list[dict[str, Any]]:
        with self.db.reading() as tx:
            return [dict(row) for row in tx.execute(sa.select(table).order_by(*table.primary_key)).mappings()]

    def rows_at_rest(self, calls: list[Call]) -> list[dict[str, Any]]:
        """The rows, once each call has its last one and none is open."""

        def rest() -> list[dict[str, Any]]:
            try:
                found = self.rows()
            except DatabaseError:
                return []
            over = sum(row["is_last"] for row in found) == len(calls)
            return found if over and not any(row["state"] in OPEN for row in found) else []

        rows: list[dict[str, Any]] = wait_for(rest)
        return rows

    def check(self, calls: list[Call]) -> None:
        """Hold everything against everything."""
        rows = self.rows_at_rest(calls)
        for call in calls:
            mine = [row for row in rows if (row["model"], row["is_stream"]) == (call.model, call.stream)]
            case = f"{call.place} {'stream' if call.stream else 'plain'}"
            assert {row["user_id"] for row in mine} == {call.user_id}, case
            assert [row["attempt"] for row in mine] == list(range(1, len(mine) + 1)), case
            assert [row["is_last"] for row in mine] == [False] * (len(mine) - 1) + [True], case
            assert (case, told(mine)) == (case, call.expected)
        self._check_each_call_upstream_has_one_row(rows)
        self._check_the_bill(rows)
        for row in rows:
            assert (row["cost_nano"] is None) == (row["state"] in {"void", "unknown"}), row
        # Rows of a dead process come first when it is adopted; told to stop in between, a gateway leaves it the rest.
        if self.gateway.process.poll() is None:
            wait_for(lambda: len(list((self.folder / "data" / "journal").glob("*.lock"))) <= len(self.workers()))
        assert self.gateway.stop() == 0
        self._check_nothing_is_held(rows)
        self.watch.stop()
        assert not self.watch.violations, self.watch.violations[0]
        self._check_that_all_again_changes_nothing()

    def _check_each_call_upstream_has_one_row(self, rows: list[dict[str, Any]]) -> None:
        """But that what a reused connection lost before a byte came back was sent twice: it looks closed while idle."""
        sent = Counter((model, stream) for model, stream, _ in self.received())
        counted = Counter((row["model"], row["is_stream"]) for row in rows)
        twice = {call for call in sent if "break_at=headers&break_how=reset" in call[0]}
        assert {call: counted[call] for call in counted if call not in twice} == {
            call: sent[call] for call in sent if call not in twice
        }
        assert all(counted[call] <= sent[call] <= 2 * counted[call] for call in twice)

    def _check_the_bill(self, rows: list[dict[str, Any]]) -> None:
        """What OpenRouter bills is what we do, for every answer that had a name; the rest is in rows `unknown`."""
        by_name = {row["generation_id"]: row for row in rows if row["generation_id"]}
        bill = self.stand_in.control("GET", "generations")["generations"]
        bill = [made for made in bill if made["key_hash"] in self.key_hashes]
        assert len({made["id"] for made in bill}) == len(bill)
        unnamed = Counter[str]()
        for made in bill:
            row = by_name.pop(made["id"], None)
            if row is None:
                assert not made["streamed"], made
                assert "break_at=headers" in made["model"], made  # nobody could learn its name
                unnamed[made["model"]] += 1
                continue
            counted = row["model"], row["is_stream"], row["cost_nano"], row["prompt_tokens"], row["completion_tokens"]
            billed = (
                made["model"],
                made["streamed"],
                made["cost_nano"],
                made["prompt_tokens"],
                made["completion_tokens"],
            )
            assert counted == billed, row
        assert not by_name, "rows name answers that OpenRouter does not know"
        unknown = Counter(row["model"] for row in rows if row["state"] == "unknown")
        assert all(count <= 2 * unknown[model] for model, count in unnamed.items())
        total = self.stand_in.control("GET", "bill")["keys"]
        unattributed = sum(made["cost_nano"] for made in bill if made["id"] not in {r["generation_id"] for r in rows})
        ours = sum(row["cost_nano"] or 0 for row in rows)
        assert sum(total[key]["nano"] for key in self.key_hashes) == ours + unattributed
        assert ours > 0

    def _check_nothing_is_held(self, rows: list[dict[str, Any]]) -> None:
        """The gateway has ended: no slice, no journal, no process is left, and quotas and roll-ups are the rows' sums."""
        assert self.rows(quota_slices) == self.rows(gateway_processes) == []
        assert list((self.folder / "data" / "journal").iterdir()) == []
        kept = {row["subject"]: row for row in self.rows(quotas)}
        assert set(kept) == {"user/1", "user/2"}
        for user_id in (0, 1, 2):
            mine = [row for row in rows if user_id in {0, row["user_id"]}]
            paid = [row for row in mine if row["is_last"] or not user_id]
            spent = sum(row["cost_nano"] or 0 for row in paid)
            if user_id:
                quota = kept[f"user/{user_id}"]
                assert (quota["spent_nano"], quota["reserved_nano"]) == (spent, 0)
            for period in "hd":
                sums = [r for r in self.rows(usage_rollups) if (r["user_id"], r["period"]) == (user_id, period)]
                assert sum(r["cost_nano"] for r in sums) == spent
                assert sum(r["requests"] for r in sums) == sum(row["is_last"] for row in mine)
                assert sum(r["unknown"] for r in sums) == sum(row["state"] == "unknown" for row in mine)

    def _check_that_all_again_changes_nothing(self) -> None:
        """Every journal segment that ever was, applied once more, as after a kill between applying and removing it."""
        tables = usage_ledger, usage_rollups, quotas, quota_slices
        before = [self.rows(table) for table in tables]
        ledger = UsageLedger(self.db, Clock())
        segments = sorted(self.watch.kept.glob("*.jsonl"))
        assert segments
        for segment in segments:
            ledger.apply(segment.name.partition(".")[0], journal.read(segment))
        assert [self.rows(table) for table in tables] == before

    def close(self) -> None:
        self.watch.stop()
        self.db.close()


def told(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """State and source of each try, and last how the request ended."""
    return (*(f"{row['state']} {row['source'] or ''}".strip() for row in rows), rows[-1]["outcome"])


class Watch:
    """Looks at the quotas again and again, and keeps a link to every journal segment, until told to stop."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.violations: list[str] = []
        self.looks = 0
        self.kept = folder / "kept"
        self.kept.mkdir()
        self._db = db
        self._journal = folder / "data" / "journal"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            for segment in self._journal.glob("*.jsonl"):
                with suppress(FileExistsError, FileNotFoundError):
                    (self.kept / segment.name).hardlink_to(segment)
            try:
                self._look()
            except DatabaseError:  # it is down; that is one of the faults
                pass

    def _look(self) -> None:
        ledger, slices = usage_ledger.c, quota_slices.c
        is_mine = sa.or_(*(ledger[column] == quotas.c.id for column in COLUMNS.values()))
        held = sa.select(sa.func.sum(ledger.reserved_nano)).where(is_mine, ledger.state.in_(sorted(OPEN)))
        sliced = sa.select(sa.func.sum(slices.nano)).where(slices.quota_id == quotas.c.id)
        subject = sa.literal("user/").concat(sa.cast(ledger.user_id, sa.String(20)))
        spent = sa.select(sa.func.sum(ledger.cost_nano)).where(subject == quotas.c.subject, ledger.is_last == sa.true())
        # One statement: it sees one moment of the database.
        sums = [sa.func.coalesce(query.correlate(quotas).scalar_subquery(), 0) for query in (held, sliced, spent)]
        with self._db.reading() as tx:
            found = tx.execute(sa.select(quotas.c.subject, quotas.c.reserved_nano, quotas.c.spent_nano, *sums)).all()
            is_known = ledger.state.in_(["settled", "estimated"])
            odd = sa.or_(ledger.cost_nano < 0, ledger.cost_nano.is_(None) == is_known)
            self.violations += [
                f"{row.state} costs {row.cost_nano}" for row in tx.execute(sa.select(usage_ledger).where(odd))
            ]
        self.looks += 1
        for subject_, reserved_nano, spent_nano, in_rows, in_slices, cost in found:
            if reserved_nano != in_rows + in_slices:
                self.violations.append(
                    f"{subject_}: {reserved_nano} reserved, {in_rows} in rows, {in_slices} in slices"
                )
            if spent_nano != cost:
                self.violations.append(f"{subject_}: {spent_nano} spent, rows cost {cost}")
            if not 0 <= spent_nano + reserved_nano <= LIMIT_NANO:
                self.violations.append(f"{subject_}: {spent_nano} + {reserved_nano} is over the limit")


def is_whole(answer: bytes) -> bool:
    """True if an answer came as it would without any fault: an end, and no error in it."""
    return (
        answer.startswith(b"HTTP/1.1 200")
        and b'"error"' not in answer
        and bool(re.search(rb"DONE|\}\Z|\}\r\n", answer))
    )
