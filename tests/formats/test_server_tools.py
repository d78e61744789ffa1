"""What of a body means that more than a model has a part in the answer."""

from __future__ import annotations

import json

import pytest

from formats.server_tools import uses_server_tools

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"tools": []},
        {"tools": None},
        {"tools": [FUNCTION, FUNCTION]},
        {"tools": [{"name": "f", "input_schema": {}}, {"type": None, "name": "g"}]},
        {"tools": [{"type": "custom", "name": "f"}]},
        {"plugins": [], "mcp_servers": None},
    ],
    ids=json.dumps,
)
def test_tools_of_the_clients_own_run_there_alone(members):
    assert not uses_server_tools(json.dumps({"model": "m", **members}).encode())


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [FUNCTION, {"type": "openrouter:web_search"}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "mcp", "server_url": "https://example.com"}]},
        {"tools": [{"type": "code_interpreter"}]},
        {"tools": [{"type": "what-nobody-knows-yet"}]},
        {"tools": [{"type": 7}]},
        {"tools": ["function"]},
        {"plugins": [{"id": "web"}]},
        {"mcp_servers": [{"url": "https://example.com"}]},
        {"web_search_options": {}},
        {"preset": "mine"},
    ],
    ids=json.dumps,
)
def test_whatever_else_there_is_runs_elsewhere(members):
    assert uses_server_tools(json.dumps({"model": "m", **members}).encode())


def test_a_kind_that_is_written_in_another_way_counts_as_unknown():
    assert uses_server_tools(b'{"model":"m","tools":[{"type":"\\u0066unction"}]}')
