"""A pool of keys that no database has, and refusals as OpenRouter words them."""

from __future__ import annotations

import math
from collections.abc import Collection

from api_key_manager import ApiKeyManager
from pool.choice import PoolKey
from pool.health import FIRST_ASK_SECONDS, Account
from pool.health import SPENT as SPENT_REASONS
from tests.support.movable_clock import MovableClock
from upstream.refusal import Refusal
from upstream.refusals import classify


def key_text(number: int) -> str:
    return f"sk-or-v1-{number:064x}"


class Memory(ApiKeyManager):
    """A pool of keys that no database has. accounts: for each key its account, None for one of its own."""

    def __init__(self, clock: MovableClock, count: int, accounts: str = "", **more: int) -> None:
        super().__init__(None, clock, **more)
        self._shared.keys = tuple(
            PoolKey(number, f"key {number}", key_text(number), math.inf) for number in range(count)
        )
        shared = {name: Account() for name in accounts}
        for key, name in zip(self._shared.keys, accounts, strict=False):
            key.account_id, key.account = name, shared[name]
        for key in self._shared.keys:
            key.questions.end(clock.monotonic() - FIRST_ASK_SECONDS)

    @property
    def keys(self) -> tuple[PoolKey, ...]:
        return self._shared.keys

    def refuse(
        self,
        key: PoolKey | int,
        status: int,
        message: str = "",
        limit_source: str = "",
        retry_after: str | None = None,
        **metadata,
    ):
        """A call that began before now is refused."""
        key = self._shared.keys[key] if isinstance(key, int) else key
        metadata |= {"limit_source": limit_source}
        refusal = Refusal(status, {"error": {"message": message, "metadata": metadata}}, retry_after)
        self.note_refusal(key, refusal, classify(refusal))

    def convict(self, key: PoolKey | int) -> None:
        """GET /key says the same: with nothing left if that is what the refusal was about, else that it is refused."""
        key = self._shared.keys[key] if isinstance(key, int) else key
        if key.doubt and key.doubt.reason in SPENT_REASONS:
            self.verdicts.note_confirmed(key, 0)
        else:
            self.verdicts.note_denied(key)

    def call(
        self,
        status: int = 200,
        message: str = "",
        limit_source: str = "",
        free: bool = False,
        tried: Collection[PoolKey] = (),
        **metadata,
    ):
        """One whole call with whichever key is picked. Returns it."""
        key = self.pick(tried, free=free)
        if status == 200:
            self.note_success(key)
        else:
            self.refuse(key, status, message, limit_source, **metadata)
        self.release(key)
        return key


def picks(pool: ApiKeyManager, times: int = 200, **how: object) -> set[int]:
    """The ids of keys that calls get, when none of them says how it went."""
    found = set()
    for _ in range(times):
        key = pool.pick(**how)
        found.add(key.id)
        pool.release(key)
    return found


LIMITED = (429, "Rate limit exceeded", "openrouter_requests_of_a_key")


DEAD = (401, "User not found.")


POOR = (402, "Insufficient credits. Add more")


SPENT = (403, "Key limit exceeded (total limit).")


FREE_DAY = (429, "Rate limit exceeded: free-models-per-day.")
