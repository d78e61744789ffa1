"""What requests for statistics and logs may ask for in their query: days, times, filters."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from flask import request

from errors import BadRequest
from routes.http import DEFAULT_PAGE_SIZE, MAX_PAGE, MAX_PAGE_SIZE, number, services
from usage_stats import UsageFilter, find_pool_key

DAYS = ("start_date", "end_date")
PAGE = ("page", "page_size")
OWN_LOG = ("client_key_id", "model", "status", "start", "end")
WHOSE = ("user_id", "pool_key")
MAX_DAYS = 366
MAX_ID = 2**63 - 1
MODEL = re.compile(r"[!-~]{0,255}")
TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::00(?::00)?)?Z?)?", re.ASCII)
STATUSES = {None: None, "error": True, "ok": False}


def take_only(*names: str) -> None:
    """Refuse other parameters: a filter that is not understood must not show more than was asked for."""
    for name, values in request.args.lists():
        if name not in names:
            raise BadRequest(f"There is no parameter {name[:40]!r} here; this takes {', '.join(names) or 'none'}")
        if len(values) > 1:
            raise BadRequest(f"{name} is given more than once")


def page_and_size(size_name: str = "page_size") -> tuple[int, int]:
    """Which page, and how many items each has."""
    return number("page", 1, MAX_PAGE), number(size_name, DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def asked_days(user_id: int | None) -> UsageFilter:
    """?start_date&end_date, both included; by default the last 30 days up to today. Raises BadRequest."""
    today = services().clock.now().astimezone(UTC).date()
    last = _day("end_date", today)
    first = _day("start_date", last - timedelta(days=29))
    if first > last:
        raise BadRequest("start_date must not be after end_date")
    if last - first >= timedelta(days=MAX_DAYS):
        raise BadRequest(f"start_date and end_date may be at most {MAX_DAYS} days apart")
    return UsageFilter(user_id, start=_midnight(first), end=_midnight(last) + timedelta(days=1))


def asked_log(user_id: int | None) -> UsageFilter:
    """?client_key_id&model&status&start&end of somebody's log. Raises BadRequest."""
    args = request.args
    model, status = args.get("model"), args.get("status")
    if model is not None and not MODEL.fullmatch(model):
        raise BadRequest("model must be a model's name as the log shows it: up to 255 ASCII characters without spaces")
    if status not in STATUSES:
        raise BadRequest("status must be error or ok")
    start, end = _time("start", timedelta()), _time("end", timedelta(days=1))
    if start and end and start >= end:
        raise BadRequest("start must be before end")
    client_key_id = number("client_key_id", 1, MAX_ID) if "client_key_id" in args else None
    if client_key_id and user_id is None:
        raise BadRequest("client_key_id needs the user_id of its owner beside it")
    return UsageFilter(user_id, client_key_id, model, None, STATUSES[status], start, end)


def asked_user() -> int | None:
    """?user_id, which only operators may give. Raises BadRequest."""
    return number("user_id", 1, MAX_ID) if "user_id" in request.args else None


def asked_pool_key() -> int | None:
    """?pool_key, a name, as its row's id; which only operators may give. Raises BadRequest."""
    name = request.args.get("pool_key")
    if name is None:
        return None
    found = find_pool_key(services().db, name)
    if found is None:
        raise BadRequest("pool_key must be the name of a key of the pool, as GET /admin/pool?all=true shows it")
    return found


def _day(name: str, default: date) -> date:
    text = request.args.get(name)
    if text is None:
        return default
    found = TIME.fullmatch(text)
    try:
        if not found or found[2]:
            raise ValueError
        return _in_range(date.fromisoformat(text))
    except ValueError:
        raise BadRequest(f"{name} must be a day of UTC from 2000-01-01 to 2999-12-31, as 2026-11-21") from None


def _time(name: str, day_long: timedelta) -> datetime | None:
    """day_long: what to add to a day; the end of one is the beginning of the next."""
    text = request.args.get(name)
    if text is None:
        return None
    found = TIME.fullmatch(text)
    try:
        if not found:
            raise ValueError
        day = _midnight(_in_range(date.fromisoformat(found[1])))
        return day.replace(hour=int(found[2])) if found[2] else day + day_long
    except ValueError:
        raise BadRequest(
            f"{name} must be a day or a full hour of UTC from 2000 to 2999, as 2026-11-21 or 2026-11-21T13:00Z"
        ) from None


def _in_range(day: date) -> date:
    if not 2000 <= day.year <= 2999:
        raise ValueError
    return day


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
