"""Favourite models over HTTP: each person's own, of models that there are; on each kind of database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import Gateway, refusal_of, wait_for

PATH = "/api/models/favourites"
GPT, FREE = "openai/gpt-4o-mini", "meta-llama/llama-3.3-70b-instruct:free"
NOTHING: dict[str, Any] = {"favourites": [], "default_model": None}


@pytest.fixture(scope="module")
def served(modules_database_url: str, start: Callable[..., Gateway], stand_in: Any) -> Gateway:
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY}
    gateway = start(DATABASE_URL=modules_database_url, OPENROUTER_API_URL=stand_in.address, **secrets)
    token = gateway.new_user()
    wait_for(lambda: gateway.get("/v1/models", token).status_code == 200)
    return gateway


@pytest.fixture
def owner(served: Gateway) -> str:
    return served.new_user()


def test_favourites_and_a_default_are_chosen_shown_and_removed(served, owner):
    teammate = served.new_user()
    assert served.get(PATH, owner).json() == NOTHING
    assert served.ask("PUT", f"{PATH}/{GPT}", token=owner).json() == NOTHING | {"favourites": [GPT]}
    for name in (GPT, FREE):
        answer = served.ask("PUT", f"{PATH}/{name}", token=owner)
    assert answer.json()["favourites"] == [FREE, GPT]
    chosen = served.ask("PUT", "/api/models/default", {"model": FREE}, owner)
    assert chosen.json() == served.get(PATH, owner).json() == {"favourites": [FREE, GPT], "default_model": FREE}
    assert served.get(PATH, teammate).json() == NOTHING
    assert served.ask("DELETE", f"{PATH}/{FREE}", token=owner).json()["favourites"] == [GPT]
    assert served.ask("PUT", "/api/models/default", {"model": None}, owner).json()["default_model"] is None


def test_what_is_no_model_is_refused_and_changes_nothing(served, owner):
    for name in ("no/such-model", "x" * 300, "a%20b", "%3Cb%3E", GPT.upper()):
        assert "There is no such model" in refusal_of(served.ask("PUT", f"{PATH}/{name}", token=owner))
        assert served.ask("DELETE", f"{PATH}/{name}", token=owner).status_code == 404
    assert served.ask("PUT", "/api/models/default", {"model": "no/such-model"}, owner).status_code == 404
    for body in ({}, {"model": ""}, {"model": 7}, {"model": [GPT]}, {"model": GPT, "user_id": 1}, {"model": "x" * 256}):
        assert served.ask("PUT", "/api/models/default", body, owner).status_code == 400
    assert served.get(PATH, owner).json() == NOTHING


def test_one_persons_favourite_is_not_removed_by_another(served, owner):
    served.ask("PUT", f"{PATH}/{GPT}", token=owner)
    assert served.ask("DELETE", f"{PATH}/{GPT}", token=served.new_user()).status_code == 404
    assert served.ask("DELETE", f"{PATH}/{GPT}").status_code == 401
    assert served.get(PATH, owner).json()["favourites"] == [GPT]
