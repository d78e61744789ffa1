"""What a soak runs on: an engine, the stand-in, two replicas, their callers; and what it comes to in the end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from billing.records import OPEN
from config.settings import Config
from db import Database, DatabaseError, database_url
from tables import usage_ledger
from tests.money_soak import faults
from tests.money_soak.audit import Books, differences, read_books
from tests.money_soak.available import ENGINES
from tests.money_soak.callers import Load, new_callers
from tests.money_soak.engines import Sqlite
from tests.money_soak.hosts import HostClock, Replica, compiler
from tests.sandbox.conftest import Running
from tests.support.gateway import ROOT, wait_for

TWO_MINUTES = 120
DRAIN_SECONDS = 300  # once all is well again: costs that are asked for come after a minute, if not at once
SHOWN = 20
SETTINGS = {
    "SECRET_KEY": "jW4vT9mQ2xK7pR8sY3nB6cF1gH5dL0aZ-for-the-soak",
    "ENCRYPTION_KEY": "b2xkLWZhc2hpb25lZC1idXQtMzItYnl0ZXMtbG9uZyE=",
    "SERVER_THREADS": 32,
    "LOG_LEVEL": "WARNING",
}


class Soak:
    """One run on one engine. told: what happens just now, for people."""

    def __init__(self, name: str, folder: Path, told: Callable[[str], None]) -> None:
        self._told = told
        self._open = ExitStack()
        try:
            self._begin(name, folder)
        except BaseException:
            self.close()
            raise

    def _begin(self, name: str, folder: Path) -> None:
        self._told("starting")
        self.engine = ENGINES[name](folder)
        self._open.callback(self.engine.close)
        self.stand_in = self._start_stand_in()
        account = self.stand_in.new_account()["id"]
        keys = [self.stand_in.new_key(account=account) for _ in range(3)]
        self._hashes = {key["hash"] for key in keys}
        settings = SETTINGS | {
            "OPENROUTER_API_URL": self.stand_in.address,
            "OPENROUTER_API_KEYS": ",".join(key["key"] for key in keys),
        }
        self.replicas: list[Replica] = []
        for number in range(2):
            self.replicas.append(self._start_replica(folder, number, settings))
        self.db = Database(database_url(Config(database_url=self.engine.urls[0])))
        self._open.callback(self.db.close)
        self.credentials = new_callers(self.replicas[0], self.db)
        wait_for(self._all_are_known)
        if clock := self.replicas[0].clock:
            clock.set_ahead(TWO_MINUTES)

    def _all_are_known(self) -> bool:
        """Whoever calls is known to both replicas, which takes a second or two."""
        return all(
            replica.gateway.get("/api/quota", credential).ok
            for replica in self.replicas
            for credential in self.credentials
        )

    def _start_stand_in(self) -> Running:
        command = [sys.executable, "-m", "sandbox.openrouter", "--port", "0"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}  # it says whenever a killed client is gone
        process = subprocess.Popen(command, cwd=ROOT, text=True, **streams)
        self._open.callback(process.wait)
        self._open.callback(process.terminate)
        assert process.stdout
        self._open.callback(process.stdout.close)
        line = json.loads(process.stdout.readline())
        return Running(process, line["listening"], line["management_key"])

    def _start_replica(self, folder: Path, number: int, settings: dict[str, Any]) -> Replica:
        home = folder / f"replica-{number + 1}"
        home.mkdir()
        shares_host = number and isinstance(self.engine, Sqlite)  # with whom it shares a file
        clock = self.replicas[0].clock if shares_host else HostClock(home) if compiler() else None
        url, server = self.engine.urls[number], ("granian", "gunicorn")[number]
        replica = Replica(home, clock, DATABASE_URL=url, SERVER=server, **settings)
        self._open.callback(replica.close)
        return replica

    def run(self, seconds: float) -> dict[str, Any]:
        """All of it; returns what is told of it."""
        began = time.monotonic()
        load = Load(self.replicas, self.credentials)
        try:
            schedule = faults.all_faults(self.engine, self.replicas, seconds)
            faults.run(schedule, seconds, self._told)
        finally:
            load.stop()
        self._told("draining")
        with suppress(AssertionError):  # what is still open then is a difference
            wait_for(self._is_drained, DRAIN_SECONDS)
        for replica in self.replicas:
            assert replica.gateway.stop() == 0, replica.gateway.log()
        books = self._books(load.seen)
        return {
            "seconds": round(time.monotonic() - began),
            "calls": sum(load.statuses.values()),
            "statuses": dict(sorted(load.statuses.items())),
            "billed_nano": books.billed_nano,
            "faults": [fault.name for fault in schedule],
            "left_out": faults.missing(self.engine, self.replicas),
            "unnamed": [f"{made['id']} {made['cost_nano']}" for made in books.unnamed],
            "differences": len(found := differences(books)),
            "first_of_them": found[:SHOWN],
        }

    def _is_drained(self) -> bool:
        """True once nothing is written to the journals and no row is open."""
        if any(replica.journals() for replica in self.replicas):
            return False
        try:
            with self.db.reading() as tx:
                is_open = sa.select(usage_ledger.c.request_id).where(usage_ledger.c.state.in_(OPEN))
                return tx.execute(is_open.limit(1)).first() is None
        except DatabaseError:  # the pool's connections are from before it was stopped
            return False

    def _books(self, seen: set[str]) -> Books:
        bill = self.stand_in.control("GET", "generations")["generations"]
        keys = self.stand_in.control("GET", "bill")["keys"]
        mine = [made for made in bill if made["key_hash"] in self._hashes]
        return read_books(self.db, mine, sum(keys[each]["nano"] for each in self._hashes), seen)

    def close(self) -> None:
        self._open.close()
