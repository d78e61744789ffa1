"""Invitations: one-time links by which people sign up, each with what their account begins with.

A link is good for one account, until it is used, revoked or over. Its text exists once, in the answer to who made it,
or on the terminal of a start that found no operator; here is its hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from accounts.users import UserRole, is_there_an_admin
from db import Database, Transaction, delete_some, inserted_id
from foundation.clock import Clock
from foundation.crypto import sha256_hex
from foundation.errors import Conflict, Forbidden, NotFound
from foundation.money import usd
from replicas.revisions import bump
from tables import invitations as table
from vault.hashed import check_text, new_secret

PREFIX = "inv_"
MAX_NOTE_CHARACTERS = 190
MAX_TEXT_CHARACTERS = 100
FIRST_OPERATOR_LIFE = timedelta(days=1)
FORGOTTEN_AT_ONCE = 100

InvitationState = Literal["open", "used", "expired", "revoked"]


class InvitationRefused(Forbidden):
    """Nobody can sign up with this text."""

    type = "invitation_refused"

    def __init__(self) -> None:
        super().__init__("This invitation is unknown, used, revoked or too old; ask for a new one")


@dataclass(frozen=True)
class InvitationTerms:
    """What an account begins with. limit_nano: its quota for each period; both None for the default.

    note: whom it is for, in the operator's words.
    """

    role: UserRole = UserRole.USER
    limit_nano: int | None = None
    period: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Invitation:
    """One link, without its text. is_first: made by a start that found no operator. used_by: the account's id."""

    id: int
    token_hint: str
    note: str
    role: UserRole
    limit_nano: int | None
    period: str | None
    is_first: bool
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    used_by: int | None
    revoked_at: datetime | None

    def state(self, at: datetime) -> InvitationState:
        """What has become of it."""
        if self.used_at:
            return "used"
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at <= at else "open"

    def to_dict(self, at: datetime) -> dict[str, Any]:
        """What operators get to see of it."""
        names = ("id", "token_hint", "note", "period", "is_first", "created_by", "used_by")
        times = ("created_at", "expires_at", "used_at")
        shown: dict[str, Any] = {name: getattr(self, name) for name in names}
        shown |= {name: (time := getattr(self, name)) and time.isoformat(timespec="seconds") for name in times}
        return shown | {"role": self.role.value, "limit_usd": usd(self.limit_nano), "state": self.state(at)}


COLUMNS = [table.c[name] for name in Invitation.__dataclass_fields__]


class Invitations:
    """The rows."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def create(self, terms: InvitationTerms, life: timedelta, created_by: str) -> tuple[Invitation, str]:
        """Make a link that is good for so long; returns it with its text. Raises BadRequest."""
        return self._create(terms, life, created_by, is_first=False)

    def _create(
        self, terms: InvitationTerms, life: timedelta, created_by: str, is_first: bool
    ) -> tuple[Invitation, str]:
        text, token_hash, token_hint = new_secret(PREFIX)
        now, note = self._clock.now(), check_text("note", terms.note.strip(), 0, MAX_NOTE_CHARACTERS)
        row: dict[str, Any] = {"token_hash": token_hash, "token_hint": token_hint, "note": note, "role": terms.role}
        row |= {"limit_nano": terms.limit_nano, "period": terms.period, "is_first": is_first}
        row |= {"created_by": created_by, "created_at": now, "expires_at": now + life}

        def insert(tx: Transaction) -> Invitation:
            return _get(tx, inserted_id(tx.execute(table.insert().values(row))))

        return self._db.transact(insert), text

    def offer_first_operator(self) -> str | None:
        """The text of a link for the first operator, good for a day and while there is none; None if there is one."""
        now = self._clock.now()

        def look(tx: Transaction) -> bool:
            unused = sa.and_(table.c.is_first, table.c.used_at.is_(None), table.c.expires_at <= now)
            delete_some(tx, table.c.id, unused, FORGOTTEN_AT_ONCE)
            return is_there_an_admin(tx)

        if self._db.transact(look):
            return None
        terms = InvitationTerms(UserRole.ADMIN, note="first operator")
        return self._create(terms, FIRST_OPERATOR_LIFE, "start", is_first=True)[1]

    def page(self, page: int, page_size: int) -> tuple[list[Invitation], int]:
        """A page of them, newest first, and how many there are. page: from 1."""
        query = sa.select(*COLUMNS).order_by(table.c.id.desc()).limit(page_size).offset((page - 1) * page_size)
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            return [_invitation(row) for row in tx.execute(query)], total

    def revoke(self, invitation_id: int) -> Invitation:
        """Let nobody use it. Raises NotFound; Conflict if it was used."""

        def update(tx: Transaction) -> Invitation:
            unused = sa.and_(table.c.id == invitation_id, table.c.used_at.is_(None))
            values = {"revoked_at": sa.func.coalesce(table.c.revoked_at, self._clock.now())}
            changed = tx.execute(table.update().where(unused).values(values)).rowcount
            found = _get(tx, invitation_id)
            if not changed and found.used_at:
                raise Conflict("This invitation was used; disable its account instead")
            return found

        return self._db.transact(update)

    def get_open(self, text: str) -> Invitation:
        """The one with this text. Raises InvitationRefused."""
        query = sa.select(*COLUMNS).where(table.c.token_hash == sha256_hex(text))
        with self._db.reading() as tx:
            row = tx.execute(query).first()
        found = _invitation(row) if row else None
        if found is None or found.state(self._clock.now()) != "open":
            raise InvitationRefused
        return found

    def redeem(self, tx: Transaction, invitation: Invitation, user_id: int) -> None:
        """Use it up, in the transaction that makes the account. Raises InvitationRefused."""
        if invitation.role is UserRole.ADMIN:
            bump(tx, "users")  # before the look: of several first ones at once each sees the one before
        if invitation.is_first and is_there_an_admin(tx, but=user_id):
            raise InvitationRefused
        now = self._clock.now()
        is_open = sa.and_(table.c.used_at.is_(None), table.c.revoked_at.is_(None), table.c.expires_at > now)
        this = table.update().where(table.c.id == invitation.id, is_open).values(used_at=now, used_by=user_id)
        # The row count decides: of any number of people with one link one gets in.
        if tx.execute(this).rowcount != 1:
            raise InvitationRefused


def _get(tx: Transaction, invitation_id: int) -> Invitation:
    row = tx.execute(sa.select(*COLUMNS).where(table.c.id == invitation_id)).first()
    if row is None:
        raise NotFound(f"There is no invitation {invitation_id}")
    return _invitation(row)


def _invitation(row: sa.Row[Any]) -> Invitation:
    return Invitation(**row._asdict() | {"role": UserRole(row.role)})
