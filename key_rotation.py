"""The background service that keeps the pool full of fresh OpenRouter keys: mint, switch, drain, disable, delete.

    python key_rotation.py              for ever, a pass a minute
    python key_rotation.py --once       one pass, then exit: 0 if the pool is full
    python key_rotation.py --dry-run    what a pass would do
    python key_rotation.py --now NAME   renew this key at once
    python key_rotation.py --status     what the pool holds; exits with 0 if it is full
    python key_rotation.py --claim      make a copied database this deployment's own

Only this program has the management key. Each pass compares the rows with OpenRouter's list of keys (rotation_plan.py)
and does what is missing, step by step. A crash between any two steps leaves something that the next pass finds. What
can be lost in the worst case, a key whose text nobody has, could spend no more than its limit and not outlive its
expiry; it is found by its name and deleted.
"""

from __future__ import annotations

import argparse
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from rich.console import Console
from rich.progress import track

import config_sources
import gateway_processes
import logs
import sealed_secrets
from clock import Clock
from config import Config
from config_sources import ConfigError
from crypto import Envelopes, SealBroken, new_id, sha256_hex
from db import Database, DatabaseClock, DatabaseError
from errors import AppError
from logs import event
from management_api import ManagementApi, ManagementError
from money import nano
from pool_keys import KeyAlreadyKnown, KeyRow, KeyState, MoveRefused, PoolKeys
from remote_keys import KeyAccount, RemoteKey
from rotation_lease import LeaseLost, RotationLease, WrongDeployment
from rotation_plan import Do, Situation, Step, Timing, plan
from services import CannotStart, open_database
from terminal import show

log = logging.getLogger("rotation")

PASS_SECONDS = 60.0
OUR_NAME = re.compile(r"[0-9a-f]{32}")  # after the prefix: new_id()
MAX_FAILED_STEPS = 3  # of a pass: then OpenRouter is not well, and the next pass tidies up


class KeyRotation:
    """Passes over the pool's rows and OpenRouter's keys. The log gets a line about each step."""

    def __init__(
        self,
        db: Database,
        envelopes: Envelopes,
        api: ManagementApi,
        settings: Config,
        clock: Clock,
        timing: Timing | None = None,
        progress: Callable[[Sequence[Step]], Iterable[Step]] = iter,
    ) -> None:
        self._db = db
        self._envelopes = envelopes
        self._api = api
        self._settings = settings
        self._clock = clock
        self._timing = timing or Timing()
        self._progress = progress
        self._lease = RotationLease(db, clock, settings.deployment_id)
        self.keys = PoolKeys(db, envelopes, clock, self._lease.guard)
        self._unguarded = PoolKeys(db, envelopes, clock)
        self._prefix = f"gw/{settings.deployment_id}/"
        self._do: dict[Do, Callable[[Step], None]] = {
            Do.TAKE_IN: self._take_in,
            Do.ABANDON: self._abandon,
            Do.SWEEP: self._sweep,
            Do.CHECK_MISSING: self._check_missing,
            Do.QUARANTINE: self._quarantine,
            Do.FORGET: self._forget,
            Do.ACTIVATE: self._activate,
            Do.DRAIN: self._drain,
            Do.DISABLE: self._disable,
            Do.DELETE: self._delete,
            Do.MINT: self._mint,
        }

    def run_once(self) -> bool:
        """One pass, unless another process is rotating. True if the pool is full afterwards.

        Raises ManagementError: nothing is done if OpenRouter's keys can't be listed; else what could be done is done.
        Raises WrongDeployment, LeaseLost and SealBroken.
        """
        if not self._lease.take():
            event(log, "another_process_rotates")
            return self.is_full()
        try:
            situation = self.situation()
            self._note_limits(situation)
            steps = plan(situation)
            self._run(steps)
            if any(step.do is Do.CHECK_MISSING for step in steps):  # what turned out to be dead is replaced at once
                again = plan(self._situation(situation.remote))
                self._run([step for step in again if step.do is Do.MINT])
            gateway_processes.forget_dead(self._db, situation.now)
        finally:
            self._lease.release()
        return self.is_full()

    def renew(self, name: str) -> bool:
        """One pass that renews this key too. Raises NotFound unless it is a minted key in use; and like run_once."""
        # An operator's wish, which nobody has to be the leader for: if another process is, its next pass fulfils it.
        self._unguarded.ask_renewal(name)
        return self.run_once()

    def claim(self) -> list[str]:
        """Make the database this deployment's. The other one's minted keys are dead here; returns their names.

        Raises LeaseLost, with nothing changed, while another process rotates.
        """
        if not self._lease.take(claim=True):
            raise LeaseLost("another process rotates now; stop it first")
        try:
            return self.keys.drop_foreign(self._prefix)
        finally:
            self._lease.release()

    def is_full(self) -> bool:
        """True if as many keys are usable as POOL_SIZE asks for."""
        return len(self._situation([]).usable) >= self._settings.pool_size

    def situation(self) -> Situation:
        """The rows and OpenRouter's list, as they are now.

        Raises ManagementError, WrongDeployment, and SealBroken if it is not a row that is damaged but our key is old.
        """
        self._lease.check_deployment()
        return self._situation(self._api.list_keys())

    def _situation(self, remote: Sequence[RemoteKey]) -> Situation:
        # The list came first: a key that it has and the rows have not is not one that was just being minted.
        now = self._clock.now()
        rows = self.keys.rows()
        with_text = [row.id for row in rows if row.state in {KeyState.STORED, KeyState.ACTIVE, KeyState.DRAINING}]
        texts = self.keys.texts(with_text)
        unreadable = {row_id for row_id, text in texts.items() if isinstance(text, SealBroken)}
        if unreadable:
            # Or is it us, running on with an ENCRYPTION_KEY that was replaced? Asked after the rows were read.
            sealed_secrets.check_canary(self._db, self._envelopes)
        processes = gateway_processes.reports(self._db, now)

        def in_use(row: KeyRow) -> bool:
            return any(process.may_use(row.id, row.drain_revision or 0) for process in processes)

        return Situation(
            now=now,
            rows=rows,
            remote=remote,
            in_use=in_use,
            unreadable=unreadable,
            deletions_held_until=self._lease.deletions_held_until(),
            prefix=self._prefix,
            pool_size=self._settings.pool_size,
            renew_after=timedelta(hours=self._settings.key_rotation_interval_hours),
            timing=self._timing,
        )

    def _note_limits(self, at: Situation) -> None:
        listed = [(row, at.listed(row)) for row in at.rows if row.state is KeyState.ACTIVE]
        limits = {row.id: (key.limit_nano, key.remaining_nano) for row, key in listed if key}
        known = {row.id: (row.limit_nano, row.remaining_nano) for row in at.rows}
        self.keys.set_limits({row_id: limit for row_id, limit in limits.items() if limit != known[row_id]})

    def _run(self, steps: list[Step]) -> None:
        failed: list[ManagementError] = []
        for step in self._progress(steps):
            # Minting is tried all the same: what can't be tidied up must not empty the pool.
            if len(failed) >= MAX_FAILED_STEPS and step.do is not Do.MINT:
                continue
            try:
                self._lease.renew()
                self._do[step.do](step)
            except ManagementError as error:
                event(log, "step_failed", logging.WARNING, step=step.do, key=step.key_name, reason=str(error))
                failed.append(error)
                # Where one key can't be minted, the next can't either: each try leaves an intent to clear up.
                if step.do is Do.MINT:
                    break
            except (MoveRefused, KeyAlreadyKnown) as error:  # an operator, or this pass itself, was there first
                event(log, "step_skipped", step=step.do, key=step.key_name, reason=str(error))
            except SealBroken as error:  # left to the next pass, which puts it in quarantine
                event(log, "key_unreadable", logging.ERROR, key=step.key_name, reason=str(error))
        if failed:
            raise failed[0]

    # ── what must not be there

    def _take_in(self, step: Step) -> None:
        """A key with our name that no row knows. It stops working now; deleting it waits until people have looked."""
        key = step.known_key
        if step.row is None:
            self._lease.hold_deletions(self._clock.now() + self._timing.hold_deletions)
            self.keys.take_in_unknown(self._row_name(key), key.hash)
            held_hours = self._timing.hold_deletions / timedelta(hours=1)
            fields = {"key": key.name, "deletions_held_hours": held_hours}
            event(log, "unknown_key_found", logging.ERROR, **fields)
        self._api.disable(key.hash)
        event(log, "unknown_key_disabled", logging.WARNING, key=key.name)

    def _row_name(self, key: RemoteKey) -> str:
        # Whoever made the key could give it any name; the hash always fits a row.
        ours = OUR_NAME.fullmatch(key.name.removeprefix(self._prefix))
        return key.name if ours and key.name not in {row.name for row in self.keys.rows()} else self._prefix + key.hash

    def _abandon(self, step: Step) -> None:
        """An intent without a stored key: its create was lost. The text is nobody's, so the key has to go."""
        row = step.known_row
        if step.remote:
            self._api.delete(step.remote.hash)
        self.keys.move(row.id, KeyState.ABANDONED)
        event(log, "key_abandoned", key=row.name, existed=step.remote is not None)

    def _sweep(self, step: Step) -> None:
        self._api.delete(step.known_key.hash)
        event(log, "key_swept", logging.WARNING, key=step.known_key.name)

    def _check_missing(self, step: Step) -> None:
        """A key that is not in OpenRouter's list is dead only if OpenRouter refuses the key itself, too."""
        row = step.known_row
        if self._api.ask(self.keys.text(row.id)):
            return
        if row.state is KeyState.DRAINING:
            self._finish(row)
        else:
            self.keys.move(row.id, KeyState.DEAD)
            event(log, "key_dead", logging.WARNING, key=row.name)

    def _quarantine(self, step: Step) -> None:
        """The ciphertext stays as evidence; the key stays at OpenRouter until it expires."""
        self.keys.move(step.known_row.id, KeyState.QUARANTINED)
        event(log, "key_quarantined", logging.ERROR, key=step.known_row.name, reason="its text is damaged")

    # ── out of use

    def _drain(self, step: Step) -> None:
        self.keys.drain(step.known_row.id, self._clock.now() + self._timing.drain_grace)
        event(log, "key_draining", key=step.known_row.name)

    def _disable(self, step: Step) -> None:
        row, key = step.known_row, step.known_key
        self._api.disable(key.hash)
        self.keys.move(row.id, KeyState.DISABLED, usage_nano=key.usage_nano)
        event(log, "key_disabled", key=row.name)

    def _delete(self, step: Step) -> None:
        row, key = step.known_row, step.known_key
        self._api.delete(key.hash)
        self._finish(row)

    def _forget(self, step: Step) -> None:
        self._finish(step.known_row)

    def _finish(self, row: KeyRow) -> None:
        self.keys.move(row.id, KeyState.DELETED)
        event(log, "key_deleted", key=row.name)

    # ── into use

    def _mint(self, step: Step) -> None:
        limit, reset = self._settings.key_limit_usd, self._settings.key_limit_reset
        expires_at = self._clock.now() + timedelta(hours=self._settings.key_lifetime_hours)
        name = self._prefix + new_id()
        limit_nano = nano(limit)
        row_id = self.keys.intend(name, expires_at, limit_nano, step.row.id if step.row else None)
        text = self._api.create(name, limit, None if reset == "none" else reset, expires_at)
        self.keys.store(row_id, text)
        event(log, "key_minted", key=name, expires_at=expires_at.isoformat(timespec="seconds"))
        for pause in self._timing.confirm_pauses_seconds:
            if told := self._api.ask(text):
                self._switch(row_id, name, limit_nano, told)
                return
            time.sleep(pause)
        raise ManagementError("GET /key with a key just minted", 401)

    def _activate(self, step: Step) -> None:
        """Go on with a stored key. One that is still refused after minutes is given up."""
        row = step.known_row
        told = self._api.ask(self.keys.text(row.id))
        if told:
            self._switch(row.id, row.name, row.limit_nano, told)
        elif row.created_at <= self._clock.now() - self._timing.intent_min_age:
            self._give_up(row.id, row.name, "OpenRouter refuses it")

    def _switch(self, row_id: int, name: str, limit_nano: int | None, told: KeyAccount) -> None:
        if told.limit_nano != limit_nano:
            self._give_up(row_id, name, "its limit is not the one asked for")
            raise ManagementError("POST /keys", reason="the new key's limit is not the one asked for")
        self.keys.switch(row_id, self._clock.now() + self._timing.drain_grace, told.account_id)
        event(log, "key_active", key=name)

    def _give_up(self, row_id: int, name: str, reason: str) -> None:
        """Never used, and so deleted at once: by the hash of the text that the row holds."""
        self._lease.renew()  # else another process may have found it good in the meantime
        self._api.delete(sha256_hex(self.keys.text(row_id)))
        self.keys.move(row_id, KeyState.ABANDONED)
        event(log, "key_refused", logging.WARNING, key=name, reason=reason)


def pool_status(keys: PoolKeys) -> list[dict[str, object]]:
    """One line a state: how many keys, and when the first of them expires."""
    rows = keys.rows()
    lines: list[dict[str, object]] = []
    for state in KeyState:
        of_state = [row for row in rows if row.state is state]
        expiries = [row.expires_at for row in of_state if row.expires_at]
        first = min(expiries).isoformat(timespec="seconds") if expiries else None
        lines.append({"state": state.value, "keys": len(of_state), "first_expires_at": first})
    return lines


def show_progress(steps: Sequence[Step]) -> Iterable[Step]:
    """The same steps; on a terminal a bar grows with them, beside what the program prints."""
    if not sys.stderr.isatty():
        return steps
    return track(steps, "Rotating", transient=True, console=Console(stderr=True))


def run_for_ever(rotation: KeyRotation) -> None:
    """A pass a minute until SIGTERM or SIGINT, which let the running pass finish."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.is_set():
        try:
            rotation.run_once()
        except (ManagementError, DatabaseError, LeaseLost, WrongDeployment, SealBroken) as error:
            event(log, "pass_failed", logging.ERROR, reason=_first_line(error))
        except Exception:  # this service must outlive any single fault
            log.exception("background_fault")
        stopping.wait(PASS_SECONDS)


def _first_line(error: Exception) -> str:
    return logs.redact(str(error).partition("\n")[0])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Keeps the pool full of fresh OpenRouter keys.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="run one pass and exit: 0 if the pool is full")
    how.add_argument("--dry-run", action="store_true", help="print what a pass would do and exit")
    how.add_argument("--now", metavar="NAME", help="renew the key of this name in one pass and exit")
    how.add_argument("--status", action="store_true", help="print what the pool holds and exit: 0 if it is full")
    how.add_argument("--claim", action="store_true", help="make a copied database this deployment's own and exit")
    return parser.parse_args()


def main() -> int:
    """The command line. Returns the exit code."""
    arguments = _arguments()
    required = () if arguments.status else ("OPENROUTER_PROVISION_KEY", "DEPLOYMENT_ID")
    try:
        settings = config_sources.load(required=required)
        logs.set_up(settings.effective_log_level, settings.production, settings.secret_values())
        db, envelopes = open_database(settings)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except CannotStart as error:
        sys.stderr.write(f"Cannot start: {error}\n")
        return 1
    management_key = settings.openrouter_provision_key
    api = ManagementApi(settings.openrouter_api_url, management_key.get_secret_value() if management_key else "")
    rotation = KeyRotation(db, envelopes, api, settings, DatabaseClock(db), progress=show_progress)
    try:
        return _run(arguments, rotation)
    except (ManagementError, DatabaseError, LeaseLost, WrongDeployment, SealBroken, AppError) as error:
        sys.stderr.write(f"{_first_line(error)}\n")
        return 1


def _run(arguments: argparse.Namespace, rotation: KeyRotation) -> int:
    if arguments.status:
        show(pool_status(rotation.keys), "Key pool")
        return 0 if rotation.is_full() else 1
    if arguments.dry_run:
        steps = plan(rotation.situation())
        show(
            [{"step": step.do.value, "key": step.key_name or None} for step in steps],
            "The next pass would",
            empty="nothing to do",
        )
        return 0
    if arguments.claim:
        show(
            [{"key": name, "state": KeyState.DEAD.value} for name in rotation.claim()],
            "Keys of the other deployment",
            empty="nothing to do",
        )
        return 0
    if arguments.now:
        return 0 if rotation.renew(arguments.now) else 1
    if arguments.once:
        return 0 if rotation.run_once() else 1
    run_for_ever(rotation)
    return 0


if __name__ == "__main__":
    sys.exit(main())
