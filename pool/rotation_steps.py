"""What each step of a rotation does: at OpenRouter first or to the row first, in the order that survives a crash.

what must not be there   take in, abandon, sweep, check missing, quarantine
out of use               drain, limit, disable, delete, forget
into use                 mint, activate
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from datetime import timedelta

from config.settings import Config
from foundation.clock import Clock
from foundation.crypto import new_id, sha256_hex
from foundation.logs import event
from foundation.money import nano, usd
from pool.keys import PoolKeys
from pool.life import PoolKeyRow, PoolKeyState
from pool.rotation_plan import Do, Step, Timing
from replicas.lease import RotationLease
from upstream.openrouter.key_facts import KeyAccount, RemoteKey
from upstream.openrouter.management_api import ManagementApi, ManagementError

log = logging.getLogger("rotation")

ROUNDED_BY = 100  # a limit that is this part above the one asked for was rounded
OUR_NAME = re.compile(r"[0-9a-f]{32}")  # after the prefix: new_id()


class LimitIgnored(ManagementError):
    """All that OpenRouter says of a new key is that it may spend more than was asked for."""


class RotationSteps:
    """Executes the steps of a plan, under the lease. The log gets a line about each."""

    def __init__(
        self,
        keys: PoolKeys,
        api: ManagementApi,
        lease: RotationLease,
        settings: Config,
        clock: Clock,
        timing: Timing,
        prefix: str,
    ) -> None:
        self.keys = keys
        self._api = api
        self._lease = lease
        self._settings = settings
        self._clock = clock
        self._timing = timing
        self._prefix = prefix
        self._do: dict[Do, Callable[[Step], None]] = {
            Do.TAKE_IN: self._take_in,
            Do.ABANDON: self._abandon,
            Do.SWEEP: self._sweep,
            Do.CHECK_MISSING: self._check_missing,
            Do.QUARANTINE: self._quarantine,
            Do.FORGET: self._forget,
            Do.ACTIVATE: self._activate,
            Do.DRAIN: self._drain,
            Do.LIMIT: self._set_limit,
            Do.DISABLE: self._disable,
            Do.DELETE: self._delete,
            Do.MINT: self._mint,
        }

    def execute(self, step: Step) -> None:
        """Do one step. Raises ManagementError, MoveRefused, KeyAlreadyKnown, SealBroken, LeaseLost."""
        self._do[step.do](step)

    # ── what must not be there

    def _take_in(self, step: Step) -> None:
        """A key with our name that no row knows. It stops working now; deleting it waits until people have looked."""
        key = step.known_key
        if step.row is None:
            self._lease.hold_deletions(self._clock.now() + self._timing.hold_deletions)
            self.keys.take_in_unknown(self._row_name(key), key.hash, key.usage_nano)
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
        self.keys.move(row.id, PoolKeyState.ABANDONED)
        event(log, "key_abandoned", key=row.name, existed=step.remote is not None)

    def _sweep(self, step: Step) -> None:
        self._api.delete(step.known_key.hash)
        # Without a row of its own, the log alone remembers what it spent.
        spent = usd(step.known_key.usage_nano)
        event(log, "key_swept", logging.WARNING, key=step.known_key.name, usage_usd=spent)

    def _check_missing(self, step: Step) -> None:
        """A key that is not in OpenRouter's list is dead only if OpenRouter refuses the key itself, too."""
        row = step.known_row
        if self._api.ask(self.keys.text(row.id)):
            return
        if row.state is PoolKeyState.DRAINING:
            self._finish(row)
        else:
            self.keys.move(row.id, PoolKeyState.DEAD)
            event(log, "key_dead", logging.WARNING, key=row.name)

    def _quarantine(self, step: Step) -> None:
        """The ciphertext stays as evidence; the key stays at OpenRouter until it expires."""
        self.keys.move(step.known_row.id, PoolKeyState.QUARANTINED)
        event(log, "key_quarantined", logging.ERROR, key=step.known_row.name, reason="its text is damaged")

    # ── out of use

    def _drain(self, step: Step) -> None:
        self.keys.drain(step.known_row.id, self._clock.now() + self._timing.drain_grace)
        event(log, "key_draining", key=step.known_row.name)

    def _set_limit(self, step: Step) -> None:
        """The limit that users' own keys have, in place of what the key's predecessor had left."""
        limit, reset = self._settings.dedicated_key_limit_usd, self._settings.dedicated_key_limit_reset
        self._api.set_limit(step.known_key.hash, limit, None if reset == "none" else reset)
        event(log, "key_limit_set", key=step.known_row.name, limit_usd=limit)

    def _disable(self, step: Step) -> None:
        row = step.known_row
        self._api.disable(step.known_key.hash)
        self.keys.move(row.id, PoolKeyState.DISABLED)
        event(log, "key_disabled", key=row.name)

    def _delete(self, step: Step) -> None:
        row, key = step.known_row, step.known_key
        self._api.delete(key.hash)
        self._finish(row)

    def _forget(self, step: Step) -> None:
        self._finish(step.known_row)

    def _finish(self, row: PoolKeyRow) -> None:
        self.keys.move(row.id, PoolKeyState.DELETED)
        event(log, "key_deleted", key=row.name)

    # ── into use

    def _mint(self, step: Step) -> None:
        settings = self._settings
        if step.owner_id is None:
            limit, reset, life = settings.key_limit_usd, settings.key_limit_reset, settings.key_lifetime_hours
        else:
            limit, reset = usd(step.limit_nano), settings.dedicated_key_limit_reset
            life = settings.dedicated_key_lifetime_days * 24
        expires_at = self._clock.now() + timedelta(hours=life)
        name = self._prefix + new_id()  # and nothing of the user: OpenRouter shows it to whoever manages the account
        limit_nano = nano(limit)
        row_id = self.keys.intend(name, expires_at, limit_nano, step.row.id if step.row else None, step.owner_id)
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
        is_old = row.created_at <= self._clock.now() - self._timing.intent_min_age
        try:
            if told:
                self._switch(row.id, row.name, row.limit_nano, told)
            elif is_old:
                self._give_up(row.id, row.name, "OpenRouter refuses it")
        except LimitIgnored:
            if not is_old:
                raise
            self._give_up(row.id, row.name, "it may spend more than was asked for")

    def _switch(self, row_id: int, name: str, limit_nano: int | None, told: KeyAccount) -> None:
        if not (told.states_limit and told.limit_nano == limit_nano):
            self._check_limit(row_id, name, limit_nano, told)
        self.keys.switch(row_id, self._clock.now() + self._timing.drain_grace, told.account_id)
        event(log, "key_active", key=name)

    def _check_limit(self, row_id: int, name: str, limit_nano: int | None, told: KeyAccount) -> None:
        """GET /key words the limit otherwise, or not at all: go by the list. Raises LimitIgnored.

        A key that was just paid for is not given up for a wording; one that may spend more, by all that OpenRouter
        says of it, is not used.
        """
        stated = [told.limit_nano] if told.states_limit else []
        try:
            listed = self._api.key(sha256_hex(self.keys.text(row_id)))
            stated += [listed.limit_nano] if listed.states_limit else []
        except ManagementError as error:
            event(log, "key_limit_unknown", logging.WARNING, key=name, reason=str(error))
        fields = {"key": name, "asked_usd": usd(limit_nano), "told_usd": [usd(limit) for limit in stated]}
        if stated and limit_nano is not None and limit_nano not in stated:
            most = limit_nano + limit_nano // ROUNDED_BY
            if not any(limit is not None and limit <= most for limit in stated):
                event(log, "key_limit_ignored", logging.ERROR, **fields)
                raise LimitIgnored("POST /keys", reason="the new key may spend more than was asked for")
        event(log, "key_limit_worded_otherwise", logging.WARNING, **fields)

    def _give_up(self, row_id: int, name: str, reason: str) -> None:
        """Never used, and so deleted at once: by the hash of the text that the row holds."""
        self._lease.renew()  # else another process may have found it good in the meantime
        self._api.delete(sha256_hex(self.keys.text(row_id)))
        self.keys.move(row_id, PoolKeyState.ABANDONED)
        event(log, "key_refused", logging.WARNING, key=name, reason=reason)
