"""The lists of models that clients read, in OpenRouter's, OpenAI's and Anthropic's forms."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request
from pydantic import ConfigDict

from accounts.caller import Caller
from foundation.errors import NotFound, UpstreamFailed
from serving.dialects import speaks_anthropic
from upstream.openrouter.model_list import LIST_PATH, ModelPage
from web.api.anthropic_models import PageOfModels, one_model, page_of_models
from web.api.catalogue import JSON, NO_SUCH_MODEL, known_models, published
from web.api.model_query import Outputs, Paged, WhichModels
from web.http import answer
from web.operation import Shown, Who, asked, operation

routes = Blueprint("models_api", __name__)


class Links(Shown):
    """Where the list goes on."""

    next: str | None


class Models(Shown):
    """Models in OpenRouter's form."""

    data: list[dict[str, Any]]
    links: Links
    total_count: int


class Count(Shown):
    """How many there are."""

    count: int


class ModelCount(Shown):
    """How many models there are, in OpenRouter's form."""

    data: Count


class Model(Shown):
    """A model in OpenRouter's form, with what OpenAI's has beside it."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    owned_by: str


class OneModel(Shown):
    """A model in OpenRouter's form."""

    data: dict[str, Any]


@routes.get("/v1/models")
@routes.get("/api/v1/models")
@routes.get("/api/plugin-api/models")
@operation("List models", Who.CALLER, query=WhichModels, answers={200: Models, 304: ()}, refusals=(502, 503, 504))
def models(caller: Caller, query: WhichModels) -> Response:
    """The models that you may use, as OpenRouter lists them, up to an hour old.

    With the header `anthropic-version`, as Anthropic lists its own: a page of them, by `after_id` or `before_id`.
    """
    if speaks_anthropic(request.environ):
        return _varying(answer(page_of_models(known_models(), caller.client_key, asked(PageOfModels))))
    known, outputs = known_models(), query.outputs()
    wanted = query.wanted(_chosen(caller, query.at_openrouter()))
    rest = query.rest_of_query()
    path = f"{LIST_PATH}?{rest}" if rest else LIST_PATH
    return _page(known.page(caller.client_key, outputs, query.offset, query.limit, wanted, path))


def _chosen(caller: Caller, path: str) -> tuple[str, ...] | None:
    """The ids of the models that OpenRouter lists at a path; None without one."""
    if not path:
        return None
    entries = published(caller, path).get("data")
    if not isinstance(entries, list):
        raise UpstreamFailed("OpenRouter did not answer with a list of models; try again")
    ids = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return tuple(name for name in ids if isinstance(name, str))


@routes.get("/v1/models/count")
@routes.get("/api/v1/models/count")
@operation("Count models", Who.CALLER, query=Outputs, answers={200: ModelCount}, refusals=(503,))
def count(caller: Caller, query: Outputs) -> Response:
    """How many models you may use."""
    return answer({"data": {"count": known_models().count(caller.client_key, query.outputs())}})


@routes.get("/v1/models/user")
@routes.get("/api/v1/models/user")
@operation("List your models", Who.CALLER, query=Paged, answers={200: Models, 304: ()}, refusals=(503,))
def users_models(caller: Caller, query: Paged) -> Response:
    """The models of all kinds that you may use: what your client key allows is your setting here."""
    path = f"{LIST_PATH}/user"
    return _page(known_models().page(caller.client_key, None, query.offset, query.limit, path=path))


@routes.get("/v1/embeddings/models")
@routes.get("/api/v1/embeddings/models")
@operation("List models for embeddings", Who.CALLER, query=Paged, answers={200: Models, 304: ()}, refusals=(503,))
def embedding_models(caller: Caller, query: Paged) -> Response:
    """Those that you may use."""
    outputs, path = frozenset({"embeddings"}), "/api/v1/embeddings/models"
    return _page(known_models().page(caller.client_key, outputs, query.offset, query.limit, path=path))


def _page(page: ModelPage) -> Response:
    is_known = request.if_none_match.contains_weak(page.etag)
    response = Response(status=304) if is_known else Response(page.body, mimetype=JSON)
    response.set_etag(page.etag)
    # Programs may keep it, but must ask whether it still holds: what a key may use can change.
    response.headers["Cache-Control"] = "private, no-cache"
    return _varying(response)


def _varying(response: Response) -> Response:
    response.headers["Vary"] = "Authorization, X-Api-Key, Anthropic-Version"
    return response


@routes.get("/v1/models/<path:name>")
@routes.get("/api/v1/models/<path:name>")
@operation("Show a model", Who.CALLER, answers={200: Model}, refusals=(404, 503))
def model(caller: Caller, name: str) -> Response:
    """One model, for OpenAI's clients; for Anthropic's, which send `anthropic-version`, in its form."""
    if speaks_anthropic(request.environ):
        return answer(one_model(known_models(), caller.client_key, name))
    return answer(_model(caller, name) | {"object": "model", "owned_by": name.partition("/")[0]})


@routes.get("/v1/model/<path:name>")
@routes.get("/api/v1/model/<path:name>")
@operation("Show a model, as OpenRouter does", Who.CALLER, answers={200: OneModel}, refusals=(404, 503))
def openrouter_model(caller: Caller, name: str) -> Response:
    """One model, for OpenRouter's clients."""
    return answer({"data": _model(caller, name)})


def _model(caller: Caller, name: str) -> dict[str, Any]:
    found = known_models().find(name, caller.client_key)
    if found is None:
        raise NotFound(NO_SUCH_MODEL)
    return found
