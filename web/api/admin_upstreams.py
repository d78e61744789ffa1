"""For the operator alone: upstreams besides the pool of OpenRouter keys. Keys go in and never come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field

from accounts.step_up import Act
from pool.overview import upstream_overview
from upstream.check import check as check_upstream
from upstream.registry import Keep, Upstream
from web.http import answer, audit, check_fresh, services
from web.operation import Body, Page, Paging, Shown, Who, operation

routes = Blueprint("admin_upstream_api", __name__, url_prefix="/admin/upstreams")

ONE = "/<upstream>"
Dollars = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class ModelPriceUsd(Body):
    """Dollars per million tokens."""

    prompt: Dollars = Field(examples=[0.15])
    completion: Dollars = Field(examples=[0.6])


class NewUpstream(Body):
    """An upstream. What is left out has its default, also where one is replaced."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", examples=["openai"])
    base_url: str = Field(max_length=1000, examples=["https://api.openai.com/v1"])
    api_key: str | None = Field(None, min_length=1, max_length=500, description="left out, a replaced one is kept")
    connect_timeout_seconds: int = Field(5, ge=1, le=60)
    timeout_seconds: int = Field(300, ge=1, le=3600, description="until an answer's first content")
    idle_timeout_seconds: int = Field(120, ge=1, le=3600, description="silence within an answer")
    is_default: bool = Field(False, description="takes the calls that ask for no other")
    is_active: bool = True
    model_prefixes: dict[str, str] = Field(
        default={}, description="what model names begin with → what goes up instead", examples=[{"local/": ""}]
    )
    prices: dict[str, ModelPriceUsd] = Field(
        default={}, description="by model, `*` for all others", examples=[{"*": {"prompt": 0.15, "completion": 0.6}}]
    )


class UpstreamShown(Shown):
    """An upstream with its key masked, and how it is."""

    id: int
    name: str
    base_url: str
    api_key: str | None = Field(examples=["sk-***1234"])
    connect_timeout_seconds: int
    timeout_seconds: int
    idle_timeout_seconds: int
    is_default: bool
    is_active: bool
    model_prefixes: dict[str, str]
    prices: dict[str, ModelPriceUsd]
    created_at: str
    updated_at: str
    health: str | None = Field(
        description="The worst that any process says of it; null if none may use it", examples=["ok"]
    )
    reason: str | None = Field(description="Why it rests", examples=[None])
    until: str | None = Field(description="Until when, if that is known", examples=[None])


class UpstreamChecked(Shown):
    """What became of asking an upstream for its models."""

    name: str
    ok: bool
    status: int | None = Field(description="Of its answer; null if none came", examples=[200])
    reason: str | None = Field(description="Why it is not ok, if that is known", examples=[None])
    models: int | None = Field(description="How many models it names", examples=[12])


@routes.get("")
@operation("List upstreams", Who.AUDITOR, query=Paging, answers={200: Page[UpstreamShown]})
def page(query: Paging) -> Response:
    """Newest first. The pool of OpenRouter keys, which is the upstream `openrouter`, is not among them."""
    return answer(upstreams_shown(query))


@routes.post("")
@operation("Add an upstream", Who.OPERATOR, body=NewUpstream, answers={201: UpstreamShown}, refusals=(409,))
def add(operator: str, body: NewUpstream) -> Response:
    """In use everywhere within two seconds; 409 if there is one of this name."""
    return add_upstream(operator, body)


@routes.get(ONE)
@operation("Show an upstream", Who.AUDITOR, answers={200: UpstreamShown}, refusals=(404,))
def show(upstream: str) -> Response:
    """By its name or number."""
    return answer(upstream_shown(upstream))


@routes.put(ONE)
@operation("Replace an upstream", Who.OPERATOR, body=NewUpstream, answers={200: UpstreamShown}, refusals=(404, 409))
def put(operator: str, upstream: str, body: NewUpstream) -> Response:
    """By its name or number. Without `api_key` the key is kept as long as `base_url` stays with its host; null removes
    it."""
    return change_upstream(operator, upstream, body)


@routes.delete(ONE)
@operation("Remove an upstream", Who.OPERATOR, answers={200: UpstreamShown}, refusals=(404,))
def delete(operator: str, upstream: str) -> Response:
    """By its name or number; answers with what it was. Its calls stay in the log."""
    return remove_upstream(operator, upstream)


@routes.post(f"{ONE}/check")
@operation("Ask an upstream for its models", Who.OPERATOR, answers={200: UpstreamChecked}, refusals=(404,))
def check(operator: str, upstream: str) -> Response:
    """Whether it answers and takes its key: asked now, for at most 15 seconds."""
    return answer(upstream_checked(operator, upstream))


# ── for the pages too


def upstream_checked(operator: str, name: str) -> dict[str, Any]:
    """What became of asking an upstream for its models, as it is answered. Raises NotFound."""
    upstreams = services().upstreams
    checked = check_upstream(upstreams, upstreams.get(name))
    audit(operator, "upstream_checked", f"upstream/{checked.name}", ok=checked.ok, status=checked.status)
    return asdict(checked)


def upstreams_shown(query: Paging) -> dict[str, Any]:
    """A page of upstreams, as it is answered."""
    found, total = services().upstreams.page(query.page, query.page_size)
    return {"items": _shown(found), "total": total, "page": query.page, "page_size": query.page_size}


def upstream_shown(name: str) -> dict[str, Any]:
    """An upstream, as it is answered. Raises NotFound."""
    return _shown([services().upstreams.get(name)])[0]


def add_upstream(operator: str, body: NewUpstream) -> Response:
    """Add an upstream. Raises BadRequest, Conflict."""
    given, api_key = _given(body)
    upstreams = services().upstreams
    new = upstreams.add(upstreams.check(given), None if isinstance(api_key, Keep) else api_key)
    _audit(operator, "upstream_added", new, has_new_key=new.api_key_hint is not None)
    return answer(_shown([new])[0], 201)


def change_upstream(operator: str, name: str, body: NewUpstream) -> Response:
    """Replace an upstream. Raises NotFound, BadRequest, Conflict."""
    given, api_key = _given(body)
    upstreams = services().upstreams
    new = upstreams.change(name, upstreams.check(given), api_key)
    _audit(operator, "upstream_changed", new, has_new_key=not isinstance(api_key, Keep))
    return answer(_shown([new])[0])


def remove_upstream(operator: str, name: str) -> Response:
    """Remove an upstream. Raises NotFound."""
    gone = services().upstreams.remove(name)
    _audit(operator, "upstream_removed", gone, has_new_key=False)
    return answer(_shown([gone])[0])


def _shown(found: Sequence[Upstream]) -> list[dict[str, Any]]:
    return upstream_overview(found, services().db, services().clock.now())


def _given(body: NewUpstream) -> tuple[dict[str, Any], str | Keep | None]:
    """The terms, and the key if one is given, which takes a fresh session."""
    given = body.model_dump()
    api_key: str | None = given.pop("api_key")
    if "api_key" not in body.model_fields_set:
        return given, Keep.KEY
    check_fresh(Act.SET_UPSTREAM_KEY)
    return given, api_key


def _audit(operator: str, action: str, upstream: Upstream, **details: Any) -> None:
    terms = upstream.terms
    details |= {"base_url": terms.base_url, "is_active": terms.is_active, "is_default": terms.is_default}
    audit(operator, action, f"upstream/{terms.name}", **details)
