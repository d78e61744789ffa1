"""What a route takes and answers, declared beside its view: checked before the view runs, and drawn as OpenAPI.

    @routes.put("/<int:user_id>")
    @operation("Set a user's quota", Who.OPERATOR, body=NewQuota, answers={200: QuotaShown}, refusals=(404,))
    def put(user_id: int, body: NewQuota) -> Response: ...

A view names what it wants among `caller`, `operator`, `body` and `query`, beside the parts of its path. Who may call is
looked at first, so that a stranger learns nothing about what is accepted.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import wraps
from typing import Annotated, Any, Generic, TypeVar

from flask import Response, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from accounts.roles import Right
from auth import ACCESS_TOKEN, FOR_CALLS, FOR_READING
from billing.quotas.rate_limits import Door
from foundation import json_text
from foundation.errors import BadRequest, NotFound
from web.bad_input import told
from web.http import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE,
    MAX_PAGE_SIZE,
    check_caller,
    check_operator,
    check_scraper,
    count_request,
    json_body,
)

MAX_ID = 2**63 - 1  # of a row in any database

View = Callable[..., Response]
Item = TypeVar("Item")
Asked = TypeVar("Asked", bound="Query")


class Who(Enum):
    """Who may use a route."""

    ANYBODY = "anybody"
    USER = "a user with an access token"
    CALLER = "a user with an access token or a client key"
    READER = "a user with an access token or an API token"
    AUDITOR = "whoever may read all that operators see"
    OPERATOR = "whoever may change it"
    APPOINTER = "whoever may say who may"
    SCRAPER = "whoever has METRICS_TOKEN"


RIGHTS = {Who.AUDITOR: Right.READ, Who.OPERATOR: Right.CHANGE, Who.APPOINTER: Right.APPOINT}
CREDENTIALS = {Who.USER: ACCESS_TOKEN, Who.CALLER: FOR_CALLS, Who.READER: FOR_READING}


class Body(BaseModel):
    """A JSON object that is sent to us: exact types, and no field that is not declared."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_whole(cls, value: object) -> object:
        """1024.0 is a whole number; where a fraction may be, a whole number may be too."""
        number = json_text.whole(value)
        return value if number is None else number


class Query(BaseModel):
    """Query parameters: each at most once, and none that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shown(BaseModel):
    """A JSON object that we answer with; for the document and its tests, answers are not built from it."""

    model_config = ConfigDict(extra="forbid", defer_build=True)  # until somebody asks for the document


DIGITS_TEXT = re.compile(r"([0-9]{1,19})(?:\.0{1,19})?")


def _digits(text: object) -> int:
    found = DIGITS_TEXT.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise PydanticCustomError("digits", "must be a whole number")
    return int(found.group(1))


# A whole number in a query. Not pydantic's own reading of one, which takes "1_000" and " 1" too. Bounds of one that may
# be left out stand before DIGITS, or the document would not have them.
DIGITS = BeforeValidator(_digits)
Number = Annotated[int, DIGITS]
RowId = Annotated[int, Field(ge=1, le=MAX_ID), DIGITS]


def _moment(text: object) -> datetime:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) and len(text) <= 40 else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or not 2000 <= found.year < 2999:
        raise ValueError("must be a time with its zone from 2000 to 2998, as 2026-11-21T13:00:00Z")
    return found.astimezone(UTC)


# A time in a body, in ISO 8601.
Moment = Annotated[datetime, BeforeValidator(_moment)]


class Paging(Query):
    """Which page, and how many items each has."""

    page: Number = Field(1, ge=1, le=MAX_PAGE, description="Which page, counted from 1")
    page_size: Number = Field(DEFAULT_PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE, description="Items on a page")

    def cut(self, rows: Sequence[Any]) -> dict[str, Any]:
        """This page of rows that are all at hand, as it is answered. Each row has to_dict."""
        begin = (self.page - 1) * self.page_size
        items = [row.to_dict() for row in rows[begin : begin + self.page_size]]
        return {"items": items, "total": len(rows), "page": self.page, "page_size": self.page_size}


class Page(Shown, Generic[Item]):
    """A page of a list."""

    items: list[Item]
    total: int = Field(description="Items on all pages together", examples=[1])
    page: int = Field(examples=[1])
    page_size: int = Field(examples=[DEFAULT_PAGE_SIZE])


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. answers: by status a model, or the MIME types of a file. refusals: statuses that are not
    plain from the rest, such as 404 and 409. door: where requests are counted by address, besides those of operators.
    """

    summary: str
    who: Who
    body: type[Body] | None
    query: type[Query] | None
    answers: Mapping[int, type[Shown] | tuple[str, ...]]
    refusals: tuple[int, ...]
    door: Door | None


def operation(
    summary: str,
    who: Who,
    *,
    answers: Mapping[int, type[Shown] | tuple[str, ...]],
    body: type[Body] | None = None,
    query: type[Query] | None = None,
    refusals: tuple[int, ...] = (),
    door: Door | None = None,
) -> Callable[[View], View]:
    """Declare a view; put it below the route's own decorator. The view's docstring says more than the summary."""

    def declare(view: View) -> View:
        wanted = set(inspect.signature(view).parameters)

        @wraps(view)
        def run(**path: Any) -> Response:
            if door:
                count_request(door)
            found = path | _let_in(who)
            if any(isinstance(part, int) and part > MAX_ID for part in path.values()):
                raise NotFound("There is nothing at this path")
            # Also where none is declared: a filter that is not understood must not show more than was asked for.
            found["query"] = asked(query or Query)
            if body:
                found["body"] = _read(body, json_body())
            return view(**{name: value for name, value in found.items() if name in wanted})

        run.operation = Operation(summary, who, body, query, answers, refusals, door)  # type: ignore[attr-defined]
        return run

    return declare


def _let_in(who: Who) -> dict[str, Any]:
    """Who calls. Raises Unauthorized, Forbidden, TooManyRequests."""
    if who in RIGHTS:
        return {"operator": check_operator(RIGHTS[who])}
    if who is Who.ANYBODY:
        return {}
    if who is Who.SCRAPER:
        check_scraper()
        return {}
    return {"caller": check_caller(CREDENTIALS[who])}


def asked(model: type[Asked]) -> Asked:
    """The parameters of this request. Raises BadRequest."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise BadRequest(f"{name[:40]} is given more than once")
    return _read(model, request.args.to_dict())


Model = TypeVar("Model", bound=BaseModel)


def _read(model: type[Model], given: Mapping[str, object]) -> Model:
    """The model of what was given. Raises BadRequest with the first fault."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        kind = "parameter" if issubclass(model, Query) else "field"
        raise BadRequest(told(model, kind, error)) from None
