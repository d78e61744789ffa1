"""Accounts, keys and the bill of the stand-in: exact money in nano-dollars, limits with resets, lasting state."""

import datetime
import hashlib
import itertools
import os
import secrets
import time
import uuid
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from sandbox.openrouter_faults import Refused

NANO = 1_000_000_000
SECONDS_A_DAY = 86_400
GENERATIONS_IN_MEMORY = 50_000
GENERATIONS_IN_STATE = 1_000
DAYS_KEPT = 40  # OpenRouter reports 30; limits look back 31 at most
ORDINAL_OF_DAY_ZERO = datetime.date(1970, 1, 1).toordinal()


@dataclass(slots=True)
class Account:
    """An OpenRouter account: its balance and its allowance of free requests are shared by all its keys."""

    id: str
    name: str
    workspace_id: str
    credits_nano: int
    usage_nano: int = 0
    free_per_minute: int = 20
    free_per_day: int = 1000
    free_minute: int = 0
    free_used_in_minute: int = 0
    free_day: int = 0
    free_used_in_day: int = 0
    in_flight_budget_nano: int | None = None
    reserved_nano: int = 0

    @property
    def balance_nano(self) -> int:
        return self.credits_nano - self.usage_nano


@dataclass(slots=True)
class Key:
    """A key without its secret: OpenRouter shows that once, and keeps the SHA-256 of it."""

    hash: str
    label: str
    name: str
    account_id: str
    is_management: bool
    created_at: float
    updated_at: float | None = None
    last_used_at: float | None = None
    expires_at: float | None = None
    disabled: bool = False
    deleted: bool = False
    limit_nano: int | None = None
    limit_reset: str | None = None
    include_byok_in_limit: bool = False
    external_user: str | None = None
    usage_nano: int = 0
    usage_by_day: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    requests_billed: int = 0
    reserved_nano: int = 0

    def add_usage(self, day: str, nano: int) -> None:
        """Put what an answer cost on the bill of the key; answers that cost nothing are not counted as billed."""
        if nano:
            self.usage_nano += nano
            self.requests_billed += 1
            self.usage_by_day[day] = self.usage_by_day.get(day, 0) + nano
            drop_oldest_day(self.usage_by_day)

    def usage_since(self, first_day: int) -> int:
        """Return what the key has spent on this day and later; days count from 1970."""
        return sum(nano for day, nano in self.usage_by_day.items() if int(day) >= first_day)

    def limit_remaining(self, today: int) -> int | None:
        """Return what may still be spent in the current period, or nothing if the key has no limit."""
        if self.limit_nano is None:
            return None
        spent = self.usage_since(first_day_of(self.limit_reset, today)) if self.limit_reset else self.usage_nano
        return self.limit_nano - spent


@dataclass(slots=True)
class Generation:
    """One answer that was produced, and what it cost."""

    id: str
    account_id: str
    key_hash: str
    model: str
    provider: str
    created: float
    streamed: bool
    cancelled: bool
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_nano: int
    elapsed_ms: float
    api_type: str = "completions"
    times_hidden: int = 0


@dataclass(slots=True)
class Activity:
    """What a key did with a model on one UTC day."""

    requests: int = 0
    usage_nano: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: "Activity") -> None:
        self.requests += other.requests
        self.usage_nano += other.usage_nano
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


def drop_oldest_day(by_day: dict[str, Any]) -> None:
    """Forget the day that was begun first, if there are too many; tests may set the clock back, so not the smallest."""
    if len(by_day) > DAYS_KEPT:
        del by_day[next(iter(by_day))]


def first_day_of(period: str, today: int) -> int:
    """Return the first day of the current UTC day, week from Monday, or month; days count from 1970."""
    if period == "weekly":
        return today - (today + 3) % 7
    if period == "monthly":
        return today - datetime.date.fromordinal(today + ORDINAL_OF_DAY_ZERO).day + 1
    return today


def dollars(nano: int | None) -> orjson.Fragment | None:
    """Return an amount as an exact JSON number of dollars."""
    return None if nano is None else orjson.Fragment(dollar_text(nano))


def dollar_text(nano: int) -> bytes:
    """Return an amount as exact decimal text."""
    whole, rest = divmod(abs(nano), NANO)
    text = f"{'-' if nano < 0 else ''}{whole}.{rest:09d}".rstrip("0")
    return (text + "0" if text.endswith(".") else text).encode()


def new_id(prefix: str) -> str:
    """Return a random id in OpenRouter's style."""
    return prefix + secrets.token_hex(14)[:27]


class Books:
    """All accounts, keys and generations. Changes of keys are written at once, spending within a second."""

    def __init__(self, state_file: Path | None = None) -> None:
        self._state_file = state_file
        self._unsaved = False
        self.clock_offset = 0.0
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, Key] = {}
        self.generations: deque[Generation] = deque()
        self.generations_made = 0
        self.activity: dict[str, dict[tuple[str, str], Activity]] = {}  # by day, then by key hash and model id
        self._generations_by_id: dict[str, Generation] = {}
        if state_file and state_file.exists():
            self._load(orjson.loads(state_file.read_bytes()))

    def now(self) -> float:
        """Return the time, moved by the offset that tests set."""
        return time.time() + self.clock_offset

    def today(self) -> int:
        """Return the UTC day, counted from 1970."""
        return int(self.now()) // SECONDS_A_DAY

    def add_account(self, name: str, credits_nano: int) -> Account:
        """Open an account."""
        account = Account(new_id("user_"), name, str(uuid.uuid4()), credits_nano)
        self.accounts[account.id] = account
        self.save()
        return account

    def add_key(self, account: Account, name: str, is_management: bool = False, secret: str = "") -> tuple[Key, str]:
        """Make a key, or take over the given one, and return it with its secret."""
        secret = secret or "sk-or-v1-" + secrets.token_hex(32)
        digits = secret.removeprefix("sk-or-v1-")
        key = Key(
            hash=hashlib.sha256(secret.encode()).hexdigest(),
            label=f"sk-or-v1-{digits[:3]}...{digits[-3:]}",
            name=name,
            account_id=account.id,
            is_management=is_management,
            created_at=self.now(),
        )
        known = self.keys.get(key.hash)
        if known:
            return known, secret
        self.keys[key.hash] = key
        return key, secret

    def find_key(self, key_hash: str) -> Key | None:
        """Return the key if it exists and is not deleted."""
        key = self.keys.get(key_hash)
        return None if key is None or key.deleted else key

    def keys_of(self, account_id: str) -> list[Key]:
        """Return the account's inference keys, newest first."""
        keys = [
            key
            for key in self.keys.values()
            if key.account_id == account_id and not key.is_management and not key.deleted
        ]
        keys.reverse()
        return keys

    def has_expired(self, key: Key) -> bool:
        return key.expires_at is not None and key.expires_at <= self.now()

    def get_usable_key(self, key_hash: str) -> Key:
        """Return the key that a request may act as."""
        key = self.find_key(key_hash)
        if key is None or self.has_expired(key):
            raise Refused("401b")
        if key.disabled:
            raise Refused("401c")
        key.requests += 1
        return key

    def reserve(self, key: Key, worst_nano: int, worst_tokens: int) -> None:
        """Set aside the most that a request can cost, or refuse the request."""
        account = self.accounts[key.account_id]
        remaining = key.limit_remaining(self.today()) if key.limit_nano is not None else None
        kind = key.limit_reset or "total"
        asked = {"REQUESTED": str(worst_tokens), "LIMIT_KIND": kind, "ACCOUNT": account.id}
        if account.balance_nano < 0 or (account.balance_nano == 0 and worst_nano):
            raise Refused("402d", ACCOUNT=account.id)
        if remaining is not None and remaining <= 0 and worst_nano:
            raise Refused("403c", **asked)
        if remaining is not None and remaining - key.reserved_nano < worst_nano:
            left = remaining - key.reserved_nano
            raise Refused("402b", AFFORDABLE=affordable(left, worst_nano, worst_tokens), **asked)
        if account.balance_nano < worst_nano:
            raise Refused("402c", AFFORDABLE=affordable(account.balance_nano, worst_nano, worst_tokens), **asked)
        budget = account.balance_nano if account.in_flight_budget_nano is None else account.in_flight_budget_nano
        if account.reserved_nano + worst_nano > budget:
            raise Refused("402a")
        account.reserved_nano += worst_nano
        key.reserved_nano += worst_nano

    def count_free_request(self, account: Account) -> None:
        """Count a request to a free model, or refuse it because the minute or the day is used up."""
        minute, day = int(self.now()) // 60, self.today()
        if account.free_minute != minute:
            account.free_minute, account.free_used_in_minute = minute, 0
        if account.free_day != day:
            account.free_day, account.free_used_in_day = day, 0
        if account.free_used_in_day >= account.free_per_day:
            reset = str((day + 1) * SECONDS_A_DAY * 1000)
            raise Refused("429b", LIMIT=str(account.free_per_day), RESET_MS=reset, ACCOUNT=account.id)
        if account.free_used_in_minute >= account.free_per_minute:
            reset = str((minute + 1) * 60_000)
            raise Refused("429a", LIMIT=str(account.free_per_minute), RESET_MS=reset, ACCOUNT=account.id)
        account.free_used_in_minute += 1
        account.free_used_in_day += 1
        self._unsaved = True

    def release(self, key: Key, worst_nano: int) -> None:
        """Give back what was set aside for a request."""
        self.accounts[key.account_id].reserved_nano -= worst_nano
        key.reserved_nano -= worst_nano
        key.last_used_at = self.now()
        self._unsaved = True

    def add_generation(self, key: Key, model_id: str, generation: Generation) -> None:
        """Record an answer, and put what it cost on the bill of its key, its account and its day."""
        day = str(self.today())
        self.accounts[key.account_id].usage_nano += generation.cost_nano
        key.add_usage(day, generation.cost_nano)
        made = Activity(1, generation.cost_nano, generation.prompt_tokens, generation.completion_tokens)
        self._activity_of(day, key.hash, model_id).add(made)
        self.generations_made += 1
        self._keep(generation)
        self._unsaved = True

    def find_generation(self, generation_id: str) -> Generation | None:
        """Return the generation with this id; of several, which only a setting can cause, the latest."""
        return self._generations_by_id.get(generation_id)

    def _keep(self, generation: Generation) -> None:
        self.generations.append(generation)
        self._generations_by_id[generation.id] = generation
        if len(self.generations) > GENERATIONS_IN_MEMORY:
            oldest = self.generations.popleft()
            if self._generations_by_id.get(oldest.id) is oldest:
                del self._generations_by_id[oldest.id]

    def _activity_of(self, day: str, key_hash: str, model_id: str) -> Activity:
        of_day = self.activity.get(day)
        if of_day is None:
            of_day = self.activity[day] = {}
            drop_oldest_day(self.activity)
        activity = of_day.get((key_hash, model_id))
        if activity is None:
            activity = of_day[key_hash, model_id] = Activity()
        return activity

    def save_if_changed(self) -> None:
        """Write the state if something was spent since the last time."""
        if self._unsaved:
            self.save()

    def save(self) -> None:
        """Write the state to its file, whole or not at all."""
        self._unsaved = False
        if self._state_file is None:
            return
        oldest = max(0, len(self.generations) - GENERATIONS_IN_STATE)
        document = {
            "accounts": [asdict(account) | {"reserved_nano": 0} for account in self.accounts.values()],
            "keys": [asdict(key) | {"reserved_nano": 0} for key in self.keys.values()],
            "generations": list(itertools.islice(self.generations, oldest, None)),
            "generations_made": self.generations_made,
            "activity": [
                [day, *of_whom, activity]
                for day, of_day in self.activity.items()
                for of_whom, activity in of_day.items()
            ],
        }
        unfinished = self._state_file.with_name(self._state_file.name + ".new")
        unfinished.write_bytes(orjson.dumps(document))
        os.replace(unfinished, self._state_file)  # noqa: PTH105 - the atomic one

    def _load(self, document: dict[str, Any]) -> None:
        self.accounts = {stored["id"]: Account(**stored) for stored in document["accounts"]}
        self.keys = {stored["hash"]: Key(**stored) for stored in document["keys"]}
        for stored in document["generations"]:
            self._keep(Generation(**stored))
        self.generations_made = document.get("generations_made", len(self.generations))
        for day, key_hash, model_id, stored in document.get("activity", ()):
            self.activity.setdefault(day, {})[key_hash, model_id] = Activity(**stored)


def affordable(left_nano: int, worst_nano: int, worst_tokens: int) -> str:
    """Return how many tokens the rest of a budget pays for, as text."""
    return str(max(0, left_nano) * worst_tokens // worst_nano)
