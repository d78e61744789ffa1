"""The control API of the stand-in under /sandbox: sets faults, accounts and keys; shows requests and the bill."""

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from sandbox.http_server import Exchange, Reply
from sandbox.openrouter_accounts import Account, Books
from sandbox.openrouter_endpoint import Settings, as_json
from sandbox.openrouter_faults import Refused, bad_request
from sandbox.openrouter_keys import apply_changes, checked_changes, checked_expiry, nano_dollars
from sandbox.openrouter_scenarios import Scenario, UnknownScenario, defaults_changed, parse_scenario

MODEL_CALLS = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/messages",
    "/rerank",
    "/images",
    "/audio/speech",
    "/audio/transcriptions",
    "/videos",
)
LARGEST_LOGGED_BODY = 65_536
STREAM_KNOBS = ("pace_ms", "chunks", "comments", "comment_ms", "usage")
COUNTS = ("generation_404s", "keys_on_a_page", "video_ms", "video_bytes")
SWITCHES = ("generation_same_key_only", "duplicate_generation_ids")
ACCOUNT_NUMBERS = ("free_per_minute", "free_per_day")

Wish = Callable[[dict[str, Any]], object]


@dataclass(slots=True)
class FaultRule:
    """A scenario that requests get without asking for it. An empty selector matches everything; an empty path: calls
    of models.
    """

    scenario: Scenario
    text: str
    key: str
    account: str
    method: str
    path: str
    times: int | None
    after: bool
    used: int = 0

    def matches(self, exchange: Exchange, path: str, account_id: str) -> bool:
        return (
            (self.times is None or self.used < self.times)
            and (path.startswith(self.path) if self.path else path in MODEL_CALLS)
            and self.method in ("", exchange.method)
            and self.key in ("", exchange.key_hash)
            and self.account in ("", account_id)
        )

    def described(self) -> dict[str, Any]:
        selectors = {"key": self.key, "account": self.account, "method": self.method, "path": self.path}
        return selectors | {"scenario": self.text, "times": self.times, "after": self.after, "used": self.used}


class RequestLog:
    """The latest requests with what was sent to them; what large bodies hold is kept as their SHA-256."""

    def __init__(self, length: int) -> None:
        self._exchanges: deque[tuple[Exchange, str]] = deque(maxlen=length)

    def add(self, exchange: Exchange) -> None:
        digest = ""
        if exchange.body_size > LARGEST_LOGGED_BODY:
            digest = hashlib.sha256(exchange.body).hexdigest()
            exchange.body = b""
        self._exchanges.append((exchange, digest))

    def clear(self) -> None:
        self._exchanges.clear()

    def described(self) -> list[dict[str, Any]]:
        return [described_exchange(exchange, digest) for exchange, digest in self._exchanges]


def described_exchange(exchange: Exchange, digest: str) -> dict[str, Any]:
    """Return a logged request as JSON."""
    return {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in exchange.headers],
        "body_base64": None if digest else base64.b64encode(exchange.body).decode(),
        "body_sha256": digest or hashlib.sha256(exchange.body).hexdigest(),
        "body_size": exchange.body_size,
        "key_hash": exchange.key_hash,
        "status": exchange.status,
        "bytes_sent": exchange.sent_bytes,
        "chunks_sent": exchange.chunks_sent,
        "at_break": exchange.at_break,
        "client_closed_early": exchange.client_closed_early,
        "ended": bool(exchange.ended_at),
        "elapsed_ms": round(exchange.elapsed_ms(), 3),
        "started_at": exchange.wall_time,
    }


class Control:
    """Answers /sandbox requests."""

    def __init__(self, books: Books, settings: Settings, log: RequestLog, change_videos: Wish) -> None:
        self._books = books
        self._settings = settings
        self._log = log
        self.rules: list[FaultRule] = []
        self._routes: dict[tuple[str, str], Wish] = {
            ("GET", "/sandbox/faults"): lambda _: {"faults": [rule.described() for rule in self.rules]},
            ("POST", "/sandbox/faults"): self._set_fault,
            ("DELETE", "/sandbox/faults"): self._clear_faults,
            ("GET", "/sandbox/log"): lambda _: {"requests": log.described()},
            ("DELETE", "/sandbox/log"): self._clear_log,
            ("GET", "/sandbox/bill"): lambda _: bill(books),
            ("GET", "/sandbox/generations"): lambda _: {"generations": list(books.generations)},
            ("POST", "/sandbox/accounts"): self._open_account,
            ("PATCH", "/sandbox/accounts"): self._change_account,
            ("POST", "/sandbox/keys"): self._add_key,
            ("POST", "/sandbox/settings"): self._change_settings,
            ("POST", "/sandbox/videos"): change_videos,
        }

    def answer(self, exchange: Exchange) -> Reply:
        """Return the answer to a control request."""
        if not exchange.connection.client_is_local():
            raise Refused("404")
        if exchange.path == "/sandbox/redirected":
            self._log.add(exchange)
            return as_json({"redirected": True})
        route = self._routes.get((exchange.method, exchange.path.rstrip("/")))
        if route is None:
            raise Refused("404", MESSAGE="there is no such control")
        return as_json(route(json_object(exchange.body)))

    def find_rule(self, exchange: Exchange, path: str) -> FaultRule | None:
        """Return the first fault that is set for a request, and count its use."""
        key = self._books.find_key(exchange.key_hash)
        account_id = key.account_id if key else ""
        for rule in self.rules:
            if rule.matches(exchange, path, account_id):
                rule.used += 1
                return rule
        return None

    def _set_fault(self, wishes: dict[str, Any]) -> object:
        text = str(wishes.get("scenario") or wishes.get("row") or wishes.get("status") or "stream")
        try:
            scenario = parse_scenario(text, self._settings.defaults)
            changes = {"delay_ms": wishes["delay_ms"]} if "delay_ms" in wishes else {}
            plan = defaults_changed(scenario.plan, changes)
        except UnknownScenario as unknown:
            raise bad_request(str(unknown)) from None
        times = wishes.get("times")
        rule = FaultRule(
            scenario=replace(scenario, plan=plan, ordinary=False),
            text=text,
            key=str(wishes.get("key") or ""),
            account=str(wishes.get("account") or ""),
            method=str(wishes.get("method") or ""),
            path=str(wishes.get("path") or ""),
            times=None if times is None else non_negative("times", times),
            after=wishes.get("after") is True,
        )
        self.rules.append(rule)
        return rule.described()

    def _clear_faults(self, _: dict[str, Any]) -> object:
        self.rules.clear()
        return {"faults": []}

    def _clear_log(self, _: dict[str, Any]) -> object:
        self._log.clear()
        return {"requests": []}

    def _open_account(self, wishes: dict[str, Any]) -> object:
        credits_nano = nano_dollars("balance", wishes.get("balance", 1000))
        account = self._books.add_account(str(wishes.get("name") or "account"), credits_nano)
        self._apply(account, wishes)
        _, secret = self._books.add_key(account, "management", True, str(wishes.get("management_key") or ""))
        self._books.save()
        return asdict(account) | {"management_key": secret}

    def _change_account(self, wishes: dict[str, Any]) -> object:
        account = self._account(wishes.get("id"))
        if "balance" in wishes:
            below_zero = isinstance(wishes["balance"], int | float) and wishes["balance"] < 0
            amount = nano_dollars("balance", -wishes["balance"] if below_zero else wishes["balance"])
            account.credits_nano = account.usage_nano + (-amount if below_zero else amount)
        self._apply(account, wishes)
        self._books.save()
        return asdict(account) | {"balance_nano": account.balance_nano}

    def _apply(self, account: Account, wishes: Mapping[str, Any]) -> None:
        for name in ACCOUNT_NUMBERS:
            if name in wishes:
                setattr(account, name, non_negative(name, wishes[name]))
        if "in_flight_budget" in wishes:
            budget = wishes["in_flight_budget"]
            account.in_flight_budget_nano = None if budget is None else nano_dollars("in_flight_budget", budget)

    def _account(self, account_id: object) -> Account:
        """Return the account with this id, or the first one."""
        if account_id is None:
            return next(iter(self._books.accounts.values()))
        account = self._books.accounts.get(str(account_id))
        if account is None:
            raise bad_request("there is no such account")
        return account

    def _add_key(self, wishes: dict[str, Any]) -> object:
        account = self._account(wishes.get("account"))
        changes = checked_changes(wishes) | {"expires_at": checked_expiry(wishes.get("expires_at"))}
        is_management = wishes.get("kind") == "management"
        name = str(wishes.get("name") or "key")
        key, secret = self._books.add_key(account, name, is_management, str(wishes.get("key") or ""))
        apply_changes(key, changes)
        self._books.save()
        return {"key": secret, "hash": key.hash, "account": account.id, "label": key.label}

    def _change_settings(self, wishes: dict[str, Any]) -> object:
        knobs = {name: value for name, value in wishes.items() if name in STREAM_KNOBS}
        try:
            self._settings.defaults = defaults_changed(self._settings.defaults, knobs)
        except UnknownScenario as unknown:
            raise bad_request(str(unknown)) from None
        for name in COUNTS:
            if name in wishes:
                setattr(self._settings, name, non_negative(name, wishes[name]))
        for name in SWITCHES:
            if name in wishes:
                setattr(self._settings, name, true_or_false(name, wishes[name]))
        offset = wishes.get("clock_offset_seconds", self._books.clock_offset)
        if isinstance(offset, bool) or not isinstance(offset, int | float) or abs(offset) > 1e9:
            raise bad_request("clock_offset_seconds is a number")
        self._books.clock_offset = offset
        shown = {name: getattr(self._settings.defaults, name) for name in STREAM_KNOBS}
        others = {name: getattr(self._settings, name) for name in (*COUNTS, *SWITCHES)}
        return shown | others | {"clock_offset_seconds": offset}


def json_object(body: bytes) -> dict[str, Any]:
    """Return the body of a control request; an empty one is an empty object."""
    try:
        document = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise bad_request("the body is a JSON object")
    return document


def non_negative(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad_request(f"{name} is a whole number")
    return value


def true_or_false(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise bad_request(f"{name} is true or false")
    return value


def bill(books: Books) -> dict[str, Any]:
    """Return what every account and every key, deleted ones included, has spent."""
    return {
        "generations": books.generations_made,
        "accounts": {
            account.id: {
                "name": account.name,
                "nano": account.usage_nano,
                "balance_nano": account.balance_nano,
                "reserved_nano": account.reserved_nano,
            }
            for account in books.accounts.values()
        },
        "keys": {
            key.hash: {
                "name": key.name,
                "account": key.account_id,
                "nano": key.usage_nano,
                "requests": key.requests,
                "requests_billed": key.requests_billed,
                "deleted": key.deleted,
            }
            for key in books.keys.values()
            if not key.is_management
        },
    }
