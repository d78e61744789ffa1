"""Every long-lived object, made once, in order: the spine of the program on one screen."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.util import Finalize

import sealed_secrets
from api_key_manager import ApiKeyManager
from auth import Auth
from clock import Clock
from config import Config
from crypto import Envelopes, KeyHasher, SealBroken, sha256_hex
from db import Database, DatabaseClock, DatabaseError, UnknownSchema, database_url
from gateway_processes import GatewayProcess
from key_probe import KeyProbe
from logs import event, redact
from openrouter_proxy import OpenRouterProxy
from pool_keys import KeyAlreadyKnown, KeySource, PoolKeys
from revisions import RevisionWatcher
from upstream_http import UpstreamHttp
from user_sessions import UserSessions
from users import Users

log = logging.getLogger("services")

WATCH_SECONDS = 1.0
REPORT_EVERY = 5  # watches
STOP_SECONDS = 3.0  # for the background thread to end; longer only if the database hangs


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
    proxy: OpenRouterProxy
    watcher: RevisionWatcher
    process: GatewayProcess
    probe: KeyProbe
    started: bool = False
    _start_lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Fill the copies in memory and keep them fresh. Calls after the first do nothing."""
        with self._start_lock:
            if self.started:
                return
            self.watcher.check()
            with suppress(DatabaseError):  # the watcher has said so; the next report comes in seconds
                self.report()  # before the first call, so that the rotation counts with this process
            self._thread = threading.Thread(target=self._keep_fresh, name="keep-fresh", daemon=True)
            self._thread.start()
            threading.Thread(target=self.probe.run, args=(self._stopping,), name="key-probe", daemon=True).start()
            # atexit is not run in a worker that granian has forked; multiprocessing's finalizers run in both.
            Finalize(None, self.stop, exitpriority=0)
            self.started = True

    def _keep_fresh(self) -> None:
        turn = 0
        server = multiprocessing.parent_process()  # granian's; gunicorn watches its workers' parent itself
        while not self._stopping.wait(WATCH_SECONDS):
            if server and not server.is_alive():
                event(log, "server_lost", logging.ERROR)
                os.kill(os.getpid(), signal.SIGTERM)  # an orphaned worker would hold the port against its successor
            turn += 1
            try:
                self.watcher.check()
                if turn % REPORT_EVERY == 0:
                    self.report()
            except DatabaseError:
                pass  # the watcher has said so; the counts wait in memory
            except Exception:  # this thread must outlive any single fault
                log.exception("background_fault")

    def report(self) -> None:
        """Write down what this process has counted, and which keys carry its calls. Raises DatabaseError."""
        self.pool.write_counts()
        self.process.beat(self.watcher.seen("api_keys"), self.pool.report())

    def stop(self) -> None:
        """Write what is still in memory. Called at exit, when no call is running any more; once is enough."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread:  # or a report that it has just begun would come after our leave
            self._thread.join(STOP_SECONDS)
        try:
            self.pool.write_counts()
            self.process.leave()
        except DatabaseError as error:
            event(log, "counts_lost", logging.WARNING, error=type(error).__name__)


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
    # Each worker counts for itself: together they keep to the setting, unless it is smaller than their number.
    key_max_in_flight = config.key_max_in_flight and max(1, config.key_max_in_flight // config.server_workers)
    pool = ApiKeyManager(keys, clock, max_in_flight=key_max_in_flight)
    import_keys(keys, config)

    hasher = KeyHasher(permits=max(1, len(os.sched_getaffinity(0)) // config.server_workers))
    auth = Auth(
        users=users,
        sessions=sessions,
        hasher=hasher,
        secret_key=config.secret_key.get_secret_value(),
        access_life=access_life,
        clock=clock,
    )
    upstream = UpstreamHttp(config.openrouter_api_url, config.upstream_connect_timeout_seconds)
    proxy = OpenRouterProxy(pool, upstream, config)

    watcher = RevisionWatcher(db)
    watcher.watch("users", users.reload)
    watcher.watch("user_sessions", sessions.reload)
    watcher.watch("api_keys", pool.reload)
    process, probe = GatewayProcess(db, DatabaseClock(db)), KeyProbe(pool, keys, upstream)
    return Services(config, clock, db, users, sessions, keys, pool, auth, proxy, watcher, process, probe)


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
