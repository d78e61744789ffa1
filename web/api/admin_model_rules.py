"""For operators: what holds for calls of one model or alias: fallbacks, a time-out, a choice of upstreams."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field

from foundation.errors import BadRequest
from gateway.aliases import MAX_WEIGHT
from gateway.failures import Failure
from gateway.model_rules import MAX_FALLBACKS, MAX_UPSTREAMS, ChooseBy, Fallback, ModelRule, RuleTerms
from web.http import answer, audit, services
from web.operation import Body, Page, Paging, Shown, Who, operation

routes = Blueprint("admin_model_rule_api", __name__, url_prefix="/admin/model-rules")

ONE = "/<path:model>"
UPSTREAM = "local"


class FallbackGiven(Body):
    """Another model to try after a failure."""

    model: str = Field(pattern=r"^[!-~]{1,255}$", examples=["openai/gpt-4o-mini"])
    upstream: str | None = Field(
        None, max_length=64, description="Null for the one that calls of this model go to", examples=[UPSTREAM]
    )
    after: list[Annotated[Failure, Field(strict=False)]] = Field(
        list(Failure), min_length=1, max_length=len(Failure), description="Kinds of failure", examples=[["away"]]
    )


class WeightedUpstream(Body):
    """An upstream, and how many of the calls it gets beside the others' weights."""

    upstream: str = Field(max_length=64, examples=[UPSTREAM])
    weight: int = Field(1, ge=1, le=MAX_WEIGHT, examples=[9])


class NewModelRule(Body):
    """What holds; at least one of fallbacks, timeout_seconds and upstreams."""

    fallbacks: list[FallbackGiven] = Field([], max_length=MAX_FALLBACKS, description="Tried in this order")
    timeout_seconds: int | None = Field(
        None,
        ge=1,
        description="To the first content, up to MAX_TIMEOUT_SECONDS; null for the upstream's",
        examples=[600],
    )
    upstreams: list[WeightedUpstream] = Field(
        [], max_length=MAX_UPSTREAMS, description="That carry the model; none for the usual one"
    )
    choose_by: ChooseBy = Field(
        "weight",
        description="How one of `upstreams` is chosen for each call; `latency`: by how soon they answered lately",
    )


class ModelRuleShown(Shown):
    """A rule."""

    model: str = Field(description="Or the alias", examples=["fast"])
    fallbacks: list[FallbackGiven]
    timeout_seconds: int | None = Field(examples=[600])
    upstreams: list[WeightedUpstream]
    choose_by: ChooseBy
    updated_at: datetime


@routes.get("")
@operation("List model rules", Who.AUDITOR, query=Paging, answers={200: Page[ModelRuleShown]})
def page(query: Paging) -> Response:
    """What holds for calls of some models and aliases, by name."""
    return answer(rules_shown(query))


@routes.put(ONE)
@operation("Set a model's rule", Who.OPERATOR, body=NewModelRule, answers={200: ModelRuleShown}, refusals=(409,))
def put(operator: str, model: str, body: NewModelRule) -> Response:
    """For calls that ask for this model or alias; everywhere within two seconds. A call costs what the model costs that
    answers it, and each upstream that it is sent to reads its prompt."""
    return answer(set_rule(operator, model, body))


@routes.delete(ONE)
@operation("Remove a model's rule", Who.OPERATOR, answers={200: ModelRuleShown}, refusals=(404,))
def delete(operator: str, model: str) -> Response:
    """Calls of this model go only to where they are sent first from now on, with the usual time-outs."""
    return answer(remove_rule(operator, model))


# ── for the pages too


def rules_shown(query: Paging) -> dict[str, Any]:
    """A page of rules, as it is answered."""
    return query.cut(services().model_rules.rows())


def set_rule(operator: str, model: str, body: NewModelRule) -> dict[str, Any]:
    """Let this hold for a model. Raises BadRequest, Conflict."""
    fallbacks = tuple(Fallback(one.model, one.upstream or "", tuple(one.after)) for one in body.fallbacks)
    upstreams = {one.upstream: one.weight for one in body.upstreams}
    if len(upstreams) != len(body.upstreams):
        raise BadRequest("upstreams must differ; give one that shall get more calls a larger weight")
    terms = RuleTerms(fallbacks, body.timeout_seconds, upstreams, body.choose_by)
    changed = services().model_rules.set(model, terms)
    _audit(operator, "model_rule_set", changed)
    return changed.to_dict()


def remove_rule(operator: str, model: str) -> dict[str, Any]:
    """Forget a rule. Raises NotFound."""
    gone = services().model_rules.remove(model)
    _audit(operator, "model_rule_removed", gone)
    return gone.to_dict()


def _audit(operator: str, action: str, rule: ModelRule) -> None:
    audit(operator, action, f"model-rule/{rule.name}", **rule.terms.to_dict())
