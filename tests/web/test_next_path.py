"""The guard of redirects: paths on this host pass, whatever else a browser could read as an address does not."""

from __future__ import annotations

import pytest

from tests.support.rows import each_row
from web.next_path import is_on_this_host

ELSEWHERE = [
    "//evil.test",
    "///evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "https://evil.test",
    "https:evil.test",
    "http:/evil.test",
    "javascript:alert(1)",
    "%2f%2fevil.test",
    ".evil.test",
    "@evil.test",
    ":80@evil.test",
    "/\t/evil.test",
    "/\n/evil.test",
    "/a\r\nSet-Cookie: x=y",
    " //evil.test",
    "/a#sso=mine",
    "/\u2044evil.test",
    "/a\\b",
    "",
    "x",
    "/" + "a" * 500,
]


@each_row("path", ELSEWHERE)
def test_what_may_lead_elsewhere_is_no_path_on_this_host(path):
    assert not is_on_this_host(path)


@pytest.mark.parametrize("path", ["/", "/keys", "/logs?model=a%2Fb&page=2", "/a//b", "/" + "a" * 499])
def test_a_path_on_this_host_is_one(path):
    assert is_on_this_host(path)
