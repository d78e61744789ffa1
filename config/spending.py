"""Settings of what people may spend, and of how long it is kept what they spent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class SpendingSettings(BaseModel):
    """Quotas, and how long what was spent is kept."""

    quota_usd: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = Field(
        10,
        description="what each user may spend per QUOTA_PERIOD, unless a quota of their own is set; `none` for any",
    )
    quota_soft_usd: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = Field(
        None, description="from here on a user's answers carry a warning; `none` for no warning"
    )
    quota_period: Literal["day", "week", "month", "none"] = Field(
        "month", description="the time for which QUOTA_USD is; `none` for all time"
    )
    quota_recovery: Literal["reset", "steady"] = Field(
        "reset", description="how a quota recovers: all at once when the period ends, or steadily all the time"
    )
    quota_counts_byok: Literal["off", "on"] = Field(
        "off",
        description="count in quotas what a provider bills for its own key, which OpenRouter used (BYOK); "
        "OpenRouter's fee for that counts in any case",
    )
    credit_without_database_usd: float = Field(
        0,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="what each user may spend in a process that started without its database; 0: calls wait for it",
    )
    log_retention_days: int = Field(
        90, ge=0, le=36_500, description="how long the request log keeps a call; 0 for ever. Statistics stay"
    )
    audit_log_days: int = Field(
        0, ge=0, le=36_500, description="how long the audit log keeps who did what, from which address; 0 for ever"
    )
    hourly_sums_days: int = Field(
        90,
        ge=32,
        le=36_500,
        description="how long sums by hour are kept; never for less time than LOG_RETENTION_DAYS",
    )
    daily_sums_days: int = Field(
        1095, ge=0, le=36_500, description="how long sums by day are kept, which statistics are made of; 0 for ever"
    )
