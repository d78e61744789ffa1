"""What a video may cost at most, to reserve it: by the list of models for videos, with prices by the second."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from foundation.errors import AppError
from foundation.money import NANO, nano
from upstream.openrouter.catalogue import Catalogue

LIST = "/videos/models"
SECONDS = 10  # of a film whose length the model chooses, and does not say
UNKNOWN_NANO = NANO // 2  # a second, of models without a price that can be read: that of a dear one
MAX_PRICE_USD = 100


def most_nano(catalogue: Catalogue | None, model: str, seconds: int) -> int:
    """Nano-dollars of a film of that many seconds, by the dearest of its model's prices. seconds: 0 if nobody said."""
    entry = _find(catalogue, model)
    seconds = seconds or _longest(entry.get("supported_durations"))
    return max(_prices(entry.get("pricing_skus"), seconds), default=UNKNOWN_NANO * seconds)


def _find(catalogue: Catalogue | None, model: str) -> dict[str, Any]:
    """A model's entry in the list; nothing if there is none, or no list."""
    try:
        entries: Any = catalogue.get(LIST).get("data") if catalogue else None
    except AppError:  # OpenRouter is away: so the call will be told
        entries = None
    names = model, model.partition(":")[0]
    found = entries if isinstance(entries, list) else ()
    fits = (
        one for one in found if isinstance(one, dict) and (one.get("id") in names or one.get("canonical_slug") in names)
    )
    return next(fits, {})


def _longest(lengths: object) -> int:
    told = lengths if isinstance(lengths, list) else ()
    return max((seconds for seconds in told if type(seconds) is int and seconds > 0), default=SECONDS)


def _prices(skus: object, seconds: int) -> Iterator[int]:
    """What a film costs by each of these. Those that count something else than films and seconds are as if unknown."""
    for name, text in skus.items() if isinstance(skus, dict) else ():
        try:
            price = Decimal(text) if isinstance(text, str) and len(text) <= 64 else Decimal(-1)
            price_nano = nano(price) if 0 <= price <= MAX_PRICE_USD else None
        except ArithmeticError:
            price_nano = None
        if price_nano is None or "token" in name:
            yield UNKNOWN_NANO * seconds
        else:
            yield price_nano * (seconds if "second" in name else 1)
