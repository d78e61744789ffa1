"""Accounts: create, find, change. A username is stored only as a keyed hash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from accounts.deleted import IS_THERE, hold_account
from accounts.labels import shown_label
from accounts.sessions import EndedBy, end_all_of
from db import Database, Duplicate, NotAnswering, Transaction, inserted_id
from foundation.clock import Clock
from foundation.crypto import keyed_name, new_id
from foundation.errors import Conflict, Forbidden, NotFound, Unauthorized, UsernameTaken
from replicas.revisions import bump
from tables import users as table


class UpstreamChoice(StrEnum):
    """Which OpenRouter keys carry a user's calls, where users have keys of their own."""

    DEDICATED_FIRST = "dedicated_first"
    SHARED_FIRST = "shared_first"
    DEDICATED_ONLY = "dedicated_only"


class UserState(StrEnum):
    """active; disabled: no login, no calls; silenced: may look, may not call; pending: waits to be let in at all."""

    ACTIVE = "active"
    DISABLED = "disabled"
    SILENCED = "silenced"
    PENDING = "pending"

    @property
    def is_shut(self) -> bool:
        """True for those in which nobody can log in."""
        return self in SHUT


class UserRole(StrEnum):
    """What each may do says accounts/roles.py. service: an account of client keys without a person, to which nobody can
    log in.
    """

    USER = "user"
    AUDITOR = "auditor"
    ADMIN = "admin"
    SERVICE = "service"


SHUT = frozenset({UserState.DISABLED, UserState.PENDING})
MORE_THAN_USERS = (UserRole.ADMIN, UserRole.AUDITOR)
MAX_TRUST_LEVEL = 4
NO_KEY = "none"  # no key hashes to this


@dataclass(frozen=True)
class User:
    """One account, without its name."""

    id: int
    key_hash: str
    state: UserState
    created_at: datetime
    last_login: datetime | None
    upstream_choice: UpstreamChoice
    role: UserRole
    trust_level: int
    display_name: str | None
    avatar_url: str | None
    label: str | None
    shares_name: bool

    def to_dict(self) -> dict[str, Any]:
        """What operators get to see of it."""
        label = shown_label(self.label, self.display_name, self.shares_name)
        return self._plain() | {"label": self.label, "user_label": label}

    def _plain(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state.value,
            "role": self.role.value,
            "trust_level": self.trust_level,
            "created_at": self.created_at.isoformat(timespec="seconds"),
            "last_login": self.last_login.isoformat(timespec="seconds") if self.last_login else None,
            "upstream_choice": self.upstream_choice.value,
        }

    def profile(self) -> dict[str, Any]:
        """What its owner gets to see of it: names and pictures of people are theirs alone, labels the operators'."""
        own = {"display_name": self.display_name, "shares_display_name": self.shares_name}
        return self._plain() | own | {"avatar_url": self.avatar_url}

    def account(self) -> dict[str, Any]:
        """What clients are told of who has logged in. username: None, since it is stored as a hash only."""
        return {
            "id": self.id,
            "username": None,
            "display_name": self.display_name,
            "avatar_url": self.avatar_url,
            "trust_level": self.trust_level,
            "is_active": self.state is not UserState.DISABLED,
            "is_silenced": self.state is UserState.SILENCED,
            "role": self.role.value,
        }

    def changes_since(self, before: User) -> dict[str, dict[str, Any]]:
        """What an operator has changed, for the audit log: by the action, each new value, and the old one as
        `old_<name>`. A label may be somebody's name, which would stay there when the account is deleted.
        """
        names = [name for name in ("state", "role", "trust_level") if getattr(self, name) != getattr(before, name)]
        old = {f"old_{name}": getattr(before, name) for name in names}
        changes = {"user_changed": {name: getattr(self, name) for name in names} | old} if names else {}
        return changes | ({"user_labelled": {}} if self.label != before.label else {})


COLUMNS = [table.c[name] for name in User.__dataclass_fields__]


class Users:
    """The accounts, and in memory which of them may not call, have a role, or have chosen otherwise than most."""

    def __init__(self, db: Database, username_key: bytes | None, clock: Clock) -> None:
        """username_key: None if it is told by `know_username_key`, before anybody can be looked for."""
        self._db = db
        self._username_key = username_key
        self._clock = clock
        self.restricted: dict[int, UserState] = {}
        self.roles: dict[int, UserRole] = {}
        """Those of active people who are more than users."""
        self._choices: dict[int, UpstreamChoice] = {}

    def know_username_key(self, username_key: bytes) -> None:
        """Learn the 32-byte key of username hashes."""
        self._username_key = username_key

    def name_hash(self, username: str) -> str:
        """The name as it is stored: 64 hex characters. Raises NotAnswering before the key is known."""
        if self._username_key is None:
            raise NotAnswering("the database, which has the key of usernames, has not answered yet")
        return keyed_name(self._username_key, username)

    def create(
        self,
        username: str,
        key_hash: str,
        state: UserState = UserState.ACTIVE,
        role: UserRole = UserRole.USER,
        welcome: Callable[[Transaction, int], object] = lambda _tx, _user_id: None,
    ) -> int:
        """Add an account and return its id. Raises UsernameTaken.

        welcome: done with its id in the same transaction: if it raises, there is no account.
        """
        now = self._clock.now()
        row: dict[str, object] = {"username_hash": self.name_hash(username), "key_hash": key_hash}
        row |= {"state": state, "role": role, "created_at": now, "updated_at": now}

        def insert(tx: Transaction) -> int:
            user_id = inserted_id(tx.execute(table.insert().values(row)))
            welcome(tx, user_id)
            if (state, role) != (UserState.ACTIVE, UserRole.USER):
                bump(tx, "users")
            return user_id

        try:
            return self._db.transact(insert)
        except Duplicate:
            raise UsernameTaken from None

    def exists(self, username: str) -> bool:
        """True if the name is taken."""
        return self.find(username) is not None

    def are_there_any(self) -> bool:
        """True if there is an account, or ever was one."""
        with self._db.reading() as tx:
            return tx.scalar(sa.select(table.c.id).limit(1)) is not None

    def find(self, username: str) -> User | None:
        """The account of this name."""
        return self._find(table.c.username_hash == self.name_hash(username))

    def find_by_id(self, user_id: int) -> User | None:
        """The account of this id."""
        return self._find(table.c.id == user_id)

    def get(self, user_id: int) -> User:
        """The account of this id. Raises NotFound."""
        user = self.find_by_id(user_id)
        if user is None:
            raise NotFound("There is no such account any more")
        return user

    def _find(self, condition: sa.ColumnElement[bool]) -> User | None:
        with self._db.reading() as tx:
            row = tx.execute(sa.select(*COLUMNS).where(condition, IS_THERE)).first()
        return _user(row) if row else None

    def page(self, page: int, page_size: int, wanted: Mapping[str, object]) -> tuple[list[User], int]:
        """One page of accounts, newest first, and how many there are. wanted: values of columns, all of which hold."""
        conditions = [IS_THERE, *(table.c[name] == value for name, value in wanted.items())]
        query = sa.select(*COLUMNS).where(*conditions).order_by(table.c.id.desc())
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(table).where(*conditions)) or 0
            rows = tx.execute(query.limit(page_size).offset((page - 1) * page_size)).all()
        return [_user(row) for row in rows], total

    def note_log_in(self, tx: Transaction, user: User, new_key_hash: str | None = None) -> None:
        """Note a log-in, in the transaction that opens the session.

        new_key_hash: of the same key, made with today's parameters. Raises Unauthorized if the account has meanwhile
        got another key or was disabled: that has ended all sessions, and this one would come too late to be ended.
        """
        values: dict[str, object] = {"last_login": self._clock.now(), "key_hash": new_key_hash or user.key_hash}
        if tx.execute(_unchanged(user).values(values)).rowcount != 1:
            raise _changed_meanwhile()

    def set_state(self, user_id: int, state: UserState) -> None:
        """Enable, disable or silence: as change does."""
        self.change(user_id, state=state)

    def change(
        self,
        user_id: int,
        state: UserState | None = None,
        role: UserRole | None = None,
        trust_level: int | None = None,
        label: str | None = None,
    ) -> tuple[User, User]:
        """Change what is given, in force in every process within two seconds. Returns the user before and after.

        label: empty for none. Disabling ends all sessions. Raises NotFound; Conflict for the role of a service account,
        which stays.
        """
        given = {"state": state, "role": role, "trust_level": trust_level}
        values: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        values |= {} if label is None else {"label": label or None}

        def update(tx: Transaction) -> tuple[User, User]:
            row = tx.execute(sa.select(*COLUMNS).where(table.c.id == user_id, IS_THERE).with_for_update()).first()
            if row is None:
                raise NotFound(f"There is no user {user_id}")
            before = _user(row)
            if role and UserRole.SERVICE in {role, before.role} and role is not before.role:
                raise Conflict("Nobody can log in to a service account: none becomes one, and none becomes another")
            after = replace(before, **values)  # type: ignore[arg-type]
            if after != before:
                now = self._clock.now()
                tx.execute(table.update().where(table.c.id == user_id).values(**values, updated_at=now))
                if after.state.is_shut:
                    end_all_of(tx, user_id, now, EndedBy.DISABLED)
                bump(tx, "users")
            return before, after

        return self._db.transact(update)

    def set_derived_key(
        self,
        user: User,
        key_hash: str,
        first: Callable[[Transaction], object] = lambda _: None,
        username: str | None = None,
    ) -> User:
        """Store the hash of a user's new key and end all sessions, in every process within two seconds.

        user: as it was when its key was proved. first: done in the same transaction, before. username: a new one, for
        an account that has none. Raises Unauthorized if it has meanwhile got another one; UsernameTaken.
        """
        now = self._clock.now()
        values: dict[str, object] = {"key_hash": key_hash, "updated_at": now}
        values |= {} if username is None else {"username_hash": self.name_hash(username)}

        def update(tx: Transaction) -> None:
            first(tx)
            if tx.execute(_unchanged(user).values(values)).rowcount != 1:
                raise _changed_meanwhile()
            end_all_of(tx, user.id, now, EndedBy.NEW_KEY)

        try:
            self._db.transact(update)
        except Duplicate:
            raise UsernameTaken from None
        return replace(user, key_hash=key_hash)

    def set_display_name(self, user_id: int, name: str | None, is_shared: bool | None = None) -> None:
        """Store what a user wants to be called. No process keeps that in memory, so none has to be told.

        is_shared: operators are shown it; None leaves that as it is.
        """
        values: dict[str, object] = {"display_name": name, "updated_at": self._clock.now()}
        values |= {} if is_shared is None else {"shares_name": is_shared}

        def update(tx: Transaction) -> None:
            hold_account(tx, user_id)
            tx.execute(table.update().where(table.c.id == user_id).values(values))

        self._db.transact(update)

    def upstream_choice(self, user_id: int) -> UpstreamChoice:
        """Which keys carry this user's calls, as this process knows it."""
        return self._choices.get(user_id, UpstreamChoice.DEDICATED_FIRST)

    def set_upstream_choice(self, user_id: int, choice: UpstreamChoice) -> None:
        """Choose which keys carry a user's calls; in force in every process within two seconds."""
        self._change(user_id, {"upstream_choice": None if choice is UpstreamChoice.DEDICATED_FIRST else choice})

    def _change(self, user_id: int, values: dict[str, object]) -> None:
        values |= {"updated_at": self._clock.now()}

        def update(tx: Transaction) -> None:
            hold_account(tx, user_id)
            tx.execute(table.update().where(table.c.id == user_id).values(values))
            bump(tx, "users")

        self._db.transact(update)

    def reload(self) -> None:
        """Copy into memory those who differ from most: few, where all users may be a million."""
        differs = [table.c.state != UserState.ACTIVE, table.c.upstream_choice.is_not(None)]
        differs.append(table.c.role.in_(MORE_THAN_USERS))
        columns = table.c.id, table.c.state, table.c.upstream_choice, table.c.role
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(*columns).where(sa.or_(*differs), IS_THERE)).all()
        self.restricted = {row.id: UserState(row.state) for row in rows if row.state != UserState.ACTIVE}
        mighty = (row for row in rows if row.role in MORE_THAN_USERS and row.id not in self.restricted)
        self.roles = {row.id: UserRole(row.role) for row in mighty}
        self._choices = {row.id: UpstreamChoice(row.upstream_choice) for row in rows if row.upstream_choice}


def _unchanged(user: User) -> sa.Update:
    """A change of a user who still has this key and may log in."""
    is_same = sa.and_(table.c.key_hash == user.key_hash, table.c.state.not_in(SHUT), IS_THERE)
    return table.update().where(table.c.id == user.id, is_same)


def _changed_meanwhile() -> Unauthorized:
    return Unauthorized("The account was changed at this moment; log in again")


class AccountPending(Forbidden):
    """An operator has not let this account in yet."""

    type = "account_pending"


def shut(state: UserState) -> Forbidden:
    """What the owner of an account in this state is told at the door."""
    if state is UserState.PENDING:
        return AccountPending("This account waits for an operator to let it in; try again later")
    return Forbidden("This account is disabled")


def is_user(tx: Transaction, user_id: int) -> bool:
    """True if there is an account of this id."""
    return tx.scalar(sa.select(table.c.id).where(table.c.id == user_id, IS_THERE)) is not None


def is_there_an_admin(tx: Transaction, but: int | None = None) -> bool:
    """True if somebody may administer. but: the id of an account that does not count."""
    is_admin = sa.and_(table.c.role == UserRole.ADMIN, table.c.state == UserState.ACTIVE)
    others = sa.and_(is_admin, table.c.id != but) if but else is_admin
    return tx.scalar(sa.select(table.c.id).where(others).limit(1)) is not None


def add_service_account(tx: Transaction, now: datetime) -> int:
    """Add an account that nobody can log in to and return its id: no name hashes to its name, no key to its key."""
    row: dict[str, object] = {"username_hash": f"service-{new_id()}", "key_hash": NO_KEY, "role": UserRole.SERVICE}
    row |= {"state": UserState.ACTIVE, "created_at": now, "updated_at": now}
    return inserted_id(tx.execute(table.insert().values(row)))


def add_sso_account(tx: Transaction, now: datetime, values: dict[str, object]) -> int:
    """Add an account that only a provider opens and return its id: no name hashes to its name, no key to its key.

    values: of columns that differ from those of most.
    """
    row: dict[str, object] = {"username_hash": f"sso-{new_id()}", "key_hash": NO_KEY, "state": UserState.ACTIVE}
    return inserted_id(tx.execute(table.insert().values(row | {"created_at": now, "updated_at": now} | values)))


def _user(row: sa.Row[Any]) -> User:
    choice = UpstreamChoice(row.upstream_choice or UpstreamChoice.DEDICATED_FIRST)
    named = {"state": UserState(row.state), "role": UserRole(row.role), "upstream_choice": choice}
    return User(**row._asdict() | named)
