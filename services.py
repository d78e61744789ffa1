"""Every long-lived object, made once, in order: the spine of the program on one screen."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.util import Finalize

from accounts.api_tokens import ApiTokens
from accounts.audit_log import AuditLog
from accounts.client_address import ClientAddresses
from accounts.client_keys import ClientKeys
from accounts.favourite_models import FavouriteModels
from accounts.key_derivation import KeyDerivation
from accounts.refused_log_ins import RefusedLogIns
from accounts.sessions import UserSessions
from accounts.sign_on.flow import SingleSignOn
from accounts.sign_on.identities import Identities
from accounts.sign_on.provider import IdentityProvider
from accounts.sign_on.states import OAuthStates
from accounts.users import Users
from api_key_manager import ApiKeyManager
from auth import Auth, SigningKeys
from billing.cost_lookup import CostLookup
from billing.drain import UsageDrain
from billing.journal import UsageJournal
from billing.ledger import UsageLedger
from billing.meter import UsageMeter
from billing.prices import ModelPrices
from billing.quotas.outage_credit import OutageCredit
from billing.quotas.rate_limits import RateLimits
from billing.quotas.rows import Quotas
from billing.quotas.slices import QuotaSlices
from billing.reports.request_log import UsageLog
from billing.reports.retention import LogRetention
from billing.reports.statistics import UsageStats
from config.settings import Config
from db import Database, DatabaseClock, DatabaseError
from foundation.clock import Clock
from foundation.crypto import Envelopes, KeyHasher
from foundation.logs import event
from foundation.money import nano
from gateway.destinations import Destinations
from monitor.sync import PersonalKeySync
from monitor.watched_keys import PersonalKeys
from openrouter_proxy import OpenRouterProxy
from pool.connected import ConnectedAccounts
from pool.keys import PoolKeys
from pool.probe import KeyProbe
from replicas.processes import GatewayProcess
from replicas.repeating import repeat
from replicas.revisions import WARN_SECONDS, RevisionWatcher
from start_up import CannotStart, DatabaseAway, FirstSteps, open_if_there, told_in_one_line, unstored_upstreams
from upstream.dial import GuardedDial, HttpProxy, dial_directly
from upstream.http import UpstreamHttp
from upstream.openrouter.account_api import AccountApi
from upstream.openrouter.generation_records import GenerationRecords
from upstream.registry import Upstreams

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
    personal_key_sync: PersonalKeySync
    client_keys: ClientKeys
    api_tokens: ApiTokens
    auth: Auth
    key_derivation: KeyDerivation
    sign_on: SingleSignOn
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
    records: GenerationRecords
    costs: CostLookup
    audit: AuditLog
    upstreams: Upstreams
    oauth_states: OAuthStates
    accounts: ConnectedAccounts
    favourite_models: FavouriteModels
    first_steps: FirstSteps
    started: bool = False
    _complain_at: float = 0.0
    _start_lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.auth.trusts_uninformed = self.config.credit_without_database_usd > 0
        self.watcher.watch("users", self.users.reload)
        self.watcher.watch("user_sessions", self.sessions.reload)
        self.watcher.watch("client_keys", self.client_keys.live.reload)
        self.watcher.watch("api_tokens", self.api_tokens.live.reload)
        self.watcher.watch("api_keys", self.pool.reload)
        self.watcher.watch("quotas", self.quota_slices.reload)
        self.watcher.watch("upstreams", self.proxy.destinations.reload)

    def start(self) -> None:
        """Fill the copies in memory and keep them fresh. Calls after the first do nothing."""
        with self._start_lock:
            if self.started:
                return
            self.journal.open()
            self._look()
            self._use_environment()
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
            "personal-keys": self.personal_key_sync.run,
        }

    def _keep_fresh(self, stopping: threading.Event) -> None:
        turns = itertools.count(1)

        def freshen() -> None:
            self._look()
            if next(turns) % REPORT_EVERY == 0:
                self.report()

        repeat(freshen, WATCH_SECONDS, stopping)

    def _look(self) -> None:
        """Look what has changed in the database; at first, whether it is there."""
        if not self.first_steps.are_done:
            try:
                self.first_steps.take()
            except DatabaseAway:
                pass  # the watcher says so
            except CannotStart as error:
                if self.clock.monotonic() >= self._complain_at:
                    self._complain_at = self.clock.monotonic() + WARN_SECONDS
                    event(log, "database_refused", logging.ERROR, reason=str(error))
        self.watcher.check()
        self.auth.is_informed = self.quota_slices.is_informed = self.watcher.is_complete

    def _use_environment(self) -> None:
        """In the place of what could not be read. Not more: what was read is read again only when it changes."""
        if not self.watcher.seen("api_keys"):
            self.pool.use_unstored([secret.get_secret_value() for secret in self.config.openrouter_api_keys])
        if not self.watcher.seen("upstreams"):
            self.proxy.destinations.use(*unstored_upstreams(self.upstreams, self.config, self.clock))

    def report(self) -> None:
        """Write down what this process has counted, and how its keys and upstreams are. Raises DatabaseError."""
        self._write_counts()
        self.process.beat(self.watcher.seen("api_keys"), self.pool.report() | self.proxy.destinations.report())

    def _write_counts(self) -> None:
        self.pool.write_counts()
        self.client_keys.live.write_uses()
        self.api_tokens.live.write_uses()
        self.auth.refused.write()

    def stop(self) -> None:
        """Write what is still in memory. Called at exit, when no call is running any more; once is enough."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for thread in self._threads:
            if thread.name in WRITERS:  # or what it has just begun to write would come after our last words
                thread.join(STOP_SECONDS)
        try:
            self._write_counts()
        except DatabaseError as error:
            event(log, "counts_lost", logging.WARNING, error=type(error).__name__)
        try:
            if self.started:
                self.drain.finish()
            self.process.leave()
        except (DatabaseError, OSError) as error:
            event(log, "journal_left_behind", logging.WARNING, error=type(error).__name__)


@told_in_one_line()
def build(config: Config) -> Services:
    """All services, connected; of a database that is away, shut. Raises CannotStart."""
    clock, access_life = Clock(), timedelta(hours=config.jwt_expiration_hours)
    db, envelopes = open_if_there(config)
    users, keys = Users(db, None, clock), PoolKeys(db, envelopes, clock)
    sessions = UserSessions(db, clock, access_life, timedelta(days=config.refresh_token_days))
    pool = _pool(config, users, keys, clock)
    hasher, audit = _hasher(config), AuditLog(db, clock)
    upstream, upstreams = _upstreams(config, db, envelopes, clock)
    first_steps = FirstSteps(config, db, envelopes, clock, users, sessions, keys, upstreams)
    first_steps.begin()
    database_clock = DatabaseClock(db)
    process = GatewayProcess(db, database_clock)
    journal = UsageJournal(config.data_dir / "journal", process.id)
    journal.check()
    quotas, quota_slices = _quotas(config, db, process, database_clock)
    client_keys = ClientKeys(db, clock, config.max_client_keys_per_user, quota_slices.reload)
    api_tokens, signing = ApiTokens(db, clock), SigningKeys(config.signing_keys)
    auth = Auth(users, sessions, hasher, signing, clock, client_keys.live, api_tokens.live, RefusedLogIns(audit))
    ledger, prices = UsageLedger(db, clock), ModelPrices(upstream, config.data_dir)
    destinations = Destinations(pool, upstream, prices, upstreams, clock, config)
    records, states = GenerationRecords(keys.authorizations, upstream), OAuthStates(db, envelopes, clock)
    return Services(
        config=config,
        clock=clock,
        db=db,
        users=users,
        sessions=sessions,
        keys=keys,
        pool=pool,
        personal_key_sync=PersonalKeySync(PersonalKeys(db, envelopes, database_clock, config), upstream),
        client_keys=client_keys,
        api_tokens=api_tokens,
        auth=auth,
        key_derivation=KeyDerivation(hasher, config.kdf_domain),
        sign_on=_sign_on(config, db, states, users, sessions, clock),
        addresses=ClientAddresses(config.trusted_proxies),
        rate_limits=RateLimits(config, clock),
        proxy=OpenRouterProxy(destinations, UsageMeter(journal, quota_slices), config),
        watcher=RevisionWatcher(db, clock),
        process=process,
        journal=journal,
        ledger=ledger,
        drain=UsageDrain(db, journal, ledger, quota_slices),
        quotas=quotas,
        quota_slices=quota_slices,
        prices=prices,
        usage=UsageStats(db, clock),
        usage_log=UsageLog(db, clock),
        retention=LogRetention(db, database_clock, config.log_retention_days),
        probe=KeyProbe(pool, keys, upstream),
        records=records,
        costs=CostLookup(db, ledger, records, clock),
        audit=audit,
        upstreams=upstreams,
        oauth_states=states,
        accounts=ConnectedAccounts(db, keys, clock, AccountApi(upstream, config)),
        favourite_models=FavouriteModels(db),
        first_steps=first_steps,
    )


def _pool(config: Config, users: Users, keys: PoolKeys, clock: Clock) -> ApiKeyManager:
    most = _each_worker(config.key_max_in_flight, config)
    return ApiKeyManager(keys, clock, most, users.upstream_choice, all_have_own=config.dedicated_keys == "on")


def _quotas(config: Config, db: Database, process: GatewayProcess, clock: DatabaseClock) -> tuple[Quotas, QuotaSlices]:
    quotas = Quotas(db, clock, config)
    credit = OutageCredit(nano(config.credit_without_database_usd) or 0)
    return quotas, QuotaSlices(db, process.id, quotas, clock, credit)


def _sign_on(
    config: Config, db: Database, states: OAuthStates, users: Users, sessions: UserSessions, clock: Clock
) -> SingleSignOn:
    providers: dict[str, IdentityProvider] = {}
    if config.public_url:  # without which there is no provider
        from accounts.sign_on.providers import (
            configured_providers,  # here, because it takes a tenth of a second and 6 MB
        )

        providers = configured_providers(config, clock)
    return SingleSignOn(providers, config.public_url, states, Identities(db, clock), users, sessions)


def _upstreams(config: Config, db: Database, envelopes: Envelopes, clock: Clock) -> tuple[UpstreamHttp, Upstreams]:
    """OpenRouter, and the others; each with how connections are made to it."""
    proxy = HttpProxy(config.outbound_proxy.get_secret_value()) if config.outbound_proxy else None
    dial = proxy.dial if proxy else dial_directly
    openrouter = UpstreamHttp(config.openrouter_api_url, config.upstream_connect_timeout_seconds, dial=dial)
    others = Upstreams(db, envelopes, clock, GuardedDial(config.allow_private_upstreams, proxy))
    return openrouter, others


def _hasher(config: Config) -> KeyHasher:
    """Log-ins that wait leave threads for everything else."""
    return KeyHasher(_each_worker(len(os.sched_getaffinity(0)), config), min(32, config.server_threads // 4))


def _each_worker(amount: int, config: Config) -> int:
    """A worker's share: each counts for itself. Together they keep to the amount, unless it is less than they are."""
    return amount and max(1, amount // config.server_workers)
