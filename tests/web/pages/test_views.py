"""How pages write amounts and numbers. Visitors, changes and headers are tested in tests/web/pages."""

from __future__ import annotations

import pytest
from flask import Flask

from web.pages.table import register_pages

app = Flask("pages", static_folder=None, template_folder=None)
register_pages(app)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "–"),
        (0, "$0.00"),
        (0.0000067, "$0.0000067"),
        (0.0012345, "$0.0012"),
        (0.5, "$0.5000"),
        (1234.5, "$1,234.50"),
        (-2, "-$2.00"),
    ],
)
def test_small_amounts_are_shown_to_the_digit_that_counts(amount, shown):
    assert app.jinja_env.filters["dollars"](amount) == shown


def test_large_numbers_have_separators():
    assert app.jinja_env.filters["count"](1234567) == "1,234,567"
