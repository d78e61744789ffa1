"""Forms of pages, read as the JSON bodies that the API takes: the same bounds, the same words for what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import request
from pydantic import BaseModel, ValidationError

from foundation import json_text
from foundation.errors import AppError, BadRequest
from web.bad_input import told
from web.http import DEFAULT_PAGE_SIZE
from web.pages.field_faults import Words, faults_by_field, refusal_by_field

Model = TypeVar("Model", bound=BaseModel)


class FormFaults(BadRequest):
    """What is wrong with a form. by_field: all of it that belongs to fields, by their names."""

    def __init__(self, message: str, by_field: Mapping[str, Words]) -> None:
        super().__init__(message)
        self.by_field = by_field


NOTHING: dict[str, Any] = {"items": [], "total": 0, "page": 1, "page_size": DEFAULT_PAGE_SIZE}


def form_of(model: type[Model], lists: tuple[str, ...] = (), emptied: Collection[str] = (), **more: object) -> Model:
    """The model that a form fills in. Raises BadRequest with the first fault.

    Fields that are empty count as left out. lists: those that may have several values, or a value on each line.
    emptied: what is null because its field is empty. more: what the view has made of other fields.
    """
    given: dict[str, object] = {}
    for name in request.form:
        if name == "csrf_token" or name in more:
            continue
        values = [value.strip() for value in request.form.getlist(name) if value.strip()]
        if name in lists:
            values = [line.strip() for value in values for line in value.splitlines() if line.strip()]
        if values:
            given[name] = values if name in lists else values[-1]
    given |= {name: value for name, value in more.items() if value is not None}
    return _read(model, given | dict.fromkeys(emptied))


def is_emptied(name: str) -> bool:
    """Whether the form has this field, and nothing in it."""
    return name in request.form and not any(request.form.getlist(name))


def json_of(name: str) -> object:
    """What a field holds as JSON. Raises BadRequest."""
    try:
        return json_text.parse(request.form.get(name, "").encode())
    except json_text.BadJson as error:
        raise BadRequest(f"{name} is {error}") from None


def query_of(model: type[Model], **more: object) -> Model:
    """The same of a form that was sent by GET, or of a link to what it finds."""
    return _read(model, {name: value for name, value in request.args.items() if value.strip()} | more)


def here(path: str, **changes: object) -> str:
    """A link with this request's filters, but for these changes; None drops one."""
    asked: dict[str, object] = {name: value for name, value in request.args.items() if value.strip()}
    query = urlencode({name: value for name, value in (asked | changes).items() if value is not None})
    return f"{path}?{query}" if query else path


def found(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a list's filters find; if they can't be read, nothing, and `fault` says why: they stay on the page.

    `status` is that of the page.
    """
    try:
        return read() | {"status": 200, "fault": None, "by_field": {}}
    except BadRequest as error:
        return NOTHING | {"status": error.status, "fault": error.message, "by_field": by_field(error)}


def by_field(error: AppError) -> Mapping[str, Words]:
    """What of this belongs to fields of a form, by their names."""
    return error.by_field if isinstance(error, FormFaults) else refusal_by_field(error.message)


def _read(model: type[Model], given: Mapping[str, object]) -> Model:
    try:
        return model.model_validate(given, strict=False)
    except ValidationError as error:
        raise FormFaults(told(model, "field", error), faults_by_field(model, error, set(request.values))) from None
