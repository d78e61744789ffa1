"""Aliases over HTTP: set, listed, replaced, removed, and refused with what is accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown

PATH = "/admin/aliases"


@pytest.fixture(scope="module")
def administered(start: Callable[..., Gateway], stand_in: Any, modules_database_url: str) -> Gateway:
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    return start(DATABASE_URL=modules_database_url, OPENROUTER_API_URL=stand_in.address, **secrets)


def test_an_alias_is_set_replaced_and_removed(administered):
    def ask(method: str, path: str = "", body: Any = None) -> Any:
        return administered.ask(method, PATH + path, body, ADMIN_TOKEN)

    first = shown(ask("PUT", "/fast", {"models": [{"model": "a/b", "weight": 9}, {"model": "c/d"}]}))
    assert first["models"] == [{"model": "a/b", "weight": 9}, {"model": "c/d", "weight": 1}]
    other = shown(ask("PUT", "/best", {"models": [{"model": "c/d"}]}))
    assert shown(ask("GET")) == {"items": [other, first], "total": 2, "page": 1, "page_size": 20}
    assert shown(ask("GET", "?page=2&page_size=1"))["items"] == [first]
    for name, body, words in (
        ("Fast", {"models": [{"model": "a/b"}]}, "without a slash"),
        ("fast", {"models": []}, "models"),
        ("fast", {"models": [{"model": "a/b"}, {"model": "a/b"}]}, "must differ"),
        ("fast", {"models": [{"model": "a/b", "weight": 0}]}, "weight"),
        ("fast", {"models": [{"model": "best"}]}, "is an alias itself"),
        ("fast", {"models": [{"model": "a/b"}], "name": "x"}, "name"),
        ("fast", ["a/b"], "JSON object"),
    ):
        refused = ask("PUT", f"/{name}", body)
        assert (refused.status_code, words in refusal_of(refused)) == (400, True), refused.text
    assert shown(ask("GET"))["items"] == [other, first]
    changed = shown(ask("PUT", "/fast", {"models": [{"model": "c/d"}]}))
    assert shown(ask("DELETE", "/fast")) == changed
    assert ask("DELETE", "/fast").status_code == 404
    audited = [(one["action"], one["subject"]) for one in shown(administered.get("/admin/audit", ADMIN_TOKEN))["items"]]
    assert audited[:2] == [("alias_removed", "alias/fast"), ("alias_set", "alias/fast")]
