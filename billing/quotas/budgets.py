"""Quotas that are given with what they are for: client keys' by their makers, invited users' by who invited them,
members' by the managers of their team."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from accounts.client_keys import Also, ClientKeyRow
from billing.quotas.rows import Quotas, put, set_by_manager
from billing.quotas.terms import QuotaTerms, check_terms
from config.settings import Config
from db import Transaction


def budget_terms(config: Config, limit_nano: int | None, period: str | None, recovery: str | None) -> QuotaTerms:
    """The terms of a budget: a period or recovery that is None is that of the settings. Raises BadRequest."""
    return check_terms(limit_nano, None, period or config.quota_period, recovery or config.quota_recovery)


def sets_budget(terms: QuotaTerms | None) -> Also:
    """What gives a key or a team this quota, or none, in the transaction that makes or changes it."""
    return partial(put, terms=terms)


def give_quota(config: Config, tx: Transaction, subject: str, limit_nano: int, period: str | None) -> None:
    """Give a subject a quota, in the transaction that makes it. period: None for that of the settings."""
    put(tx, subject, check_terms(limit_nano, None, period or config.quota_period, "reset"))


def end_members_quota(tx: Transaction, user_id: int, team_id: int) -> None:
    """Take back what a manager of this team has let a member spend: it was for what the team pays for."""
    subject = f"user/{user_id}"
    if set_by_manager(tx, subject) == team_id:
        put(tx, subject, None)


def with_budgets(rows: Sequence[ClientKeyRow], quotas: Quotas, now: datetime) -> list[dict[str, Any]]:
    """Keys as they are shown, each with its budget as of now; None for those without."""
    budgets = quotas.own([row.quota_subject for row in rows]) if rows else {}
    return [
        row.to_dict(now, budgets[row.quota_subject].to_dict() if row.quota_subject in budgets else None) for row in rows
    ]
