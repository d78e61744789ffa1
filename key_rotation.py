"""The background service that keeps the pool full of fresh OpenRouter keys: mint, switch, drain, delete.

    python key_rotation.py            for ever, a pass a minute
    python key_rotation.py --once     one pass, then exit: 0 if the pool is full
    python key_rotation.py --status   what the pool holds

Only this program has the management key. Each key is minted in steps that a crash may interrupt at any point: the
intent is stored before OpenRouter is asked, the text before the key is used, and an intent whose answer was lost is
looked up by its name and deleted. A lost key could in any case spend no more than its limit and not outlive its expiry.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from datetime import timedelta

import orjson
from rich.console import Console
from rich.table import Table

import config
import logs
from api_key_manager import EXPIRY_MARGIN
from clock import Clock
from config import Config, ConfigError
from crypto import SealBroken, new_id
from db import DatabaseError
from logs import event
from management_api import ManagementApi, ManagementError
from pool_keys import KeyRow, KeySource, KeyState, PoolKeys
from services import CannotStart, open_database

log = logging.getLogger("rotation")

PASS_SECONDS = 60.0
# An intent younger than this may still be on its way: longer than the API's time-out and any error of the clocks.
INTENT_MIN_AGE = timedelta(minutes=5)
CONFIRM_PAUSES_SECONDS = (0.5, 1, 2, 0)
# A replaced key finishes what it carries before it is deleted.
DRAIN = timedelta(hours=2)


class KeyRotation:
    """One pass at a time over the pool's rows. The log gets a line about each step."""

    def __init__(self, pool: PoolKeys, api: ManagementApi, settings: Config, clock: Clock) -> None:
        self._pool = pool
        self._api = api
        self._settings = settings
        self._clock = clock
        self._prefix = f"gw/{settings.deployment_id}/"

    def run_once(self) -> bool:
        """Settle what a crash left, fill the pool, let replaced keys go. True if the pool is full afterwards.

        Raises ManagementError; what was done until then stays done, and the next pass goes on from there.
        """
        self._settle_stored()
        for _ in range(self._settings.pool_size):  # and not until it is full: keys that are due at once would never be
            if len(self._fresh()) >= self._settings.pool_size:
                break
            self._mint()
        self._settle_intents()
        self._drain_replaced()
        self._delete_drained()
        return len(self._fresh()) >= self._settings.pool_size

    def _rows(self, *states: KeyState) -> list[KeyRow]:
        return [row for row in self._pool.rows() if row.state in states]

    def _fresh(self) -> list[KeyRow]:
        """Keys that are usable and not due for renewal. Those that people brought are never due."""
        now = self._clock.now()
        born_after = now - timedelta(hours=self._settings.key_rotation_interval_hours)
        rows = [row for row in self._rows(KeyState.ACTIVE) if row.enabled]
        rows = [row for row in rows if row.expires_at is None or row.expires_at > now + EXPIRY_MARGIN]
        return [row for row in rows if row.source is not KeySource.MINTED or row.created_at > born_after]

    def _settle_intents(self) -> None:
        """An intent without a stored key: its create was lost. The secret is nobody's, so the key has to go."""
        old = self._clock.now() - INTENT_MIN_AGE
        lost = [row for row in self._rows(KeyState.INTENT) if row.created_at < old]
        remote = {k.name: k.hash for k in self._api.list_keys()} if lost else {}
        for row in lost:
            if row.name in remote:
                self._api.delete(remote[row.name])
            self._pool.move(row.id, KeyState.ABANDONED)
            event(log, "key_abandoned", key=row.name, existed=row.name in remote)

    def _mint(self) -> None:
        reset = self._settings.key_limit_reset
        expires_at = self._clock.now() + timedelta(hours=self._settings.key_lifetime_hours)
        name = self._prefix + new_id()
        row_id = self._pool.intend(name, expires_at, None, None)
        text = self._api.create(name, self._settings.key_limit_usd, None if reset == "none" else reset, expires_at)
        self._pool.store(row_id, text)
        event(log, "key_minted", key=name, expires_at=expires_at.isoformat(timespec="seconds"))
        # OpenRouter may take a moment to know its own new key everywhere.
        for pause in CONFIRM_PAUSES_SECONDS:
            if self._activate(row_id, name):
                return
            time.sleep(pause)
        raise ManagementError("GET /key with a key just minted", 401)

    def _activate(self, row_id: int, name: str) -> bool:
        """Use a stored key once OpenRouter has confirmed it; False if it refuses the key."""
        if not self._api.ask(self._pool.text(row_id)):
            return False
        self._pool.switch(row_id, self._clock.now(), None)
        event(log, "key_active", key=name, usable=f"{len(self._fresh())}/{self._settings.pool_size}")
        return True

    def _settle_stored(self) -> None:
        """Finish what was minted but not confirmed. A key that is still refused after minutes is given up."""
        old = self._clock.now() - INTENT_MIN_AGE
        for row in self._rows(KeyState.STORED):
            try:
                if not self._activate(row.id, row.name) and row.created_at < old:
                    self._api.delete(row.api_key_hash or "")
                    self._pool.move(row.id, KeyState.ABANDONED)
                    event(log, "key_refused", logging.WARNING, key=row.name)
            except SealBroken as error:  # left alone, as evidence; it must not keep the pool from being filled
                event(log, "key_unreadable", logging.ERROR, key=row.name, reason=str(error))

    def _drain_replaced(self) -> None:
        """Stop picking keys that are due or about to expire, now that fresh ones stand in their place."""
        fresh = {row.id for row in self._fresh()}
        for row in self._rows(KeyState.ACTIVE):
            if row.source is KeySource.MINTED and row.enabled and row.id not in fresh:
                self._pool.move(row.id, KeyState.DRAINING)
                event(log, "key_draining", key=row.name)

    def _delete_drained(self) -> None:
        drained_before = self._clock.now() - DRAIN
        for row in self._rows(KeyState.DRAINING):
            if row.updated_at < drained_before and row.api_key_hash:
                self._api.delete(row.api_key_hash)
                self._pool.move(row.id, KeyState.DELETED)
                event(log, "key_deleted", key=row.name)


def show_status(pool: PoolKeys) -> None:
    """Print one line a state: how many keys, and when the first of them expires."""
    rows = pool.rows()
    lines = []
    for state in KeyState:
        of_state = [row for row in rows if row.state is state]
        expiries = [row.expires_at for row in of_state if row.expires_at]
        first = min(expiries).isoformat(timespec="seconds") if expiries else None
        lines.append({"state": state.value, "keys": len(of_state), "first_expires_at": first})
    if not sys.stdout.isatty():
        sys.stdout.writelines(orjson.dumps(line).decode() + "\n" for line in lines)
        return
    table = Table("state", "keys", "first expires at", title="Key pool")
    for line in lines:
        table.add_row(*("" if value is None else str(value) for value in line.values()))
    Console().print(table)


def run_for_ever(rotation: KeyRotation) -> None:
    """A pass a minute until SIGTERM or SIGINT, which let the running pass finish."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.is_set():
        try:
            rotation.run_once()
        except (ManagementError, DatabaseError) as error:
            event(log, "pass_failed", logging.ERROR, reason=_first_line(error))
        except Exception:  # this service must outlive any single fault
            log.exception("background_fault")
        stopping.wait(PASS_SECONDS)


def _first_line(error: Exception) -> str:
    return logs.redact(str(error).partition("\n")[0])


def main() -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Keeps the pool full of fresh OpenRouter keys.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="run one pass and exit")
    how.add_argument("--status", action="store_true", help="print what the pool holds and exit")
    arguments = parser.parse_args()
    required = () if arguments.status else ("OPENROUTER_PROVISION_KEY", "DEPLOYMENT_ID")
    try:
        settings = config.load(required=required)
        logs.set_up(settings.effective_log_level, settings.production, settings.secret_values())
        db, envelopes = open_database(settings)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except CannotStart as error:
        sys.stderr.write(f"Cannot start: {error}\n")
        return 1
    clock = Clock()
    pool = PoolKeys(db, envelopes, clock)
    if arguments.status:
        show_status(pool)
        return 0
    assert settings.openrouter_provision_key is not None  # noqa: S101 - `required` above
    api = ManagementApi(settings.openrouter_api_url, settings.openrouter_provision_key.get_secret_value())
    rotation = KeyRotation(pool, api, settings, clock)
    if not arguments.once:
        run_for_ever(rotation)
        return 0
    try:
        return 0 if rotation.run_once() else 1
    except (ManagementError, DatabaseError) as error:
        sys.stderr.write(f"{_first_line(error)}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
