"""The arithmetic of the soak: what OpenRouter bills, the ledger, the sums and the quotas, held against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from billing import latency_rollups
from billing.latency import CallTimes
from billing.latency_rollups import LatencyPlace
from billing.records import OPEN
from billing.rollups import KEYS, NOBODY, USERS, bucket_of
from db import Database
from tables import caller_rollups, quota_slices, quotas, usage_ledger, usage_rollups
from tables import latency_rollups as latency

Row = Mapping[str, Any]
COUNTED = {"settled", "estimated"}
TELLING = ("cost_nano", "requests", "unknown")


@dataclass
class Books:
    """All that is known at the end. bill: the stand-in's answers. seen: the ids of answers that reached a client."""

    bill: list[Row]
    billed_nano: int
    ledger: list[Row]
    rollups: list[Row]
    callers: list[Row]
    times: Mapping[LatencyPlace, CallTimes]
    quotas: list[Row]
    slices: list[Row]
    seen: Collection[str] = ()

    @property
    def unnamed(self) -> list[Row]:
        """What was billed and no row names: nobody could learn its id."""
        named = {row["generation_id"] for row in self.ledger}
        return [made for made in self.bill if made["id"] not in named]


def read_books(db: Database, bill: list[Row], billed_nano: int, seen: Collection[str]) -> Books:
    """What the database holds, beside the stand-in's bill."""
    with db.reading() as tx:
        tables = usage_ledger, usage_rollups, caller_rollups, quotas, quota_slices
        ledger, *sums, spent, slices = (
            [dict(row) for row in tx.execute(sa.select(table)).mappings()] for table in tables
        )
        times = {LatencyPlace(*row[:4]): latency_rollups.sums_in(row) for row in tx.execute(sa.select(latency))}
    return Books(bill, billed_nano, ledger, *sums, times, spent, slices, seen)


def differences(books: Books) -> list[str]:
    """What does not agree, each in a sentence; empty if all is well."""
    of_sums = *_of_the_sums(books), *_of_the_callers(books), *_of_the_times(books)
    return [*_of_the_bill(books), *of_sums, *_of_the_quotas(books)]


def _of_the_bill(books: Books) -> Iterator[str]:
    bill = {made["id"]: made for made in books.bill}
    if (total := sum(made["cost_nano"] for made in books.bill)) != books.billed_nano:
        yield f"the stand-in's answers cost {total} and it bills {books.billed_nano}"
    rows = {row["generation_id"]: row for row in books.ledger if row["generation_id"]}
    for name, row in rows.items():
        made = bill.get(name)
        if made is None:
            yield f"{name} is in the ledger and was never made"
        elif (row["state"], row["cost_nano"]) != ("settled", made["cost_nano"]):
            yield f"{name} was billed {made['cost_nano']}; its row is {row['state']} with {row['cost_nano']}"
    yield from (f"{name} reached a client and has no row" for name in sorted(set(books.seen) - set(rows)))
    for row in books.ledger:
        if row["state"] in OPEN:
            yield f"{row['request_id']} is still {row['state']}"
        if (row["state"] in COUNTED) != (row["cost_nano"] is not None):
            yield f"{row['request_id']} is {row['state']} with {row['cost_nano']}"
    unknown = Counter(row["model"] for row in books.ledger if row["state"] == "unknown")
    for model, count in Counter(made["model"] for made in books.unnamed).items():
        # What a connection lost that was used before, and looks closed while idle, is sent twice in one try.
        sent = 2 if "break_at=headers" in model else 1
        if count > sent * unknown[model]:
            yield f"{count} answers of {model} have no row that names them, and {unknown[model]} rows are unknown"


def _of_the_sums(books: Books) -> Iterator[str]:
    """The roll-ups of everybody, of each user, and of each client key."""
    expected: Counter[tuple[Any, ...]] = Counter()
    for row in books.ledger:
        cost_nano = row["cost_nano"] or 0
        amounts = {"cost_nano": cost_nano, "requests": row["is_last"], "unknown": row["state"] == "unknown"}
        for of_whom in ((0, 0), (row["user_id"], row["client_key_id"] or 0)):
            if of_whom[0] and not row["is_last"]:  # another try followed: its caller does not pay for this one
                amounts["cost_nano"] = 0
            expected.update({(*of_whom, name): int(amount) for name, amount in amounts.items()})
    for period in ("h", "d"):
        found: Counter[tuple[Any, ...]] = Counter()
        for sums in books.rollups:
            if sums["period"] == period:
                for name in TELLING:
                    found[sums["user_id"], sums["client_key_id"], name] += sums[name]
        for key in sorted({*expected, *found}):
            if expected[key] != found[key]:
                user_id, client_key_id, name = key
                who = f"user {user_id}, client key {client_key_id}" if user_id else "everybody"
                yield f"{name} of {who} by {period}: rows {expected[key]}, roll-ups {found[key]}"


def _of_the_callers(books: Books) -> Iterator[str]:
    """The sums of users and of client keys side by side, where what no user is charged for has a row too."""
    expected: Counter[tuple[Any, ...]] = Counter()
    for row in books.ledger:
        for kind, subject in ((USERS, row["user_id"]), (KEYS, row["client_key_id"] or 0)):
            whose = subject if row["is_last"] else NOBODY
            expected[kind, whose, "cost_nano"] += row["cost_nano"] or 0
            expected[kind, subject, "requests"] += int(row["is_last"])
            expected[kind, subject, "unknown"] += int(row["state"] == "unknown")
    for period in "hd":
        found: Counter[tuple[Any, ...]] = Counter()
        for sums in books.callers:
            if sums["period"] == period:
                found.update({(sums["kind"], sums["subject_id"], name): sums[name] for name in TELLING})
        for key in sorted({*expected, *found}):
            if expected[key] != found[key]:
                kind, subject, name = key
                yield f"{name} of caller {kind}{subject} by {period}: rows {expected[key]}, sums {found[key]}"


def _of_the_times(books: Books) -> Iterator[str]:
    """How long calls took and how they failed: what the rows say, in every hour, day and sum."""
    changes = latency_rollups.Changes()
    for row in books.ledger:
        changes.note(bucket_of(row), None, row)
    expected = changes.by_place()
    for place in sorted({*expected, *books.times}):
        rows, sums = expected.get(place, CallTimes()), books.times.get(place, CallTimes())
        if rows != sums:
            yield f"times of {place.kind} {place.subject} in {place.start} by {place.period}: rows {rows}, sums {sums}"


def _of_the_quotas(books: Books) -> Iterator[str]:
    """What was spent in the window as it stands, and what is reserved: nothing, since nobody holds a slice any more."""
    for quota in books.quotas:
        subject = quota["subject"]
        kind, _, number = subject.partition("/")
        column = {"user": "user_id", "key": "client_key_id", "team": "team_id"}[kind]
        mine = [row for row in books.ledger if row[column] == int(number) and row["is_last"]]
        spent = sum(row["cost_nano"] or 0 for row in mine if row["created_at"] >= quota["window_start"])
        if quota["spent_nano"] != spent:
            yield f"{subject}: {quota['spent_nano']} spent, rows since {quota['window_start']} cost {spent}"
        if quota["reserved_nano"]:
            yield f"{subject}: {quota['reserved_nano']} are still reserved"
        if quota["limit_nano"] is not None and spent > quota["limit_nano"]:
            yield f"{subject}: {spent} spent, more than the limit of {quota['limit_nano']}"
    yield from (f"process {row['process_id']} still holds {row['nano']}" for row in books.slices)
