"""Every long-lived object, made once, in order: the spine of the program on one screen."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.util import Finalize

import sealed_secrets
from api_key_manager import ApiKeyManager
from auth import Auth
from background import repeat
from client_address import ClientAddresses
from clock import Clock
from config import Config
from cost_lookup import CostLookup
from crypto import Envelopes, KeyHasher, SealBroken, sha256_hex
from db import Database, DatabaseClock, DatabaseError, UnknownSchema, database_url
from gateway_processes import GatewayProcess
from key_probe import KeyProbe
from log_retention import LogRetention
from logs import event, redact
from model_prices import ModelPrices
from openrouter_proxy import OpenRouterProxy
from pool_keys import KeyAlreadyKnown, KeySource, PoolKeys
from quota_slices import QuotaSlices
from quotas import Quotas
from rate_limits import RateLimits
from revisions import RevisionWatcher
from upstream_http import UpstreamHttp
from usage_drain import UsageDrain
from usage_journal import UsageJournal
from usage_ledger import UsageLedger
from usage_log import UsageLog
from usage_meter import UsageMeter
from usage_stats import UsageStats
from user_sessions import UserSessions
from users import Users

log = logging.getLogger("services")

WATCH_SECONDS = 1.0
REPORT_EVERY = 5  # watches
WRITERS = {"keep-fresh", "usage-drain"}
STOP_SECONDS = 3.0  # for each of them to end; longer only if the database hangs


@dataclass
class Services:
    """What routes and the proxy work with. `start` begins the background threads, in the process that serves."""

    config: Config
    clock: Clock
    db: Database
    users: Users
    sessions: UserSessions
    keys: PoolKeys
    pool: ApiKeyManager
    auth: Auth
    addresses: ClientAddresses
    rate_limits: RateLimits
    proxy: OpenRouterProxy
    watcher: RevisionWatcher
    process: GatewayProcess
    journal: UsageJournal
    ledger: UsageLedger
    drain: UsageDrain
    quotas: Quotas
    quota_slices: QuotaSlices
    prices: ModelPrices
    usage: UsageStats
    usage_log: UsageLog
    retention: LogRetention
    probe: KeyProbe
    costs: CostLookup
    started: bool = False
    _start_lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Fill the copies in memory and keep them fresh. Calls after the first do nothing."""
        with self._start_lock:
            if self.started:
                return
            self.journal.open()
            self.watcher.check()
            with suppress(DatabaseError):  # the watcher has said so; the next report comes in seconds
                self.report()  # before the first call, so that the rotation counts with this process
                self.quota_slices.top_up()
            self.rate_limits.start(self._stopping)
            for name, run in self.background().items():
                self._threads.append(threading.Thread(target=run, args=(self._stopping,), name=name, daemon=True))
                self._threads[-1].start()
            # atexit is not run in a worker that granian has forked; multiprocessing's finalizers run in both.
            Finalize(None, self.stop, exitpriority=0)
            self.started = True

    def background(self) -> dict[str, Callable[[threading.Event], None]]:
        """What runs in a thread of its own, by the thread's name."""
        return {
            "keep-fresh": self._keep_fresh,
            "key-probe": self.probe.run,
            "usage-drain": self.drain.run,
            "cost-lookup": self.costs.run,
            "model-prices": self.prices.run,
            "log-retention": self.retention.run,
        }

    def _keep_fresh(self, stopping: threading.Event) -> None:
        turns = itertools.count(1)

        def freshen() -> None:
            self.watcher.check()
            if next(turns) % REPORT_EVERY == 0:
                self.report()

        repeat(freshen, WATCH_SECONDS, stopping)

    def report(self) -> None:
        """Write down what this process has counted, and which keys carry its calls. Raises DatabaseError."""
        self.pool.write_counts()
        self.process.beat(self.watcher.seen("api_keys"), self.pool.report())

    def stop(self) -> None:
        """Write what is still in memory. Called at exit, when no call is running any more; once is enough."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for thread in self._threads:
            if thread.name in WRITERS:  # or what it has just begun to write would come after our last words
                thread.join(STOP_SECONDS)
        try:
            self.pool.write_counts()
        except DatabaseError as error:
            event(log, "counts_lost", logging.WARNING, error=type(error).__name__)
        try:
            if self.started:
                self.drain.finish()
            self.process.leave()
        except (DatabaseError, OSError) as error:
            event(log, "journal_left_behind", logging.WARNING, error=type(error).__name__)


class CannotStart(Exception):
    """Why the program can't start, in one line."""


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    try:
        yield
    except SealBroken as error:
        raise CannotStart(f"{error}. Was it sealed with another ENCRYPTION_KEY? Nothing was written.") from None
    except (UnknownSchema, TimeoutError) as error:
        raise CannotStart(str(error)) from None
    except OSError as error:
        raise CannotStart(f"DATA_DIR can't be used ({error.strerror}: {error.filename})") from None
    except DatabaseError as error:
        reason = redact(str(error).partition("\n")[0])
        raise CannotStart(f"the database does not answer ({reason})") from None


@_told_in_one_line()
def open_database(config: Config) -> tuple[Database, Envelopes]:
    """The database at this version's schema, and what opens its ciphertexts.

    Raises CannotStart; before anything is written if ENCRYPTION_KEY is not the one of this database.
    """
    if database_url(config).drivername == "sqlite":
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    db, envelopes = Database(database_url(config)), Envelopes(config.encryption_keys)
    sealed_secrets.check_canary(db, envelopes)
    if not db.is_current():
        db.upgrade()
    return db, envelopes


@_told_in_one_line()
def build(config: Config) -> Services:
    """All services, connected. Raises CannotStart."""
    clock = Clock()
    db, envelopes = open_database(config)
    access_life = timedelta(hours=config.jwt_expiration_hours)
    users = Users(db, sealed_secrets.username_key(db, envelopes, clock.now()), clock)
    sessions = UserSessions(db, clock, access_life, timedelta(days=config.refresh_token_days))
    keys = PoolKeys(db, envelopes, clock)
    import_keys(keys, config)
    choice_of = users.upstream_choice if config.dedicated_keys == "on" else None
    pool = ApiKeyManager(keys, clock, _each_worker(config.key_max_in_flight, config), choice_of)
    hasher = KeyHasher(permits=_each_worker(len(os.sched_getaffinity(0)), config))
    auth = Auth(users, sessions, hasher, config.secret_key.get_secret_value(), access_life, clock)

    upstream = UpstreamHttp(config.openrouter_api_url, config.upstream_connect_timeout_seconds)
    database_clock = DatabaseClock(db)
    process = GatewayProcess(db, database_clock)
    journal = UsageJournal(config.data_dir / "journal", process.id)
    journal.check()
    quotas = Quotas(db, database_clock, config)
    quota_slices = QuotaSlices(db, process.id, quotas, database_clock)
    ledger = UsageLedger(db, clock)
    drain = UsageDrain(db, journal, ledger, quota_slices)
    prices = ModelPrices(upstream, config.data_dir)
    proxy = OpenRouterProxy(pool, upstream, UsageMeter(journal, quota_slices), prices, config)

    watcher = RevisionWatcher(db)
    watcher.watch("users", users.reload)
    watcher.watch("user_sessions", sessions.reload)
    watcher.watch("api_keys", pool.reload)
    watcher.watch("quotas", quota_slices.reload)
    return Services(
        config=config,
        clock=clock,
        db=db,
        users=users,
        sessions=sessions,
        keys=keys,
        pool=pool,
        auth=auth,
        addresses=ClientAddresses(config.trusted_proxies),
        rate_limits=RateLimits(config, clock),
        proxy=proxy,
        watcher=watcher,
        process=process,
        journal=journal,
        ledger=ledger,
        drain=drain,
        quotas=quotas,
        quota_slices=quota_slices,
        prices=prices,
        usage=UsageStats(db, clock),
        usage_log=UsageLog(db, clock),
        retention=LogRetention(db, database_clock, config.log_retention_days),
        probe=KeyProbe(pool, keys, upstream),
        costs=CostLookup(db, ledger, keys, upstream, clock),
    )


def _each_worker(amount: int, config: Config) -> int:
    """A worker's share: each counts for itself. Together they keep to the amount, unless it is less than they are."""
    return amount and max(1, amount // config.server_workers)


def import_keys(keys: PoolKeys, config: Config) -> None:
    """Put the keys of OPENROUTER_API_KEYS into the pool; those that it has, or once had, are left as they are."""
    known = {row.api_key_hash for row in keys.rows()} if config.openrouter_api_keys else set()
    for secret in config.openrouter_api_keys:
        text = secret.get_secret_value()
        if sha256_hex(text) in known:
            continue
        try:
            keys.add(text, f"env/{sha256_hex(text)[:12]}", KeySource.ENVIRONMENT)
            event(log, "pool_key_imported", hash=sha256_hex(text)[:12])
        except KeyAlreadyKnown:
            pass  # another process was first
