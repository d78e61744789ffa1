"""What a record of the journal is: a line of JSON with a checksum, and facts that a row of the ledger can hold.

    {"crc":"9ae0daaf","request_id":"019...","attempt":1,"state":"settled","cost_nano":150}

The checksum is of the line without it, so that a torn or flipped line is seen. Lines without one are older versions',
or were mended by people, and count as they are.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
import sqlalchemy as sa

from billing.prices import MAX_CALL_NANO
from tables import usage_ledger as table

Record = dict[str, Any]


class State(StrEnum):
    """Where a call's cost stands."""

    DISPATCHED = "dispatched"
    STREAMING = "streaming"
    PENDING = "pending"
    SETTLED = "settled"
    ESTIMATED = "estimated"
    VOID = "void"
    UNKNOWN = "unknown"


STATES = frozenset(State)
OPEN = frozenset({State.DISPATCHED, State.STREAMING, State.PENDING})
COUNTED = frozenset({State.SETTLED, State.ESTIMATED})
FINAL = COUNTED | {State.VOID}
# How a request ended; `lost` is a process that died.
CACHED = "cached"  # answered by what an equal call was: nothing went up
NO_ERROR = frozenset({"complete", "client_gone", CACHED})

# A request's id begins with the time at which it came, to the millisecond.
REQUEST_ID = re.compile(r"[0-9a-f]{12,32}")
LATEST_MS = 253_402_300_799_999  # the last millisecond of the year 9999
MARK = b'{"crc":"'
DIGITS = 8


@dataclass(frozen=True)
class Unusable:
    """A record that no row can hold, and why."""

    record: Record
    reason: str

    @property
    def request_id(self) -> str | None:
        """Whose facts these are, if it says so."""
        request_id = self.record.get("request_id")
        return request_id[:32] if isinstance(request_id, str) else None


def line_of(record: Record) -> bytes:
    """A record as it is written down; never an empty one."""
    text = orjson.dumps(record)
    return b'%b%08x",%b\n' % (MARK, zlib.crc32(text), text[1:])


def record_of(line: bytes) -> Record:
    """The record of a line. Raises ValueError if the line is damaged."""
    line = line.removesuffix(b"\n")
    if line.startswith(MARK):
        said, line = line[len(MARK) : len(MARK) + DIGITS], b"{" + line[len(MARK) + DIGITS + 2 :]
        if said != b"%08x" % zlib.crc32(line):
            raise ValueError("the checksum does not fit the line")
    record = orjson.loads(line)
    if not isinstance(record, dict):
        raise ValueError("the line is no JSON object")
    return record


def fault_of(record: Record) -> str | None:
    """Why no row can hold these facts; None if one can. Names that this version does not know are not looked at."""
    for name in ("request_id", "attempt"):
        if name not in record:
            return f"{name} is missing"
    for name, value in record.items():
        if name in FITS and not FITS[name](value):
            return f"{name} can't be {repr(value)[:40]}"
    request_id = record["request_id"]
    if not REQUEST_ID.fullmatch(request_id) or int(request_id[:12], 16) > LATEST_MS:
        return f"request_id can't be {request_id!r}"
    if "state" in record and record["state"] not in STATES:
        return f"state can't be {record['state']!r}"
    return None


TEXTS = {"error_message"}  # of any alphabet


def _fits(column: sa.Column[Any]) -> Callable[[object], bool]:
    """Whether a value may stand in this column."""
    kind, may_be_empty = column.type, bool(column.nullable)
    if isinstance(kind, sa.Boolean):
        return lambda value: isinstance(value, bool)
    if isinstance(kind, sa.Integer):
        bits = 15 if isinstance(kind, sa.SmallInteger) else 63 if isinstance(kind, sa.BigInteger) else 31
        most = MAX_CALL_NANO if column.name in {"cost_nano", "byok_nano"} else 2**bits - 1
        return lambda value: may_be_empty if value is None else type(value) is int and 0 <= value <= most
    length, may_be_any = getattr(kind, "length", None) or 0, column.name in TEXTS
    return lambda value: (
        may_be_empty
        if value is None
        else isinstance(value, str) and len(value) <= length and (may_be_any or value.isascii())
    )


# The rest of a row is the ledger's own to say.
FITS = {
    column.name: _fits(column)
    for column in table.c
    if column.name not in {"process_id", "created_at", "settled_at", "next_check_at", "checks"}
}
