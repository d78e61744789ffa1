"""Which of the listed models somebody asks for: the parameters of GET /models that a model's own entry can answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

DAY_SECONDS = 86_400
PER_MILLION = 1_000_000
LAST = Decimal("Infinity")

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """What a model must be like; what is None or empty asks for nothing. Prices: dollars per million tokens.

    inputs, parameters: all of them; authors: any of them. ids: what OpenRouter itself has chosen, in its order.
    """

    q: str = ""
    inputs: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    authors: frozenset[str] = frozenset()
    arch: str = ""
    context: int | None = None
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    min_output_price: Decimal | None = None
    max_output_price: Decimal | None = None
    min_age_days: int | None = None
    max_age_days: int | None = None
    sort: str = ""
    ids: tuple[str, ...] | None = None

    def chosen(self, entries: list[Entry]) -> list[Entry]:
        """Those of the entries that fit, in the order that was asked for."""
        found = [entry for entry in entries if self._fits(entry)]
        if self.ids is not None:
            places = {name: place for place, name in enumerate(self.ids)}
            found = [entry for entry in found if entry["id"] in places]
            found.sort(key=lambda entry: places[entry["id"]])
        if order := ORDERS.get(self.sort):
            found.sort(key=order)
        return found

    def _fits(self, entry: Entry) -> bool:
        words = f"{entry['id']}\n{entry.get('name')}\n{entry.get('canonical_slug')}".lower()
        architecture = _object(entry, "architecture")
        author = entry["id"].partition("/")[0].removeprefix("~")
        return (
            self.q.lower() in words
            and self.inputs <= _words(architecture.get("input_modalities"))
            and self.parameters <= _words(entry.get("supported_parameters"))
            and (not self.authors or author in self.authors)
            and self.arch.lower() in ("", str(architecture.get("tokenizer")).lower())
            and (self.context is None or _number(entry.get("context_length")) >= self.context)
            and _within(self.min_price, _price(entry, "prompt"), self.max_price)
            and _within(self.min_output_price, _price(entry, "completion"), self.max_output_price)
            and self._has_age(entry)
        )

    def _has_age(self, entry: Entry) -> bool:
        if self.min_age_days is None and self.max_age_days is None:
            return True
        age = (Decimal(time.time()) - _number(entry.get("created"))) / DAY_SECONDS
        least, most = self.min_age_days, self.max_age_days
        return (least is None or age >= least) and (most is None or age <= most)


def _within(least: Decimal | None, price: Decimal | None, most: Decimal | None) -> bool:
    """A model without a price, as routers are, has none within bounds."""
    if least is None and most is None:
        return True
    return price is not None and (least is None or price >= least) and (most is None or price <= most)


def _price(entry: Entry, kind: str) -> Decimal | None:
    """Dollars per million tokens; None where the list says none."""
    try:
        found = Decimal(_object(entry, "pricing")[kind]) * PER_MILLION
    except (KeyError, TypeError, ValueError, InvalidOperation):
        return None
    return found if found.is_finite() and found >= 0 else None


def _mean_price(entry: Entry) -> Decimal | None:
    prompt, completion = _price(entry, "prompt"), _price(entry, "completion")
    return None if prompt is None or completion is None else (prompt + completion) / 2


def _cheapest_first(entry: Entry) -> Decimal:
    price = _mean_price(entry)
    return LAST if price is None else price


def _dearest_first(entry: Entry) -> Decimal:
    price = _mean_price(entry)
    return LAST if price is None else -price


# The orders that a model's own entry tells; OpenRouter is asked for the others.
ORDERS: dict[str, Callable[[Entry], Decimal]] = {
    "pricing-low-to-high": _cheapest_first,
    "pricing-high-to-low": _dearest_first,
    "context-high-to-low": lambda entry: -_number(entry.get("context_length")),
    "newest": lambda entry: -_number(entry.get("created")),
}


def _number(value: object) -> Decimal:
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else Decimal(0)


def _object(entry: Entry, name: str) -> Entry:
    found = entry.get(name)
    return found if isinstance(found, dict) else {}


def _words(value: object) -> frozenset[str]:
    return frozenset(word for word in value if isinstance(word, str)) if isinstance(value, list) else frozenset()
