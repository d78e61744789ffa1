"""What only the log's rows tell: how a call was answered, or why not; what it cost, and how long it took."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from tables import usage_ledger as ledger

STATUS = re.compile(r"[1-5](?:\d\d|xx)", re.ASCII)


class Ending(StrEnum):
    """How a request ended, as the log has it: docs/usage.md."""

    COMPLETE = "complete"
    CACHED = "cached"
    CLIENT_GONE = "client_gone"
    ERROR = "error"
    REFUSED = "refused"
    FAILED = "failed"
    BROKEN = "broken"
    CUT = "cut"
    STALLED = "stalled"
    LOST = "lost"


class Order(StrEnum):
    """Which requests come first: the newest, or those with the most of something."""

    NEWEST = "newest"
    COST = "cost"
    DURATION = "duration"
    FIRST_BYTE = "first_byte"
    TOKENS = "tokens"


@dataclass(frozen=True)
class RowFilter:
    """Which rows are looked for; None leaves a question open.

    request_id: whole, or its first 12 characters at least. statuses: the least and the greatest. over_nano, over_ms:
    what the try that ended the request cost and took at least.
    """

    request_id: str | None = None
    statuses: tuple[int, int] | None = None
    outcome: Ending | None = None
    error_type: str | None = None
    over_nano: int | None = None
    over_ms: int | None = None
    order: Order = Order.NEWEST

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """That rows of the ledger fulfil."""
        found: list[sa.ColumnElement[bool]] = []
        if self.request_id is not None:
            found += [ledger.c.request_id >= self.request_id, ledger.c.request_id <= self.request_id + "f" * 32]
        if self.statuses is not None:
            found.append(ledger.c.http_status.between(*self.statuses))
        if self.outcome is not None:
            found.append(ledger.c.outcome == self.outcome)
        if self.error_type is not None:
            found.append(ledger.c.error_type == self.error_type)
        if self.over_nano is not None:
            found.append(ledger.c.cost_nano >= self.over_nano)
        if self.over_ms is not None:
            found.append(ledger.c.total_ms >= self.over_ms)
        return found

    def sorting(self) -> list[sa.ColumnElement[object]]:
        """What rows are sorted by; those of which nobody knows come last."""
        tokens = sa.func.coalesce(ledger.c.prompt_tokens, 0) + sa.func.coalesce(ledger.c.completion_tokens, 0)
        by: dict[Order, sa.ColumnElement[object]] = {
            Order.COST: ledger.c.cost_nano,
            Order.DURATION: ledger.c.total_ms,
            Order.FIRST_BYTE: ledger.c.first_byte_ms,
            Order.TOKENS: tokens,
        }
        most = by.get(self.order)
        newest = ledger.c.request_id.desc()
        return [newest] if most is None else [most.desc(), newest]


def statuses_of(text: str) -> tuple[int, int]:
    """The least and the greatest HTTP status that a text stands for: `429`, or `4xx`. Raises ValueError."""
    if not STATUS.fullmatch(text):
        raise ValueError("must be error, ok, a status such as 429 or a class of them such as 4xx")
    return int(text.replace("x", "0")), int(text.replace("x", "9"))
