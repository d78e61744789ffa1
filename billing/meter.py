"""One call's accounting: what may it cost, what did it cost. Writes to the journal and moves quota slices in memory.

    admit ──> dispatch ──> note_answer ──> end_attempt ──> dispatch ... ──> finish
              before the   before the      if another      the next one     the request is over
              first byte   first byte      follows
              goes out     goes back

A call that can't be written down is not made. Once it was made, nothing here raises: what can't be written then waits
in the journal's memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from accounts.caller import Caller
from billing.call_counts import CallCounts
from billing.details import cost_of, count_of, details_of, is_plausible
from billing.effects import is_lost
from billing.forecast import CostForecasts, Forecast
from billing.journal import UsageJournal
from billing.quotas.slices import QuotaSlices, Reservation
from billing.records import Record, State
from foundation.errors import Busy
from foundation.logs import event

log = logging.getLogger("usage")

MAX_GENERATION_ID = MAX_ASKED_MODEL = 64  # characters, as the columns have room for


def _unpriced(_usage: dict[str, Any]) -> None:
    return None


class AttemptResult(msgspec.Struct, frozen=True):
    """How a try ended. usage: OpenRouter's block, with chat's names, if one came. streamed: it came in a stream.
    refused: OpenRouter said no before it did anything. sent: False if nothing went out. job_id: of the job that it
    started, whose cost is known when that is over.

    estimate: what the try probably cost, in nano-dollars; asked only if the upstream has not told the cost. priced:
    what this usage costs, where that can be computed. is_final: nobody can be asked later, so that the estimate counts.
    """

    generation_id: str | None = None
    usage: dict[str, Any] | None = None
    job_id: str | None = None
    streamed: bool = False
    refused: bool = False
    sent: bool = True
    estimate: Callable[[], int | None] = int
    priced: Callable[[dict[str, Any]], int | None] = _unpriced
    is_final: bool = False


class UsageMeter:
    """Makes the meters of calls."""

    def __init__(
        self,
        journal: UsageJournal,
        slices: QuotaSlices,
        forecasts: CostForecasts,
        counts: CallCounts,
        counts_byok: bool = False,
    ) -> None:
        self._journal = journal
        self._slices = slices
        self.forecasts = forecasts
        self._counts = counts
        self._counts_byok = counts_byok

    def call(
        self,
        request_id: str,
        caller: Caller,
        model: str,
        stream: bool,
        forecast: Forecast,
        asked_model: str | None = None,
    ) -> CallMeter:
        """The meter of one request. model: a name that may be written down. forecast: what one try may cost.
        asked_model: what the client asked for, if that led to another model."""
        whose = {"user_id": caller.user_id, "client_key_id": caller.client_key_id}
        about: Record = {"model": model, "is_stream": stream, **whose}
        if caller.team_id:
            about["team_id"] = caller.team_id
        if asked_model:
            about["asked_model"] = asked_model[:MAX_ASKED_MODEL]
        return CallMeter(
            self._journal, self._slices, self._counts, request_id, caller, about, forecast, self._counts_byok
        )


class CallMeter:
    """The accounting of one request and its tries; used by one thread at a time."""

    def __init__(
        self,
        journal: UsageJournal,
        slices: QuotaSlices,
        counts: CallCounts,
        request_id: str,
        caller: Caller,
        about: Record,
        forecast: Forecast,
        counts_byok: bool,
    ) -> None:
        self._journal = journal
        self._slices = slices
        self._counts = counts
        self._request_id = request_id
        self._caller = caller
        self._forecast = forecast
        self._about = about
        self._counts_byok = counts_byok
        self._reserved: Reservation | None = None
        self._generation_id: str | None = None
        self._is_open = False
        self._user_pays = False
        self._attempt = 0

    def admit(self, user_pays: bool = False) -> None:
        """Reserve what the call may cost. Raises QuotaExceeded, Busy.

        user_pays: with an account of their own, so that quotas of what others pay are not asked.
        """
        self._reserved = self._slices.reserve(self._caller, self._forecast.reserved_nano, user_pays)

    def dispatch(self, pool_key_id: int | None, upstream_id: int | None = None, user_pays: bool = False) -> None:
        """Note that the call goes out now, with a key of the pool or to another upstream; by id, below 0 if unstored.

        user_pays: as for `admit`, and only for calls that were not admitted before.

        Raises Busy if that can't be written down, QuotaExceeded for a call that was not admitted, or another try.
        """
        if self._reserved is None:
            self.admit(user_pays)
        assert self._reserved is not None  # noqa: S101 - admit has just made it
        reserved = self._reserved
        record = self._about | {
            "request_id": self._request_id,
            "attempt": self._attempt + 1,
            "state": State.DISPATCHED,
            "pool_key_id": _stored(pool_key_id),
            "upstream_id": _stored(upstream_id),
            **reserved.quota_ids,
            "reserved_nano": reserved.nano,
            "estimate_nano": self._forecast.most_nano,
        }
        try:
            self._journal.append(record)
        except OSError:
            raise Busy("The service can't keep accounts at this moment; try again shortly", 5) from None
        self._attempt += 1
        self._is_open, self._generation_id, self._user_pays = True, None, user_pays

    def note_answer(self, generation_id: str | None) -> None:
        """Note OpenRouter's name for the answer, before any of it goes back."""
        usable = _usable(generation_id)
        if self._is_open and usable and usable != self._generation_id:
            self._generation_id = usable
            self._append({"state": State.STREAMING, "generation_id": usable})

    def end_attempt(self, result: AttemptResult, **ending: Any) -> None:
        """A try has ended, and another follows: its cost is not its caller's, but that of who runs the service.

        ending: error_type, error_message, http_status, total_ms.
        """
        if self._is_open:
            self._settle_attempt(result, ending)
            self._counts.note_retry(ending["error_type"])

    def turn_to(self, model: str, asked_model: str | None, forecast: Forecast, user_pays: bool, **ending: Any) -> None:
        """Another model is tried next. What that may cost is reserved before the reservation so far is given back.

        ending: as of `end_attempt`, with `result`, if a try is open. Raises QuotaExceeded, Busy: nothing has changed.
        """
        reserved = self._slices.reserve(self._caller, forecast.reserved_nano, user_pays)
        if self._is_open:
            self.end_attempt(**ending)
        elif self._reserved is not None:
            self._slices.give_back(self._reserved, self._reserved.nano)
        self._reserved, self._forecast = reserved, forecast
        self._about = {**self._about, "model": model}
        if asked_model:
            self._about["asked_model"] = asked_model[:MAX_ASKED_MODEL]

    def finish(self, result: AttemptResult | None, **ending: Any) -> int | None:
        """The request is over. Returns what its last try cost, in nano-dollars; None if that is not known by now.

        ending: http_status, outcome, first_byte_ms, total_ms, error_type, error_message.
        """
        ending["is_last"] = True
        cost_nano = None
        if self._is_open:
            cost_nano = self._settle_attempt(result or AttemptResult(), ending)
        else:
            self._end_after_attempts(ending)
        self._counts.ended.append((self._about["model"], ending, result.usage if result else None, cost_nano))
        return cost_nano

    def _end_after_attempts(self, ending: Record) -> None:
        """Note the end of a request whose tries are settled, if it had any."""
        if not self._attempt:  # it never went up
            ending |= self._about | {"state": State.VOID, "reserved_nano": 0, "estimate_nano": 0}
            with suppress(OSError):  # no money: it does not wait for a disk, or every refusal would
                self._journal.append(self._named(ending))
        else:
            self._append(ending)
        if self._reserved is not None:
            self._slices.give_back(self._reserved, self._reserved.nano)
            self._reserved = None

    def _settle_attempt(self, result: AttemptResult, ending: Record) -> int | None:
        """Note what became of a try; returns its cost, if that is known. What its reservation did not use is free
        again, and what it cost beyond that is taken from the slice, unless its cost is yet to come."""
        reserved, self._reserved, self._is_open = self._reserved, None, False
        generation_id = _usable(result.generation_id) or self._generation_id
        facts = _settled(result) or _unsettled(result, generation_id)
        if not is_plausible(facts.get("cost_nano")):
            event(log, "implausible_cost", logging.ERROR, request_id=self._request_id, nano=facts.pop("cost_nano"))
            facts |= {"state": State.UNKNOWN, "source": None}
        cost_nano: int | None = facts.get("cost_nano")
        if generation_id:
            facts["generation_id"] = generation_id
        spent_nano = (cost_nano or 0) + (facts.get("byok_nano", 0) if self._counts_byok else 0)
        if facts["state"] == State.SETTLED:
            self._forecast.learn(spent_nano)
        if is_lost("is_last" in ending, self._user_pays):
            spent_nano = 0
        # If it can't be written down the row keeps its reservation, and so does the slice in memory.
        if self._append(facts | ending) and reserved and reserved.nano and facts["state"] != State.PENDING:
            self._slices.give_back(reserved, reserved.nano - spent_nano)
        return cost_nano

    def _append(self, facts: Record) -> bool:
        return self._journal.append_or_wait(self._named(facts))

    def _named(self, facts: Record) -> Record:
        return facts | {"request_id": self._request_id, "attempt": self._attempt}


def _stored(row_id: int | None) -> int | None:
    """What the ledger can name: None for what was never stored."""
    return None if row_id is None or row_id < 0 else row_id


def _usable(generation_id: str | None) -> str | None:
    """OpenRouter's name for an answer, if a column can hold it."""
    usable = generation_id and len(generation_id) <= MAX_GENERATION_ID and generation_id.isascii()
    return generation_id if usable else None


def _unsettled(result: AttemptResult, generation_id: str | None) -> Record:
    """The facts of a try whose cost was not told."""
    estimate_nano = result.estimate()
    facts: Record = {"state": State.UNKNOWN, "estimate_nano": estimate_nano or 0}
    if not result.sent or (result.refused and not generation_id):
        return facts | {"state": State.VOID}
    if result.job_id:
        return facts | {"state": State.PENDING, "job_id": result.job_id}
    if generation_id:
        return facts | {"state": State.PENDING}
    if result.is_final and estimate_nano is not None:
        return facts | {"state": State.ESTIMATED, "source": "estimate", "cost_nano": estimate_nano}
    return facts


def _settled(result: AttemptResult) -> Record | None:
    """The facts of a usage block with a cost, or with tokens that have a price; None without one."""
    if result.usage is None:
        return None
    source = "stream" if result.streamed else "body"
    cost_nano = cost_of(result.usage.get("cost"))
    if cost_nano is None:
        cost_nano, source = result.priced(result.usage), "priced"
    if cost_nano is None:
        return None
    return {
        "state": State.SETTLED,
        "source": source,
        "cost_nano": cost_nano,
        "prompt_tokens": count_of(result.usage.get("prompt_tokens")),
        "completion_tokens": count_of(result.usage.get("completion_tokens")),
        **details_of(result.usage),
    }
