"""Single sign-on by the other names of its paths: the same log-ins, with the same bonds."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from tests.support.gateway import Gateway, refusal_of
from tests.support.sign_on import Browser, agree, fragment_of, query_of, sign_on_settings

PUBLIC_URL = "http://gateway.test"


@pytest.fixture(scope="module")
def gateway(start, identity_provider) -> Gateway:
    return start(**sign_on_settings(identity_provider, PUBLIC_URL))


@pytest.fixture(scope="module")
def with_one(start, identity_provider) -> Gateway:
    """A gateway with one provider."""
    settings = sign_on_settings(identity_provider, PUBLIC_URL)
    return start(**{name: text for name, text in settings.items() if name.startswith(("GITHUB", "PUBLIC"))})


@pytest.mark.parametrize(
    "path", ["/api/auth/github/login?next=/keys", "/api/auth/sso/initiate?provider=github&next=/keys"]
)
def test_somebody_logs_in_by_other_names(gateway, path):
    usual = Browser(gateway).log_in("github", **{"as": "ann"})
    browser = Browser(gateway)
    begun = browser.get(path)
    assert begun.status_code == 302
    assert query_of(begun.headers["Location"])["redirect_uri"] == f"{PUBLIC_URL}/api/auth/sso/github/callback"
    query = urlsplit(agree(begun.headers["Location"], **{"as": "ann"})).query
    returned = browser.get(f"/api/auth/sso/callback?{query}")
    assert returned.headers["Location"].startswith(f"{PUBLIC_URL}/keys#sso=")
    answer = browser.post("/api/auth/github/callback", {"code": fragment_of(returned.headers["Location"])["sso"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["user"] == usual["user"]
    assert answer.json()["user"]["display_name"]
    assert gateway.get("/api/auth/me", answer.json()["token"]).status_code == 200
    assert browser.get(f"/api/auth/sso/callback?{query}").status_code == 400  # a state works once


def test_the_provider_may_be_left_out_if_there_is_one(gateway, with_one):
    assert Browser(with_one).get("/api/auth/sso/initiate").status_code == 302
    answer = Browser(gateway).get("/api/auth/sso/initiate")
    assert answer.status_code == 400
    assert "one of github, linuxdo, oidc" in refusal_of(answer)
    unknown = Browser(gateway).get("/api/auth/sso/initiate?provider=facebook")
    assert (unknown.status_code, "github, linuxdo, oidc" in refusal_of(unknown)) == (404, True)


def test_another_browser_can_not_finish_what_this_one_began(gateway):
    browser, eve = Browser(gateway), Browser(gateway)
    eve.get("/api/auth/github/login")
    callback = agree(browser.get("/api/auth/github/login").headers["Location"], **{"as": "ann"})
    query = urlsplit(callback).query
    assert eve.get(f"/api/auth/sso/callback?{query}").status_code == 400
    assert browser.get(f"/api/auth/sso/callback?{query}").status_code == 400  # what was shown wrongly is used up


def test_a_gateway_without_providers_says_so(start):
    gateway = start()
    for path in ("/api/auth/github/login", "/api/auth/sso/initiate"):
        answer = gateway.get(path)
        assert answer.status_code == 404
        assert "operator has configured no provider" in refusal_of(answer)
