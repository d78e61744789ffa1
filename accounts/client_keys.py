"""Client keys: what programs call models with instead of a log-in, each limited as its owner wants.

The text of a key exists once, in the answer to who made it; here are its hash and its first characters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from math import inf
from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from accounts.allow_lists import RULES, AllowLists, Rule, names_in, set_in, told, with_columns
from accounts.networks import MAX_NETWORKS, Networks, is_network
from accounts.users import add_service_account, is_user
from db import Database, Transaction, inserted_id
from foundation.clock import Clock
from foundation.errors import BadRequest, Conflict, Forbidden, NotFound
from replicas.revisions import current
from tables import client_keys as table
from vault.hashed import HashedSecrets, check_expiry, check_name, check_text, new_secret

PREFIX = "sk-auto-"
TEXT_SCOPES = ("chat", "completions", "embeddings", "responses", "messages")
SCOPES = (*TEXT_SCOPES, "rerank", "images", "speech", "transcriptions", "videos")
MAX_DESCRIPTION_CHARACTERS = 1000
MAX_RPM = 1_000_000
NETWORKS: Rule = (MAX_NETWORKS, is_network, "addresses or networks, as 203.0.113.7 or 2001:db8::/48")
LISTS: Mapping[str, Rule] = {
    "scopes": (len(SCOPES), SCOPES.__contains__, f"among {', '.join(SCOPES)}"),
    "addresses": NETWORKS,
    **RULES,
}

ClientKeyState = Literal["active", "expired", "revoked"]
Also = Callable[[Transaction, str], None]
"""What is to be done with a key's quota_subject, such as setting its budget, in the transaction that writes the key."""


@dataclass(frozen=True, slots=True)
class ClientKey(AllowLists):
    """What a live key may do. None stands for all, or for no limit. expires_at: seconds since 1970.

    team_id: the team that it is a key of, or 0. response_cache: exact repeats of its calls are answered from memory.
    addresses: from where it may be used.
    """

    whose: ClassVar[str] = "This client key"
    id: int
    user_id: int
    scopes: frozenset[str] | None = None
    rpm: int | None = None
    expires_at: float = inf
    team_id: int = 0
    response_cache: bool = False
    addresses: Networks | None = None

    def check_address(self, address: str) -> None:
        """Refuse to be used from this address. What would do is not told: whoever asks may have stolen the key."""
        if self.addresses is not None and address not in self.addresses:
            raise Forbidden(f"This client key may not be used from {address}")

    def check_scope(self, name: str) -> None:
        """Refuse an API that the key is not for. Raises Forbidden."""
        if self.scopes is not None and name not in self.scopes:
            raise Forbidden(f"This client key is not for {name}; it is for {told(self.scopes)}")


@dataclass(frozen=True)
class ClientKeyRow:
    """A key as its owner and the operator see it. key_hint: its first characters. team_id: its team's."""

    id: int
    user_id: int
    team_id: int | None
    key_hint: str
    name: str
    description: str
    scopes: tuple[str, ...] | None
    models: tuple[str, ...] | None
    upstreams: tuple[str, ...] | None
    addresses: tuple[str, ...] | None
    rpm: int | None
    response_cache: bool
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_used: datetime | None
    revoked_at: datetime | None

    @property
    def quota_subject(self) -> str:
        """Whose quota is the key's budget."""
        return f"key/{self.id}"

    def state(self, at: datetime) -> ClientKeyState:
        """What has become of the key."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= at else "active"

    def to_dict(self, at: datetime, budget: dict[str, Any] | None) -> dict[str, object]:
        """For JSON. budget: the key's quota, likewise."""
        fields = asdict(self)
        shown = {"state": self.state(at), "budget": budget}
        return fields | shown


COLUMNS = [table.c[name] for name in ClientKeyRow.__dataclass_fields__]
NOT_REVOKED = table.c.revoked_at.is_(None)


class ClientKeys:
    """The keys; the live ones in memory.

    most: how many a user may have that are not revoked. know_budgets: reads the quotas, before new keys are in force:
    a key must not be known to a process that does not know its budget yet. may_cache: keys may have a response cache.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        most: int,
        know_budgets: Callable[[], None] | None = None,
        may_cache: bool = True,
    ) -> None:
        self._db = db
        self._clock = clock
        self._most = most
        self._may_cache = may_cache
        self.live = HashedSecrets(db, clock, table, table.c.key_hash, _live, know_budgets)

    def create(
        self,
        user_id: int | None,
        fields: Mapping[str, Any],
        also: Also | None = None,
        first: Callable[[Transaction], None] = lambda _: None,
    ) -> tuple[ClientKeyRow, str]:
        """Make a key; returns it with its text, which nobody can ever ask for again.

        user_id: the owner; None for a new account of the key's own. fields: name, and what else is not as usual among
        description, scopes, models, upstreams, addresses, rpm, response_cache, expires_at, team_id. also: done in the
        same transaction. first: likewise, before; if it raises, no key is made. Raises BadRequest, Conflict.
        """
        usual: dict[str, Any] = {"description": "", "response_cache": False}
        usual |= dict.fromkeys([*LISTS, "rpm", "expires_at", "team_id"])
        values, now = self._checked(usual | dict(fields)), self._clock.now()
        text, key_hash, key_hint = new_secret(PREFIX)
        values |= {"key_hash": key_hash, "key_hint": key_hint, "created_at": now, "updated_at": now}

        def insert(tx: Transaction, revision: int) -> ClientKeyRow:
            first(tx)
            owner = add_service_account(tx, now) if user_id is None else self._check_owner(tx, user_id)
            key_id = inserted_id(tx.execute(table.insert().values({**values, "user_id": owner, "revision": revision})))
            row = _get(tx, key_id)
            if also:
                also(tx, row.quota_subject)
            return row

        return self.live.change(insert), text

    def _check_owner(self, tx: Transaction, user_id: int) -> int:
        if not is_user(tx, user_id):
            raise BadRequest(f"There is no user {user_id}")
        if _count(tx, [table.c.user_id == user_id, NOT_REVOKED]) >= self._most:
            raise Conflict(f"A user may have {self._most} client keys; revoke one that is not needed any more")
        return user_id

    def change(
        self, key_id: int, fields: Mapping[str, Any], user_id: int | None = None, also: Also | None = None
    ) -> ClientKeyRow:
        """Change a key; in force everywhere within two seconds. Raises NotFound, BadRequest.

        fields, also: as for create; what is missing stays. user_id: whose key it has to be.
        """
        values = self._checked(fields)
        values["updated_at"] = self._clock.now()

        def update(tx: Transaction, revision: int) -> ClientKeyRow:
            row = _get(tx, key_id, user_id)
            tx.execute(table.update().where(table.c.id == key_id).values({**values, "revision": revision}))
            if also:
                also(tx, row.quota_subject)
            return _get(tx, key_id)

        return self.live.change(update)

    def revoke(self, key_id: int, user_id: int | None = None) -> ClientKeyRow:
        """Refuse a key from now on, everywhere within two seconds. Raises NotFound. user_id: whose it has to be."""

        def update(tx: Transaction, revision: int) -> ClientKeyRow:
            _get(tx, key_id, user_id)
            values = {"revoked_at": self._clock.now(), "revision": revision}
            tx.execute(table.update().where(table.c.id == key_id).values(values))
            return _get(tx, key_id, with_revoked=True)

        return self.live.change(update)

    def get(self, key_id: int, user_id: int | None = None, with_revoked: bool = False) -> ClientKeyRow:
        """A key. user_id: whose it has to be. Raises NotFound."""
        with self._db.reading() as tx:
            return _get(tx, key_id, user_id, with_revoked)

    def page(
        self,
        page: int,
        page_size: int,
        user_id: int | None = None,
        state: ClientKeyState | None = None,
        with_revoked: bool = False,
        team_id: int | None = None,
    ) -> tuple[list[ClientKeyRow], int]:
        """A page of keys, newest first, and how many there are in all. page: from 1."""
        whose = {table.c.user_id: user_id, table.c.team_id: team_id}
        wanted = [column == number for column, number in whose.items() if number is not None]
        if state is not None:
            wanted.append(self._is_in(state))
        elif not with_revoked:
            wanted.append(NOT_REVOKED)
        query = sa.select(*COLUMNS).where(*wanted).order_by(table.c.id.desc())
        with self._db.reading() as tx:
            rows = tx.execute(query.limit(page_size).offset((page - 1) * page_size)).all()
            return [_row(row) for row in rows], _count(tx, wanted)

    def of_user(self, user_id: int, and_ids: Collection[int]) -> list[ClientKeyRow]:
        """A user's keys, newest first: those that are not revoked, and of the others those with these ids."""
        kept = sa.or_(NOT_REVOKED, table.c.id.in_(and_ids))
        query = sa.select(*COLUMNS).where(table.c.user_id == user_id, kept).order_by(table.c.id.desc())
        with self._db.reading() as tx:
            return [_row(row) for row in tx.execute(query)]

    def _is_in(self, state: ClientKeyState) -> sa.ColumnElement[bool]:
        if state == "revoked":
            return sa.not_(NOT_REVOKED)
        is_over = sa.and_(table.c.expires_at.is_not(None), table.c.expires_at <= self._clock.now())
        return sa.and_(NOT_REVOKED, is_over if state == "expired" else sa.not_(is_over))

    def _checked(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields as columns. Raises BadRequest with what is accepted."""
        values = dict(fields)
        if "name" in values:
            values["name"] = check_name(values["name"])
        if "description" in values:
            check_text("description", values["description"], 0, MAX_DESCRIPTION_CHARACTERS)
        if "expires_at" in values:
            check_expiry(values["expires_at"], self._clock.now())
        if values.get("rpm") is not None and not 1 <= values["rpm"] <= MAX_RPM:
            raise BadRequest(f"rpm must be a whole number from 1 to {MAX_RPM}, or null for no limit of the key's own")
        if values.get("response_cache") and not self._may_cache:
            raise BadRequest(
                "response_cache can't be true here: the operator keeps no answers (RESPONSE_CACHE_SECONDS=0)"
            )
        return with_columns(values, LISTS)


def revoke_keys_of(tx: Transaction, team_id: int, user_ids: Collection[int], now: datetime) -> None:
    """Revoke the keys of a team that these of its people have made. The transaction began with this table's `bump`."""
    theirs = sa.and_(table.c.team_id == team_id, table.c.user_id.in_(user_ids), NOT_REVOKED)
    values = {"revoked_at": now, "revision": current(tx, table.name)}
    tx.execute(table.update().where(theirs).values(values))


def _get(tx: Transaction, key_id: int, user_id: int | None = None, with_revoked: bool = False) -> ClientKeyRow:
    wanted = [table.c.id == key_id]
    if user_id is not None:
        wanted.append(table.c.user_id == user_id)
    if not with_revoked:
        wanted.append(NOT_REVOKED)
    row = tx.execute(sa.select(*COLUMNS).where(*wanted)).first()
    if row is None:
        raise NotFound(f"There is no client key {key_id}")
    return _row(row)


def _count(tx: Transaction, wanted: Sequence[sa.ColumnElement[bool]]) -> int:
    found: int = tx.execute(sa.select(sa.func.count()).select_from(table).where(*wanted)).scalar_one()
    return found


def _row(row: sa.Row[Any]) -> ClientKeyRow:
    values = row._asdict()
    return ClientKeyRow(**values | {name: names_in(values[name]) for name in LISTS})


def _live(row: sa.Row[Any]) -> ClientKey:
    expires_at = row.expires_at.timestamp() if row.expires_at else inf
    models, upstreams = names_in(row.models), set_in(row.upstreams)
    whose = row.id, row.user_id, set_in(row.scopes), row.rpm, expires_at, row.team_id or 0, row.response_cache
    addresses = None if row.addresses is None else Networks(names_in(row.addresses) or ())
    return ClientKey(*whose, addresses, models=models, upstreams=upstreams)
