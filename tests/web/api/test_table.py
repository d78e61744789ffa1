"""Every file with routes of the API is in its table of contents."""

from __future__ import annotations

from tests.support.route_tables import missing
from web import api
from web.api import table


def test_every_module_with_routes_is_in_the_table_and_no_address_is_taken_twice():
    # anthropic_models gives the list of models another shape, at its own address; model_query reads its parameters;
    # webauthn has the shapes of what browsers and passkeys say.
    assert missing(api, table.register_api) == ["anthropic_models", "model_query", "table", "webauthn"]
