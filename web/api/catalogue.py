"""What OpenRouter publishes for everybody, read through the gateway: without what a client key may not use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, request

from accounts.caller import Caller
from foundation import json_text
from foundation.errors import Busy, NotFound, UpstreamFailed
from upstream.openrouter.model_list import ModelList
from web.http import services
from web.operation import Shown, Who, operation

routes = Blueprint("catalogue_api", __name__)

JSON = "application/json"
NO_SUCH_MODEL = "There is no such model that you may use; GET /v1/models lists those"
REFUSALS = (404, 502, 503, 504)


class Published(Shown):
    """A list in OpenRouter's form."""

    data: list[dict[str, Any]]


class ModelEndpoints(Shown):
    """A model with the endpoints that serve it, in OpenRouter's form."""

    data: dict[str, Any]


class ImageEndpoints(Shown):
    """The endpoints of a model that makes pictures, in OpenRouter's form."""

    id: str
    endpoints: list[dict[str, Any]]


@routes.get("/v1/providers")
@routes.get("/api/v1/providers")
@operation("List providers", Who.CALLER, answers={200: Published}, refusals=REFUSALS)
def providers(caller: Caller) -> Response:
    """Who serves models at OpenRouter, up to five minutes old."""
    return _answer(published(caller, "/providers"))


@routes.get("/v1/endpoints/zdr")
@routes.get("/api/v1/endpoints/zdr")
@operation("List endpoints that keep nothing", Who.CALLER, answers={200: Published}, refusals=REFUSALS)
def endpoints_zdr(caller: Caller) -> Response:
    """Endpoints with zero data retention, of the models that you may use, up to five minutes old."""
    return _answer(_of_models(caller, "/endpoints/zdr", "model_id"))


@routes.get("/v1/images/models")
@routes.get("/api/v1/images/models")
@operation("List models for images", Who.CALLER, answers={200: Published}, refusals=REFUSALS)
def image_models(caller: Caller) -> Response:
    """Those that you may use, with what they take, up to five minutes old."""
    return _answer(_of_models(caller, "/images/models", "id"))


@routes.get("/v1/videos/models")
@routes.get("/api/v1/videos/models")
@operation("List models for videos", Who.CALLER, answers={200: Published}, refusals=REFUSALS)
def video_models(caller: Caller) -> Response:
    """Those that you may use, with what they take, up to five minutes old."""
    return _answer(_of_models(caller, "/videos/models", "id"))


@routes.get("/v1/models/<path:name>/endpoints")
@routes.get("/api/v1/models/<path:name>/endpoints")
@operation("List a model's endpoints", Who.CALLER, answers={200: ModelEndpoints}, refusals=REFUSALS)
def model_endpoints(caller: Caller, name: str) -> Response:
    """Who serves a model, at which price and how well, up to five minutes old."""
    return _answer(published(caller, f"/models/{_known(caller, name)}/endpoints"))


@routes.get("/v1/images/models/<path:name>/endpoints")
@routes.get("/api/v1/images/models/<path:name>/endpoints")
@operation("List an image model's endpoints", Who.CALLER, answers={200: ImageEndpoints}, refusals=REFUSALS)
def image_model_endpoints(caller: Caller, name: str) -> Response:
    """Who serves a model for images, and what each takes, up to five minutes old."""
    return _answer(published(caller, f"/images/models/{_known(caller, name)}/endpoints"))


def known_models() -> ModelList:
    """The list of models. Raises Busy before the first one has come."""
    found = services().prices.models
    if not found:
        raise Busy("The list of models has not been fetched from OpenRouter yet; try again shortly", 5)
    return found


def published(caller: Caller, path: str) -> dict[str, Any]:
    """OpenRouter's document. Counts as a request where OpenRouter has to be asked, like a call.

    Raises TooManyRequests, NotFound, Busy, UpstreamFailed, UpstreamTimeout.
    """
    catalogue = services().catalogue
    if catalogue.is_fresh(path):
        return catalogue.get(path)
    admission = services().rate_limits.admit(caller, services().addresses.of(request.environ))
    try:
        return catalogue.get(path)
    finally:
        admission.release(0)


def _answer(document: dict[str, Any]) -> Response:
    return Response(json_text.write(document), mimetype=JSON)


def _known(caller: Caller, name: str) -> str:
    """The name of a model that the caller may use, for a path: nothing else is asked for. Raises NotFound, Busy."""
    if known_models().find_name(name, caller.client_key) is None:
        raise NotFound(NO_SUCH_MODEL)
    return quote(name, safe="/:")


def _of_models(caller: Caller, path: str, field: str) -> dict[str, Any]:
    """A list of what concerns models, without those that the caller may not use. field: which says the model."""
    document = published(caller, path)
    entries = document.get("data")
    if not isinstance(entries, list):
        raise UpstreamFailed("OpenRouter did not answer with a list; try again")
    if caller.client_key is None or caller.client_key.models is None:
        return document
    may_use = _judge(services().prices.models, caller)
    return document | {"data": [one for one in entries if isinstance(one, dict) and may_use(one.get(field))]}


def _judge(known: ModelList, caller: Caller) -> Callable[[object], bool]:
    def may_use(name: object) -> bool:
        key = caller.client_key
        if key is None or not isinstance(name, str):
            return False
        return key.allows_model(name) or known.find_name(name, key) is not None

    return may_use
