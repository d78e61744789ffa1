"""Checks of single settings; how complaints reach an operator is in test_settings.py."""

from __future__ import annotations

import base64
import secrets

import pytest
from pydantic import SecretStr

from config import checks
from config.checks import DATABASE_SCHEMES, RESERVED_PROVIDERS
from tests.support.rows import each_row
from tests.support.settings import (
    FERNET,
    OPENROUTER_KEY,
    PRODUCTION,
    STRONG,
    fault,
    faults,
)


@pytest.mark.parametrize("text", ["https://host/path", "http://[::1]:80", "https://host:1/"])
def test_a_plain_url_passes(text):
    assert checks.url(text) == text


@each_row(
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


@pytest.mark.parametrize(
    "text", ["*", "https://app.example", "http://localhost:3000", "http://[::1]:8080", "capacitor://localhost"]
)
def test_origins_are_as_browsers_write_them(text):
    assert checks.origins((text,)) == (text,)


@pytest.mark.parametrize(
    "text",
    [
        *("app.example", "https://app.example/", "https://App.example", "https://app.example:443", "http://a:80"),
        *("https://*.example", "null", "https://", "https://a/b", "https://u@a", "https://a:0", "https://a:123456"),
    ],
)
def test_what_no_browser_would_send_is_no_origin(text):
    with pytest.raises(ValueError, match="as browsers write them"):
        checks.origins(("https://app.example", text))


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


# ── secrets, as an operator meets them


@each_row(
    "weak",
    [
        "dev_secret_key",
        "dev_secret_key_dev_secret_key_dev_secret_key",
        "change-me-change-me-now-please-0123456789",
        "CHANGEME-q8Zr2mVtXw5LkYp0NsHd7BfJc3GuEa9R",
        "your-secret-key-goes-here-0123456789abcdef",
        "an-example-secret-q8Zr2mVtXw5LkYp0NsHd7Bf",
        STRONG[:31],
        "a" * 64,
        "ab" * 32,
        "abacbabccbacbacabbcacbcaabcbacbacacbbcab",
        "12345678901234567890123456789012",
        "abcdefghijklmnopabcdefghijklmnopabcdefgh",
        "short",
    ],
)
@each_row("name", ["SECRET_KEY", "ADMIN_TOKEN", "ACCEPTED_SECRET_KEYS"])
def test_known_weak_short_and_repeated_secrets_are_refused(name, weak):
    assert "known or weak" in fault(**(PRODUCTION | {name: weak}))
    assert "known or weak" in fault(**{name: weak})  # in development too: it would be carried over


@pytest.mark.parametrize(
    "make", [secrets.token_hex, secrets.token_urlsafe, lambda size: secrets.token_bytes(size).hex(" ")]
)
def test_no_random_secret_is_taken_for_a_weak_one(make):
    assert [line for _ in range(300) for line in faults(SECRET_KEY=make(32))] == []


@each_row(
    "value",
    [
        STRONG,  # strong, but not a key
        FERNET[:-2],
        FERNET[:-1],
        base64.urlsafe_b64encode(b"x" * 32).decode(),
        base64.urlsafe_b64encode(b"31415926535897932384626433832795").decode(),  # typed: few different bytes
        base64.urlsafe_b64encode(bytes(range(31))).decode(),
        base64.urlsafe_b64encode(bytes(range(33))).decode(),
        f"{FERNET},{STRONG}",
        FERNET.replace("c", "é"),
    ],
)
def test_what_is_not_a_fernet_key_is_refused(value):
    assert fault(**(PRODUCTION | {"ENCRYPTION_KEY": value})).startswith("ENCRYPTION_KEY: ")


@pytest.mark.parametrize(
    "key", ["sk-or-", "hunter2", "sk-proj-0123456789abcdef0", OPENROUTER_KEY + "é", "sk-or-" + "x" * 201]
)
def test_what_is_not_an_openrouter_key_is_refused(key):
    assert fault(OPENROUTER_PROVISION_KEY=key) == fault(OPENROUTER_PROVISION_KEY="sk-or-v2")
    assert fault(OPENROUTER_API_KEYS=f"{OPENROUTER_KEY},{key}").startswith("OPENROUTER_API_KEYS: does not look like")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:canary#pw@db/x",  # the piece before # reads as a port
        "mysql://root:canary\u2100pw@db/x",
        "mysql://root:canarypw@[db/x",
        "mysql://root:canarypw@db:port/x",
        "oracle://root:canarypw@db/x",
        "sqlite://canary:canarypw@db/x",
    ],
)
def test_a_malformed_database_url_is_refused_without_showing_its_password(url):
    line = fault(DATABASE_URL=url)
    assert line.startswith("DATABASE_URL: ")
    assert "canary" not in line


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "postgresql://db/x", "proxy.db"])
def test_a_database_that_processes_cannot_share_is_refused(url):
    assert fault(DATABASE_URL=url).startswith("DATABASE_URL: must")


@pytest.mark.parametrize("scheme", DATABASE_SCHEMES)
def test_every_scheme_that_the_refusal_names_is_accepted(scheme):
    assert faults(DATABASE_URL=f"{scheme}:///path/x") == []


@each_row("name", [*sorted(RESERVED_PROVIDERS), "Upper", "a/b", "", "x" * 25])
def test_a_provider_has_a_name_that_means_nothing_else(name):
    assert bool(faults(OIDC_NAME=name)) == bool(name)  # an empty one is the default
