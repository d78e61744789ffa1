"""The OpenAPI document: whole, valid to the letter, and with examples that are what they are examples of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask

from web.api.table import register_api
from web.openapi import document as openapi
from web.openapi import model_calls, readers
from web.operation import Who

Json = dict[str, Any]


@pytest.fixture(scope="module")
def app() -> Flask:
    made = Flask(__name__, static_folder=None)
    register_api(made)
    made.register_blueprint(readers.routes)
    return made


@pytest.fixture(scope="module")
def document(app: Flask) -> Json:
    return openapi.document(app)


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def test_every_route_declares_what_it_is(app):
    undeclared = {endpoint for endpoint, view in app.view_functions.items() if not hasattr(view, "operation")}
    assert undeclared == set(), "put @operation below the route's decorator: see web/operation.py"


def test_every_route_and_every_model_call_is_in_the_document(app, document):
    wanted = {("post", path) for path in model_calls.paths()}
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:[^:>]*:)?(\w+)>", r"{\1}", rule.rule)
        wanted |= {(method.lower(), path) for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert {(method, path) for method, path, _ in operations(document)} == wanted


def test_operations_have_names_of_their_own_summaries_and_descriptions(document):
    found = [operation for _, _, operation in operations(document)]
    names = [operation["operationId"] for operation in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"\w+", name) for name in names)
    for operation in found:
        assert operation["summary"], operation
        assert not operation["summary"].endswith("."), operation
        assert operation["description"].endswith("."), operation


def test_it_is_valid_openapi(document):
    """To the schemas that OpenAPI 3.1 is published with: jsonschema-rs knows that of JSON Schema, the rest is here."""
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    tags = [tag["name"] for tag in document["tags"]]
    assert len(set(tags)) == len(tags)
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    for method, path, operation in operations(document):
        assert operation["tags"][0] in tags
        assert method in {"get", "put", "post", "delete", "patch"}
        in_path = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
        assert in_path == re.findall(r"\{(\w+)\}", path)
        for parameter in operation.get("parameters", ()):
            assert set(parameter) <= {"name", "in", "required", "description", "schema", "example"}
            assert parameter["required"] or parameter["in"] == "query"
            jsonschema_rs.meta.validate(parameter["schema"])
        for status, response in operation["responses"].items():
            assert re.fullmatch("[1-5][0-9][0-9]", status)
            assert response.get("$ref") or response["description"]


def test_what_it_refers_to_is_there_and_what_is_there_is_referred_to(document):
    references = set(re.findall(r'"\$ref": "#/components/(\w+/[\w.-]+)"', json.dumps(document)))
    used = {name for _, _, operation in operations(document) for one in operation["security"] for name in one}
    there = {f"{kind}/{name}" for kind, found in document["components"].items() for name in found}
    schemes = {f"securitySchemes/{name}" for name in used}
    assert references | schemes <= there
    unused = there - references - schemes
    assert {name for name in unused if not name.startswith(("responses/", "securitySchemes/"))} == set()


def test_every_bound_is_in_the_words_of_json_schema(document):
    """pydantic writes bounds that it can't place as `ge` and `le`, which no reader knows."""
    assert re.findall(r'"(?:[gl][et])": ', json.dumps(document)) == []


def test_examples_are_valid(document):
    components = {"components": document["components"]}

    def check(schema: Json, example: object, where: str) -> None:
        validator = jsonschema_rs.Draft202012Validator(schema | components, validate_formats=True)
        assert validator.is_valid(example), f"{where}: {example} is none of {schema}"

    checked = 0
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        for parameter in operation.get("parameters", ()):
            if "example" in parameter:
                check(parameter["schema"], parameter["example"], f"{where} {parameter['name']}")
        contents = [operation["requestBody"]] if "requestBody" in operation else []
        for response in operation["responses"].values():
            name = response.get("$ref", "").rpartition("/")[2]
            contents.append(document["components"]["responses"][name] if name else response)
        for content in contents:
            for kind, media in content.get("content", {}).items():
                if kind == "application/json" and "example" in media:
                    check(media["schema"], media["example"], f"{where} {content.get('description', 'body')}")
                    checked += 1
    assert checked > 50


def test_answers_say_how_they_are_named_and_refusals_how_long_to_wait(document):
    responses = document["components"]["responses"]
    for method, path, operation in operations(document):
        for status, told in operation["responses"].items():
            response = responses[told["$ref"].rpartition("/")[2]] if "$ref" in told else told
            assert "X-Request-Id" in response["headers"], (method, path, status)
            assert status != "429" or "Retry-After" in response["headers"], (method, path)


def test_every_kind_of_caller_has_its_credentials(document):
    assert {who.name for who in Who} <= set(openapi.SECURITY)
    assert {name for names in openapi.SECURITY.values() for name in names} <= set(openapi.SECURITY_SCHEMES)
    security = {path: operation["security"] for _, path, operation in operations(document)}
    assert security["/login"] == []
    assert security["/api/upstream"] == [{"accessToken": []}, {"xApiKey": []}]
    assert {"adminToken": []} in security["/admin/quotas"]
    assert [path for path in model_calls.paths() if {"xApiKey": []} not in security[path]] == []


def test_what_is_declared_of_a_route_is_told(document):
    login = document["paths"]["/login"]["post"]
    assert {"200", "400", "401", "403", "413", "415", "429", "503"} == set(login["responses"])
    assert login["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Credentials"}
    assert document["components"]["schemas"]["Credentials"]["additionalProperties"] is False
    put = document["paths"]["/admin/quotas/{kind}/{number}"]["put"]
    assert [one["name"] for one in put["parameters"]] == ["kind", "number"]
    assert put["parameters"][0]["schema"]["enum"] == ["user", "key", "team"]
    page = {one["name"]: one for one in document["paths"]["/api/usage/logs"]["get"]["parameters"]}
    assert page["page_size"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert page["status"]["schema"] == {"type": "string", "pattern": "^(error|ok|[1-5]([0-9]{2}|xx))$"}
    assert not any(one["required"] for one in page.values())


def test_tags_stand_in_the_order_of_the_table_of_contents(app, document):
    tags = [tag["name"] for tag in document["tags"]]
    assert tags[0] == "Model calls"
    assert len(tags) == len(app.blueprints) + 1
    paths = [operation["tags"][0] for _, _, operation in operations(document)]
    assert list(dict.fromkeys(paths)) == [tag for tag in tags if tag in paths]


def test_nothing_in_it_is_a_secret_or_leads_elsewhere(document):
    text = json.dumps(document)
    assert "sk-or-v1-" not in text
    # Examples of an upstream, of OpenRouter's log-in, and of who begins one.
    examples = {"https://api.openai.com", "https://openrouter.ai", "https://github.com", "http://localhost:3000"}
    assert set(re.findall(r"https?://[^/\"]+", text)) <= examples
