"""What OpenRouter's and OpenAI's clients read beside calling models: the models, a call's record, the key's limits."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Any

from flask import Blueprint, Response, request
from pydantic import ConfigDict, Field

from accounts.caller import Caller
from billing.quotas.rows import Quota
from foundation.errors import Busy, NotFound
from foundation.money import usd
from serving.dialects import speaks_anthropic
from upstream.openrouter.generation_records import unknown_generation
from upstream.openrouter.model_list import DEFAULT_MODALITIES, Allowance, ModelList
from web.api.anthropic_models import PageOfModels, one_model, page_of_models
from web.http import answer, services
from web.operation import DIGITS, Number, Query, Shown, Who, asked, operation

routes = Blueprint("openrouter_api", __name__)

MAX_OFFSET, MAX_LIMIT = 1_000_000, 1000
LIMIT_RESETS = {"day": "daily", "week": "weekly", "month": "monthly", "none": None}
JSON = "application/json"


class ModelFilter(Query):
    """Which models. OpenRouter's other parameters are taken and change nothing: clients send them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    output_modalities: str = Field("text", max_length=200, examples=["all"])
    offset: Number = Field(0, ge=0, le=MAX_OFFSET)
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), DIGITS] | None = None


class Links(Shown):
    """Where the list goes on."""

    next: str | None


class Models(Shown):
    """Models in OpenRouter's form."""

    data: list[dict[str, Any]]
    links: Links
    total_count: int


class Model(Shown):
    """A model in OpenRouter's form, with what OpenAI's has beside it."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    owned_by: str


class OneModel(Shown):
    """A model in OpenRouter's form."""

    data: dict[str, Any]


class WhichGeneration(Query):
    """id: what `X-Generation-Id` of the call said."""

    id: str = Field(max_length=200, pattern=r"^[!-~]+$")


class Generation(Shown):
    """OpenRouter's record of a call."""

    data: dict[str, Any]


class CurrentKey(Shown):
    """Limits and usage in the form of OpenRouter's, in dollars."""

    data: dict[str, Any]


@routes.get("/v1/models")
@routes.get("/api/v1/models")
@routes.get("/api/plugin-api/models")
@operation("List models", Who.CALLER, query=ModelFilter, answers={200: Models, 304: ()}, refusals=(503,))
def models(caller: Caller, query: ModelFilter) -> Response:
    """The models that you may use, as OpenRouter lists them, up to an hour old.

    With the header `anthropic-version`, as Anthropic lists its own: a page of them, by `after_id` or `before_id`.
    """
    if speaks_anthropic(request.environ):
        return _varying(answer(page_of_models(known_models(), _allowance(caller), asked(PageOfModels))))
    wanted = frozenset(filter(None, query.output_modalities.split(","))) or DEFAULT_MODALITIES
    outputs = None if "all" in wanted else wanted
    page = known_models().page(_allowance(caller), outputs, query.offset, query.limit)
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
        return answer(one_model(known_models(), _allowance(caller), name))
    return answer(_model(caller, name) | {"object": "model", "owned_by": name.partition("/")[0]})


@routes.get("/v1/model/<path:name>")
@routes.get("/api/v1/model/<path:name>")
@operation("Show a model, as OpenRouter does", Who.CALLER, answers={200: OneModel}, refusals=(404, 503))
def openrouter_model(caller: Caller, name: str) -> Response:
    """One model, for OpenRouter's clients."""
    return answer({"data": _model(caller, name)})


@routes.get("/v1/generation")
@routes.get("/api/v1/generation")
@operation(
    "Show a call's record",
    Who.CALLER,
    query=WhichGeneration,
    answers={200: Generation},
    refusals=(404, 502, 503, 504),
)
def generation(caller: Caller, query: WhichGeneration) -> Response:
    """OpenRouter's record of one of your calls, which it has some seconds after it; 404 until then.

    Counts as a request, like a call: it makes OpenRouter work, and with the pool's key.
    """
    admission = services().rate_limits.admit(caller, services().addresses.of(request.environ))
    try:
        pool_key_id = services().ledger.find_pool_key(query.id, caller.user_id, caller.client_key_id)
        if pool_key_id is None:
            raise unknown_generation()
        return Response(services().records.shown(query.id, pool_key_id), mimetype=JSON)
    finally:
        admission.release(0)


@routes.get("/v1/key")
@routes.get("/api/v1/key")
@routes.get("/api/v1/auth/key")
@operation("Show your limits", Who.CALLER, answers={200: CurrentKey})
def key(caller: Caller) -> Response:
    """What you may spend and have spent, in the form of OpenRouter's key: the limits are those of this service."""
    subject = f"user/{caller.user_id}" if caller.client_key_id is None else f"key/{caller.client_key_id}"
    budgets = _budgets(caller)
    own = next((quota for quota in budgets if quota.subject == subject), None) or next(iter(budgets), None)
    spent = services().usage.spent_nano(caller.user_id, caller.client_key_id)
    amounts = {name: usd(nano) for name, nano in spent.items()}
    expires_at = datetime.fromtimestamp(caller.expires_at, UTC).isoformat() if isfinite(caller.expires_at) else None
    document = {
        "label": subject,
        "limit": usd(own.terms.limit_nano) if own else None,
        "limit_remaining": usd(own.remaining_nano) if own else None,
        "limit_reset": LIMIT_RESETS[own.terms.period] if own else None,
        **amounts,
        **dict.fromkeys((f"byok_{name}" for name in amounts), 0),
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "is_provisioning_key": False,
        "creator_user_id": None,
        "organization_id": None,
        "workspace_id": None,
        "allowed_data_regions": ["global"],
        "budgets": [_budget(quota) for quota in budgets],
        "effective_budget": _budget(min(budgets, key=lambda quota: quota.left_nano)) if budgets else None,
        # How many free calls OpenRouter's account still has is nobody's here; the fields are required.
        "free_model_daily_requests": {"limit": 0, "remaining": 0, "used": 0},
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
        "expires_at": expires_at,
    }
    return answer({"data": document})


def _allowance(caller: Caller) -> Allowance | None:
    return caller.client_key


def known_models() -> ModelList:
    """The list of models. Raises Busy before the first one has come."""
    found = services().prices.models
    if not found:
        raise Busy("The list of models has not been fetched from OpenRouter yet; try again shortly", 5)
    return found


def _model(caller: Caller, name: str) -> dict[str, Any]:
    found = known_models().find(name, _allowance(caller))
    if found is None:
        raise NotFound("There is no such model that you may use; GET /v1/models lists those")
    return found


def _budgets(caller: Caller) -> list[Quota]:
    """The quotas with a limit that hold for the caller."""
    subjects = [f"user/{caller.user_id}"]
    if caller.client_key_id is not None:
        subjects.append(f"key/{caller.client_key_id}")
    found = [services().quotas.find(subject) for subject in subjects]
    return [quota for quota in found if quota and quota.terms.limit_nano is not None]


def _budget(quota: Quota) -> dict[str, Any]:
    """A quota as one of OpenRouter's budgets. What is held for running calls is neither spent nor remaining."""
    return {
        "scope": "member" if quota.subject.startswith("user/") else "api_key",
        "limit_usd": usd(quota.terms.limit_nano),
        "spend_usd": usd(quota.spent_nano),
        "remaining_usd": usd(quota.remaining_nano),
        "reset_interval": LIMIT_RESETS[quota.terms.period],
        "resets_at": quota.resets_at.isoformat() if quota.resets_at else None,
        "include_byok": False,
        "guardrail_id": None,
        "budget_id": None,
    }
