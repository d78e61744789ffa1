"""The OpenAPI document: drawn from what routes declare (web/operation.py) and from the list of model calls.

Nothing is described twice: parameters and bodies are the models that check them, summaries and descriptions those of
the views, errors the classes of foundation/errors.py. Only model calls, which Flask never sees, are described by hand
(web/openapi/model_calls.py).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, Literal

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from config.version import VERSION
from foundation import errors
from web.openapi import model_calls
from web.openapi.sample import sample
from web.operation import MAX_ID, Operation, Query, Who

Json = dict[str, Any]

TITLE = "OpenRouter Proxy"
SCHEMAS = "#/components/schemas/"
# What schemas are called in the document, where that is not the name of their class. Clients are generated from these
# names, so they stay when a class gets a better one.
PUBLISHED = {
    "NewAccountKey": "routes__connect_api__NewKey",
    "NewDerivedKey": "routes__session_api__NewKey",
    "NewWatchedKey": "NewPersonalKey",
    "Page_WatchedKeyShown_": "Page_PersonalKeyShown_",
    "PoolKeySource": "KeySource",
    "PoolKeyState": "KeyState",
    "ReturnedCode": "routes__connect_api__Returned",
    "WatchedKeyChange": "PersonalKeyChange",
    "WatchedKeyCost": "PersonalKeyCost",
    "WatchedKeyShown": "PersonalKeyShown",
    "WatchedKeyUsage": "PersonalKeyUsage",
}
ACCESS_TOKEN, CLIENT_KEY, API_TOKEN, ADMIN_TOKEN, OPERATOR_TOKEN, METRICS_TOKEN, X_API_KEY = (
    "accessToken",
    "clientKey",
    "apiToken",
    "adminToken",
    "operatorToken",
    "metricsToken",
    "xApiKey",
)
SECURITY = {  # by the names of Who
    "ANYBODY": [],
    "USER": [ACCESS_TOKEN, X_API_KEY],
    "CALLER": [ACCESS_TOKEN, CLIENT_KEY, X_API_KEY],
    "READER": [ACCESS_TOKEN, API_TOKEN, X_API_KEY],
    "AUDITOR": [ADMIN_TOKEN, OPERATOR_TOKEN, ACCESS_TOKEN, X_API_KEY],
    "OPERATOR": [ADMIN_TOKEN, OPERATOR_TOKEN, ACCESS_TOKEN, X_API_KEY],
    "APPOINTER": [ADMIN_TOKEN, ACCESS_TOKEN, X_API_KEY],
    "SCRAPER": [METRICS_TOKEN, X_API_KEY],
}
# Their requests are counted wherever they go.
LIMITED = {Who.READER, Who.AUDITOR, Who.OPERATOR, Who.APPOINTER, Who.SCRAPER}
SECURITY_SCHEMES = {
    ACCESS_TOKEN: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "What /login returns"},
    CLIENT_KEY: {"type": "http", "scheme": "bearer", "description": "A client key, `sk-auto-...`: calls models"},
    API_TOKEN: {"type": "http", "scheme": "bearer", "description": "An API token, `or_api_...`: reads usage"},
    ADMIN_TOKEN: {"type": "http", "scheme": "bearer", "description": "The operator's ADMIN_TOKEN"},
    OPERATOR_TOKEN: {"type": "http", "scheme": "bearer", "description": "An operator token, `or_op_...`"},
    METRICS_TOKEN: {"type": "http", "scheme": "bearer", "description": "METRICS_TOKEN, which reads /metrics"},
    X_API_KEY: {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "Any of these, as Anthropic's clients send it",
    },
}
# One class for each status; its message is an example.
REFUSALS: dict[int, errors.AppError] = {
    400: errors.BadRequest("page must be a whole number from 1 to 1000000"),
    401: errors.Unauthorized("Send a token as `Authorization: Bearer <token>`; /login returns one"),
    402: errors.QuotaExceeded("What you may spend is spent"),
    403: errors.Forbidden("This account is disabled"),
    404: errors.NotFound("There is nothing at this path"),
    409: errors.Conflict("This name is taken"),
    413: errors.PayloadTooLarge("The body may have at most 65536 bytes"),
    415: errors.UnsupportedMedia("Send JSON with the header Content-Type: application/json"),
    429: errors.TooManyRequests("Too many log-ins: this service allows 5 a minute per address", 31),
    502: errors.UpstreamFailed("The upstream's answer broke off"),
    503: errors.Busy("The database can't be reached; try again shortly", 5),
    504: errors.UpstreamTimeout("The upstream did not answer in time"),
}
HEADERS: dict[str, Json] = {
    "X-Request-Id": {
        "description": "Names this answer; quote it to the operator",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "example": "019ab5d1c2e3a1b2c3d4e5f60718293a",
    },
    "Retry-After": {
        "description": "Seconds to wait before the next try",
        "schema": {"type": "integer", "minimum": 0},
        "example": 31,
    },
    "RateLimit-Policy": {
        "description": "The limits that apply: `q` of them in `w` seconds (draft-ietf-httpapi-ratelimit-headers)",
        "schema": {"type": "string"},
        "example": '"user-requests";q=60;w=60',
    },
    "RateLimit": {
        "description": "What is left (`r`) of each of them, and in how many seconds all of it is there again (`t`)",
        "schema": {"type": "string"},
        "example": '"user-requests";r=59;t=31',
    },
    "X-Cache": {
        "description": "Of a client key with a response cache: whether the answer is from memory; `Age` says how old",
        "schema": {"enum": ["HIT", "MISS"]},
    },
    "WWW-Authenticate": {"description": "How to authenticate", "required": True, "schema": {"type": "string"}},
}
OF_STATUS = {401: ["WWW-Authenticate"], 429: ["Retry-After", "RateLimit-Policy", "RateLimit"], 503: ["Retry-After"]}
DESCRIPTION = """\
A gateway between your clients and OpenRouter. Log in, or take a client key, and point any SDK of OpenAI, OpenRouter or
Anthropic at `/v1`.

**Errors** have one shape, the schema `Error`, and `X-Request-Id` to quote. Bad input is refused with what is accepted,
and has changed nothing. 500 is a fault of ours. Statuses that a browser or proxy may see besides: 405, with `Allow`.

**Money** is in dollars where a name ends in `_usd`, in whole billionths of one where it ends in `_nano`. **Times** are
in UTC. **Lists** are in pages, newest first.
"""


def document(app: Flask) -> Json:
    """The document for all routes of this application."""
    views = {endpoint: view.operation for endpoint, view in app.view_functions.items() if hasattr(view, "operation")}
    shapes = _Shapes(views.values())
    paths: dict[str, Json] = model_calls.paths()
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: _place(app, rule.endpoint)):
        if rule.endpoint not in views:
            continue
        path, parameters = _path(rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            described = _operation(app, rule.endpoint, views[rule.endpoint], parameters, shapes)
            taken = {one["operationId"] for methods in paths.values() for one in methods.values()}
            if described["operationId"] in taken:  # the same under another path
                described["operationId"] += "_" + re.sub(r"\W+", "_", path).strip("_")
            paths.setdefault(path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "license": {"name": "MIT"}, "description": DESCRIPTION},
        "servers": [{"url": "/", "description": "This gateway"}],
        "tags": [model_calls.TAG, *_tags(app)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted((shapes.schemas | {"Error": _error_schema()} | model_calls.SCHEMAS).items())),
            "securitySchemes": SECURITY_SCHEMES,
            "headers": HEADERS,
            "responses": {_name(status): refusal(status) for status in REFUSALS} | model_calls.refusals(),
        },
    }


class _Shapes:
    """The JSON schemas of all models, as components."""

    def __init__(self, operations: Collection[Operation]) -> None:
        models: set[type[BaseModel]] = set()
        for one in operations:
            models |= {answer for answer in one.answers.values() if isinstance(answer, type)}
            models |= {model for model in (one.body, one.query) if model}
        inputs: Literal["validation"] = "validation"
        wanted = [(model, inputs) for model in sorted(models, key=lambda model: (model.__module__, str(model)))]
        found, definitions = models_json_schema(wanted, ref_template=SCHEMAS + "{model}")
        self.schemas: dict[str, Json] = {
            PUBLISHED.get(name, name): _plain(one) for name, one in definitions.get("$defs", {}).items()
        }
        self._names = {model: _published(found[model, inputs]["$ref"]) for model, _ in wanted}
        # Queries are no components: nothing refers to them.
        queries = {one.query for one in operations if one.query}
        self._queries = {query: self.schemas.pop(self._names[query].removeprefix(SCHEMAS)) for query in queries}

    def of(self, model: type[BaseModel]) -> Json:
        """A reference to a model's schema."""
        return {"$ref": self._names[model]}

    def parameters(self, query: type[Query]) -> list[Json]:
        """A model's fields as parameters of a query."""
        schema = self._queries[query]
        required = schema.get("required", ())
        return [_query_parameter(name, one, name in required) for name, one in schema["properties"].items()]


def _published(reference: str) -> str:
    name = reference.removeprefix(SCHEMAS)
    return SCHEMAS + PUBLISHED.get(name, name)


def _plain(schema: Any) -> Any:
    """Without the titles that pydantic makes up from names; with references by published names."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = schema | {"$ref": _published(schema["$ref"])}
    return {
        name: {inner: _plain(one) for inner, one in value.items()} if name == "properties" else _plain(value)
        for name, value in schema.items()
        if name != "title" or not isinstance(value, str)
    }


def _query_parameter(name: str, schema: Json, is_required: bool) -> Json:
    schema = dict(schema)
    described: Json = {"name": name, "in": "query", "required": is_required}
    described |= {"description": schema.pop("description")} if "description" in schema else {}
    examples = schema.pop("examples", None)
    if alternatives := schema.pop("anyOf", None):  # null, too, for what may be left out: no query can hold it
        schema.pop("default", None)
        schema |= next(one for one in alternatives if one.get("type") != "null")
    described["schema"] = schema
    return described | ({"example": examples[0]} if examples else {})


def _path(rule: str) -> tuple[str, list[Json]]:
    """A path of Flask's as one of OpenAPI's, and its parameters."""
    parameters: list[Json] = []

    def name_of(match: re.Match[str]) -> str:
        converter, options, name = match[1], match[2], match[3]
        schema: Json = {"type": "string", "minLength": 1}
        if converter == "int":
            schema = {"type": "integer", "minimum": 0, "maximum": MAX_ID}
        elif converter == "any":
            schema = {"type": "string", "enum": [option.strip(" '\"") for option in options.split(",")]}
        example = 1 if converter == "int" or name in {"number", "id"} else sample(schema, {})
        one = {"name": name, "in": "path", "required": True, "schema": schema, "example": example}
        parameters.append(one | ({"example": str(example)} if schema["type"] == "string" else {}))
        return f"{{{name}}}"

    return re.sub(r"<(?:(\w+)(?:\(([^)]*)\))?:)?(\w+)>", name_of, rule), parameters


def _operation(app: Flask, endpoint: str, one: Operation, parameters: list[Json], shapes: _Shapes) -> Json:
    view = inspect.unwrap(app.view_functions[endpoint])
    described: Json = {
        "operationId": endpoint.replace("_api.", "_").replace(".", "_"),
        "summary": one.summary,
        "description": inspect.getdoc(view) or "",
        "tags": [_tag(endpoint)],
        "security": [{name: []} for name in SECURITY[one.who.name]],
    }
    if parameters or one.query:
        described["parameters"] = parameters + (shapes.parameters(one.query) if one.query else [])
    if one.body:
        schema = shapes.of(one.body)
        content = {"schema": schema, "example": sample(schema, shapes.schemas)}
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    described["responses"] = _responses(one, bool(parameters), shapes)
    return described


def _responses(one: Operation, has_parts: bool, shapes: _Shapes) -> Json:
    found: dict[int, Json] = {}
    for status, answer in one.answers.items():
        content: Json = {}
        for kind in answer if isinstance(answer, tuple) else ():
            content[kind] = {"schema": {"type": "object" if kind == "application/json" else "string"}}
        if isinstance(answer, type):
            schema = shapes.of(answer)
            content["application/json"] = {"schema": schema, "example": sample(schema, shapes.schemas)}
        doc = inspect.getdoc(answer) if isinstance(answer, type) else ""
        found[status] = {"description": doc or HTTPStatus(status).phrase, "headers": _headers(), "content": content}
    for status in sorted(_refusals(one, has_parts) - set(found)):
        found[status] = {"$ref": f"#/components/responses/{_name(status)}"}
    return {str(status): response for status, response in sorted(found.items())}


def _refusals(one: Operation, has_parts: bool) -> set[int]:
    """The statuses that a route may refuse with: those declared, and those that are plain from the rest."""
    refusals = {400, 503, *one.refusals}
    refusals |= {401, 403} if one.who is not Who.ANYBODY else set()
    refusals |= {413, 415} if one.body else set()
    refusals |= {429} if one.door or one.who in LIMITED else set()
    return refusals | ({404} if has_parts else set())


def refusal(status: int) -> Json:
    """The response of one status."""
    content = {"schema": {"$ref": SCHEMAS + "Error"}, "example": REFUSALS[status].to_dict()}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _headers(*OF_STATUS.get(status, ())),
        "content": {"application/json": content},
    }


def _headers(*more: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *more)}


def _name(status: int) -> str:
    return type(REFUSALS[status]).__name__


def _error_schema() -> Json:
    text = {"type": "string", "minLength": 1}
    error = {
        "code": {"type": "integer", "description": "The HTTP status"},
        "message": text,
        "type": {"type": "string", "description": "What went wrong, in one word of ours"},
        "param": {"type": "null"},
        "metadata": {
            "type": "object",
            "properties": {
                "error_type": {"type": "string", "enum": sorted({*errors.ERROR_TYPES.values()})},
            },
            "required": ["error_type"],
        },
    }
    inner = {"type": "object", "properties": error, "required": list(error)}
    again = {"type": "string", "description": "The message again, for older clients"}
    return {
        "type": "object",
        "description": "Every refusal of ours; SDKs of OpenAI and OpenRouter read `error`.",
        "properties": {"error": inner, "message": again, "detail": again},
        "required": ["error", "message", "detail"],
    }


# ── tags: the files of routes, in the order of their table of contents


def _tag(endpoint: str) -> str:
    words = endpoint.partition(".")[0].removesuffix("_api").replace("_", " ").capitalize()
    return words.replace("Openrouter", "OpenRouter").replace("Sso", "Single sign-on")


def _tags(app: Flask) -> list[Json]:
    described = {
        endpoint.partition(".")[0] for endpoint, view in app.view_functions.items() if hasattr(view, "operation")
    }
    texts: Mapping[str, str] = {
        name: sys.modules[one.import_name].__doc__ or "" for name, one in app.blueprints.items() if name in described
    }
    return [{"name": _tag(name), "description": text.partition("\n")[0]} for name, text in texts.items()]


def _place(app: Flask, endpoint: str) -> int:
    return [*app.blueprints, ""].index(endpoint.rpartition(".")[0])
