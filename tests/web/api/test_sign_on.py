"""Single sign-on over HTTP: three providers end to end, and everything that others might make of it."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import pytest
import requests

from tests.support.gateway import ADMIN_TOKEN, Gateway, check_headers, refusal_of, user_id_of, wait_for
from tests.support.sign_on import PROVIDERS, Browser, agree, fragment_of, query_of, sign_on_settings
from tests.web.test_next_path import ELSEWHERE

PUBLIC_URL = "http://gateway.test"
SSO = "/api/auth/sso"


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def gateway(request, start, identity_provider) -> Gateway:
    more = {} if request.param == "sqlite" else {"DATABASE_URL": request.getfixturevalue("mariadb").new_database()}
    return start(ADMIN_TOKEN=ADMIN_TOKEN, **sign_on_settings(identity_provider, PUBLIC_URL), **more)


@pytest.fixture
def browser(gateway) -> Browser:
    return Browser(gateway)


@pytest.fixture
def somebody(request) -> str:
    """Whom no other test logs in as."""
    return re.sub(r"\W", "-", request.node.name)


def sessions_of(gateway: Gateway, token: str) -> list:
    return gateway.get("/api/auth/sessions", token).json()["items"]


def actions_of(gateway: Gateway, token: str) -> list[str]:
    return [item["action"] for item in gateway.get("/api/auth/events", token).json()["items"]]


def links_of(gateway: Gateway, token: str) -> list[str]:
    return [item["provider"] for item in gateway.get(f"{SSO}/links", token).json()["items"]]


# ── logging in


def test_the_providers_are_listed_for_everybody(gateway):
    assert gateway.get(SSO).json() == {
        "items": [
            {"name": name, "title": title, "url": f"{SSO}/{name}"}
            for name, title in zip(PROVIDERS, ("GitHub", "Linux.do", "oidc"), strict=True)
        ]
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_somebody_logs_in_and_finds_the_same_account_again(gateway, browser, provider, somebody):
    first = browser.log_in(provider, **{"as": somebody})
    assert first["token_type"] == "Bearer"
    assert first["token"] == first["access_token"]
    [session] = sessions_of(gateway, first["token"])
    assert (session["method"], session["is_current"]) == (provider, True)
    again = Browser(gateway).log_in(provider, **{"as": somebody, "name": "Another", "email": "other@people.test"})
    assert again["user"] == first["user"]
    assert links_of(gateway, again["token"]) == [provider]
    assert actions_of(gateway, again["token"]) == ["logged_in", "logged_in", "registered"]
    assert gateway.post("/api/auth/refresh", {"refresh_token": first["refresh_token"]}).status_code == 200


def test_the_same_person_at_two_providers_has_two_accounts(gateway, somebody):
    wishes = {"as": somebody, "id": "123456", "email": "one@people.test"}
    accounts = {Browser(gateway).log_in(provider, **wishes)["user"]["id"] for provider in PROVIDERS}
    assert len(accounts) == 3


def test_no_token_ever_stands_in_a_url(gateway, browser, somebody):
    begun = browser.get(f"{SSO}/github")
    returned = browser.get(agree(begun.headers["Location"], **{"as": somebody}))
    tokens = browser.redeem(fragment_of(returned.headers["Location"])["sso"]).json()
    for answer in (begun, returned):
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.text == ""
        check_headers(answer)
        for token in (tokens["token"], tokens["refresh_token"]):
            assert token not in answer.headers["Location"]
    assert returned.headers["Location"].startswith(f"{PUBLIC_URL}/#sso=")
    assert not any(text in gateway.log() for text in (tokens["token"], tokens["refresh_token"], "secret-of"))


def test_the_cookie_is_for_the_way_back_alone(gateway, browser, somebody):
    begun = browser.get(f"{SSO}/github")
    cookie = begun.headers["Set-Cookie"]
    assert re.fullmatch(r"sso=[\w-]{43}; Expires=[^;]+; Max-Age=600; HttpOnly; Path=/; SameSite=Lax", cookie)
    code = browser.arrive(agree(begun.headers["Location"], **{"as": somebody}))["sso"]
    assert re.match(r"sso=; .*Max-Age=0", browser.redeem(code).headers["Set-Cookie"])
    assert not browser.http.cookies
    token = browser.log_in("github", **{"as": somebody})["token"]
    for path in ("/api/auth/sessions", f"{SSO}/links"):
        assert browser.get(path).status_code == 401  # it opens nothing
    assert token


def test_over_https_the_cookie_is_bound_to_the_host(start, identity_provider):
    gateway = start(**sign_on_settings(identity_provider, "https://gateway.test"))
    begun = Browser(gateway).get(f"{SSO}/github")
    assert re.fullmatch(
        r"__Host-sso=[\w-]{43}; .*; Secure; HttpOnly; Path=/; SameSite=Lax", begun.headers["Set-Cookie"]
    )
    assert "Domain" not in begun.headers["Set-Cookie"]
    assert query_of(begun.headers["Location"])["redirect_uri"] == f"https://gateway.test{SSO}/github/callback"


def test_without_providers_it_says_so(start):
    gateway = start()
    assert gateway.get(SSO).json() == {"items": []}
    for answer in (gateway.get(f"{SSO}/github"), gateway.get(f"{SSO}/github/callback?state=x&code=y")):
        assert answer.status_code == 404
        assert "operator has configured no provider" in refusal_of(answer)


def test_a_provider_that_nobody_knows_is_named_with_those_that_are(gateway):
    answer = gateway.get(f"{SSO}/facebook")
    assert answer.status_code == 404
    assert "github, linuxdo, oidc" in refusal_of(answer)


def test_log_ins_are_counted_by_address(start, identity_provider):
    settings = sign_on_settings(identity_provider, PUBLIC_URL)
    browser = Browser(start(LOGIN_RATE_LIMIT_PER_MINUTE=2, **settings))
    answers = [browser.get(f"{SSO}/github") for _ in range(5)]
    assert 429 in [answer.status_code for answer in answers]
    steps = [browser.redeem("x").status_code for _ in range(9)]
    assert steps[0] == 400
    assert 429 in steps
    assert 429 in [browser.get(f"{SSO}/github/callback?state=x&code=y").status_code for _ in range(9)]


def test_begins_of_linking_are_counted_with_the_log_ins(start, identity_provider):
    gateway = start(LOGIN_RATE_LIMIT_PER_MINUTE=2, **sign_on_settings(identity_provider, PUBLIC_URL))
    token, browser = gateway.new_user(), Browser(gateway)
    answers = [browser.post(f"{SSO}/github/link", {"next": "/"}, token).status_code for _ in range(5)]
    assert set(answers) <= {200, 429}
    assert 429 in answers


# ── what comes back must be what went out


def test_a_state_works_once(gateway, browser, somebody):
    callback = agree(browser.begin("github"), **{"as": somebody})
    code = browser.arrive(callback)["sso"]
    again = browser.get(callback)
    assert again.status_code == 400
    refusal_of(again)
    assert browser.redeem(code).status_code == 200
    for _ in range(2):
        refused = browser.redeem(code)
        assert refused.status_code == 400
        refusal_of(refused)


def test_a_state_of_one_provider_is_refused_by_another(gateway, browser, somebody):
    callback = agree(browser.begin("github"), **{"as": somebody})
    swapped = callback.replace("/sso/github/", "/sso/linuxdo/")
    assert browser.get(swapped).status_code == 400
    assert browser.get(callback).status_code == 400  # and is used up


def test_another_browser_can_not_finish_what_this_one_began(gateway, browser, somebody):
    """Else whoever gets a victim to open a link would log them in to an account of theirs, or link it to the victim's."""
    other = Browser(gateway)
    other.begin("github")
    for stranger in (other, Browser(gateway)):
        callback = agree(browser.begin("github"), **{"as": somebody})
        refused = stranger.get(callback)
        assert refused.status_code == 400
        refusal_of(refused)
        code = browser.arrive(agree(browser.begin("github"), **{"as": somebody}))["sso"]
        assert stranger.redeem(code).status_code == 400


def test_a_cookie_that_was_there_before_is_not_taken_over(gateway, browser, somebody):
    """Else whoever can set one in a victim's browser would share the log-in with it."""
    attacker = Browser(gateway)
    attacker.begin("github")
    planted = attacker.http.cookies["sso"]
    for cookie in (planted, "x", ""):
        browser.http.cookies.clear()
        browser.http.cookies.set("sso", cookie, domain="127.0.0.1", path="/")
        url = browser.begin("github")
        fresh = browser.http.cookies["sso"]
        assert len(fresh) == 43
        assert fresh not in {planted, "x"}
        callback = agree(url, **{"as": somebody})
        code = browser.arrive(callback)["sso"]
        assert attacker.redeem(code).status_code == 400
    url = browser.begin_link("github", gateway.new_user())
    assert browser.http.cookies["sso"] not in {planted, fresh}
    assert attacker.get(agree(url, **{"as": somebody})).status_code == 400


def test_a_state_that_nobody_began_is_refused(gateway, browser, somebody):
    for wishes in ({"fault": "wrong-state"}, {"fault": "denied", "state": "x" * 43}):
        callback = agree(browser.begin("github"), **{"as": somebody} | wishes)
        if "state" in wishes:
            callback = re.sub(r"state=[\w-]+", "state=" + "x" * 43, callback)
        assert browser.get(callback).status_code == 400
    for query in ("", "?code=x", "?state=", f"?state={'x' * 201}&code=x", "?state=a&state=b&code=x"):
        assert browser.get(f"{SSO}/github/callback{query}").status_code == 400


@pytest.mark.parametrize(
    ("provider", "fault", "told"),
    [
        ("github", "denied", "access_denied"),
        ("linuxdo", "denied", "access_denied"),
        ("github", "expired-code", "upstream_failed"),
        ("linuxdo", "no-user", "upstream_failed"),
        ("oidc", "other-nonce", "upstream_failed"),
        ("oidc", "other-audience", "upstream_failed"),
        ("oidc", "bad-signature", "upstream_failed"),
    ],
)
def test_what_goes_wrong_at_the_provider_is_told_to_the_page_and_opens_nothing(
    browser, somebody, provider, fault, told
):
    assert browser.arrive(agree(browser.begin(provider), **{"as": somebody, "fault": fault})) == {"sso_error": told}


def test_an_account_that_is_not_active_at_linuxdo_stays_out(gateway, browser, somebody):
    wishes = {"as": somebody, "active": "false"}
    assert browser.arrive(agree(browser.begin("linuxdo"), **wishes)) == {"sso_error": "inactive_at_provider"}
    assert browser.log_in("linuxdo", **{"as": somebody})
    assert browser.arrive(agree(browser.begin("linuxdo"), **wishes)) == {"sso_error": "inactive_at_provider"}


def test_who_is_silenced_at_linuxdo_may_look_and_not_call(gateway, browser, somebody):
    token = browser.log_in("linuxdo", **{"as": somebody, "silenced": "true"})["token"]
    assert gateway.get("/api/auth/sessions", token).status_code == 200
    assert gateway.chat(token).status_code == 403


def test_a_disabled_account_stays_out(gateway, browser, somebody):
    tokens = browser.log_in("github", **{"as": somebody})
    path = f"/admin/users/{tokens['user']['id']}"
    assert gateway.ask("PATCH", path, {"state": "disabled"}, ADMIN_TOKEN).status_code == 200
    refused = browser.redeem(browser.arrive(agree(browser.begin("github"), **{"as": somebody}))["sso"])
    assert refused.status_code == 403
    assert "disabled" in refusal_of(refused)


# ── whose account


@pytest.mark.parametrize("provider", PROVIDERS)
def test_whoever_asserts_somebodys_address_or_name_gets_an_account_of_their_own(gateway, browser, provider, somebody):
    victim = Browser(gateway).log_in("github", **{"as": "victim", "email": "victim@people.test"})
    wishes = {"as": somebody, "email": "victim@people.test", "name": "victim"}
    attacker = browser.log_in(provider, **wishes)
    assert attacker["user"] != victim["user"]
    assert links_of(gateway, attacker["token"]) == [provider]


def test_somebody_with_a_key_links_a_log_in_and_unlinks_it(gateway, browser, somebody):
    owner, teammate = gateway.new_user(), gateway.new_user()
    stranger = Browser(gateway).log_in("github", **{"as": f"{somebody}-stranger"})["token"]
    url = browser.begin_link("github", owner)
    arrived = browser.get(agree(url, **{"as": somebody})).headers["Location"]
    assert arrived == f"{PUBLIC_URL}/profile#sso_linked=github"
    assert [links_of(gateway, token) for token in (owner, teammate, stranger)] == [["github"], [], ["github"]]
    assert browser.log_in("github", **{"as": somebody})["user"]["id"] == user_id_of(owner)
    assert gateway.ask("DELETE", f"{SSO}/github", token=teammate).status_code == 404
    assert gateway.ask("DELETE", f"{SSO}/github", token=stranger).status_code == 409
    assert links_of(gateway, owner) == ["github"]
    assert gateway.ask("DELETE", f"{SSO}/github", token=owner).status_code == 200
    assert [links_of(gateway, token) for token in (owner, stranger)] == [[], ["github"]]
    events = ["registered", "logged_in", "identity_linked", "logged_in", "identity_unlinked"]
    assert actions_of(gateway, owner)[::-1] == events
    assert browser.log_in("github", **{"as": somebody})["user"]["id"] != user_id_of(owner)


def test_what_belongs_to_somebody_else_is_not_linked(gateway, browser, somebody):
    stranger = Browser(gateway).log_in("github", **{"as": somebody})
    owner = gateway.new_user()
    assert browser.arrive(agree(browser.begin_link("github", owner), **{"as": somebody})) == {"sso_error": "conflict"}
    assert links_of(gateway, owner) == []
    assert Browser(gateway).log_in("github", **{"as": somebody})["user"] == stranger["user"]


def test_an_attackers_log_in_is_not_linked_to_a_victim_who_opens_a_link(gateway, somebody):
    victim, attacker = Browser(gateway), Browser(gateway)
    victims_token = gateway.new_user()
    victim.begin_link("github", victims_token)
    callback = agree(attacker.begin("github"), **{"as": somebody})
    assert victim.get(callback).status_code == 400
    callback = agree(attacker.begin_link("github", gateway.new_user()), **{"as": somebody})
    assert victim.get(callback).status_code == 400
    assert links_of(gateway, victims_token) == []


def test_linking_begins_with_json_from_a_session_and_ends_with_it(gateway, browser, somebody):
    owner = gateway.new_user()
    assert browser.get(f"{SSO}/github/link").status_code == 405
    assert browser.post(f"{SSO}/github/link", {}).status_code == 401
    form = requests.post(
        f"{gateway.url}{SSO}/github/link", data={"next": "/"}, headers={"Authorization": f"Bearer {owner}"}, timeout=30
    )
    assert form.status_code == 415
    url = browser.begin_link("github", owner)
    assert gateway.post("/api/auth/logout-all", token=owner).status_code == 200
    told = wait_for(lambda: browser.arrive(agree(url, **{"as": somebody})))
    assert told == {"sso_error": "authentication_error"}


# ── where the browser ends up


@pytest.mark.parametrize("path", ["/", "/dashboard", "/keys?page=2&x=%2F", "/a//b", "/%2f%2fevil.test", "/@evil.test"])
def test_the_browser_ends_up_at_a_path_of_this_host(browser, somebody, path):
    answer = browser.get(agree(browser.begin("github", next=path), **{"as": somebody}))
    address = answer.headers["Location"]
    assert address.startswith(f"{PUBLIC_URL}{path}#sso=")
    assert urlsplit(address).netloc == "gateway.test"


@pytest.mark.parametrize(
    "path",
    ELSEWHERE,
)
def test_it_never_ends_up_elsewhere(gateway, browser, path):
    refused = browser.get(f"{SSO}/github?next={quote(path, safe='')}")
    assert refused.status_code == 400
    assert "path on this host" in refusal_of(refused)
    refused = browser.post(f"{SSO}/github/link", {"next": path}, gateway.new_user())
    assert refused.status_code == 400
    assert "path on this host" in refusal_of(refused)
