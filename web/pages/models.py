"""The page of models: searched, sorted by price or context, with one's favourites and default model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from flask import Response
from pydantic import Field

from accounts.favourite_models import ChosenModels
from foundation.money import usd
from web.api import favourites as favourite_api
from web.http import MAX_PAGE, services
from web.operation import Number, Query, asked
from web.pages.views import Visitor, for_users, page_blueprint, show

routes = page_blueprint("model_pages", "/models")

PAGE_SIZE = 50
Sort = Literal["listed", "name", "prompt", "completion", "context"]


class ModelSearch(Query):
    """What is wanted. sort: by what; context from the largest, everything else from the least."""

    q: str = Field("", max_length=100)
    sort: Sort = "listed"
    only: Literal["", "favourites"] = ""
    page: Number = Field(1, ge=1, le=MAX_PAGE)


@dataclass(frozen=True)
class ModelRow:
    """A model as it is shown. prompt, completion: dollars per million tokens, None if they are not known."""

    id: str
    name: str
    description: str
    context: int | None
    prompt: float | None
    completion: float | None


@routes.get("")
@for_users
def page(visitor: Visitor) -> Response:
    """All of it."""
    return _show("models.html", visitor)


@routes.get("/list")
@for_users
def model_list(visitor: Visitor) -> Response:
    """The part with the models that are wanted."""
    return _show("models_list.html", visitor)


@routes.put("/favourites/<path:name>")
@for_users
def add_favourite(visitor: Visitor, name: str) -> Response:
    """Mark a model."""
    favourite_api.add_favourite(visitor.user.id, name)
    return _show("models_list.html", visitor)


@routes.delete("/favourites/<path:name>")
@for_users
def remove_favourite(visitor: Visitor, name: str) -> Response:
    """Unmark one."""
    services().favourite_models.remove(visitor.user.id, name)
    return _show("models_list.html", visitor)


@routes.put("/default/<path:name>")
@for_users
def choose_default(visitor: Visitor, name: str) -> Response:
    """Choose the model that pages begin with."""
    favourite_api.choose_default(visitor.user.id, name)
    return _show("models_list.html", visitor)


@routes.delete("/default")
@for_users
def choose_none(visitor: Visitor) -> Response:
    """No default model any more."""
    favourite_api.choose_default(visitor.user.id, None)
    return _show("models_list.html", visitor)


def rows() -> list[ModelRow]:
    """The models that answer with text, in OpenRouter's order; none before the first list has come."""
    found = []
    for model in services().prices.models.listed():
        price = services().prices.find(model.id)
        prompt, completion = (usd(price.prompt), usd(price.completion)) if price else (None, None)
        found.append(ModelRow(model.id, model.name, model.description, model.context, prompt, completion))
    return found


ORDERS: dict[str, Callable[[ModelRow], Any]] = {
    "name": lambda row: row.name.casefold(),
    "prompt": lambda row: inf if row.prompt is None else row.prompt,
    "completion": lambda row: inf if row.completion is None else row.completion,
    "context": lambda row: -(row.context or 0),
}


def _show(template: str, visitor: Visitor) -> Response:
    search, chosen = asked(ModelSearch), services().favourite_models.of(visitor.user.id)
    known = rows()
    found = _wanted(known, search, chosen)
    last = max(1, -(-len(found) // PAGE_SIZE))
    number = min(search.page, last)  # there may have been more a moment ago
    begin = (number - 1) * PAGE_SIZE
    return show(
        template,
        models=found[begin : begin + PAGE_SIZE],
        total=len(found),
        known=len(known),
        search=search,
        chosen=chosen,
        page=number,
        last=last,
        price=_price,
    )


def _price(amount: float | None) -> str:
    """To the last digit that counts, and at least to the cent: prices stand below each other to be compared."""
    if amount is None:
        return "–"
    whole, _, cents = f"{amount:,.6f}".partition(".")
    return f"${whole}.{cents.rstrip('0'):0<2}"


def _wanted(known: list[ModelRow], search: ModelSearch, chosen: ChosenModels) -> list[ModelRow]:
    """Those in whose name or id all the words stand. Favourites that OpenRouter has withdrawn are found too."""
    if search.only:
        names = {row.id for row in known}
        gone = [ModelRow(name, name, "", None, None, None) for name in chosen.favourites if name not in names]
        known = [row for row in known if row.id in chosen.favourites] + gone
    words = search.q.casefold().split()
    found = [row for row in known if all(word in f"{row.name} {row.id}".casefold() for word in words)]
    return sorted(found, key=ORDERS[search.sort]) if search.sort in ORDERS else found
