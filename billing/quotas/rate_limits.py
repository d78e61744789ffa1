"""How often, how much and how much at once: what a user, a client key or an address may ask for in a minute.

Requests and tokens are counted in windows of a minute or an hour (window_counters.py), for all replicas together if
there is Redis. Calls at once are counted in each process by itself: nobody would take a dead replica's calls out of it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from accounts.caller import Caller
from billing.quotas.window_counters import HOUR, MINUTE, CacheStatus, WindowCounters
from config.settings import Config
from foundation.clock import Clock
from foundation.errors import TooManyRequests

Headers = list[tuple[str, str]]
Door = Literal[
    "log-ins",
    "registrations",
    "refreshes",
    "username checks",
    "key checks",
    "connections",
    "sign-on steps",
    "admin requests",
    "pages",
]


@dataclass(frozen=True, slots=True)
class _Limit:
    """So much of something for each one of a kind. what: "requests", "tokens", "calls at once", ..."""

    kind: Literal["address", "user", "key", "account", "token"]
    what: str
    amount: int
    seconds: int = MINUTE

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.what.replace(' ', '-')}"

    @property
    def is_window(self) -> bool:
        return self.what != "calls at once"

    @property
    def policy(self) -> str:
        """The limit as an item of RateLimit-Policy."""
        rest = f"w={self.seconds}" if self.is_window else 'qu="concurrent-requests"'
        return f'"{self.name}";q={self.amount};{rest}'

    @property
    def message(self) -> str:
        """What a client is told that has used it up."""
        per = "" if not self.is_window else " a minute" if self.seconds == MINUTE else " an hour"
        return f"Too many {self.what}: this service allows {self.amount}{per} per {self.kind}"


class _Plan:
    """The limits of one sort of caller, and what of them is always the same."""

    def __init__(self, limits: Sequence[_Limit]) -> None:
        limits = [limit for limit in limits if limit.amount]
        self.windows = [(limit, limit.kind, limit.what, limit.name) for limit in limits if limit.is_window]
        self.at_once = [(limit, limit.kind, limit.name) for limit in limits if not limit.is_window]
        self.is_empty = not limits
        self.policy = ", ".join(limit.policy for limit in limits)


class Admission:
    """A call that was let in.

    headers: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers) for the limits that apply; empty if
    none does.
    """

    __slots__ = ("_limits", "_running", "_token_counters", "headers")

    def __init__(
        self,
        headers: Headers | None = None,
        limits: RateLimits | None = None,
        running: Sequence[str] = (),
        token_counters: Sequence[str] = (),
    ) -> None:
        self.headers: Headers = headers or []
        self._limits = limits
        self._running = running
        self._token_counters = token_counters

    def release(self, tokens: int | None) -> None:
        """The call is over and used so many tokens (None: nobody knows). Only the first call counts; any thread's."""
        if self._limits:
            self._limits.release(self, tokens)


UNLIMITED = Admission()


class RateLimits:
    """Lets requests in or raises TooManyRequests."""

    def __init__(self, config: Config, clock: Clock) -> None:
        redis_url = config.redis_url.get_secret_value() if config.redis_url else None
        self._counters = WindowCounters(redis_url, clock)
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}
        self._doors: dict[Door, _Limit] = {
            "log-ins": _Limit("address", "log-ins", config.login_rate_limit_per_minute),
            "registrations": _Limit("address", "registrations", config.login_rate_limit_per_minute),
            "refreshes": _Limit("address", "refreshes", config.login_rate_limit_per_minute),
            "username checks": _Limit("address", "username checks", config.check_username_rate_limit_per_minute),
            "key checks": _Limit("address", "key checks", config.login_rate_limit_per_minute),
            # The way back from a provider has two of them.
            "sign-on steps": _Limit("address", "sign-on steps", config.login_rate_limit_per_minute * 2),
            "connections": _Limit("address", "connections", config.login_rate_limit_per_minute),
            "admin requests": _Limit("address", "admin requests", config.admin_rate_limit_per_minute),
            "pages": _Limit("address", "pages", config.page_rate_limit_per_minute),
        }
        self._account = _Limit("account", "log-ins", config.login_rate_limit_account_per_minute)
        self._api_token = _Limit("token", "requests", config.api_token_rate_limit_per_hour, HOUR)
        of_all = [
            _Limit("address", "requests", config.rate_limit_address_rpm),
            _Limit("user", "requests", config.rate_limit_user_rpm),
            _Limit("user", "tokens", config.rate_limit_user_tpm),
            _Limit("address", "calls at once", _set_or(config.rate_limit_address_concurrent, config.address_share)),
            _Limit("user", "calls at once", _set_or(config.rate_limit_user_concurrent, config.user_share)),
        ]
        self._without_key = _Plan(of_all)
        self._key_rpm = config.rate_limit_key_rpm

        def with_key(rpm: int) -> _Plan:
            tokens = _Limit("key", "tokens", config.rate_limit_key_tpm)
            at_once = _Limit("key", "calls at once", _set_or(config.rate_limit_key_concurrent, config.user_share))
            return _Plan([*of_all, _Limit("key", "requests", rpm), tokens, at_once])

        self._with_key = lru_cache(maxsize=1000)(with_key)

    @property
    def cache_status(self) -> CacheStatus:
        """Whether Redis counts; as far as known, without asking it."""
        return self._counters.status

    def check_cache(self) -> CacheStatus:
        """Whether Redis counts, found out by asking it."""
        self._counters.check()
        return self._counters.status

    def start(self, stopping: threading.Event) -> None:
        """Begin to use Redis, if there is one, until `stopping`."""
        self._counters.start(stopping)

    # ── model calls

    def admit(self, caller: Caller, address: str) -> Admission:
        """Let a model call in; release the admission when the call is over. Raises TooManyRequests.

        Every call counts as a request, a refused one too. Tokens are known afterwards: a call is let in while the
        window has any left.
        """
        plan = self._plan_of(caller)
        if plan.is_empty:
            return UNLIMITED
        ids = {"address": address, "user": caller.user_id, "key": caller.client_key_id}
        window, ends_in = self._counters.window()
        refused: _Limit | None = None
        states: list[str] = []
        token_counters: list[str] = []
        for limit, kind, what, name in plan.windows:
            counter = f"{kind}/{ids[kind]}/{what}"
            if what == "tokens":
                token_counters.append(counter)
                left = limit.amount - self._counters.get(window, counter)
                is_full = left <= 0
            else:
                left = limit.amount - self._counters.add(window, counter)
                is_full = left < 0
            if is_full:
                refused = refused or limit
            states.append(f'"{name}";r={max(0, left)};t={ends_in}')
        wait = ends_in if refused else 1  # a call at once may be over any second
        running: list[str] = []
        if plan.at_once:
            running, busy = self._enter(plan, ids, states, may_enter=not refused)
            refused = refused or busy
        headers = [("RateLimit-Policy", plan.policy), ("RateLimit", ", ".join(states))]
        if refused:
            raise TooManyRequests(refused.message, wait, dict(headers))
        return Admission(headers, self, running, token_counters)

    def _plan_of(self, caller: Caller) -> _Plan:
        if not caller.client_key:
            return self._without_key
        # The lower one: what a user wishes for a key never lifts what the operator has set for all.
        wished = [rpm for rpm in (caller.client_key.rpm, self._key_rpm) if rpm]
        return self._with_key(min(wished, default=0))

    def _enter(
        self, plan: _Plan, ids: dict[str, object], states: list[str], may_enter: bool
    ) -> tuple[list[str], _Limit | None]:
        """Count a call among those that run, unless one of its limits is reached; then in none of them.

        Returns what it was counted in and the limit that is reached. Appends what is left to `states`.
        """
        names = [f"{kind}/{ids[kind]}" for _, kind, _ in plan.at_once]
        places: list[tuple[str, int]] = []
        full: _Limit | None = None
        with self._lock:
            enters = may_enter
            for (limit, _, shown), name in zip(plan.at_once, names, strict=True):
                left = limit.amount - self._running.get(name, 0)
                if left <= 0:
                    enters, full = False, full or limit
                places.append((shown, left))
            if enters:
                for name in names:
                    self._running[name] = self._running.get(name, 0) + 1
        for shown, left in places:
            states.append(f'"{shown}";r={max(0, left - enters)}')
        return (names if enters else []), full

    def release(self, admission: Admission, tokens: int | None) -> None:
        """Take a call out of those that run and count its tokens; for Admission.release."""
        with self._lock:
            if admission._limits is None:
                return
            admission._limits = None
            for name in admission._running:
                self._running[name] -= 1
                if not self._running[name]:
                    del self._running[name]
        if tokens and admission._token_counters:
            window, _ends_in = self._counters.window()
            for counter in admission._token_counters:
                self._counters.add(window, counter, tokens)

    # ── log-ins, administration, API tokens

    def check_address(self, door: Door, address: str) -> None:
        """Count a request at this door from this address. Raises TooManyRequests."""
        self._count(self._doors[door], address)

    def check_account(self, account: str) -> None:
        """Count a log-in to this account, whether there is one or not. Raises TooManyRequests.

        account: the hash of its username; `user/<id>` where a key is tried by somebody who is logged in.

        Against guessing one person's key from many addresses. Whoever does so can keep that person from logging in
        anew, but ends no session.
        """
        self._count(self._account, account)

    def check_api_token(self, token_id: int) -> None:
        """Count a request with an API token. Raises TooManyRequests."""
        self._count(self._api_token, str(token_id))

    def _count(self, limit: _Limit, subject: str) -> None:
        if not limit.amount:
            return
        window, ends_in = self._counters.window(limit.seconds)
        left = limit.amount - self._counters.add(window, f"{limit.kind}/{subject}/{limit.what}")
        if left < 0:
            headers = {"RateLimit-Policy": limit.policy, "RateLimit": f'"{limit.name}";r=0;t={ends_in}'}
            raise TooManyRequests(limit.message, ends_in, headers)


def _set_or(amount: int | None, default: int) -> int:
    return default if amount is None else amount
