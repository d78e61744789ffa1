"""Checks of single settings; how their complaints reach an operator is in test_config.py."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from config import checks


@pytest.mark.parametrize("text", ["https://host/path", "http://[::1]:80", "https://host:1/"])
def test_a_plain_url_passes(text):
    assert checks.url(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", "https://", "https://u@host", "https://h/?q", "https://h/#f", "https://h:x", "https://h/\u00e9"],
)
def test_what_is_no_plain_url_is_refused(text):
    with pytest.raises(ValueError, match="must be a URL"):
        checks.url(text)


@pytest.mark.parametrize(
    ("text", "is_safe"),
    [("https://host", True), ("http://127.0.0.1:1", True), ("http://localhost", True), ("http://10.0.0.1", False)],
)
def test_only_the_loopback_is_safe_without_https(text, is_safe):
    assert checks.is_safe_to_call(text) == is_safe


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (checks.redis_url, "redis://:pw@cache/0", "http://cache"),
        (checks.http_proxy, "http://u:pw@proxy:3128", "http://proxy"),
        (checks.list_of_objects, '[{"a": 1}]', "[1]"),
    ],
)
def test_a_secret_is_checked_by_its_form_and_never_quoted(check, good, bad):
    assert check(SecretStr(good)).get_secret_value() == good
    assert check(None) is None
    with pytest.raises(ValueError, match="must be") as refused:
        check(SecretStr(bad))
    assert bad not in str(refused.value)


def test_networks_are_addresses_with_a_mask_or_the_word_unix():
    assert checks.networks(("unix", "10.0.0.0/8", "::1")) == ("unix", "10.0.0.0/8", "::1")
    with pytest.raises(ValueError, match="networks like"):
        checks.networks(("10.0.0.1/8",))


@pytest.mark.parametrize("text", ["https://x.example", "http://127.0.0.1:5000/", "https://[::1]:8443"])
def test_an_address_of_ones_own_loses_its_slash(text):
    assert checks.own_address(text) == text.rstrip("/")


@pytest.mark.parametrize(
    "text", ["x.example", "https://x/path", "https://a@x", "https://x?", "https://x#", "ftp://x", ""]
)
def test_what_is_more_than_an_address_is_refused(text):
    with pytest.raises(ValueError, match="must be "):
        checks.own_address(text)


def test_what_travels_in_a_header_is_printable_ascii():
    assert checks.header_text("My app!") == "My app!"
    for text in ("a\nb", "\u00e9", "\x7f"):
        with pytest.raises(ValueError, match="printable ASCII"):
            checks.header_text(text)
