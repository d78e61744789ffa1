"""A service whose money is watched: gateways before the stand-in, their database, and what must hold when all is quiet."""

from __future__ import annotations

import base64
import json
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from billing.quotas.rows import Quota, Quotas
from config.settings import Config
from db import Database, database_url
from foundation.clock import Clock
from tables import quota_slices, quotas, usage_ledger, usage_rollups
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, read_all, wait_for

MODEL = "openai/gpt-4o-mini"
PROMPT_NANO, COMPLETION_NANO = 150, 600  # a token of it
COUNTED = {"settled", "estimated"}
FINAL = COUNTED | {"void", "unknown"}


def user_of(token: str) -> int:
    """Whose access token it is."""
    payload = token.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])


class Billing:
    """Gateways that share one database and the keys of one account; each has a DATA_DIR of its own."""

    def __init__(self, start: Callable[..., Gateway], stand_in: Running, url: str, folder: Path) -> None:
        self.stand_in = stand_in
        self.folder = folder
        self.account = stand_in.new_account()["id"]
        self.keys = [stand_in.new_key(account=self.account) for _ in range(3)]
        self._start = start
        self._url = url
        self._db: Database | None = None
        self._begun = 0
        secret_key, encryption_key = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
        self._secrets = {"SECRET_KEY": secret_key, "ENCRYPTION_KEY": encryption_key}

    @property
    def db(self) -> Database:
        """The gateways' database; the first of them has made it."""
        self._db = self._db or Database(database_url(Config(database_url=self._url)))
        return self._db

    def moved(self, url: str) -> None:
        """The database is another one from now on."""
        if self._db:
            self._db.close()
        self._db, self._url = None, url

    def close(self) -> None:
        if self._db:
            self._db.close()
        self.stand_in.control("DELETE", "faults")

    def gateway(self, workers: int = 1, folder: Path | None = None, **settings: Any) -> Gateway:
        """A running gateway, each of whose workers knows the prices. folder: the DATA_DIR of another one."""
        self._begun += 1
        folder = folder or self.folder / f"data-{self._begun}"
        dead = set((folder / "journal").glob("*.lock"))
        gateway = self._start(
            OPENROUTER_API_URL=self.stand_in.address,
            OPENROUTER_API_KEYS=",".join(key["key"] for key in self.keys),
            DATABASE_URL=self._url,
            DATA_DIR=folder,
            SERVER_WORKERS=workers,
            **self._secrets | {"SERVER_THREADS": 128} | settings,
        )

        def all_have_begun() -> bool:
            # A worker begins with its first request; of many at once each gets some. Whoever is not the first to know
            # the prices reads them from the file.
            read_answers([gateway.open_raw(b"") for _ in range(64)])
            begun = set((folder / "journal").glob("*.lock")) - dead
            return len(begun) == workers and (folder / "model_prices.json").exists()

        wait_for(all_have_begun)
        return gateway

    # ── what the stand-in knows

    def bill(self) -> int:
        """What the account owes by now, in nano-dollars."""
        bill: int = self.stand_in.control("GET", "bill")["accounts"][self.account]["nano"]
        return bill

    def calls(self) -> Counter[int]:
        """The model calls that came to the stand-in with the account's keys since its log was cleared, by status."""
        hashes = {key["hash"] for key in self.keys}
        logged = self.stand_in.control("GET", "log")["requests"]
        calls = [one for one in logged if one["key_hash"] in hashes and one["path"].endswith("/chat/completions")]
        return Counter(one["status"] for one in calls)

    def fault(self, scenario: str, times: int | None = None) -> None:
        """Have the stand-in answer the account's calls like this; the first fault that was set goes first."""
        self.stand_in.control("POST", "faults", scenario=scenario, times=times, account=self.account)

    # ── what the database knows

    def set_quota(self, user_id: int, limit_nano: int) -> Quota:
        return Quotas(self.db, Clock(), Config()).set(f"user/{user_id}", limit_nano, None, "month", "reset")

    def quota(self, user_id: int) -> Any:
        with self.db.reading() as tx:
            return tx.execute(sa.select(quotas).where(quotas.c.subject == f"user/{user_id}")).one()

    def slices_of(self, user_id: int) -> dict[str, int]:
        """What processes hold of somebody's quota, in nano-dollars, by process."""
        query = sa.select(quota_slices).join(quotas, quotas.c.id == quota_slices.c.quota_id)
        with self.db.reading() as tx:
            rows = tx.execute(query.where(quotas.c.subject == f"user/{user_id}")).all()
        return {row.process_id: row.nano for row in rows}

    def rows(self) -> list[Any]:
        with self.db.reading() as tx:
            return list(tx.execute(sa.select(usage_ledger)))

    def at_rest(self, requests: int | None = None) -> list[Any]:
        """The ledger's rows, once it knows what became of every call, and of so many requests in all."""

        def find() -> list[Any]:
            rows = self.rows()
            is_known = all(row.state in FINAL for row in rows)
            enough = requests is None or sum(row.is_last for row in rows) >= requests
            return rows if rows and is_known and enough else []

        return wait_for(find, 60)  # type: ignore[no-any-return]

    def check(self, requests: int, nothing_reserved: bool = False) -> None:
        """Ledger, roll-ups and quotas say what the stand-in bills, when all is quiet. requests: how many there were.

        What a try cost that another one followed is in everybody's sums alone: its caller does not pay for it.

        nothing_reserved: no process holds a slice any more.
        """
        rows = self.at_rest(requests)
        assert sum(row.is_last for row in rows) == requests
        costs: Counter[int] = Counter()
        for row in rows:
            costs[row.user_id if row.is_last else 0] += row.cost_nano if row.state in COUNTED else 0
        assert sum(costs.values()) == self.bill()
        with self.db.reading() as tx:
            rollups = tx.execute(sa.select(usage_rollups)).all()
            kept = tx.execute(sa.select(quotas)).all()
            slices = tx.execute(sa.select(quota_slices)).all()
        for period in ("h", "d"):
            sums: Counter[int] = Counter()
            counts: Counter[int] = Counter()
            for each in rollups:
                if each.period == period:
                    sums[each.user_id] += each.cost_nano
                    counts[each.user_id] += each.requests
            assert sums == costs | {0: self.bill()}
            assert counts[0] == requests
        for quota in kept:
            kind, _, number = quota.subject.partition("/")
            column = {"user": "user_id", "key": "client_key_id"}[kind]
            paid = [row for row in rows if row.state in COUNTED and row.is_last]
            mine = [row for row in paid if getattr(row, column) == int(number)]
            assert quota.spent_nano == sum(row.cost_nano for row in mine), quota.subject
            assert quota.reserved_nano == sum(each.nano for each in slices if each.quota_id == quota.id), quota.subject
        if nothing_reserved:
            assert slices == []
            assert {quota.reserved_nano for quota in kept} <= {0}


def send_all(gateways: Collection[Gateway], token: str, bodies: Collection[bytes]) -> list[socket.socket]:
    """Send these requests at once, in turns to the gateways, and return their connections."""
    head = f"Authorization: Bearer {token}\r\n"
    targets = list(gateways)
    return [targets[number % len(targets)].open_raw(body, head) for number, body in enumerate(bodies)]


def read_answers(connections: Collection[socket.socket]) -> list[bytes]:
    """The whole answers, with their heads."""
    return [read_all(connection) for connection in connections]


def status_of(answer: bytes) -> int:
    """An answer's status; 0 if there is none."""
    return int(answer[9:12] or b"0")
