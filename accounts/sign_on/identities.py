"""Who an account's owner is elsewhere: found, made, linked, unlinked. By the provider's own id, and by nothing else.

An e-mail address is no proof: whoever can write one into a profile elsewhere would have the account. So an identity
that nobody knows gets an account of its own, and joins another one only from within that one's session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from accounts.registration import PLAIN_START, AccountStart
from accounts.sign_on.provider import ProviderProfile
from accounts.users import NO_KEY, UserRole, UserState, add_sso_account
from db import Database, Duplicate, Transaction
from foundation.clock import Clock
from foundation.errors import Conflict, NotFound
from replicas.revisions import bump
from tables import identities as table
from tables import users


@dataclass(frozen=True)
class Identity:
    """One way to log in, in the list of its owner. display_name: the one at the provider."""

    provider: str
    display_name: str | None
    linked_at: datetime
    last_login: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        times = {"linked_at": self.linked_at, "last_login": self.last_login}
        return self.__dict__ | {name: time and time.isoformat(timespec="seconds") for name, time in times.items()}


class Entered(NamedTuple):
    """An account whose owner has come in. is_new, is_silenced: whether it was made, or silenced, just now.

    admission: how it was let in, if it is new.
    """

    user_id: int
    is_new: bool
    is_silenced: bool
    admission: AccountStart = PLAIN_START


class ProviderIdentities:
    """The rows; an account has at most one of each provider."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def enter(
        self, provider: str, profile: ProviderProfile, admit: Callable[[], AccountStart] = lambda: PLAIN_START
    ) -> Entered:
        """The account of somebody who has just proved who they are; if there is none, it is made.

        admit: lets somebody new in, or raises.

        An account that was made so follows the provider: in its trust level, unless an operator has set another one;
        and it is silenced once the provider has silenced its owner, in every process within two seconds. Only an
        operator lifts that, until the provider does it anew.
        """
        entered = self._db.transact(lambda tx: self._enter(tx, provider, profile))
        if entered is None:
            admission = admit()
            try:
                return self._db.transact(lambda tx: self._make(tx, provider, profile, admission))
            except Duplicate:  # the same person in another tab has just made it
                entered = self._db.transact(lambda tx: self._enter(tx, provider, profile))
        assert entered is not None  # noqa: S101 - identities are unlinked by their owners alone
        return entered

    def _enter(self, tx: Transaction, provider: str, profile: ProviderProfile) -> Entered | None:
        now = self._clock.now()
        row = tx.execute(sa.select(table).where(_is(provider, profile))).first()
        if row is None:
            return None
        values: dict[str, object] = {"last_login": now, "display_name": profile.display_name}
        owner, is_silenced = users.c.id == row.user_id, False
        if profile.trust_level is not None and row.trust_level is not None:  # the provider made the account
            values["is_silenced"] = profile.is_silenced
            if profile.is_silenced and not row.is_silenced:
                is_active = sa.and_(owner, users.c.state == UserState.ACTIVE)
                is_silenced = _change(tx, is_active, now, state=UserState.SILENCED)
            untouched = sa.and_(owner, users.c.trust_level == row.trust_level)
            if profile.trust_level != row.trust_level and _change(tx, untouched, now, trust_level=profile.trust_level):
                values["trust_level"] = profile.trust_level
        tx.execute(table.update().where(table.c.id == row.id).values(values))
        return Entered(int(row.user_id), False, is_silenced)

    def _make(self, tx: Transaction, provider: str, profile: ProviderProfile, admission: AccountStart) -> Entered:
        now = self._clock.now()
        is_silenced = profile.is_silenced and admission.state is UserState.ACTIVE  # else at a log-in once it is let in
        values: dict[str, object] = {"display_name": profile.display_name, "avatar_url": profile.avatar_url}
        values |= {"trust_level": profile.trust_level or 0, "role": admission.role}
        values["state"] = UserState.SILENCED if is_silenced else admission.state
        user_id = add_sso_account(tx, now, values)
        told = {"last_login": now, "trust_level": profile.trust_level, "is_silenced": is_silenced}
        tx.execute(table.insert().values(_row(user_id, provider, profile, now) | told))
        admission.welcome(tx, user_id)
        if (values["state"], admission.role) != (UserState.ACTIVE, UserRole.USER):
            bump(tx, "users")
        return Entered(user_id, True, is_silenced, admission)

    def link(
        self,
        user_id: int,
        provider: str,
        profile: ProviderProfile,
        first: Callable[[Transaction], None] = lambda _: None,
    ) -> None:
        """Let somebody log in to this account from now on. Raises Conflict if theirs or this one is linked already.

        first: done in the same transaction, before: if it raises, nothing is linked.
        """
        row = _row(user_id, provider, profile, self._clock.now())

        def insert(tx: Transaction) -> None:
            first(tx)
            tx.execute(table.insert().values(row))

        try:
            self._db.transact(insert)
        except Duplicate:
            raise Conflict(
                "Either this account has such a log-in already, or that log-in has an account; unlink it there first"
            ) from None

    def unlink(self, user_id: int, provider: str) -> None:
        """Take a way to log in from an account. Raises NotFound; Conflict if it is the last one."""
        wanted = sa.and_(table.c.user_id == user_id, table.c.provider == provider)

        def delete(tx: Transaction) -> None:
            # The lock keeps two parallel ones from each leaving the other's as the last.
            lock = sa.select(users.c.key_hash).where(users.c.id == user_id).with_for_update()
            key_hash = tx.scalar(lock)
            owned = list(tx.scalars(sa.select(table.c.provider).where(table.c.user_id == user_id)))
            if provider not in owned:
                raise NotFound("This account has no such log-in")
            if owned == [provider] and key_hash == NO_KEY:
                raise Conflict("This is the only way to log in to this account; link another one first")
            tx.execute(table.delete().where(wanted))

        self._db.transact(delete)

    def of(self, user_id: int) -> list[Identity]:
        """An account's, by the provider's name."""
        columns = [table.c[name] for name in Identity.__dataclass_fields__]
        query = sa.select(*columns).where(table.c.user_id == user_id).order_by(table.c.provider)
        with self._db.reading() as tx:
            return [Identity(*row) for row in tx.execute(query)]

    def providers_of(self, user_ids: Iterable[int]) -> dict[int, list[str]]:
        """The providers that these accounts can be logged in to through; those without any are left out."""
        query = sa.select(table.c.user_id, table.c.provider).where(table.c.user_id.in_(list(user_ids)))
        found: dict[int, list[str]] = {}
        with self._db.reading() as tx:
            for row in tx.execute(query.order_by(table.c.provider)):
                found.setdefault(row.user_id, []).append(row.provider)
        return found


def _is(provider: str, profile: ProviderProfile) -> sa.ColumnElement[bool]:
    who = table.c.issuer == profile.issuer, table.c.subject == profile.subject
    return sa.and_(table.c.provider == provider, *who)


def _change(tx: Transaction, wanted: sa.ColumnElement[bool], now: datetime, **values: object) -> bool:
    """Change an account, if it is as wanted; returns whether it was."""
    is_changed: bool = tx.execute(users.update().where(wanted).values(updated_at=now, **values)).rowcount == 1
    if is_changed:
        bump(tx, "users")
    return is_changed


def _row(user_id: int, provider: str, profile: ProviderProfile, now: datetime) -> dict[str, object]:
    row: dict[str, object] = {"user_id": user_id, "provider": provider, "issuer": profile.issuer}
    return row | {"subject": profile.subject, "display_name": profile.display_name, "linked_at": now}
