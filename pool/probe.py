"""Asks GET /key about keys: whether OpenRouter accepts a suspect again, what a spent limit has left, whose a key is."""

from __future__ import annotations

import threading
import time

from foundation.crypto import SealBroken
from pool.choice import PoolKey
from pool.keys import PoolKeys
from pool.verdicts import Verdicts
from replicas.repeating import repeat
from upstream.http import UpstreamHttp, authorization_of
from upstream.openrouter.key_facts import KeyAccount, ask

# At most this many questions in a row, then a pause: a few a second, however large the pool is.
KEYS_AT_ONCE = 2
PAUSE_SECONDS = 0.5
# What was learned is written at intervals: every write makes every process reload its keys.
WRITE_SECONDS = 10.0


class PoolKeyProbe:
    """Runs in a thread of its own: an answer may take seconds."""

    def __init__(self, verdicts: Verdicts, store: PoolKeys, upstream: UpstreamHttp) -> None:
        self._verdicts = verdicts
        self._store = store
        self._upstream = upstream
        self._limits: dict[int, tuple[int | None, int | None]] = {}
        self._accounts: dict[int, str] = {}
        self._write_at = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Ask until told to stop."""
        repeat(self.run_once, PAUSE_SECONDS, stopping)

    def run_once(self) -> None:
        """Ask about the keys whose turn it is. Raises DatabaseError if what they told can't be written."""
        for key in self._verdicts.to_ask(KEYS_AT_ONCE):
            status, told = ask(self._upstream, key.authorization)
            if status == 401 or (told and told.is_management):  # which carries no calls
                self._verdicts.note_denied(key)
            elif told is None:
                self._verdicts.note_unanswered(key)
            else:
                self._note(key, told)
                self._verdicts.note_confirmed(key, told.spendable_nano)
        if self._limits and time.monotonic() >= self._write_at:
            self._write()

    def _note(self, key: PoolKey, told: KeyAccount) -> None:
        is_new = told.account_id is not None and told.account_id != key.account_id
        if is_new:
            self._accounts[key.id] = str(told.account_id)
        if is_new or told.remaining_nano != key.remaining_nano:
            self._limits[key.id] = told.limit_nano, told.remaining_nano

    def _write(self) -> None:
        while self._accounts:
            row_id, account_id = next(iter(self._accounts.items()))
            self._store.set_account(row_id, account_id)
            del self._accounts[row_id]
        self._store.set_limits(self._limits)
        self._limits = {}
        self._write_at = time.monotonic() + WRITE_SECONDS

    def statuses(self) -> dict[str, int | None]:
        """What OpenRouter answers now to each shared key that may be picked, by name; for operators.

        200 if all is well, 0 for no answer, None for a key that ENCRYPTION_KEY does not open. Raises DatabaseError.
        """
        rows = self._store.in_use()
        texts = self._store.texts([row.id for row in rows])
        found: dict[str, int | None] = {}
        for row in rows:
            text = texts[row.id]
            found[row.name] = None if isinstance(text, SealBroken) else ask(self._upstream, authorization_of(text))[0]
        return found
