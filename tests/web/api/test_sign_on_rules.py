"""Whom of a provider's people the operator lets in: asked at every log-in, and nobody else's log-in notices."""

from __future__ import annotations

import re

import pytest

from tests.support.gateway import Gateway, user_id_of
from tests.support.rows import each_row
from tests.support.sign_on import Browser, agree, query_of, sign_on_settings

PUBLIC_URL = "http://gateway.test"
REFUSED = {"sso_error": "not_allowed_at_provider"}


@pytest.fixture(scope="module")
def gateway(start, identity_provider) -> Gateway:
    return start(
        **sign_on_settings(identity_provider, PUBLIC_URL),
        GITHUB_ALLOWED_ORGANIZATIONS="acme, acme-labs",
        LINUXDO_MIN_TRUST_LEVEL=2,
        OIDC_ALLOWED_DOMAINS="People.test",
        OIDC_ALLOWED_GROUPS="App Users, /admins",
    )


@pytest.fixture
def somebody(request) -> str:
    """Whom no other test logs in as."""
    return re.sub(r"\W", "-", request.node.name)[-60:]


GOOD = {
    "github": {"groups": "acme"},
    "linuxdo": {"trust_level": "2"},
    "oidc": {"email": "ann@people.test", "groups": "App Users"},
}
LET_IN = [
    ("github", {"groups": "others,acme-labs"}),
    ("linuxdo", {"trust_level": "4"}),
    ("oidc", {"email": "ann@PEOPLE.test", "groups": "x,/admins"}),
]
KEPT_OUT = [
    ("github", {}),
    ("github", {"groups": "others"}),
    ("github", {"groups": "acme-lab"}),
    ("github", {"invited": "acme"}),
    ("linuxdo", {"trust_level": "1"}),
    ("oidc", {"groups": "App Users", "email": "ann@people.test", "verified": "false"}),
    ("oidc", {"groups": "App Users", "email": "ann@sub.people.test"}),
    ("oidc", {"groups": "App Users", "email": "ann@people.test.evil.test"}),
    ("oidc", {"groups": "App Users", "email": "people.test"}),
    ("oidc", {"groups": "App Users", "email": "ann@evil.test@people.test"}),
    ("oidc", {"email": "ann@people.test"}),
    ("oidc", {"groups": "app users", "email": "ann@people.test"}),
    ("oidc", {"groups": "App", "email": "ann@people.test"}),
]


@each_row(("provider", "wishes"), LET_IN)
def test_who_meets_the_rule_is_let_in(gateway, somebody, provider, wishes):
    assert Browser(gateway).log_in(provider, **{"as": somebody, **wishes})["token"]


@pytest.mark.parametrize(("provider", "wishes"), KEPT_OUT)
def test_who_does_not_is_kept_out_and_has_no_account(gateway, somebody, provider, wishes):
    browser = Browser(gateway)
    assert browser.arrive(agree(browser.begin(provider), **{"as": somebody, **wishes})) == REFUSED
    first = Browser(gateway).log_in(provider, **{"as": somebody, **GOOD[provider]})
    actions = [one["action"] for one in gateway.get("/api/auth/events", first["token"]).json()["items"]]
    assert actions == ["logged_in", "registered"], "the account is of this log-in"


@pytest.mark.parametrize("provider", sorted(GOOD))
def test_who_has_left_comes_in_no_more_and_a_colleague_does(gateway, somebody, provider):
    first = Browser(gateway).log_in(provider, **{"as": somebody, **GOOD[provider]})
    left = {"groups": "", "trust_level": "0", "email": "ann@people.test"}
    browser = Browser(gateway)
    assert browser.arrive(agree(browser.begin(provider), **{"as": somebody, **left})) == REFUSED
    assert Browser(gateway).log_in(provider, **{"as": f"{somebody}-2", **GOOD[provider]})["token"]
    again = Browser(gateway).log_in(provider, **{"as": somebody, **GOOD[provider]})
    assert user_id_of(again["token"]) == user_id_of(first["token"])


@pytest.mark.parametrize("provider", sorted(GOOD))
def test_who_is_not_let_in_can_not_be_linked(gateway, somebody, provider):
    token = gateway.new_user()
    browser = Browser(gateway)
    begun = browser.begin_link(provider, token)
    assert browser.arrive(agree(begun, **{"as": somebody, "groups": "", "trust_level": "0"})) == REFUSED
    assert gateway.get("/api/auth/sso/links", token).json()["items"] == []


def test_no_more_is_asked_for_than_the_rules_need(gateway, start, identity_provider):
    scopes = {name: query_of(Browser(gateway).begin(name)).get("scope") for name in GOOD}
    assert scopes == {"github": "read:org", "linuxdo": "read", "oidc": "openid profile email"}
    plain = start(**sign_on_settings(identity_provider, PUBLIC_URL), OIDC_SCOPES="groups")
    scopes = {name: query_of(Browser(plain).begin(name)).get("scope") for name in GOOD}
    assert scopes == {"github": None, "linuxdo": "read", "oidc": "openid profile groups"}


def test_groups_may_stand_in_another_claim(start, identity_provider, somebody):
    gateway = start(
        **sign_on_settings(identity_provider, PUBLIC_URL), OIDC_ALLOWED_GROUPS="Ann", OIDC_GROUPS_CLAIM="name"
    )
    assert Browser(gateway).log_in("oidc", **{"as": somebody, "name": "Ann"})["token"], "one text is a group too"
    browser = Browser(gateway)
    assert browser.arrive(agree(browser.begin("oidc"), **{"as": somebody, "name": "Bob", "groups": "Ann"})) == REFUSED
