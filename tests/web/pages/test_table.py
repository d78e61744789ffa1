"""Every file with pages is in their table of contents."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from flask import Blueprint, Flask

from web.pages import table

MODULES = sorted(path.stem for path in Path(table.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.fixture(scope="module")
def app() -> Flask:
    app = Flask(__name__, static_folder=None)
    table.register_pages(app)
    return app


@pytest.mark.parametrize("name", MODULES)
def test_a_module_with_routes_is_in_the_table(app, name):
    routes = getattr(import_module(f"web.pages.{name}"), "routes", None)
    if isinstance(routes, Blueprint):
        assert routes in app.blueprints.values()
    else:
        assert name in {"forms", "table", "views"}


def test_no_address_is_taken_twice(app):
    rules = [(rule.rule, method) for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}]
    assert len(set(rules)) == len(rules)
