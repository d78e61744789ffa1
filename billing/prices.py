"""What models cost, from OpenRouter's public list: the most that a call may cost, and what a lost one probably did.

Neither is ever billed where OpenRouter says the cost itself. Prices are whole nano-dollars per million tokens: the
cheapest models cost less than a nano-dollar a token, and must not become free by rounding.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

from billing import video_prices
from formats.body import CallBody
from foundation import json_text
from foundation.crypto import new_id
from foundation.deadline import TimeIsUp
from foundation.logs import event
from foundation.money import NANO
from upstream.connection import UpstreamError
from upstream.http import UpstreamHttp
from upstream.openrouter.catalogue import Catalogue
from upstream.openrouter.model_list import ModelList

log = logging.getLogger("prices")

REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 5.0  # doubled with each failure, up to REFRESH_SECONDS
ANSWER_SECONDS = 60.0
MAX_LIST_BYTES = 32 * 1024 * 1024
FILE_NAME = "model_prices.json"

PER_MILLION = 1_000_000
DEFAULT_COMPLETION_TOKENS = 16_384  # of a call that sets no bound: models' own limits would block honest users
MAX_CALL_NANO = 100 * NANO
MAX_PRICE_USD = 1  # a token; dearer is a mistake in the list
MAX_REQUEST_USD = 100
MAX_LIST_TOKENS = 10**9
MAX_PRICE_TEXT = 64


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """prompt, completion: nano-dollars per million tokens. request, image: nano-dollars, of a call and of each picture
    made. context, ceiling: tokens of a call and of an answer. steps: (more than so many prompt tokens, prompt,
    completion): what long prompts cost instead.
    """

    prompt: int
    completion: int
    request: int
    context: int = MAX_LIST_TOKENS
    ceiling: int = MAX_LIST_TOKENS
    steps: tuple[tuple[int, int, int], ...] = ()
    image: int = 0

    def nano(self, prompt_tokens: int, completion_tokens: int, n: int, images: int = 0) -> int:
        """Nano-dollars of a call with n answers, rounded up; no more than the model can take and write."""
        prompt_tokens = min(prompt_tokens, self.context)
        completion_tokens = min(completion_tokens, self.ceiling, self.context)
        prompt, completion = self.prompt, self.completion
        for above, step_prompt, step_completion in self.steps:
            if prompt_tokens > above:
                prompt, completion = max(prompt, step_prompt), max(completion, step_completion)
        total = prompt * prompt_tokens + completion * completion_tokens * n
        return -(-total // PER_MILLION) + self.request + self.image * images


FREE = ModelPrice(0, 0, 0)
# For models that the list has no price of (new ones, aliases, presets, routers): those of a dear one, 5 $ and 25 $ a
# million tokens. Answers are bounded like the longest of today's.
UNKNOWN = ModelPrice(5 * NANO, 25 * NANO, 0, ceiling=131_072)


class ModelPrices:
    """The price list in memory; `run` keeps it fresh in a thread of its own, and in a file of `folder` for a start
    while OpenRouter is away. Until there is one, every model has the prices of UNKNOWN.

    models: the same list for our callers; one fetch serves both.
    """

    def __init__(self, upstream: UpstreamHttp, folder: Path, catalogue: Catalogue | None = None) -> None:
        """catalogue: has the prices of videos."""
        self._upstream = upstream
        self._catalogue = catalogue
        self._file = folder / FILE_NAME
        self.models = ModelList()
        self._prices: dict[str, ModelPrice] = {}
        self._failures = 0

    @property
    def are_known(self) -> bool:
        """False until there is a list."""
        return bool(self._prices)

    # ── what calls cost: pure arithmetic, for every request

    def most_nano(self, call: CallBody, body_bytes: int) -> int:
        """The most that a call may reasonably cost, in nano-dollars, to reserve it; at most MAX_CALL_NANO.

        Two bytes a token is more than text needs. What pictures by link, tools of OpenRouter's (web search) and longer
        answers than DEFAULT_COMPLETION_TOKENS cost is not foreseen: the cost itself is settled all the same.
        """
        if call.seconds is not None:
            return min(video_prices.most_nano(self._catalogue, call.model, call.seconds), MAX_CALL_NANO)
        prompt_tokens = (body_bytes + 1) // 2
        completion_tokens = DEFAULT_COMPLETION_TOKENS if call.max_tokens is None else call.max_tokens
        answers = completion_tokens, call.n, call.images
        if not call.models:
            most = self._price(call.model).nano(prompt_tokens, *answers)
        else:  # any of them may answer, so the dearest counts
            most = max(self._price(name).nano(prompt_tokens, *answers) for name in call.names)
        return min(most, MAX_CALL_NANO)

    def estimate_nano(self, model: str, prompt_bytes: int, events: int) -> int:
        """What an answer that broke off after so many events probably cost, in nano-dollars: four bytes or one event a
        token. For calls of which OpenRouter never says it."""
        return min(self._price(model).nano((prompt_bytes + 3) // 4, events, 1), MAX_CALL_NANO)

    def priced_nano(self, _model: str, _usage: object) -> None:
        """Nothing: what OpenRouter does not tell is asked for, and not computed."""

    def find(self, model: str) -> ModelPrice | None:
        """The price that the list says; None if it says none."""
        return self._prices.get(model)

    def _price(self, model: str) -> ModelPrice:
        price = self._prices.get(model)
        if price is None:
            if model.endswith(":free"):
                return FREE
            # Variants such as :nitro and :online choose the way, not the price.
            price = self._prices.get(model.partition(":")[0], UNKNOWN)
        return price

    # ── the list

    def run(self, stopping: threading.Event) -> None:
        """Keep the list fresh until told to stop: every hour, sooner after a failure."""
        self.load()
        pause = 0.0
        while not stopping.wait(pause):
            try:
                pause = self.refresh()
            except Exception:  # this thread must outlive any single fault
                log.exception("background_fault")
                pause = REFRESH_SECONDS

    def load(self) -> None:
        """Take the list that an earlier process kept, if there is a good one."""
        try:
            self._take(self._file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            event(log, "kept_prices_unusable", logging.WARNING, reason=type(error).__name__)

    def refresh(self) -> float:
        """Ask OpenRouter for the list. Returns the seconds until it should be asked again."""
        try:
            # All kinds of models: those that answer with pictures too take chat requests.
            status, text = self._upstream.get("/models?output_modalities=all", b"", ANSWER_SECONDS, MAX_LIST_BYTES)
            if status != 200:
                raise ValueError(f"status {status}")
            known = bool(self._prices)
            self._take(text)
        except (UpstreamError, TimeIsUp, ValueError) as error:
            if not self._failures:  # told once, not at every try
                reason = str(error) or type(error).__name__
                event(log, "model_prices_unavailable", logging.WARNING, reason=reason, known=len(self._prices))
            self._failures += 1
            return float(min(RETRY_SECONDS * 2 ** min(self._failures - 1, 20), REFRESH_SECONDS))
        if self._failures or not known:
            event(log, "model_prices_known", models=len(self._prices))
        self._failures = 0
        self._keep(text)
        return REFRESH_SECONDS

    def _take(self, text: bytes) -> None:
        """Raises ValueError, and changes nothing, if there is nothing to take."""
        prices = read_prices(text)
        self.models.take(text)
        self._prices = prices

    def _keep(self, text: bytes) -> None:
        """OpenRouter's answer as it came: one reader for both. Processes replace each other's file as a whole."""
        draft = self._file.with_name(f".{FILE_NAME}.{new_id()}")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(text)
            draft.replace(self._file)
        except OSError as error:
            event(log, "model_prices_not_kept", logging.WARNING, reason=type(error).__name__)
            with suppress(OSError):
                draft.unlink()


def read_prices(text: bytes) -> dict[str, ModelPrice]:
    """The answer of GET /models as prices by model. Models whose entry is odd are left out.

    Raises ValueError if it is no list with at least one price.
    """
    document = json_text.parse(text)
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the answer is no list of models")
    prices: dict[str, ModelPrice] = {}
    dated: dict[str, ModelPrice] = {}
    for entry in entries:
        try:
            model, price = entry["id"], _model_price(entry)
        except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError):
            continue  # a router (-1), or nonsense: unknown
        if isinstance(model, str) and model:
            prices[model] = price
            slug = entry.get("canonical_slug")
            if isinstance(slug, str) and ":" not in model:  # a free variant has the same slug as the paid one
                dated[slug] = price
    if not prices:
        raise ValueError("the answer has no prices")
    return dated | prices


def _model_price(entry: dict[str, Any]) -> ModelPrice:
    pricing, provider = entry["pricing"], entry.get("top_provider") or {}
    prompt, completion = _per_million(pricing["prompt"]), _per_million(pricing["completion"])
    # Tokens of thinking and of pictures count as completion tokens; a few models price them apart.
    apart = (_per_million(pricing.get(name) or "0") for name in ("internal_reasoning", "image_token"))
    completion = max(completion, *apart)
    steps = [
        (
            int(override.get("min_prompt_tokens") or 0),
            _per_million(override.get("prompt", "0")),
            _per_million(override.get("completion", "0")),
        )
        for override in pricing.get("overrides") or []
    ]
    return ModelPrice(
        prompt=prompt,
        completion=completion,
        request=_scaled(pricing.get("request") or "0", MAX_REQUEST_USD, NANO),
        context=_tokens(entry.get("context_length")),
        ceiling=_tokens(provider.get("max_completion_tokens")),
        steps=tuple(steps),
        image=_scaled(pricing.get("image_output") or "0", MAX_REQUEST_USD, NANO),
    )


def _per_million(price: object) -> int:
    return _scaled(price, MAX_PRICE_USD, NANO * PER_MILLION)


def _scaled(price: object, largest: int, unit: int) -> int:
    """Dollars, a text or a number, times unit, rounded up: only 0 is 0.

    Raises ValueError or ArithmeticError unless it is between 0 and largest.
    """
    text = str(price)
    if len(text) > MAX_PRICE_TEXT or not 0 <= (amount := Decimal(text)) <= largest:
        raise ValueError("no price")
    return max(int((amount * unit).to_integral_value(ROUND_CEILING)), 1) if amount else 0


def _tokens(count: object) -> int:
    """Tokens as the list says them; None is no limit. Raises ValueError if it is no count."""
    if count is None:
        return MAX_LIST_TOKENS
    if type(count) is not int or not 1 <= count <= MAX_LIST_TOKENS:
        raise ValueError("no count of tokens")
    return count
