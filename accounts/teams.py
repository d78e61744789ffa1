"""Teams: people who share a quota, and lists of models and upstreams, beside what each of them has alone.

All calls of a member count in the team, whatever they call with, and nobody is in two teams. Who leaves loses the
team's client keys, and a quota that its manager has set. Whoever writes here has the locks in one order: client keys,
quotas, teams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa

from accounts.allow_lists import AllowLists, names_in, set_in, with_columns
from accounts.client_keys import ClientKeys, revoke_keys_of
from accounts.deleted import hold_account
from db import Database, DatabaseError, Transaction, inserted_id
from foundation.clock import Clock
from foundation.errors import Conflict, Forbidden, NotFound
from foundation.money import usd
from replicas.revisions import bump
from tables import invitations, team_members
from tables import teams as table
from vault.hashed import check_text

MAX_NAME_CHARACTERS = 100
T = TypeVar("T")
EndQuota = Callable[[Transaction, int, int], object]
"""Ends the quota that a team's manager has given a user: called with their number and the team's."""


class TeamRole(StrEnum):
    """What somebody may do in a team. A manager invites and removes people and says what each of them may spend."""

    MEMBER = "member"
    MANAGER = "manager"


@dataclass(frozen=True, slots=True)
class Team(AllowLists):
    """What holds for the calls of a team's members."""

    whose: ClassVar[str] = "Your team"
    id: int


@dataclass(frozen=True)
class TeamRow:
    """A team as its people and operators see it. members: how many."""

    id: int
    name: str
    models: tuple[str, ...] | None
    upstreams: tuple[str, ...] | None
    created_at: datetime
    updated_at: datetime
    members: int

    @property
    def quota_subject(self) -> str:
        """Whose quota its members share."""
        return f"team/{self.id}"

    def to_dict(self, quota: dict[str, Any] | None) -> dict[str, Any]:
        """For JSON. quota: what its members may spend together, likewise."""
        return asdict(self) | {"quota": quota}


@dataclass(frozen=True)
class Member:
    """Somebody in a team."""

    user_id: int
    team_id: int
    role: TeamRole
    joined_at: datetime

    def to_dict(self, spent_nano: int) -> dict[str, Any]:
        """For JSON. spent_nano: what this member has spent in the team's period."""
        shown = {"user_id": self.user_id, "role": self.role.value, "joined_at": self.joined_at}
        return shown | {"spent_usd": usd(spent_nano)}


IS_THERE = table.c.deleted_at.is_(None)


class Teams:
    """The teams; who is in which in memory.

    know_quotas: reads the quotas, before a team is in force: a process must not know a team without its quota.
    """

    def __init__(
        self, db: Database, clock: Clock, client_keys: ClientKeys, know_quotas: Callable[[], None], end_quota: EndQuota
    ) -> None:
        self._db = db
        self._clock = clock
        self._client_keys = client_keys
        self._know_quotas = know_quotas
        self._end_quota = end_quota
        self.of_user: Mapping[int, Team] = {}

    # ── for calls

    def reload(self) -> None:
        """Copy into memory who is in which team. Raises DatabaseError."""
        self._know_quotas()
        columns = team_members.c.user_id, table.c.id, table.c.models, table.c.upstreams
        query = sa.select(*columns).where(team_members.c.team_id == table.c.id, IS_THERE)
        with self._db.reading() as tx:
            rows = tx.execute(query).all()
        teams: dict[int, Team] = {}
        for row in rows:
            if row.id not in teams:
                teams[row.id] = Team(row.id, models=names_in(row.models), upstreams=set_in(row.upstreams))
        self.of_user = {row.user_id: teams[row.id] for row in rows}

    def check_key(self, team_id: int, user_id: int) -> None:
        """Refuse a team's client key whose maker is not in that team. Raises Forbidden."""
        team = self.of_user.get(user_id)
        if team is None or team.id != team_id:
            raise Forbidden("This client key is a team's, and who has made it is not in that team any more")

    # ── teams

    def create(self, fields: Mapping[str, Any], also: Callable[[Transaction, str], object] | None = None) -> TeamRow:
        """Make a team. fields: name, models, upstreams. also: done with its quota_subject in the same transaction.

        Raises BadRequest, Conflict.
        """
        now = self._clock.now()
        values = _checked(fields) | {"created_at": now, "updated_at": now}

        def insert(tx: Transaction) -> TeamRow:
            team_id = inserted_id(tx.execute(table.insert().values(values)))
            if also:
                also(tx, f"team/{team_id}")
            bump(tx, table.name)
            _refuse_second(tx, values["name"], team_id)
            return _get(tx, team_id)

        return self._change(insert)

    def change(self, team_id: int, fields: Mapping[str, Any]) -> TeamRow:
        """Change a team, in force everywhere within two seconds; what is missing stays.

        Raises NotFound, BadRequest, Conflict.
        """
        values = _checked(fields) | {"updated_at": self._clock.now()}

        def update(tx: Transaction) -> TeamRow:
            bump(tx, table.name)
            _get(tx, team_id)
            if "name" in values:
                _refuse_second(tx, values["name"], team_id)
            tx.execute(table.update().where(table.c.id == team_id).values(values))
            return _get(tx, team_id)

        return self._change(update)

    def delete(self, team_id: int) -> TeamRow:
        """Dissolve a team; returns it as it was. Its calls end as they would have, and count in it. Raises NotFound."""

        def update(tx: Transaction) -> TeamRow:
            bump(tx, "client_keys")
            now = self._clock.now()
            row = _get(tx, team_id)
            self._let_go(tx, team_id, [member.user_id for member in _members(tx, team_id)])
            is_open = sa.and_(invitations.c.team_id == team_id, invitations.c.used_at.is_(None))
            not_revoked = invitations.c.revoked_at.is_(None)
            tx.execute(invitations.update().where(is_open, not_revoked).values(revoked_at=now))
            tx.execute(table.update().where(table.c.id == team_id).values(deleted_at=now))
            return row

        return self._change(update)

    def get(self, team_id: int) -> TeamRow:
        """A team. Raises NotFound."""
        with self._db.reading() as tx:
            return _get(tx, team_id)

    def page(self, page: int, page_size: int) -> tuple[list[TeamRow], int]:
        """A page of teams, newest first, and how many there are. page: from 1."""
        query = _rows().order_by(table.c.id.desc()).limit(page_size).offset((page - 1) * page_size)
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(table).where(IS_THERE)) or 0
            return [_row(row) for row in tx.execute(query)], total

    # ── members

    def member(self, user_id: int) -> Member | None:
        """Somebody's membership; None for who is in no team."""
        with self._db.reading() as tx:
            return _member(tx, user_id)

    def members(self, team_id: int) -> list[Member]:
        """Who is in a team, managers first. Raises NotFound."""
        with self._db.reading() as tx:
            _get(tx, team_id)
            return _members(tx, team_id)

    def check_member(self, tx: Transaction, team_id: int, user_id: int) -> None:
        """Refuse what only members may have, in the transaction that gives it. Raises NotFound."""
        _get_member(tx, team_id, user_id)

    def join(self, tx: Transaction, team_id: int, user_id: int, role: TeamRole = TeamRole.MEMBER) -> None:
        """Take somebody in, in this transaction. Raises NotFound; Conflict for who is in a team already."""
        hold_account(tx, user_id)
        bump(tx, table.name)
        _get(tx, team_id)
        if found := _member(tx, user_id):
            which = "this team" if found.team_id == team_id else "another team"
            raise Conflict(f"User {user_id} is in {which} already; nobody can be in two")
        values = {"user_id": user_id, "team_id": team_id, "role": role, "joined_at": self._clock.now()}
        tx.execute(team_members.insert().values(values))

    def add(self, team_id: int, user_id: int, role: TeamRole = TeamRole.MEMBER) -> Member:
        """As `join`, in force everywhere within two seconds."""

        def insert(tx: Transaction) -> Member:
            self.join(tx, team_id, user_id, role)
            return _get_member(tx, team_id, user_id)

        return self._change(insert)

    def set_role(self, team_id: int, user_id: int, role: TeamRole) -> Member:
        """Make somebody a manager, or a member again. Raises NotFound."""

        def update(tx: Transaction) -> Member:
            bump(tx, table.name)
            _get_member(tx, team_id, user_id)
            tx.execute(team_members.update().where(team_members.c.user_id == user_id).values(role=role))
            return _get_member(tx, team_id, user_id)

        return self._change(update)

    def remove(self, team_id: int, user_id: int) -> None:
        """Let somebody go, with the team's keys that they have made. Raises NotFound."""

        def delete(tx: Transaction) -> None:
            bump(tx, "client_keys")
            _get_member(tx, team_id, user_id)
            self._let_go(tx, team_id, [user_id])

        self._change(delete)

    def _let_go(self, tx: Transaction, team_id: int, user_ids: Collection[int]) -> None:
        revoke_keys_of(tx, team_id, user_ids, self._clock.now())
        for user_id in sorted(user_ids):
            self._end_quota(tx, user_id, team_id)
        bump(tx, table.name)
        tx.execute(team_members.delete().where(team_members.c.user_id.in_(user_ids)))

    def _change(self, work: Callable[[Transaction], T]) -> T:
        result = self._db.transact(work)
        with suppress(DatabaseError):  # it is committed; the watcher reads it as soon as the database is back
            self.reload()
            self._client_keys.live.reload()
        return result


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    values = with_columns(fields)
    if "name" in values:
        values["name"] = check_text("name", values["name"].strip(), 1, MAX_NAME_CHARACTERS)
    return values


def _refuse_second(tx: Transaction, name: str, team_id: int) -> None:
    others = sa.select(table.c.id).where(table.c.name == name, table.c.id != team_id, IS_THERE)
    if tx.execute(others.limit(1)).first():
        raise Conflict(f"There is a team named {name} already")


def _rows() -> sa.Select[Any]:
    count = sa.select(sa.func.count()).where(team_members.c.team_id == table.c.id).scalar_subquery()
    columns = [table.c[name] for name in TeamRow.__dataclass_fields__ if name != "members"]
    return sa.select(*columns, count.label("members")).where(IS_THERE)


def _get(tx: Transaction, team_id: int) -> TeamRow:
    row = tx.execute(_rows().where(table.c.id == team_id)).first()
    if row is None:
        raise NotFound(f"There is no team {team_id}")
    return _row(row)


def _row(row: sa.Row[Any]) -> TeamRow:
    lists = {"models": names_in(row.models), "upstreams": names_in(row.upstreams)}
    return TeamRow(**row._asdict() | lists)


def _members(tx: Transaction, team_id: int) -> list[Member]:
    query = sa.select(team_members).where(team_members.c.team_id == team_id)
    found = [_membership(row) for row in tx.execute(query.order_by(team_members.c.user_id))]
    return sorted(found, key=lambda member: member.role is not TeamRole.MANAGER)


def _member(tx: Transaction, user_id: int) -> Member | None:
    row = tx.execute(sa.select(team_members).where(team_members.c.user_id == user_id)).first()
    return _membership(row) if row else None


def _get_member(tx: Transaction, team_id: int, user_id: int) -> Member:
    found = _member(tx, user_id)
    if found is None or found.team_id != team_id:
        raise NotFound(f"User {user_id} is not in this team")
    return found


def _membership(row: sa.Row[Any]) -> Member:
    return Member(row.user_id, row.team_id, TeamRole(row.role), row.joined_at)
