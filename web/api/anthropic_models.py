"""The list of models as Anthropic's clients read it; the routes are those of web/api/models.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from foundation.errors import BadRequest, NotFound
from upstream.openrouter.model_list import Allowance, ListedModel, ModelList
from web.operation import DIGITS, Query

DEFAULT_LIMIT, MAX_LIMIT = 20, 1000


class PageOfModels(Query):
    """Which models, as Anthropic's clients ask. after_id, before_id: the model beside which a page begins or ends."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    after_id: str = Field("", max_length=300)
    before_id: str = Field("", max_length=300)
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), DIGITS] = DEFAULT_LIMIT


def page_of_models(known: ModelList, allowance: Allowance | None, asked: PageOfModels) -> dict[str, Any]:
    """Those that answer with text and that somebody may use, in OpenRouter's order. Raises BadRequest."""
    models = [model for model in known.listed() if allowance is None or allowance.allows_model(model.id)]
    if asked.after_id and asked.before_id:
        raise BadRequest("Send after_id or before_id, not both")
    if asked.before_id:
        models = models[: _place(models, asked.before_id, "before_id")]
        found, has_more = models[-asked.limit :], len(models) > asked.limit
    else:
        models = models[_place(models, asked.after_id, "after_id") + 1 if asked.after_id else 0 :]
        found, has_more = models[: asked.limit], len(models) > asked.limit
    ends = {"first_id": found[0].id, "last_id": found[-1].id} if found else {"first_id": None, "last_id": None}
    return {"data": [_shown(model) for model in found], "has_more": has_more, **ends}


def one_model(known: ModelList, allowance: Allowance | None, name: str) -> dict[str, Any]:
    """One of them. Raises NotFound."""
    found = next((model for model in known.listed() if model.id == name), None)
    if found is None or (allowance and not allowance.allows_model(name)):
        raise NotFound("There is no such model that you may use; GET /v1/models lists those")
    return _shown(found)


def _place(models: list[ListedModel], name: str, parameter: str) -> int:
    place = next((at for at, model in enumerate(models) if model.id == name), None)
    if place is None:
        raise BadRequest(f"{parameter} must be the id of a model in this list")
    return place


def _shown(model: ListedModel) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(model.created or 0, UTC).isoformat().replace("+00:00", "Z"),
        "max_input_tokens": model.context,
        "max_tokens": model.most_written,
        "lifecycle": "active",
    }
