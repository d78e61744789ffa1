"""For operators: aliases, other names for models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from foundation.errors import BadRequest
from gateway.aliases import MAX_MODELS, MAX_WEIGHT, Alias
from web.http import answer, audit, services
from web.operation import Body, Page, Paging, Shown, Who, operation

routes = Blueprint("admin_alias_api", __name__, url_prefix="/admin/aliases")

ONE = "/<alias>"


class WeightedModel(Body):
    """A model, and how many of the calls it gets beside the others' weights."""

    model: str = Field(pattern=r"^[!-~]{1,255}$", examples=["openai/gpt-4o-mini"])
    weight: int = Field(1, ge=1, le=MAX_WEIGHT, examples=[9])


class NewAlias(Body):
    """What an alias leads to."""

    models: list[WeightedModel] = Field(min_length=1, max_length=MAX_MODELS)


class AliasShown(Shown):
    """An alias."""

    name: str = Field(examples=["fast"])
    models: list[WeightedModel]
    updated_at: datetime


@routes.get("")
@operation("List aliases", Who.AUDITOR, query=Paging, answers={200: Page[AliasShown]})
def page(query: Paging) -> Response:
    """Other names for models, by name."""
    return answer(aliases_shown(query))


@routes.put(ONE)
@operation("Set an alias", Who.OPERATOR, body=NewAlias, answers={200: AliasShown}, refusals=(409,))
def put(operator: str, alias: str, body: NewAlias) -> Response:
    """Lets a name lead to one model, or by weight to one of several; everywhere within two seconds. Calls cost what the
    model costs that they were led to, and whoever serves that model reads their prompts."""
    return answer(set_alias(operator, alias, body))


@routes.delete(ONE)
@operation("Remove an alias", Who.OPERATOR, answers={200: AliasShown}, refusals=(404,))
def delete(operator: str, alias: str) -> Response:
    """Calls that ask for it are for a model of this name from now on; most probably there is none."""
    return answer(remove_alias(operator, alias))


# ── for the pages too


def aliases_shown(query: Paging) -> dict[str, Any]:
    """A page of aliases, as it is answered."""
    return query.cut(services().aliases.rows())


def set_alias(operator: str, name: str, body: NewAlias) -> dict[str, Any]:
    """Let a name lead to models. Raises BadRequest, Conflict."""
    models = {one.model: one.weight for one in body.models}
    if len(models) != len(body.models):
        raise BadRequest("models must differ; give one that shall get more calls a larger weight")
    changed = services().aliases.set(name, models)
    _audit(operator, "alias_set", changed)
    return changed.to_dict()


def remove_alias(operator: str, name: str) -> dict[str, Any]:
    """Forget an alias. Raises NotFound."""
    gone = services().aliases.remove(name)
    _audit(operator, "alias_removed", gone)
    return gone.to_dict()


def _audit(operator: str, action: str, alias: Alias) -> None:
    audit(operator, action, f"alias/{alias.name}", models=dict(alias.models))
