"""One's favourite models and the one that pages choose at first; calls are the same with any."""

from __future__ import annotations

from flask import Blueprint, Response
from pydantic import Field

from accounts.caller import Caller
from foundation.errors import NotFound
from web.api.catalogue import known_models
from web.http import answer, services
from web.operation import Body, Shown, Who, operation

routes = Blueprint("favourite_api", __name__, url_prefix="/api/models")

GPT = "openai/gpt-4o-mini"


class Chosen(Shown):
    """One's models. default_model: null for none."""

    favourites: list[str] = Field(description="By name", examples=[[GPT]])
    default_model: str | None = Field(examples=[GPT])


class NewDefault(Body):
    """The model that pages choose at first."""

    model: str | None = Field(min_length=1, max_length=255, description="Null for none", examples=[GPT])


@routes.get("/favourites")
@operation("Your favourite models", Who.USER, answers={200: Chosen})
def favourites(caller: Caller) -> Response:
    """And your default model. One that OpenRouter has withdrawn stays until you remove it."""
    return _shown(caller.user_id)


@routes.put("/favourites/<path:name>")
@operation("Add a favourite model", Who.USER, answers={200: Chosen}, refusals=(404, 409, 503))
def add(caller: Caller, name: str) -> Response:
    """Once more changes nothing. 409 for more than one may have."""
    add_favourite(caller.user_id, name)
    return _shown(caller.user_id)


@routes.delete("/favourites/<path:name>")
@operation("Remove a favourite model", Who.USER, answers={200: Chosen}, refusals=(404,))
def remove(caller: Caller, name: str) -> Response:
    """404 if it is none of yours."""
    services().favourite_models.remove(caller.user_id, name)
    return _shown(caller.user_id)


@routes.put("/default")
@operation("Choose your default model", Who.USER, body=NewDefault, answers={200: Chosen}, refusals=(404, 503))
def set_default(caller: Caller, body: NewDefault) -> Response:
    """It need not be one of your favourites."""
    choose_default(caller.user_id, body.model)
    return _shown(caller.user_id)


def add_favourite(user_id: int, name: str) -> None:
    """Mark a model. Raises NotFound, Conflict, Busy, BadRequest."""
    _check(name)
    services().favourite_models.add(user_id, name)


def choose_default(user_id: int, name: str | None) -> None:
    """Choose a default model, or none. Raises NotFound, Busy, BadRequest."""
    if name is not None:
        _check(name)
    services().favourite_models.set_default(user_id, name)


def _check(name: str) -> None:
    if known_models().find(name, None) is None:
        raise NotFound("There is no such model; GET /v1/models lists those that you may use")


def _shown(user_id: int) -> Response:
    chosen = services().favourite_models.of(user_id)
    return answer({"favourites": list(chosen.favourites), "default_model": chosen.default_model})
