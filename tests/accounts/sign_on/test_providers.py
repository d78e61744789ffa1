"""Identity providers: who the stand-in says somebody is, with PKCE and a nonce, and everything that proves nothing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.server
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from accounts.sign_on.provider import ProviderFailed, ProviderProfile, SignOnAttempt
from accounts.sign_on.providers import (
    Client,
    OidcProvider,
    configured_providers,
    github_profile,
    linuxdo_profile,
)
from config import sources
from foundation.clock import Clock
from foundation.crypto import new_token
from tests.support.movable_clock import MovableClock
from tests.support.rows import each_row
from tests.support.sign_on import PROVIDERS, agree, query_of, sign_on_settings, started_provider

CALLBACK = "http://127.0.0.1:9/api/auth/sso/x/callback"
LINUXDO = {"id": 7, "username": "ann", "active": True, "silenced": False, "trust_level": 2}


@pytest.fixture
def providers(identity_provider):
    config = sources.Config.model_validate(
        {name.lower(): value for name, value in sign_on_settings(identity_provider, "http://127.0.0.1:9").items()}
    )
    return configured_providers(config, Clock())


def attempt() -> SignOnAttempt:
    return SignOnAttempt(CALLBACK, new_token(), new_token())


def profile_of(provider, ours: SignOnAttempt | None = None, **wishes: str) -> ProviderProfile:
    ours = ours or attempt()
    code = query_of(agree(provider.authorize_url(ours, "s" * 43), **{"as": "ann"} | wishes))["code"]
    return provider.profile(ours, code)


def test_each_says_who_somebody_is_by_an_id_of_its_own(providers):
    assert list(providers) == list(PROVIDERS)
    assert [one.title for one in providers.values()] == ["GitHub", "Linux.do", "oidc"]
    expected = ProviderProfile("4711", "Ann", "https://avatars.people.test/ann.png")
    issuers = {name: profile_of(one).issuer for name, one in providers.items()}
    assert [urlsplit(issuer).path for issuer in issuers.values()] == ["/github", "/linuxdo", "/oidc"]
    expected = dataclasses.replace(expected, issuer=issuers["github"])
    assert profile_of(providers["github"], id="4711") == expected
    linuxdo = profile_of(providers["linuxdo"], id="4711", trust_level="3", silenced="true", active="false")
    more = {"trust_level": 3, "is_silenced": True, "is_active": False, "issuer": issuers["linuxdo"]}
    assert linuxdo == dataclasses.replace(expected, **more)
    oidc = dataclasses.replace(expected, subject="sub-4711", email_domain="people.test", issuer=issuers["oidc"])
    assert profile_of(providers["oidc"], id="4711") == oidc


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_browser_is_sent_with_the_exact_callback_a_state_and_a_challenge(providers, name):
    ours = attempt()
    asked = query_of(providers[name].authorize_url(ours, "the-state"))
    digest = hashlib.sha256(ours.verifier.encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")
    assert (asked["redirect_uri"], asked["state"], asked["client_id"]) == (CALLBACK, "the-state", f"{name}-app")
    assert asked.get("scope", "") == {"github": "", "linuxdo": "read", "oidc": "openid profile"}[name]
    assert asked.get("nonce") == (ours.nonce if name == "oidc" else None)
    assert ours.verifier not in str(asked)
    assert "secret-of" not in str(asked)


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("field", ["verifier", "callback"])
def test_a_code_is_worth_nothing_with_another_verifier_or_callback(providers, name, field):
    ours = attempt()
    code = query_of(agree(providers[name].authorize_url(ours, "s"), **{"as": "ann"}))["code"]
    with pytest.raises(ProviderFailed):
        providers[name].profile(dataclasses.replace(ours, **{field: CALLBACK + "x" * 43}), code)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_code_works_once_and_with_its_own_provider_only(providers, name):
    ours = attempt()
    code = query_of(agree(providers[name].authorize_url(ours, "s"), **{"as": "ann"}))["code"]
    assert providers[name].profile(ours, code)
    with pytest.raises(ProviderFailed):
        providers[name].profile(ours, code)
    code = query_of(agree(providers[name].authorize_url(ours, "s"), **{"as": "ann"}))["code"]
    other = next(one for one in PROVIDERS if one != name)
    with pytest.raises(ProviderFailed):
        providers[other].profile(ours, code)


OF_USERS = [(name, fault) for name in ("github", "linuxdo") for fault in ("no-user", "redirect-user")]
FAULTS = [(name, fault) for name in PROVIDERS for fault in ("expired-code", "no-token", "redirect")]


@pytest.mark.parametrize(("name", "fault"), [*FAULTS, *OF_USERS])
def test_a_provider_that_does_not_answer_usefully_proves_nothing(providers, name, fault):
    with pytest.raises(ProviderFailed) as failed:
        profile_of(providers[name], fault=fault)
    assert failed.value.status == 502
    assert failed.value.message == f"{providers[name].title} did not confirm who you are; try again"


@pytest.mark.parametrize(
    "fault",
    [
        "other-audience",
        "other-issuer",
        "other-nonce",
        "no-nonce",
        "old-token",
        "bad-signature",
        "unknown-key",
        "hs256",
        "unsigned",
    ],
)
def test_an_id_token_that_is_not_for_this_log_in_proves_nothing(providers, fault):
    assert profile_of(providers["oidc"])
    with pytest.raises(ProviderFailed):
        profile_of(providers["oidc"], fault=fault)
    assert profile_of(providers["oidc"])


@pytest.fixture
def clock() -> MovableClock:
    """Ours, which shows the provider's time at first."""
    clock = MovableClock()
    clock.advance(seconds=(Clock().now() - clock.now()).total_seconds())
    return clock


@pytest.fixture
def oidc(clock) -> Iterator[OidcProvider]:
    """At a stand-in of its own, whose key it may change."""
    with started_provider() as address:
        yield OidcProvider(Client("oidc", "oidc-app", "secret-of-oidc-app", "openid"), f"{address}/oidc", clock)


def test_an_id_token_runs_out_by_our_clock(oidc, clock):
    assert profile_of(oidc)
    clock.advance(minutes=7)  # they hold for five, and clocks may differ by one
    with pytest.raises(ProviderFailed):
        profile_of(oidc)


def test_the_keys_are_fetched_again_for_an_unknown_one_once_a_minute(oidc, clock):
    assert profile_of(oidc)
    with pytest.raises(ProviderFailed):
        profile_of(oidc, fault="new-key")
    clock.advance(seconds=61)
    assert profile_of(oidc)


def test_a_provider_that_is_away_or_slow_is_given_up(identity_provider):
    away = OidcProvider(Client("away", "a", "b"), "http://127.0.0.1:9", Clock())
    with pytest.raises(ProviderFailed):
        away.authorize_url(attempt(), "s")
    client = Client("slow", "oidc-app", "secret-of-oidc-app", timeout_seconds=0.3)
    slow = OidcProvider(client, f"{identity_provider}/oidc", Clock())
    with pytest.raises(ProviderFailed):
        profile_of(slow, fault="slow", delay="5")


def test_what_the_environment_says_of_proxies_does_not_count(providers, monkeypatch):
    begun = []
    for provider in providers.values():
        ours = attempt()
        begun.append((provider, ours, query_of(agree(provider.authorize_url(ours, "s"), **{"as": "ann"}))["code"]))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert all(provider.profile(ours, code) for provider, ours, code in begun)


def test_what_the_setting_says_of_proxies_counts(identity_provider):
    client = Client("oidc", "oidc-app", "secret-of-oidc-app", "openid", proxy="http://127.0.0.1:9")
    with pytest.raises(ProviderFailed):
        OidcProvider(client, f"{identity_provider}/oidc", Clock()).authorize_url(attempt(), "s")


class Wrong(http.server.BaseHTTPRequestHandler):
    """Serves a discovery document, whichever was asked for."""

    document = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.document)))
        self.end_headers()
        self.wfile.write(self.document)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    "document",
    [b'{"issuer": "https://elsewhere.test", "authorization_endpoint": "https://e.test/"}', b"[]", b"[" * 90000, b""],
)
def test_a_discovery_document_that_is_another_ones_is_refused(document):
    class Handler(Wrong):
        pass

    Handler.document = document
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    try:
        provider = OidcProvider(Client("x", "a", "b"), f"http://127.0.0.1:{server.server_port}", Clock())
        with pytest.raises(ProviderFailed):
            provider.authorize_url(attempt(), "s")
    finally:
        server.shutdown()
        server.server_close()


def test_nothing_is_configured_without_a_client_id():
    assert configured_providers(sources.Config(), Clock()) == {}


def test_a_secret_is_not_shown_with_its_client():
    assert "kestrel" not in repr(Client("x", "a", "kestrel"))


# ── what profiles make of what providers say


@pytest.mark.parametrize("wrong", ["7", 7.0, True, None, {"id": 7}])
def test_an_id_is_a_number_and_never_a_name(wrong):
    for read in (github_profile, linuxdo_profile):
        with pytest.raises((TypeError, KeyError)):
            read(LINUXDO | {"id": wrong, "login": "ann"})
        with pytest.raises(KeyError):
            read({"login": "ann", "username": "ann", "email": "ann@people.test"})


def test_what_linuxdo_does_not_say_counts_as_the_worse():
    assert linuxdo_profile(LINUXDO).is_active
    silent = linuxdo_profile({"id": 7})
    assert (silent.is_active, silent.is_silenced, silent.trust_level) == (False, True, 0)
    assert not linuxdo_profile(LINUXDO | {"active": "true"}).is_active
    assert linuxdo_profile(LINUXDO | {"silenced": 0}).is_silenced


@pytest.mark.parametrize(("told", "level"), [(0, 0), (4, 4), (9, 4), (-1, 0)])
def test_trust_levels_are_0_to_4(told, level):
    assert linuxdo_profile(LINUXDO | {"trust_level": told}).trust_level == level


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Ann", "Ann"),
        ("  A\x00n\u202en\n ", "Ann"),
        ("x" * 200, "x" * 100),
        ("", "ann"),
        (None, "ann"),
        ("\ud800", "ann"),
        (["A"], "ann"),
    ],
)
def test_a_display_name_is_100_printable_characters_at_most(told, name):
    assert github_profile({"id": 7, "login": "ann", "name": told}).display_name == name


@each_row(
    "url",
    [
        "http://a.test/x",
        "javascript:alert(1)",
        "https://a.test/\u00e9",
        "https://a.test/" + "x" * 500,
        "//a.test",
        "https://",
        7,
        None,
        "data:x",
    ],
)
def test_an_avatar_is_a_short_https_url_or_nothing(url):
    assert github_profile({"id": 7, "avatar_url": url}).avatar_url is None
    assert github_profile({"id": 7, "avatar_url": "https://a.test/x"}).avatar_url == "https://a.test/x"
