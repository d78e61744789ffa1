"""Where a call goes: to one model at one destination; what goes up there, and what that may cost and did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from billing.forecast import CostForecasts
from billing.meter import AttemptResult
from formats.body import CallBody
from gateway.attempt import Attempt
from gateway.destinations import Destination
from gateway.forms import Form
from gateway.model_rules import Fallback
from gateway.paces import Pace
from gateway.request import ProxyRequest, model_to_log


class Route:
    """One call's way to a model. body: what was read of the call, with this model. model_name: as it may be logged.
    forecast: of what one attempt may cost. first_byte_timeout: seconds until content comes. idle_timeout: of silence
    within an answer, which is no shorter: a model that may think for long before its first word may do so later.
    fallbacks: what may be tried after it. pace: of its upstream, where that was chosen by it."""

    __slots__ = (
        "api",
        "body",
        "fallbacks",
        "first_byte_timeout",
        "forecast",
        "idle_timeout",
        "model_name",
        "pace",
        "prompt_bytes",
        "to",
    )

    def __init__(
        self,
        request: ProxyRequest,
        body: CallBody,
        to: Destination,
        forecasts: CostForecasts,
        timeout_seconds: int = 0,
        fallbacks: Sequence[Fallback] = (),
        pace: Pace | None = None,
    ) -> None:
        """timeout_seconds: the operator's for this model, which the client's goes before; 0 for the destination's."""
        self.api = request.api
        self.body = body
        self.to = to
        self.fallbacks = fallbacks
        self.pace = pace
        asked_seconds = request.timeout or timeout_seconds
        self.first_byte_timeout = asked_seconds or to.first_byte_timeout
        self.idle_timeout = max(asked_seconds, to.idle_timeout)
        request.body.pieces = to.body_for(body, request.body.data)  # kept nowhere else: that one is let go
        self.model_name = model_to_log(body.model, is_openrouters=to.upstream_id is None)
        self.prompt_bytes = request.body.size if body.prompt_bytes is None else body.prompt_bytes
        self.forecast = forecasts.of(to.upstream_id, body, self.prompt_bytes, to.prices)

    def generation_id(self, attempt: Attempt) -> str | None:
        """OpenRouter's name for the answer. Other upstreams' names mean nothing to anybody that could be asked."""
        return attempt.generation_id if self.to.upstream_id is None else None

    def result_of(self, attempt: Attempt) -> AttemptResult:
        """What an attempt means for its cost."""
        prices, model = self.to.prices, self.body.model
        estimate: Callable[[], int | None] = int  # a refusal is free
        may_be_billed = attempt.refusal is not None and attempt.refusal.may_be_billed
        if attempt.refusal is None or may_be_billed:
            estimate = partial(prices.estimate_nano, model, self.prompt_bytes, attempt.event_count)
            if not self.api.is_text:  # of pictures and sound, how much came says nothing
                estimate = partial(int, self.forecast.reserved_nano)
        return AttemptResult(
            generation_id=self.generation_id(attempt),
            job_id=attempt.job_id,
            usage=attempt.told_usage,
            priced=partial(prices.priced_nano, model),
            is_final=self.to.upstream_id is not None and attempt.status is not None and not may_be_billed,
            streamed=attempt.events is not None,
            refused=attempt.form is Form.REFUSAL and not may_be_billed,
            sent=attempt.kind not in {"unreachable", "no-files"},
            estimate=estimate,
        )
