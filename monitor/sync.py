"""Asks OpenRouter about watched keys: when one is brought, when its owner wants to know, and every hour by itself.

The hourly round runs in a thread of every process that serves, and not of the key rotation, which only those have who
have a management key: claims keep them apart. A round asks a few keys and pauses, so that however many are due,
OpenRouter gets so many questions a minute; since each key's next turn is counted from its last one, they stay as far
apart as that spread them.
"""

from __future__ import annotations

import logging
import threading

from foundation.crypto import SealBroken
from foundation.errors import BadRequest, Busy
from foundation.logs import event
from monitor.watched_keys import Claim, WatchedKey, WatchedKeys
from replicas.repeating import repeat
from upstream.http import UpstreamHttp, authorization_of
from upstream.openrouter.key_facts import KeyAccount, ask

log = logging.getLogger("personal_keys")

KEYS_AT_ONCE = 10
PAUSE_SECONDS = 5.0  # together: at most 120 questions a minute by each process

# What the owner of a key is told of a question that was in vain.
REFUSED = "OpenRouter does not accept this key"
UNREADABLE = "This service can't read the key that it stored; remove it and add it again"
NOT_UNDERSTOOD = "OpenRouter's answer could not be understood"
NO_ANSWER = "OpenRouter did not answer"


class WatchedKeySync:
    """What is done with watched keys that takes OpenRouter's word. keys: their rows, for what doesn't."""

    def __init__(self, keys: WatchedKeys, upstream: UpstreamHttp) -> None:
        self.keys = keys
        self._upstream = upstream

    # ── for their owners

    def add(self, user_id: int, name: str, text: str) -> WatchedKey:
        """Take in a key. Raises BadRequest, Conflict, and Busy while OpenRouter can't be asked: nothing is stored."""
        return self.keys.add(user_id, name, text, self._check(text))

    def change(self, key_id: int, user_id: int, name: str, text: str | None) -> tuple[WatchedKey, bool]:
        """Rename a key and, with another text, replace it; returns it, and whether it was replaced.

        Raises NotFound, Forbidden and what `add` raises.
        """
        if text is None or self.keys.has_text(key_id, user_id, text):
            return self.keys.change(key_id, user_id, name), False
        return self.keys.change(key_id, user_id, name, (text, self._check(text))), True

    def _check(self, text: str) -> KeyAccount:
        status, told = ask(self._upstream, authorization_of(text))
        if status == 401:
            raise BadRequest("OpenRouter does not accept this key; is it whole, enabled and not expired?")
        if told is None or not _tells_usage(told):
            raise Busy(
                "OpenRouter can't be asked about this key at present, so it was not stored; try again shortly", 5
            )
        if told.is_management:
            raise BadRequest("This is a management key, which can make other keys; give one for calling models")
        return told

    def sync_now(self, key_id: int, user_id: int) -> WatchedKey:
        """Ask about a key at once; what comes of it is in the key. Raises NotFound, Forbidden, TooManyRequests."""
        self._ask(self.keys.claim_own(key_id, user_id))
        return self.keys.get(key_id, user_id)

    # ── by itself

    def run(self, stopping: threading.Event) -> None:
        """Ask about the keys whose turn it is until told to stop."""
        repeat(lambda: self.run_once(stopping), PAUSE_SECONDS, stopping)

    def run_once(self, stopping: threading.Event) -> int:
        """Ask about some keys whose turn it is; returns how many. Raises DatabaseError."""
        asked = 0
        for key_id in self.keys.due(KEYS_AT_ONCE):
            if stopping.is_set():
                break
            if claim := self.keys.claim_due(key_id):
                self._ask(claim)
                asked += 1
        return asked

    def _ask(self, claim: Claim) -> None:
        try:
            status, told = ask(self._upstream, authorization_of(self.keys.text(claim)))
        except SealBroken as error:
            event(log, "personal_key_unreadable", logging.ERROR, reason=str(error))
            self.keys.note_unanswered(claim, UNREADABLE)
            return
        if told is not None and _tells_usage(told):
            self.keys.note_told(claim, told)
        elif status == 401:
            state = self.keys.note_refused(claim, REFUSED)
            if state is not claim.key.state:
                event(log, "personal_key_refused", key=claim.key.id, user_id=claim.key.user_id, state=state)
        else:
            self.keys.note_unanswered(claim, _trouble(status, told))


def _tells_usage(told: KeyAccount) -> bool:
    return told.usage_nano is not None and told.usage_nano >= 0


def _trouble(status: int, told: KeyAccount | None) -> str:
    """In words of ours: OpenRouter's own could hold the key, or name an account."""
    if told is not None:
        return NOT_UNDERSTOOD
    return f"OpenRouter answered with status {status}" if status else NO_ANSWER
