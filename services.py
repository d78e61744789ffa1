"""Every long-lived object, made once, in order: the spine of the program on one screen."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from multiprocessing.util import Finalize
from typing import Any

from accounts.api_tokens import ApiTokens
from accounts.audit_log import AuditLog
from accounts.audit_sums import AuditSums
from accounts.client_address import ClientAddresses
from accounts.client_keys import ClientKeys
from accounts.everything import Everything
from accounts.favourite_models import FavouriteModels
from accounts.invitations import Invitations
from accounts.key_derivation import KeyDeriver
from accounts.leaving import Leaving
from accounts.one_time_states import OneTimeStates
from accounts.operator_tokens import OperatorTokens
from accounts.passkeys import Passkeys
from accounts.recovery import Recovery
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.registration import Registration, RegistrationMode
from accounts.relying_party import find_relying_party
from accounts.reset_links import ResetLinks
from accounts.second_factors import SecondFactors
from accounts.sessions import UserSessions
from accounts.sign_on.flow import SingleSignOn
from accounts.sign_on.identities import ProviderIdentities
from accounts.sign_on.provider import IdentityProvider
from accounts.step_up import StepUp
from accounts.teams import Teams
from accounts.users import Users
from alerts.bell import Bell
from alerts.facts import Facts
from alerts.host import Host
from api_key_manager import ApiKeyManager
from auth import Auth, SigningKeys
from billing.call_counts import CallCounts
from billing.cost_lookup import CostLookup
from billing.drain import UsageDrain
from billing.forecast import CostForecasts
from billing.journal import UsageJournal
from billing.ledger import UsageLedger
from billing.meter import UsageMeter
from billing.prices import ModelPrices
from billing.quotas.budgets import end_members_quota, give_quota
from billing.quotas.rate_limits import RateLimits
from billing.quotas.rows import Quotas
from billing.quotas.slices import QuotaSlices
from billing.refused_calls import RefusedCalls
from billing.rehearsal import rehearse
from billing.reports.request_log import UsageLog
from billing.reports.retention import LogRetention
from billing.reports.statistics import UsageStats
from config.settings import Config
from db import Database, DatabaseError
from foundation.clock import Clock
from foundation.counts import Counts
from foundation.crypto import DerivedKeyHasher, Envelopes
from foundation.logs import event
from foundation.money import nano
from gateway.aliases import Aliases
from gateway.destinations import Destinations
from gateway.model_rules import ModelRules
from gateway.router import Router
from metrics.gauges import Gauges
from metrics.scrape import Metrics
from metrics.traces import CallTraces
from monitor.sync import WatchedKeySync
from monitor.watched_keys import WatchedKeys
from openrouter_proxy import OpenRouterProxy
from pool.connected import ConnectedAccounts
from pool.keys import PoolKeys
from pool.probe import PoolKeyProbe
from replicas.processes import GatewayProcess
from replicas.refusals import Refusals
from replicas.repeating import repeat
from replicas.revisions import RevisionWatcher
from start_up import FirstSteps, open_if_there, told_in_one_line, unstored_upstreams
from upstream.dial import GuardedDial, HttpProxy, dial_directly
from upstream.http import UpstreamHttp
from upstream.openrouter.account_api import AccountApi
from upstream.openrouter.catalogue import Catalogue
from upstream.openrouter.generation_records import GenerationRecords
from upstream.openrouter.video_jobs import VideoJobs
from upstream.registry import Upstreams

log = logging.getLogger("services")

WATCH_SECONDS = 1.0
REPORT_EVERY = 5  # watches
WRITERS = {"keep-fresh", "usage-drain", "traces"}
STOP_SECONDS = 3.0  # for each of them to end; longer only if the database hangs


class Services:
    """What routes and the proxy work with, connected; of a database that is away, shut.

    `start` begins the background threads, in the process that serves.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = Clock()
        self.db, self._envelopes = open_if_there(config)
        self.counts = self.db.counts = Counts()
        self._upstream, self.upstreams = _upstreams(config, self.db, self._envelopes, self.clock)
        self._make_pool()
        self.first_steps = FirstSteps(
            config,
            self.db,
            self._envelopes,
            self.clock,
            self.users,
            self.sessions,
            self.pool_keys,
            self.upstreams,
            rehearse,
            self.key_derivation.know_domain,
        )
        self.first_steps.begin()
        self._make_billing()
        self._make_accounts()
        self._make_proxy()
        self._make_bell()
        self.started = False
        self._writes = Refusals("report")
        self._start_lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def _make_pool(self) -> None:
        config, db, clock = self.config, self.db, self.clock
        self._hasher = _hasher(config)
        self.key_derivation = KeyDeriver(self._hasher, config.kdf_domain)
        self.users = Users(db, None, clock)
        self.sessions = UserSessions(
            db, clock, timedelta(hours=config.jwt_expiration_hours), timedelta(days=config.refresh_token_days)
        )
        self.pool_keys = PoolKeys(db, self._envelopes, clock)
        self.pool = _pool(config, self.users, self.pool_keys, clock)
        self.probe = PoolKeyProbe(self.pool.verdicts, self.pool_keys, self._upstream)
        self.accounts = ConnectedAccounts(db, self.pool_keys, clock, AccountApi(self._upstream, config))

    def _make_billing(self) -> None:
        config, db, clock = self.config, self.db, self.clock
        self.process = GatewayProcess(db, clock)
        self.journal = UsageJournal(config.data_dir / "journal", self.process.id)
        self.journal.check()
        self.quotas = Quotas(db, clock, config)
        credit_nano = nano(config.credit_without_database_usd) or 0
        self.quota_slices = QuotaSlices(db, self.process.id, self.quotas, clock, credit_nano)
        self.rate_limits = RateLimits(config, clock)
        self._counts_byok = config.quota_counts_byok == "on"
        self.ledger = UsageLedger(db, clock, self._counts_byok)
        self.refused_calls = RefusedCalls(db, self.journal, clock, self.counts)
        self.drain = UsageDrain(db, self.journal, self.ledger, self.quota_slices)
        self.catalogue = Catalogue(self._upstream, clock)
        self.prices = ModelPrices(self._upstream, config.data_dir, self.catalogue)
        self.forecasts = CostForecasts(db, self.prices)
        self.records = GenerationRecords(self.pool_keys.authorizations, self._upstream)
        self.videos = VideoJobs(self.pool_keys.authorizations, self._upstream)
        self.costs = CostLookup(db, self.ledger, self.records, self.videos, clock)
        self.usage = UsageStats(db, clock)
        self.usage_log = UsageLog(db, clock)
        self.audit = AuditLog(db, clock)
        self.retention = LogRetention(
            db,
            clock,
            config.log_retention_days,
            config.hourly_sums_days,
            config.daily_sums_days,
            partial(self.audit.delete_old, config.audit_log_days) if config.audit_log_days else None,
        )

    def _make_accounts(self) -> None:
        config, db, clock = self.config, self.db, self.clock
        hasher, signing = self._hasher, SigningKeys(config.signing_keys)
        self.reads = AuditSums(self.audit)
        may_cache = config.response_cache_seconds > 0
        self.client_keys = ClientKeys(db, clock, config.max_client_keys_per_user, self.quota_slices.reload, may_cache)
        self.api_tokens = ApiTokens(db, clock)
        self.operator_tokens = OperatorTokens(db, clock)
        self.teams = Teams(db, clock, self.client_keys, self.quota_slices.reload, end_members_quota)
        self.everything = Everything(db, clock, self.sessions, self.client_keys, self.api_tokens)
        self.leaving = Leaving(db, clock, self.users, self.everything, self.accounts.drop)
        live, refused = (self.client_keys.live, self.api_tokens.live), RefusedLogIns(self.audit, self.counts)
        codes, links = RecoveryCodes(db, clock), ResetLinks(db, clock)
        self.one_time_states = OneTimeStates(db, self._envelopes, clock)
        self.passkeys = Passkeys(db, clock, self.one_time_states, find_relying_party(config.public_url), refused)
        self.second_factors = SecondFactors(db, self._envelopes, clock, codes, self.passkeys, refused)
        doors = self.users, self.sessions, hasher, signing, clock
        self.auth = Auth(*doors, *live, refused, self.second_factors, self.teams)
        self.step_up = StepUp(self.users, self.sessions, hasher, self.second_factors, refused)
        self.auth.trusts_uninformed = config.credit_without_database_usd > 0
        self.recovery = Recovery(self.users, self.sessions, hasher, codes, links, refused, self.second_factors)
        self.invitations = Invitations(db, clock)
        mode = RegistrationMode(config.registration_mode)
        self.registration = Registration(mode, self.invitations, partial(give_quota, config))
        self.sign_on = SingleSignOn(
            _providers(config, clock),
            config.public_url,
            self.one_time_states,
            ProviderIdentities(db, clock),
            self.users,
            self.step_up,
            self.registration,
        )
        self.addresses = ClientAddresses(config.trusted_proxies, config.admin_addresses)
        self.favourite_models = FavouriteModels(db)
        watched_keys = WatchedKeys(db, self._envelopes, clock, config)
        self.watched_key_sync = WatchedKeySync(watched_keys, self._upstream)

    def _make_proxy(self) -> None:
        config, clock = self.config, self.clock
        destinations = Destinations(self.pool, self._upstream, self.prices, self.upstreams, clock, config)
        calls = CallCounts(self.counts, are_wanted=config.metrics_token is not None)
        meter = UsageMeter(self.journal, self.quota_slices, self.forecasts, calls, self._counts_byok)
        self.aliases = Aliases(self.db, clock)
        self.model_rules = ModelRules(self.db, clock, config.max_timeout_seconds)
        router = Router(destinations, self.aliases, self.model_rules, self.forecasts)
        self.proxy = OpenRouterProxy(destinations, router, meter, config, self.drain.wait)
        self.watcher = RevisionWatcher(self.db, clock)
        self.watcher.watch("users", self.users.reload)
        self.watcher.watch("user_sessions", self.sessions.reload)
        self.watcher.watch("client_keys", self.client_keys.live.reload)
        self.watcher.watch("api_tokens", self.api_tokens.live.reload)
        self.watcher.watch("operator_tokens", self.operator_tokens.live.reload)
        self.watcher.watch("api_keys", self.pool.reload)
        self.watcher.watch("quotas", self.quota_slices.reload)
        self.watcher.watch("teams", self.teams.reload)
        self.watcher.watch("upstreams", self.proxy.destinations.reload)
        self.watcher.watch("model_aliases", self.aliases.reload)
        self.watcher.watch("model_rules", self.model_rules.reload)
        gauges = Gauges(
            self.pool, config, destinations, self.journal, self.drain, self.quota_slices, self.watcher, clock
        )
        self.traces = CallTraces(config)
        self.proxy.ended = self.traces.ended
        self.metrics = Metrics(config.data_dir / "metrics", self.counts, calls, gauges)

    def _make_bell(self) -> None:
        config, db, clock = self.config, self.db, self.clock
        look = partial(Facts, db, clock, config, self.pool_keys, self.quotas, self.audit)
        self.bell = Bell(config, db, clock, self.upstreams.guard, Host(self.journal, self.drain, clock), look)

    def start(self) -> None:
        """Fill the copies in memory and keep them fresh. Calls after the first do nothing."""
        with self._start_lock:
            if self.started:
                return
            self.journal.open()
            if self.config.metrics_token:
                self.metrics.start()
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
            "cost-forecasts": self.forecasts.run,
            "log-retention": self.retention.run,
            "watched-keys": self.watched_key_sync.run,
            **self.bell.background(),
            **({"metrics": self.metrics.run} if self.config.metrics_token else {}),
            **self.traces.background(),
        }

    def _keep_fresh(self, stopping: threading.Event) -> None:
        turns = itertools.count(1)

        def freshen() -> None:
            self.refused_calls.write_rows()
            self.proxy.cache.drop_old()
            self._look()
            if next(turns) % REPORT_EVERY == 0 or self.db.refusal:
                try:
                    self._writes.watch(self.report)  # a real write, of this process's own row
                finally:
                    self.db.refusal = self._writes.reason

        repeat(freshen, WATCH_SECONDS, stopping)

    def _look(self) -> None:
        """Look what has changed in the database; at first, whether it is there."""
        self.first_steps.try_again()
        self.watcher.check()
        self.clock.tell()
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
        self.process.beat(self.watcher.seen("api_keys"), self._told())

    def _told(self) -> dict[str, dict[str, Any]]:
        told = self.pool.report() | self.proxy.destinations.report()
        return told | self.addresses.report() | self.bell.report()

    def _write_counts(self, with_all: bool = False) -> None:
        self.pool.write_counts()
        self.client_keys.live.write_uses()
        self.api_tokens.live.write_uses()
        self.operator_tokens.live.write_uses()
        self.auth.refused.sums.write(with_all)
        self.reads.write(with_all)
        self.refused_calls.write_sums()

    def stop(self) -> None:
        """Write what is still in memory. Called at exit, when no call is running any more; once is enough."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.proxy.destinations.close()
        for thread in self._threads:
            if thread.name in WRITERS:  # or what it has just begun to write would come after our last words
                thread.join(STOP_SECONDS)
        try:
            self._write_counts(with_all=True)
        except DatabaseError as error:
            event(log, "counts_lost", logging.WARNING, error=type(error).__name__)
        self.refused_calls.write_rows()
        self.metrics.write()
        try:
            if self.started:
                self.drain.finish()
            self.process.leave()
        except (DatabaseError, OSError) as error:
            event(log, "journal_left_behind", logging.WARNING, error=type(error).__name__)


@told_in_one_line()
def build(config: Config) -> Services:
    """All services. Raises CannotStart."""
    return Services(config)


def _pool(config: Config, users: Users, pool_keys: PoolKeys, clock: Clock) -> ApiKeyManager:
    most = _each_worker(config.key_max_in_flight, config)
    return ApiKeyManager(pool_keys, clock, most, users.upstream_choice, all_have_own=config.dedicated_keys == "on")


def _providers(config: Config, clock: Clock) -> dict[str, IdentityProvider]:
    """None without PUBLIC_URL, to which they send people back."""
    if not config.public_url:
        return {}
    from accounts.sign_on.providers import configured_providers  # here: it takes a tenth of a second and 6 MB

    return configured_providers(config, clock)


def _upstreams(config: Config, db: Database, envelopes: Envelopes, clock: Clock) -> tuple[UpstreamHttp, Upstreams]:
    """OpenRouter, and the others; each with how connections are made to it."""
    proxy = HttpProxy(config.outbound_proxy.get_secret_value()) if config.outbound_proxy else None
    dial = proxy.dial if proxy else dial_directly
    openrouter = UpstreamHttp(config.openrouter_api_url, config.upstream_connect_timeout_seconds, dial=dial)
    others = Upstreams(db, envelopes, clock, GuardedDial(config.allow_private_upstreams, proxy))
    return openrouter, others


def _hasher(config: Config) -> DerivedKeyHasher:
    """Log-ins that wait leave threads for everything else."""
    return DerivedKeyHasher(_each_worker(len(os.sched_getaffinity(0)), config), min(32, config.server_threads // 4))


def _each_worker(amount: int, config: Config) -> int:
    """A worker's share: each counts for itself. Together they keep to the amount, unless it is less than they are."""
    return amount and max(1, amount // config.server_workers)
