"""What a start does to the database: its key is checked, its schema brought up to date, the environment taken in.

A gateway whose database is away at its start does the same as soon as it answers; until then it serves nobody, or from
the environment alone (services.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from accounts.sessions import UserSessions
from accounts.users import Users
from config.database_tls import is_unverified
from config.settings import Config
from db import Database, DatabaseError, UnknownSchema, database_url, is_away
from foundation import json_text
from foundation.clock import Clock
from foundation.crypto import Envelopes, SealBroken, sha256_hex
from foundation.errors import BadRequest, Conflict
from foundation.logs import event, redact
from pool.keys import KeyAlreadyKnown, PoolKeys
from pool.life import PoolKeySource
from replicas.revisions import WARN_SECONDS
from upstream.dial import GuardedDial
from upstream.registry import Upstream, Upstreams, UpstreamTerms, check_key
from vault import sealed

log = logging.getLogger("services")

# Of installations that had accounts before each had a domain of its own: their keys are derived with it.
SHARED_DOMAIN = "openrouter-proxy-access-key-v1"
OWN_DOMAIN_PREFIX = "openrouter-proxy-"
TOO_MUCH_SKEW_SECONDS = 3600.0

Rehearsal = Callable[[Database, Clock], None]
"""Tries what accounting asks of the database. Raises CannotStart, DatabaseError."""


class CannotStart(Exception):
    """Why the program can't start, in one line."""


class DatabaseAway(CannotStart):
    """There is no connection to the database; nothing else is known to be wrong."""


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Raise CannotStart for what can be wrong with the surroundings."""
    try:
        yield
    except SealBroken as error:
        raise CannotStart(f"{error}. Was it sealed with another ENCRYPTION_KEY? Nothing was written.") from None
    except (UnknownSchema, TimeoutError) as error:
        raise CannotStart(str(error)) from None
    except OSError as error:
        raise CannotStart(f"DATA_DIR can't be used ({error.strerror}: {error.filename})") from None
    except DatabaseError as error:
        kind = DatabaseAway if is_away(error) else CannotStart
        reason = redact(str(error).partition("\n")[0])
        raise kind(f"{what_database_does(error)} ({reason})") from None


def what_database_does(error: DatabaseError) -> str:
    """It does not answer, or it answers that it won't: not the same to whoever looks for the cause."""
    return "the database does not answer" if is_away(error) else "the database refuses"


@told_in_one_line()
def open_database(config: Config) -> tuple[Database, Envelopes]:
    """The database at this version's schema, and what opens its ciphertexts.

    Raises CannotStart; before anything is written if ENCRYPTION_KEY is not the one of this database.
    """
    db, envelopes = _connect(config)
    _prepare(db, envelopes)
    return db, envelopes


@told_in_one_line()
def open_if_there(config: Config) -> tuple[Database, Envelopes]:
    """As open_database, but a database that is away comes shut."""
    db, envelopes = _connect(config)
    try:
        _prepare(db, envelopes)
    except DatabaseError as error:
        if not is_away(error):
            raise
        db.is_shut = True
    return db, envelopes


def _connect(config: Config) -> tuple[Database, Envelopes]:
    if is_unverified(config):
        event(log, "database_unverified", logging.WARNING, missing="DB_SSL_CA")
    if database_url(config).drivername == "sqlite":
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Database(database_url(config)), Envelopes(config.encryption_keys)


def _prepare(db: Database, envelopes: Envelopes) -> None:
    sealed.check_canary(db, envelopes)
    if not db.is_current():
        db.upgrade()


@told_in_one_line()
def set_clock(db: Database, clock: Clock) -> None:
    """Go by the database's time. Raises CannotStart if this host's is so far from it that one of them must be wrong."""
    db.set_clock(clock)
    skew = clock.skew_seconds
    if abs(skew) > TOO_MUCH_SKEW_SECONDS:
        ahead = f"{abs(skew) / 3600:.1f} h {'ahead of' if skew > 0 else 'behind'} the database's"
        raise CannotStart(f"this host's clock is {ahead} ({clock.now():%Y-%m-%d %H:%M} UTC); set whichever is wrong")


@dataclass
class FirstSteps:
    """What is to be done in an open database before this process works with it."""

    config: Config
    db: Database
    envelopes: Envelopes
    clock: Clock
    users: Users
    sessions: UserSessions
    pool_keys: PoolKeys
    upstreams: Upstreams
    rehearse: Rehearsal
    know_domain: Callable[[str], object]
    are_done: bool = False
    _complain_at: float = 0.0

    def begin(self) -> None:
        """At the start: do them, or look whether what the environment says can be done later. Raises CannotStart."""
        if self.db.is_shut:
            listed_upstreams(self.upstreams, self.config)
        else:
            self.take()

    def try_again(self) -> None:
        """Do what was left undone because the database was away. That it refuses something is told now and then."""
        if self.are_done:
            return
        try:
            self.take()
        except DatabaseAway:
            pass  # whoever watches the database says so
        except CannotStart as error:
            if self.clock.monotonic() >= self._complain_at:
                self._complain_at = self.clock.monotonic() + WARN_SECONDS
                event(log, "database_refused", logging.ERROR, reason=str(error))

    @told_in_one_line()
    def take(self) -> None:
        """Do them; a shut database is opened first. What was done does no harm again. Raises CannotStart."""
        if self.db.is_shut:
            self._open()
        set_clock(self.db, self.clock)
        self.rehearse(self.db, self.clock)
        self.users.know_username_key(self._key(sealed.USERNAME_KEY))
        self.sessions.know_refresh_key(self._key(sealed.REFRESH_KEY))
        self.know_domain(self.config.kdf_domain or self._domain())
        import_keys(self.pool_keys, self.config)
        import_upstreams(self.upstreams, self.config)
        self.are_done = True

    def _key(self, name: str) -> bytes:
        return sealed.open_deployment_key(self.db, self.envelopes, name, self.clock.now())

    def _domain(self) -> str:
        """This installation's own, random and made once; the shared one where accounts are older than that."""
        had_accounts = self.users.are_there_any()  # asked first: another process may make the key, and then an account
        found = sealed.find_deployment_key(self.db, self.envelopes, sealed.DOMAIN_KEY)
        if found is None and had_accounts:
            return SHARED_DOMAIN
        return OWN_DOMAIN_PREFIX + (found or self._key(sealed.DOMAIN_KEY)).hex()[:32]

    def _open(self) -> None:
        other = self.db.another()  # the shut one lets nobody in meanwhile, and be it for a migration of hours
        try:
            _prepare(other, self.envelopes)
        finally:
            other.close()
        self.db.is_shut = False


def prepare(config: Config, rehearse: Rehearsal) -> None:
    """Do what a start does to the database, if it is there, and leave it. Raises CannotStart."""
    db, envelopes = open_if_there(config)
    clock = Clock()
    life = timedelta(hours=config.jwt_expiration_hours), timedelta(days=config.refresh_token_days)
    users, sessions, pool_keys = Users(db, None, clock), UserSessions(db, clock, *life), PoolKeys(db, envelopes, clock)
    upstreams = Upstreams(db, envelopes, clock, GuardedDial(config.allow_private_upstreams))
    try:
        FirstSteps(config, db, envelopes, clock, users, sessions, pool_keys, upstreams, rehearse, str).begin()
    finally:
        db.close()


def import_keys(pool_keys: PoolKeys, config: Config) -> None:
    """Put the keys of OPENROUTER_API_KEYS into the pool; those that it has, or once had, are left as they are."""
    known = {row.api_key_hash for row in pool_keys.rows()} if config.openrouter_api_keys else set()
    for secret in config.openrouter_api_keys:
        text = secret.get_secret_value()
        if sha256_hex(text) in known:
            continue
        try:
            pool_keys.add(text, f"env/{sha256_hex(text)[:12]}", PoolKeySource.ENVIRONMENT)
            event(log, "pool_key_imported", hash=sha256_hex(text)[:12])
        except KeyAlreadyKnown:
            pass  # another process was first


def import_upstreams(upstreams: Upstreams, config: Config) -> None:
    """Put the upstreams of UPSTREAMS into the database while it has none. Raises CannotStart."""
    if not config.upstreams or upstreams.rows():
        return
    try:
        count = upstreams.add_if_none(listed_upstreams(upstreams, config))
    except Conflict as error:
        raise CannotStart(f"UPSTREAMS: {error.message}") from None
    if count:
        event(log, "upstreams_imported", count=count)


def listed_upstreams(upstreams: Upstreams, config: Config) -> list[tuple[UpstreamTerms, str | None]]:
    """The upstreams of UPSTREAMS, checked, each with its key. Raises CannotStart."""
    text = config.upstreams.get_secret_value() if config.upstreams else "[]"
    checked = []
    for number, item in enumerate(json_text.parse(text.encode()), 1):
        try:
            api_key = item.pop("api_key", None)
            check_key(api_key)
            checked.append((upstreams.check(item), api_key))
        except BadRequest as error:
            raise CannotStart(f"UPSTREAMS, item {number}: {error.message}") from None
    return checked


def unstored_upstreams(upstreams: Upstreams, config: Config, clock: Clock) -> tuple[list[Upstream], dict[int, Any]]:
    """The upstreams of UPSTREAMS as rows, with ids below 0 because nobody has stored them, and their keys.

    Raises CannotStart.
    """
    listed, now = listed_upstreams(upstreams, config), clock.now()
    rows = [Upstream(-number, terms, None, now, now) for number, (terms, _) in enumerate(listed, 1)]
    return rows, {row.id: api_key for row, (_, api_key) in zip(rows, listed, strict=True)}
