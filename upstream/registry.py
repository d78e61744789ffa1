"""The upstreams' rows: OpenAI-compatible services besides the pool of OpenRouter keys, each with its key encrypted.

The pool is an upstream too, by the name `openrouter`, which no row may have; calls go there unless a row is the default
or they ask for another.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from db import Database, Duplicate, Transaction, inserted_id
from foundation import json_text
from foundation.clock import Clock
from foundation.crypto import Envelopes, SealBroken
from foundation.errors import BadRequest, Conflict, NotFound
from foundation.money import nano, usd
from replicas.revisions import bump
from tables import upstreams as table
from upstream.dial import GuardedDial
from upstream.safe_address import UnsafeAddress

OPENROUTER = "openrouter"
ANY_MODEL = "*"
NAME = re.compile(r"(?![0-9]+$)[a-z0-9][a-z0-9._-]{0,63}")
KEY = re.compile(r"[!-~]{1,500}")
PREFIX = re.compile(r"[!-~]{0,128}")
HINT_CHARACTERS, MIN_HINTED_KEY = 4, 12  # of a shorter key four characters would tell too much
MAX_UPSTREAMS = 100
MAX_JSON_BYTES = 60_000  # of 65,535 in a TEXT column
MAX_SECONDS = {"connect_timeout_seconds": 60, "timeout_seconds": 3600, "idle_timeout_seconds": 3600}
MAX_PRICE_USD = 1_000_000


class Keep(Enum):
    """In the place of a key: the one that is stored."""

    KEY = "keep"


@dataclass(frozen=True)
class Price:
    """Nano-dollars per million tokens."""

    prompt: int
    completion: int


@dataclass(frozen=True)
class UpstreamTerms:
    """What an operator says of an upstream, checked.

    timeout_seconds: until an answer's first content. model_prefixes: what a model's name begins with → what goes up
    instead. prices: by a model's name as the client gives it, or `*` for all others.
    """

    name: str
    base_url: str
    connect_timeout_seconds: int = 5
    timeout_seconds: int = 300
    idle_timeout_seconds: int = 120
    is_default: bool = False
    is_active: bool = True
    model_prefixes: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)

    @property
    def origin(self) -> tuple[str, str]:
        """Scheme, host and port: to whom a key is shown."""
        parts = urlsplit(self.base_url)
        return parts.scheme, parts.netloc

    def to_dict(self) -> dict[str, Any]:
        """As JSON; prices in dollars per million tokens."""
        shown = {one.name: getattr(self, one.name) for one in fields(self)}
        prices = {name: {"prompt": usd(p.prompt), "completion": usd(p.completion)} for name, p in self.prices.items()}
        return shown | {"model_prefixes": dict(self.model_prefixes), "prices": prices}


FIELDS = [one.name for one in fields(UpstreamTerms)]


@dataclass(frozen=True)
class Upstream:
    """A row, but for its key's text. api_key_hint: that one's last characters; "" if it is too short to show any, None
    if there is no key.
    """

    id: int
    terms: UpstreamTerms
    api_key_hint: str | None
    created_at: datetime
    updated_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id,
            **self.terms.to_dict(),
            "api_key": None if self.api_key_hint is None else f"sk-***{self.api_key_hint}",
            "created_at": self.created_at.isoformat(timespec="milliseconds"),
            "updated_at": self.updated_at.isoformat(timespec="milliseconds"),
        }


class Upstreams:
    """The upstreams in the database. guard: says which base URLs may be."""

    def __init__(self, db: Database, envelopes: Envelopes, clock: Clock, guard: GuardedDial) -> None:
        self._db = db
        self._envelopes = envelopes
        self._clock = clock
        self.guard = guard

    # ── reading

    def rows(self) -> list[Upstream]:
        """All of them, by name."""
        with self._db.reading() as tx:
            return [_upstream(row) for row in tx.execute(sa.select(table).order_by(table.c.name))]

    def names(self) -> list[str]:
        """What may be named as a call's upstream: the pool of OpenRouter keys first, then the others by name."""
        return [OPENROUTER, *(row.terms.name for row in self.rows())]

    def page(self, page: int, page_size: int) -> tuple[list[Upstream], int]:
        """A page of them, newest first, and how many there are in all."""
        query = sa.select(table).order_by(table.c.id.desc()).limit(page_size).offset((page - 1) * page_size)
        with self._db.reading() as tx:
            total = tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            return [_upstream(row) for row in tx.execute(query)], total

    def get(self, name_or_id: str) -> Upstream:
        """Raises NotFound."""
        with self._db.reading() as tx:
            return _upstream(_row(tx, name_or_id))

    def keys(self, ids: Collection[int]) -> dict[int, str | SealBroken | None]:
        """These upstreams' keys: None for one that needs none, SealBroken for one that does not open."""
        query = sa.select(table.c.id, table.c.api_key).where(table.c.id.in_(sorted(ids)))
        with self._db.reading() as tx:
            rows = tx.execute(query).all()
        return {row.id: self._open(row.id, row.api_key) for row in rows}

    def _open(self, row_id: int, sealed: str | None) -> str | SealBroken | None:
        try:
            return None if sealed is None else self._envelopes.open(table.name, "api_key", row_id, sealed)
        except SealBroken as error:
            return error

    # ── writing: each change begins with the revision's row, so that there is one at a time

    def check(self, given: Mapping[str, Any]) -> UpstreamTerms:
        """What was given, without the key, as terms. Raises BadRequest with what is wrong."""
        if unknown := given.keys() - set(FIELDS):
            raise BadRequest(
                f"There is no field {min(unknown)[:40]!r} here; an upstream has {', '.join(FIELDS)}, api_key"
            )
        checked = _checked(given)
        try:
            return UpstreamTerms(**checked | {"base_url": self.guard.check_url(checked["base_url"])})
        except UnsafeAddress as error:
            raise BadRequest(f"base_url can't be used: {error}") from None

    def add(self, terms: UpstreamTerms, api_key: str | None) -> Upstream:
        """A new upstream, in use everywhere within two seconds. Raises Conflict, BadRequest."""
        check_key(api_key)

        def insert(tx: Transaction) -> int:
            bump(tx, table.name)
            return self._insert(tx, terms, api_key)

        row_id = self._transact(insert, terms.name)
        return self.get(str(row_id))

    def add_if_none(self, items: Sequence[tuple[UpstreamTerms, str | None]]) -> int:
        """Add all of these unless there are upstreams already; returns how many. Raises Conflict for a name twice."""

        def insert(tx: Transaction) -> int:
            bump(tx, table.name)
            if tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
                return 0
            for terms, api_key in items:
                self._insert(tx, terms, api_key)
            return len(items)

        return self._transact(insert, "like another one of the list") if items and not self.rows() else 0

    def change(self, name_or_id: str, terms: UpstreamTerms, api_key: str | Keep | None) -> Upstream:
        """Put these terms in the place of the old ones. Raises NotFound, Conflict, BadRequest."""
        if not isinstance(api_key, Keep):
            check_key(api_key)

        def update(tx: Transaction) -> int:
            bump(tx, table.name)
            before = _row(tx, name_or_id)
            values = self._values(terms)
            if not isinstance(api_key, Keep):
                values |= self._sealed(before.id, api_key)
            elif before.api_key is not None and _upstream(before).terms.origin != terms.origin:
                # Or whoever may change URLs, and can't read keys, could send them to a server of their own.
                raise BadRequest("base_url leads to another host than before: give its api_key again, or null for none")
            if terms.is_default:
                _clear_default(tx)
            tx.execute(table.update().where(table.c.id == before.id).values(values))
            return int(before.id)

        return self.get(str(self._transact(update, terms.name)))

    def remove(self, name_or_id: str) -> Upstream:
        """Forget an upstream and its key; its calls stay in the log. Raises NotFound."""

        def delete(tx: Transaction) -> Upstream:
            bump(tx, table.name)
            gone = _upstream(_row(tx, name_or_id))
            tx.execute(table.delete().where(table.c.id == gone.id))
            return gone

        return self._db.transact(delete)

    def _transact(self, work: Any, name: str) -> int:
        try:
            return int(self._db.transact(work))
        except Duplicate:
            raise Conflict(f"There is an upstream named {name}; names are unique") from None

    def _insert(self, tx: Transaction, terms: UpstreamTerms, api_key: str | None) -> int:
        if tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() >= MAX_UPSTREAMS:
            raise Conflict(f"There may be at most {MAX_UPSTREAMS} upstreams")
        if terms.is_default:
            _clear_default(tx)
        values = self._values(terms)
        row_id = inserted_id(tx.execute(table.insert().values(values | {"created_at": values["updated_at"]})))
        # Sealed with the row's number, which is known only now.
        tx.execute(table.update().where(table.c.id == row_id).values(self._sealed(row_id, api_key)))
        return row_id

    def _sealed(self, row_id: int, api_key: str | None) -> dict[str, Any]:
        if api_key is None:
            return {"api_key": None, "api_key_hint": None}
        hint = api_key[-HINT_CHARACTERS:] if len(api_key) >= MIN_HINTED_KEY else ""
        return {"api_key": self._envelopes.seal(table.name, "api_key", row_id, api_key), "api_key_hint": hint}

    def _values(self, terms: UpstreamTerms) -> dict[str, Any]:
        values: dict[str, Any] = {name: getattr(terms, name) for name in FIELDS} | {"updated_at": self._clock.now()}
        for name in ("model_prefixes", "prices"):
            values[name] = json_text.write(terms.to_dict()[name]).decode()
        return values


def _clear_default(tx: Transaction) -> None:
    tx.execute(table.update().where(table.c.is_default.is_(sa.true())).values(is_default=False))


def _row(tx: Transaction, name_or_id: str) -> Any:
    by_id = name_or_id.isascii() and name_or_id.isdigit() and len(name_or_id) <= 18
    wanted = table.c.id == int(name_or_id) if by_id else table.c.name == name_or_id
    # ASCII only, because a column of ASCII does not compare with anything else.
    row = tx.execute(sa.select(table).where(wanted)).one_or_none() if name_or_id.isascii() else None
    if row is None:
        raise NotFound("There is no upstream of this name or number")
    return row


def _upstream(row: Any) -> Upstream:
    values = {name: getattr(row, name) for name in FIELDS}
    values["model_prefixes"] = json_text.parse(row.model_prefixes.encode())
    values["prices"] = _prices(json_text.parse_exact(row.prices.encode()))
    return Upstream(row.id, UpstreamTerms(**values), row.api_key_hint, row.created_at, row.updated_at)


# ── what operators may say


def check_key(api_key: object) -> None:
    """Raise BadRequest unless it can be an upstream's key, or None."""
    if api_key is not None and not (isinstance(api_key, str) and KEY.fullmatch(api_key)):
        raise BadRequest("api_key must be 1 to 500 printable ASCII characters without spaces, or null for none")


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    checked = dict(given)
    name = given.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name == OPENROUTER:
        raise BadRequest(
            "name must be 1 to 64 characters of a-z 0-9 . _ -, not digits alone, "
            f"and not {OPENROUTER}, which is the pool of OpenRouter keys"
        )
    if not isinstance(given.get("base_url"), str):
        raise BadRequest("base_url must be a URL such as https://api.openai.com/v1")
    for one, most in MAX_SECONDS.items():
        seconds = given.get(one, 1)
        if type(seconds) is not int or not 1 <= seconds <= most:
            raise BadRequest(f"{one} must be a whole number of seconds from 1 to {most}")
    for one in ("is_default", "is_active"):
        if not isinstance(given.get(one, True), bool):
            raise BadRequest(f"{one} must be true or false")
    if given.get("is_default") and not given.get("is_active", True):
        raise BadRequest("is_default can't be true for an upstream that is not active")
    prefixes = given.get("model_prefixes", {})
    if not isinstance(prefixes, dict) or not all(
        prefix and isinstance(instead, str) and PREFIX.fullmatch(prefix) and PREFIX.fullmatch(instead)
        for prefix, instead in prefixes.items()
    ):
        raise BadRequest(
            "model_prefixes must be an object of what model names begin with and what goes up instead, "
            'each up to 128 ASCII characters without spaces, as {"local/": ""}'
        )
    if "prices" in given:
        checked["prices"] = _prices(given["prices"])
    for one in ("model_prefixes", "prices"):
        if len(json_text.write(given.get(one, {}))) > MAX_JSON_BYTES:
            raise BadRequest(f"{one} is too long: it may have at most {MAX_JSON_BYTES} bytes")
    return checked


def _prices(given: Any) -> dict[str, Price]:
    """Raises BadRequest unless it is an object of prices in dollars per million tokens."""
    try:
        if not isinstance(given, dict) or not all(map(re.compile(r"[!-~]{1,255}").fullmatch, given)):
            raise TypeError
        return {model: Price(*_amounts(price)) for model, price in given.items()}
    except (TypeError, ValueError, ArithmeticError):
        raise BadRequest(
            f"prices must be an object of models, or {ANY_MODEL} for all others, with dollars per million tokens, "
            'as {"*": {"prompt": 0.5, "completion": 1.5}}'
        ) from None


def _amounts(price: Any) -> list[int]:
    if not isinstance(price, dict) or price.keys() != {"prompt", "completion"}:
        raise TypeError
    amounts = []
    for name in ("prompt", "completion"):
        if isinstance(price[name], bool | str) or not 0 <= price[name] <= MAX_PRICE_USD:
            raise ValueError
        amounts.append(nano(price[name]) or 0)
    return amounts
