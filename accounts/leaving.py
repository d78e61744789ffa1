"""Deletes accounts: whatever is of a person goes in one transaction, and what is counted stays under a number.

What stays: ledger rows and their sums, quotas, keys and tokens without their names (the ledger counts by them), ended
sessions without their addresses, and the audit log without what its owner has written there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

import tables
from accounts.deleted import MARK, hold_account
from accounts.everything import Everything, revoke_all_of
from accounts.refused_log_ins import NOBODY
from accounts.sessions import EndedBy, end_all_of
from accounts.users import NO_KEY, UserRole, Users, UserState, is_there_an_admin
from db import Database, Transaction
from foundation.clock import Clock
from foundation.errors import Conflict
from replicas.revisions import bump

# Whose rows go. A table with a person's number that is neither here, in UNNAMED nor in KEPT fails a test.
GONE = (
    tables.favourite_models,
    tables.identities,
    tables.oauth_states,
    tables.passkeys,
    tables.recovery_codes,
    tables.reset_links,
    tables.team_members,
    tables.totp_secrets,
    tables.watched_keys,
)
# What of a row is overwritten.
UNNAMED: dict[sa.Table, dict[str, object]] = {
    tables.user_sessions: {"address": None, "user_agent": None},
    tables.client_keys: {"name": "", "description": "", "models": None, "upstreams": None},
    tables.api_tokens: {"name": ""},
}
# openrouter_accounts goes with its key, by whoever knows keys.
KEPT = (tables.usage_ledger, tables.usage_rollups, tables.team_rollups, tables.audit_log, tables.openrouter_accounts)

Also = Callable[[Transaction, int], object]


class Leaving:
    """also: what else is to be deleted of a user's, in the same transaction; it has no lock yet."""

    def __init__(self, db: Database, clock: Clock, users: Users, everything: Everything, also: Also) -> None:
        self._db = db
        self._clock = clock
        self._users = users
        self._everything = everything
        self._also = also

    def delete(self, user_id: int, by_owner: bool = False) -> None:
        """Delete an account, in force in every process within two seconds, here at once.

        Raises NotFound; Conflict for who deletes the own account and is the only one who may administer.
        """

        def work(tx: Transaction) -> None:
            revoke_all_of(tx, user_id, self._clock.now())  # its locks come first, and one deletion after the other
            self._also(tx, user_id)
            hold_account(tx, user_id)
            if by_owner and _is_admin(tx, user_id) and not is_there_an_admin(tx, but=user_id):
                raise Conflict("You are the only one who may administer here: make somebody else an admin first")
            self._forget(tx, user_id)

        self._db.transact(work)
        self._everything.reload()
        self._users.reload()

    def _forget(self, tx: Transaction, user_id: int) -> None:
        now = self._clock.now()
        mine = sa.select(tables.watched_keys.c.id).where(tables.watched_keys.c.user_id == user_id)
        days = tables.watched_key_days
        tx.execute(days.delete().where(days.c.personal_key_id.in_(mine)))
        for table in GONE:
            tx.execute(table.delete().where(table.c.user_id == user_id))
        end_all_of(tx, user_id, now, EndedBy.DELETED)
        for table, without in UNNAMED.items():
            tx.execute(table.update().where(table.c.user_id == user_id).values(without))
        _clear_audit_log(tx, user_id)
        _clear_invitations(tx, user_id, now)
        users = tables.users
        values: dict[str, object] = dict.fromkeys(
            ("display_name", "label", "avatar_url", "default_model", "upstream_choice", "last_login")
        )
        values |= {"username_hash": f"{MARK}{user_id}", "key_hash": NO_KEY, "role": UserRole.USER, "shares_name": False}
        values |= {"state": UserState.DISABLED, "updated_at": now}
        tx.execute(users.update().where(users.c.id == user_id).values(values))
        bump(tx, "users")
        bump(tx, "teams")


def _is_admin(tx: Transaction, user_id: int) -> bool:
    users = tables.users
    return tx.scalar(sa.select(users.c.role).where(users.c.id == user_id)) == UserRole.ADMIN


def _clear_audit_log(tx: Transaction, user_id: int) -> None:
    """What happened stays, and what operators did; where the person was, and names that they gave, do not."""
    log = tables.audit_log
    about = log.c.user_id == user_id
    is_own = sa.and_(about, log.c.actor == f"user/{user_id}")
    tx.execute(log.update().where(is_own).values(details="{}"))
    tx.execute(log.update().where(sa.or_(is_own, sa.and_(about, log.c.actor == NOBODY))).values(address=None))


def _clear_invitations(tx: Transaction, user_id: int, now: datetime) -> None:
    """The note of the one that was used says who somebody is; those that somebody made are good no more."""
    table = tables.invitations
    tx.execute(table.update().where(table.c.used_by == user_id).values(note=""))
    is_open = sa.and_(table.c.used_at.is_(None), table.c.revoked_at.is_(None))
    made = sa.and_(table.c.created_by == f"user/{user_id}", is_open)
    tx.execute(table.update().where(made).values(revoked_at=now))
