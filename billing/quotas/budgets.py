"""What client keys may spend: the quotas that their makers give them, shown with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from accounts.client_keys import Also, ClientKeyRow
from billing.quotas.rows import Quotas, put
from billing.quotas.terms import QuotaTerms, check_terms
from config.settings import Config


def budget_terms(config: Config, limit_nano: int | None, period: str | None, recovery: str | None) -> QuotaTerms:
    """The terms of a budget: a period or recovery that is None is that of the settings. Raises BadRequest."""
    return check_terms(limit_nano, None, period or config.quota_period, recovery or config.quota_recovery)


def sets_budget(terms: QuotaTerms | None) -> Also:
    """What gives a key this budget, or none, in the transaction that makes or changes the key."""
    return partial(put, terms=terms)


def with_budgets(rows: Sequence[ClientKeyRow], quotas: Quotas, now: datetime) -> list[dict[str, Any]]:
    """Keys as they are shown, each with its budget as of now; None for those without."""
    budgets = quotas.own([row.quota_subject for row in rows]) if rows else {}
    return [
        row.to_dict(now, budgets[row.quota_subject].to_dict() if row.quota_subject in budgets else None) for row in rows
    ]
