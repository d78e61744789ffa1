"""The background service that keeps the pool full of fresh OpenRouter keys: mint, switch, drain, disable, delete.

With DEDICATED_KEYS it also keeps a key of their own for each active user.

    python key_rotation.py              for ever, a pass a minute
    python key_rotation.py --once       one pass, then exit: 0 if the pool is full
    python key_rotation.py --dry-run    what a pass would do
    python key_rotation.py --now NAME   renew this key at once
    python key_rotation.py --status     what the pool holds; exits with 0 if it is full
    python key_rotation.py --claim      make a copied database this deployment's own
    python key_rotation.py --check-usage   compare what we counted with what OpenRouter says, as every day

Only this program has the management key. Each pass compares the rows with OpenRouter's list of keys
(pool/rotation_plan.py) and does what is missing, step by step. A crash between any two steps leaves something that the
next pass finds. What can be lost in the worst case, a key whose text nobody has, could spend no more than its limit and
not outlive its expiry; it is found by its name and deleted.
"""

from __future__ import annotations

import gc
import sys

from foundation.signals import ENDS, Listener

if __name__ == "__main__":
    if len(sys.argv) == 1:  # the service, before all else is loaded, which takes its time
        Listener()
    gc.disable()  # what is loaded stays, and to look through it takes a fifth of the time

import argparse
import logging
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta

from billing.daily_check import UsageCheck
from config import sources
from config.settings import Config
from config.sources import ConfigError
from db import Database, DatabaseError
from foundation import logs
from foundation.clock import Clock
from foundation.crypto import Envelopes, SealBroken
from foundation.errors import AppError
from foundation.logs import event
from foundation.money import nano
from foundation.terminal import show
from pool.credit import AccountCredit
from pool.keys import ANYBODYS, SHARED, KeyAlreadyKnown, MoveRefused, PoolKeys, Whose
from pool.life import PoolKeyRow, PoolKeyState
from pool.overview import SILENT_AFTER
from pool.rotation_plan import MAX_DEDICATED, Dedicated, Do, Situation, Step, Timing, plan
from pool.rotation_questions import refused_keys
from pool.rotation_steps import RotationSteps
from replicas import processes as gateway_processes
from replicas.lease import LeaseLost, RotationLease, WrongDeployment
from start_up import CannotStart, open_database, set_clock
from upstream.openrouter.key_facts import RemoteKey
from upstream.openrouter.management_api import ManagementApi, ManagementError
from vault import sealed

log = logging.getLogger("rotation")

PASS_SECONDS = 60.0

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
        self.credit = AccountCredit(db, api, clock)
        self._prefix = f"gw/{settings.deployment_id}/"
        self._refused: frozenset[int] = frozenset()
        self._steps = RotationSteps(self.keys, api, self._lease, settings, clock, self._timing, self._prefix)

    def run_once(self) -> bool:
        """One pass, unless another process is rotating. True if the pool is full afterwards.

        Raises ManagementError: nothing is done if OpenRouter's keys can't be listed; else what could be done is done.
        Raises WrongDeployment, LeaseLost and SealBroken.
        """
        self._db.set_clock(self._clock)
        if not self._lease.take():
            event(log, "another_process_rotates")
            return self.is_full()
        try:
            situation = self.situation(self._lease.renew)
            self._note_limits(situation)
            self._note_usage(situation)
            steps = plan(situation)
            self._run(steps)
            if any(step.do is Do.CHECK_MISSING for step in steps):  # what turned out to be dead is replaced at once
                again = plan(self._situation(situation.remote, refused=situation.refused))
                self._run([step for step in again if step.do is Do.MINT])
            gateway_processes.forget_dead(self._db, situation.now)
        finally:
            self._lease.release()
        usable = self._situation([], SHARED, refused=situation.refused).usable
        if len(usable) < self._settings.pool_size:
            event(log, "pool_not_full", logging.ERROR, usable=len(usable), wanted=self._settings.pool_size)
        return len(usable) >= self._settings.pool_size

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
        """True if as many shared keys are usable as POOL_SIZE asks for."""
        return len(self._situation([], SHARED).usable) >= self._settings.pool_size

    def situation(self, meanwhile: Callable[[], object] = lambda: None) -> Situation:
        """The rows and OpenRouter's list, as they are now. meanwhile: called now and then while that is long.

        Raises ManagementError, WrongDeployment, and SealBroken if it is not a row that is damaged but our key is old.
        """
        self._lease.check_deployment()
        return self._situation(self._api.list_keys(meanwhile), meanwhile=meanwhile)

    def _situation(
        self,
        remote: Sequence[RemoteKey],
        whose: Whose = ANYBODYS,
        refused: Collection[int] | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Situation:
        """refused: if that was asked just now."""
        # The list came first: a key that it has and the rows have not is not one that was just being minted.
        now = self._clock.now()
        dedicated = self._dedicated()  # before the rows: who has got a key since then is seen to have it
        rows = self.keys.operated(whose)
        with_text = [
            row.id for row in rows if row.state in {PoolKeyState.STORED, PoolKeyState.ACTIVE, PoolKeyState.DRAINING}
        ]
        texts = self.keys.texts(with_text)
        unreadable = {row_id for row_id, text in texts.items() if isinstance(text, SealBroken)}
        if unreadable:
            # Or is it us, running on with an ENCRYPTION_KEY that was replaced? Asked after the rows were read.
            sealed.check_canary(self._db, self._envelopes)
        processes = gateway_processes.reports(self._db, now)
        if refused is None:
            lately = [process for process in processes if process.beat_at >= now - SILENT_AFTER]
            refused = refused_keys(rows, texts, lately, self._api, meanwhile)
            self._note_refused(rows, refused)

        def in_use(row: PoolKeyRow) -> bool:
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
            dedicated=dedicated,
            refused=refused,
        )

    def _note_refused(self, rows: Iterable[PoolKeyRow], refused: frozenset[int]) -> None:
        for row in rows:
            if row.id in refused and row.id not in self._refused:
                event(log, "key_refused_by_openrouter", logging.ERROR, key=row.name, source=row.source.value)
            elif row.id in self._refused and row.id not in refused and row.state is PoolKeyState.ACTIVE:
                event(log, "key_accepted_again", logging.WARNING, key=row.name)
        self._refused = refused

    def _dedicated(self) -> Dedicated:
        settings = self._settings
        is_on = settings.dedicated_keys == "on"
        return Dedicated(
            lacking=self.keys.lacking(MAX_DEDICATED) if is_on else (),
            withdrawn=self.keys.owners(only_inactive=is_on),
            limit_nano=nano(settings.dedicated_key_limit_usd) or 0,
            limit_reset=settings.dedicated_key_limit_reset,
            renew_after=timedelta(days=settings.dedicated_key_lifetime_days) * 2 / 3,
        )

    def _note_limits(self, at: Situation) -> None:
        listed = [(row, at.listed(row)) for row in at.rows if row.state is PoolKeyState.ACTIVE]
        limits = {row.id: (key.limit_nano, key.remaining_nano) for row, key in listed if key}
        known = {row.id: (row.limit_nano, row.remaining_nano) for row in at.rows}
        self.keys.set_limits({row_id: limit for row_id, limit in limits.items() if limit != known[row_id]})

    def _note_usage(self, at: Situation) -> None:
        """Before any step disables or deletes a key: of one that is gone OpenRouter's list says nothing."""
        listed = [(row, at.listed(row)) for row in at.rows]
        self.keys.set_usage({row.id: key.usage_nano for row, key in listed if key and key.usage_nano != row.usage_nano})

    def _run(self, steps: list[Step]) -> None:
        failed: list[ManagementError] = []
        for step in self._progress(steps):
            # Minting is tried all the same: what can't be tidied up must not empty the pool.
            if len(failed) >= MAX_FAILED_STEPS and step.do is not Do.MINT:
                continue
            try:
                self._lease.renew()
                self._steps.execute(step)
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


def pool_status(keys: PoolKeys) -> list[dict[str, object]]:
    """One line a state: how many keys, how many of them are users' own, and when the first of them expires."""
    rows = keys.operated()
    lines: list[dict[str, object]] = []
    for state in PoolKeyState:
        of_state = [row for row in rows if row.state is state]
        dedicated = sum(row.owner_id is not None for row in of_state)
        expiries = [row.expires_at for row in of_state if row.expires_at]
        first = min(expiries).isoformat(timespec="seconds") if expiries else None
        lines.append({"state": state.value, "keys": len(of_state), "dedicated": dedicated, "first_expires_at": first})
    return lines


def show_progress(steps: Sequence[Step]) -> Iterable[Step]:
    """The same steps; on a terminal a bar grows with them, beside what the program prints."""
    if not sys.stderr.isatty():
        return steps
    from rich.console import Console  # for people: it takes longer to load than a turn to run
    from rich.progress import track

    return track(steps, "Rotating", transient=True, console=Console(stderr=True))


def run_for_ever(rotation: KeyRotation, usage_check: UsageCheck) -> None:
    """A pass a minute, in between the daily check and the credit, until SIGTERM or SIGINT, which let a pass finish."""
    stopping = threading.Event()
    for number in ENDS:
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.is_set():
        try:
            rotation.run_once()
        except (ManagementError, DatabaseError, LeaseLost, WrongDeployment, SealBroken) as error:
            event(log, "pass_failed", logging.ERROR, reason=_first_line(error))
        except Exception:  # this service must outlive any single fault
            log.exception("background_fault")
        if not stopping.is_set():
            usage_check.run_if_due()
            rotation.credit.note_if_due()
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
    how.add_argument("--check-usage", action="store_true", help="compare our sums with OpenRouter's: 0 if they agree")
    return parser.parse_args()


def main() -> int:
    """The command line. Returns the exit code."""
    arguments = _arguments()
    required = () if arguments.status else ("OPENROUTER_PROVISION_KEY", "DEPLOYMENT_ID")
    try:
        settings = sources.load(required=required)
        logs.set_up(settings.effective_log_level, settings.production, settings.secret_values())
        db, envelopes = open_database(settings)
        clock = Clock()
        set_clock(db, clock)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except CannotStart as error:
        sys.stderr.write(f"Cannot start: {error}\n")
        return 1
    management_key, proxy = (
        secret.get_secret_value() if secret else ""
        for secret in (settings.openrouter_provision_key, settings.outbound_proxy)
    )
    api = ManagementApi(settings.openrouter_api_url, management_key, proxy)
    rotation = KeyRotation(db, envelopes, api, settings, clock, progress=show_progress)
    usage_check = UsageCheck(db, rotation.keys, api, RotationLease(db, clock, settings.deployment_id), clock)
    try:
        return _run(arguments, rotation, usage_check)
    except (ManagementError, DatabaseError, LeaseLost, WrongDeployment, SealBroken, AppError) as error:
        sys.stderr.write(f"{_first_line(error)}\n")
        return 1


def _run(arguments: argparse.Namespace, rotation: KeyRotation, usage_check: UsageCheck) -> int:
    if arguments.status:
        show(pool_status(rotation.keys), "Key pool")
        return 0 if rotation.is_full() else 1
    if arguments.dry_run:
        steps = plan(rotation.situation())
        show(
            [{"step": step.do.value, "key": step.key_name or None, "owner": step.whose} for step in steps],
            "The next pass would",
            empty="nothing to do",
        )
        return 0
    if arguments.claim:
        show(
            [{"key": name, "state": PoolKeyState.DEAD.value} for name in rotation.claim()],
            "Keys of the other deployment",
            empty="nothing to do",
        )
        return 0
    if arguments.check_usage:
        return 0 if usage_check.run_and_show() else 1
    if arguments.now or arguments.once:
        is_full = rotation.renew(arguments.now) if arguments.now else rotation.run_once()
        return 0 if is_full else 1
    run_for_ever(rotation, usage_check)
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    sys.exit(main())
