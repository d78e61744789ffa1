"""What requests for statistics and logs may ask for in their query: days, times, filters."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from billing.records import REQUEST_ID
from billing.reports.row_filter import Ending, Order, RowFilter, statuses_of
from billing.reports.statistics import UsageFilter, find_pool_key, find_upstream
from foundation.errors import BadRequest
from foundation.money import nano
from upstream.registry import OPENROUTER
from web.http import services
from web.operation import DIGITS, Paging, Query, RowId

MAX_DAYS = 366
MAX_DOLLARS = 1_000_000
MODEL = re.compile(r"[!-~]{0,255}")
ERROR_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,32}")
MAX_MS = 86_400_000
DOLLARS = re.compile(r"\d{1,7}(?:\.\d{1,9})?", re.ASCII)
TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::00(?::00)?)?Z?)?", re.ASCII)


def _day(text: str) -> date:
    try:
        if not (found := TIME.fullmatch(text)) or found[2]:
            raise ValueError
        return _in_range(date.fromisoformat(text))
    except ValueError:
        raise ValueError("must be a day of UTC from 2000-01-01 to 2999-12-31, as 2026-11-21") from None


def _time(day_long: timedelta) -> Callable[[str], datetime]:
    """day_long: what to add to a day; the end of one is the beginning of the next."""

    def read(text: str) -> datetime:
        try:
            if not (found := TIME.fullmatch(text)):
                raise ValueError
            day = midnight(_in_range(date.fromisoformat(found[1])))
            return day.replace(hour=int(found[2])) if found[2] else day + day_long
        except ValueError:
            raise ValueError(
                "must be a day or a full hour of UTC from 2000 to 2999, as 2026-11-21 or 2026-11-21T13:00Z"
            ) from None

    return read


def _model(text: str) -> str:
    if not MODEL.fullmatch(text):
        raise ValueError("must be a model's name as the log shows it: up to 255 ASCII characters without spaces")
    return text


def _model_part(text: str) -> str:
    if not text or not MODEL.fullmatch(text):
        raise ValueError("must be a part of a model's name: 1 to 255 ASCII characters without spaces")
    return text.lower()


def _request_id(text: str) -> str:
    if not REQUEST_ID.fullmatch(text):
        raise ValueError("must be a request's id, or its first 12 characters at least, all of them 0 to 9 or a to f")
    return text


def _status(text: str) -> str:
    if text not in {"error", "ok"}:
        statuses_of(text)
    return text


def _error_type(text: str) -> str:
    if not ERROR_TYPE.fullmatch(text):
        raise ValueError("must be a reason as the log shows it, as rate_limit_exceeded")
    return text


def _dollars(text: str) -> int:
    amount = nano(text) if DOLLARS.fullmatch(text) else None
    if amount is None or amount > MAX_DOLLARS * 10**9:
        raise ValueError(f"must be an amount of dollars from 0 to {MAX_DOLLARS}, as 0.05")
    return amount


def _in_range(day: date) -> date:
    if not 2000 <= day.year <= 2999:
        raise ValueError
    return day


def midnight(day: date) -> datetime:
    """The begin of a day of UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


Day = Annotated[date, BeforeValidator(_day)]
# Days and full hours, not any time: the sums that pages are found with are those of hours.
_HOUR = WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d(T\d\d(:00(:00)?)?Z?)?$"})
Begin = Annotated[datetime, BeforeValidator(_time(timedelta())), _HOUR]
End = Annotated[datetime, BeforeValidator(_time(timedelta(days=1))), _HOUR]


Status = Annotated[
    str, BeforeValidator(_status), WithJsonSchema({"type": "string", "pattern": "^(error|ok|[1-5]([0-9]{2}|xx))$"})
]
# As nano-dollars.
Dollars = Annotated[int, BeforeValidator(_dollars), WithJsonSchema({"type": "number", "minimum": 0})]
Milliseconds = Annotated[int, Field(ge=0, le=MAX_MS), DIGITS]
Reason = Annotated[str, BeforeValidator(_error_type)]


class Days(Query):
    """Days of UTC; by default the last 30 up to today."""

    start_date: Day | None = Field(None, description="The first day (UTC)", examples=["2026-11-01"])
    end_date: Day | None = Field(None, description="The last day, included", examples=["2026-11-21"])

    def first_and_last(self) -> tuple[date, date]:
        """The days, both included. Raises BadRequest."""
        last = self.end_date or services().clock.now().astimezone(UTC).date()
        first = self.start_date or last - timedelta(days=29)
        if first > last:
            raise BadRequest("start_date must not be after end_date")
        if last - first >= timedelta(days=MAX_DAYS):
            raise BadRequest(f"start_date and end_date may be at most {MAX_DAYS} days apart")
        return first, last

    def usage_of(self, user_id: int | None) -> UsageFilter:
        """The calls of a user, or of everybody, in these days. Raises BadRequest."""
        first, last = self.first_and_last()
        return UsageFilter(user_id, start=midnight(first), end=midnight(last) + timedelta(days=1))


class LogFilter(Query):
    """Which calls of a log."""

    client_key_id: RowId | None = Field(None, description="With this client key")
    model: Annotated[str, BeforeValidator(_model)] | None = Field(
        None, max_length=255, description="As the log shows it", examples=["openai/gpt-4o-mini"]
    )
    upstream: str | None = Field(None, description=f"That went there; `{OPENROUTER}` for the pool of keys")
    status: Status | None = Field(
        None, description="How they ended: `error`, `ok`, a status such as `429` or a class such as `4xx`"
    )
    model_contains: Annotated[str, BeforeValidator(_model_part)] | None = Field(
        None, max_length=255, description="Any part of a model's name", examples=["gpt-4o"]
    )
    request_id: Annotated[str, BeforeValidator(_request_id)] | None = Field(
        None, description="Its id, or the first 12 characters of it at least", examples=["019ab5d1c2e3"]
    )
    outcome: Ending | None = Field(None, description="How exactly they ended")
    error_type: Reason | None = Field(None, description="Why", examples=["rate_limit_exceeded"])
    min_cost_usd: Dollars | None = Field(None, description="That cost so much or more", examples=[0.05])
    min_ms: Milliseconds | None = Field(None, description="That took so long or longer, in milliseconds")
    start: Begin | None = Field(None, description="From this day or full hour (UTC) on", examples=["2026-11-21T13:00Z"])
    end: End | None = Field(
        None, description="Up to this hour, or to the end of this day (UTC)", examples=["2026-11-21"]
    )

    def usage_of(self, user_id: int | None) -> UsageFilter:
        """The calls of a user, or of everybody. Raises BadRequest."""
        if self.start and self.end and self.start >= self.end:
            raise BadRequest("start must be before end")
        if self.client_key_id and user_id is None:
            raise BadRequest("client_key_id needs the user_id of its owner beside it")
        return UsageFilter(
            user_id,
            self.client_key_id,
            self.model,
            is_error={"error": True, "ok": False}.get(self.status or ""),
            start=self.start,
            end=self.end,
            upstream_id=self._upstream(),
            model_part=self.model_contains,
            rows=self._rows(),
        )

    @property
    def is_search(self) -> bool:
        """True if rows have to be read for what no sum counts."""
        return self._rows() is not None

    def _rows(self) -> RowFilter | None:
        """What sums can't tell; None if it is not asked for."""
        found = RowFilter(
            self.request_id,
            None if self.status in {None, "error", "ok"} else statuses_of(self.status),
            self.outcome,
            self.error_type,
            self.min_cost_usd,
            self.min_ms,
            self._order(),
        )
        return None if found == RowFilter() else found

    def _order(self) -> Order:
        return Order.NEWEST

    def _upstream(self) -> int | None:
        found = None if self.upstream is None else find_upstream(services().db, self.upstream)
        if self.upstream is not None and found is None:
            raise BadRequest(f"upstream must be {OPENROUTER} or the name of another upstream")
        return found


class LogPageQuery(Paging, LogFilter):
    """A page of a log."""

    sort: Order = Field(Order.NEWEST, description="Which come first: the newest, or those with the most of it")

    def _order(self) -> Order:
        return self.sort


class LogFile(LogFilter):
    """A log as a file."""

    format: Literal["csv", "jsonl"] = Field(description="For spreadsheets, or for programs", examples=["jsonl"])


def find_pool_key_id(name: str | None) -> int | None:
    """The id of the pool key of this name, for filters; which only operators may give. Raises BadRequest."""
    found = None if name is None else find_pool_key(services().db, name)
    if name is not None and found is None:
        raise BadRequest(
            "pool_key must be the name of a key of the pool, as GET /admin/pool?all=true shows it, "
            "or a part that only one has"
        )
    return found
