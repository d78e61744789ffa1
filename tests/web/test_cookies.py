"""The cookies of log-ins elsewhere: over https under a prefix that browsers guard, never for scripts, and forgotten."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask, Response

from app import create_app
from config.settings import Config
from services import build
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from web.cookies import Cookie

COOKIE, LIFE = Cookie("under-way"), timedelta(minutes=10)


@pytest.fixture(params=["https://gateway.test", "http://127.0.0.1:5000"], ids=["https", "http"])
def app(request: pytest.FixtureRequest, tmp_path) -> Flask:
    secrets = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY}
    return create_app(build(Config(**secrets, public_url=request.param, data_dir=tmp_path)))


def test_over_https_browsers_take_it_from_this_host_alone(app):
    is_https = app.extensions["services"].config.public_url.startswith("https")
    response = Response()
    with app.test_request_context():
        COOKIE.give(response, "x", LIFE)
        assert COOKIE.name == ("__Host-under-way" if is_https else "under-way")
    value, *attributes = response.headers["Set-Cookie"].split("; ")
    assert value == f"{'__Host-' if is_https else ''}under-way=x"
    assert ("Secure" in attributes) == is_https
    assert {"HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=600"} <= set(attributes)
    assert not any(attribute.startswith("Domain") for attribute in attributes)


def test_what_was_given_is_read_and_another_name_is_not(app):
    with app.test_request_context():
        name = COOKIE.name
    for sent, read in ((f"{name}=x", "x"), ("", ""), (f"a{name}=x", ""), (f"{name}=", "")):
        with app.test_request_context(headers={"Cookie": sent}):
            assert COOKIE.read() == read
    with app.test_request_context(headers={"Cookie": "under-way=x"}):  # without the prefix anybody's neighbour sets it
        assert COOKIE.read() == ("" if name.startswith("__Host-") else "x")


def test_a_browser_forgets_it_at_once(app):
    response = Response()
    with app.test_request_context():
        COOKIE.take(response)
    assert "Max-Age=0" in response.headers["Set-Cookie"]
