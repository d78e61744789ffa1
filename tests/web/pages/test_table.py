"""Every file with pages is in their table of contents."""

from __future__ import annotations

from tests.support.route_tables import missing
from web import pages
from web.pages import table


def test_every_module_with_routes_is_in_the_table_and_no_address_is_taken_twice():
    assert missing(pages, table.register_pages) == ["field_faults", "forms", "sparkline", "stacked", "table", "views"]
