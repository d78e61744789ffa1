"""What is declared beside a view holds: who may use it, and what it takes."""

import pytest
from flask import Flask
from pydantic import Field

from foundation.errors import AppError
from web.http import answer, register
from web.operation import Body, Number, Paging, Shown, Who, operation


class Thing(Body):
    name: str
    size: int = Field(1, ge=1)


class Asked(Paging):
    least: Number = Field(0, le=9)


class Got(Shown):
    got: dict[str, int | str]


@pytest.fixture
def client():
    app = Flask(__name__)
    register(app)

    @app.post("/things/<int:thing_id>")
    @operation("Make a thing", Who.ANYBODY, body=Thing, answers={200: Got})
    def make(thing_id, body):
        return answer({"got": {"id": thing_id, "name": body.name, "size": body.size}})

    @app.get("/things")
    @operation("List things", Who.ANYBODY, query=Asked, answers={200: Got})
    def things(query):
        return answer({"got": {"page": query.page, "least": query.least}})

    @app.get("/plain")
    @operation("Take nothing", Who.ANYBODY, answers={200: Got})
    def plain():
        return answer({"got": {}})

    return app.test_client()


def refusal(response):
    assert response.status_code == 400
    return response.json["error"]["message"]


def test_a_view_gets_what_it_names(client):
    made = client.post("/things/7", json={"name": "a"})
    assert (made.status_code, made.json) == (200, {"got": {"id": 7, "name": "a", "size": 1}})
    assert client.get("/things?page=3&least=09").json == {"got": {"page": 3, "least": 9}}


def test_a_whole_number_may_be_written_with_a_fraction(client):
    made = client.post("/things/7", data='{"name":"a","size":2.0}', content_type="application/json")
    assert made.data == b'{"got":{"id":7,"name":"a","size":2}}'
    assert client.get("/things?page=3.0&least=9.00").json == {"got": {"page": 3, "least": 9}}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"name": "a", "colour": 1}, "There is no field 'colour' here; this takes name, size"),
        ({}, "name must be a text"),
        ({"name": 1}, "name must be a text"),
        ({"name": "a", "size": "2"}, "size must be a whole number of at least 1"),
        ({"name": "a", "size": True}, "size must be a whole number of at least 1"),
        ({"name": "a", "size": 2.5}, "size must be a whole number of at least 1"),
        ({"name": "a", "size": 0.0}, "size must be a whole number of at least 1"),
        ({"name": "a", "size": 0}, "size must be a whole number of at least 1"),
    ],
)
def test_a_body_that_is_not_as_declared_is_refused_with_the_reason(client, body, told):
    assert refusal(client.post("/things/7", json=body)) == told


@pytest.mark.parametrize("number", ["", "0x1", "1_0", " 1", "+1", "-1", "1.5", "1.", ".0", "1e0", "١", "9" * 19])
def test_a_number_in_a_query_is_written_in_digits(client, number):
    assert "least must be a whole number" in refusal(client.get("/things", query_string={"least": number}))


def test_a_query_holds_only_what_is_declared_and_once(client):
    assert refusal(client.get("/plain?page=1")) == "There is no parameter 'page' here; this takes none"
    assert refusal(client.get("/things?page=1&page=2")) == "page is given more than once"
    assert refusal(client.get("/things?least=10")) == "least must be a whole number of at most 9"


def test_an_id_that_no_row_can_have_leads_nowhere(client):
    assert client.post(f"/things/{2**63 - 1}", json={"name": "a"}).status_code == 200
    for too_large in (2**63, 10**30):
        assert client.post(f"/things/{too_large}", json={"name": "a"}).status_code == 404


def test_a_declaration_can_be_read():
    @operation("Take nothing", Who.OPERATOR, answers={200: Got}, refusals=(404,))
    def view():
        raise AppError("never called")

    assert (view.operation.who, view.operation.refusals) == (Who.OPERATOR, (404,))
