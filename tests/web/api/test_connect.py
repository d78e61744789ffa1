"""Connecting one's own OpenRouter account, through real gateways: by key, by OAuth, in a browser; who may, and who pays."""

# ruff: noqa: F811 - the fixtures of connecting.py are parameters here
from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from pool.life import PoolKeyState
from tables import metadata, openrouter_accounts, pool_keys, users
from tests.support.connecting import (  # noqa: F401 - fixtures
    ADMIN_TOKEN,
    BASE,
    KEY,
    LOCAL,
    NOTHING,
    PUBLIC_URL,
    House,
    Person,
    cookie_of,
    house,
    in_browser,
    owner,
    teammate,
)
from tests.support.gateway import refusal_of, wait_for

# ── with a key


def test_a_key_connects_its_owner_and_is_never_shown(house, owner):
    key = owner.new_key(limit=20)
    answer = owner.post("/auth/validate-key", {"api_key": key["key"]})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["connected"], told["state"], told["method"]) == (True, "active", "key")
    assert (told["limit_usd"], told["remaining_usd"], told["usage_usd"]) == (20.0, 20.0, 0.0)
    assert re.fullmatch(r"sk-or-v1-...\.\.\....", told["label"])
    assert told == owner.told()
    wait_for(lambda: house.payer(owner.token) == owner.own)
    after = owner.told("/user-info")
    assert 0 < after["usage_usd"] < 1
    assert after["remaining_usd"] == pytest.approx(20 - after["usage_usd"])
    assert after == owner.told()
    dump = "".join(str(house.rows(table)) for table in metadata.tables.values())
    for text in (answer.text, str(after), house.gateway.get("/admin/pool?owner=any", ADMIN_TOKEN).text, dump):
        assert not KEY.search(text)
    assert not KEY.search(house.gateway.log())


def test_each_ones_account_carries_ones_own_calls_alone(house, owner, teammate):
    without = Person(house)
    owner.connect()
    teammate.connect()
    for person, payer in ((owner, owner.own), (teammate, teammate.own), (without, house.account)):
        assert [house.payer(person.token) for _ in range(4)] == [payer] * 4
    assert without.told() == NOTHING
    owner.post("/logout")
    wait_for(lambda: house.payer(owner.token) == house.account)
    assert (owner.told(), teammate.told()["connected"]) == (NOTHING, True)
    assert house.payer(teammate.token) == teammate.own


def test_a_stranger_is_told_nothing(house):
    routes = [("POST", "/auth/validate-key"), ("POST", "/oauth/initiate"), ("POST", "/oauth/callback")]
    routes += [("GET", "/status"), ("GET", "/user-info"), ("POST", "/logout")]
    for method, path in routes:
        for token in (None, "x", ADMIN_TOKEN):
            refused = house.gateway.ask(method, BASE + path, {}, token)
            assert refused.status_code == 401
            refusal_of(refused)


def test_a_bad_key_is_told_what_to_do_and_changes_nothing(house, owner, teammate):
    deleted = owner.new_key()
    assert house.stand_in.control("POST", "faults", scenario="401b", path="/key", key=deleted["hash"])
    management = house.stand_in.new_account()["management_key"]
    taken = teammate.connect()["key"]
    pool_key = house.settings["OPENROUTER_API_KEYS"]
    for text, status, says in (
        ("sk-openai-1234567890abcdefgh", 400, "must be an OpenRouter key"),
        ("sk-or-v1-" + "0" * 64 + "\r\nX-Evil: 1", 400, "must be an OpenRouter key"),
        ("sk-or-v1-" + "é" * 64, 400, "must be an OpenRouter key"),
        ("sk-or-v1-" + "0" * 64, 400, "does not accept this key"),
        (deleted["key"], 400, "does not accept this key"),
        (management, 400, "management key"),
        (taken, 409, "in use here already"),
        (pool_key, 409, "in use here already"),
    ):
        refused = owner.post("/auth/validate-key", {"api_key": text})
        assert refused.status_code == status, refused.text
        message = refusal_of(refused)
        assert says in message
        assert text not in refused.text
        assert owner.told() == NOTHING
    house.stand_in.control("DELETE", "faults")
    assert (house.payer(owner.token), house.payer(teammate.token)) == (house.account, teammate.own)


def test_a_silent_openrouter_is_not_the_keys_fault(house, owner):
    key = owner.new_key()
    for scenario, status, says in (
        ("500", 502, "did not answer usefully"),
        ("502-html", 502, "did not answer usefully"),
        ("429d", 503, "limiting requests"),
        ("drop", 502, "can't be reached"),
    ):
        # Twice: what a reused connection loses is asked again over a new one.
        rule = {"scenario": scenario, "path": "/key", "key": key["hash"], "times": 2}
        house.stand_in.control("POST", "faults", **rule)
        refused = owner.post("/auth/validate-key", {"api_key": key["key"]})
        assert refused.status_code == status, (scenario, refused.text)
        assert says in refused.json()["message"]
        assert owner.told() == NOTHING
        house.stand_in.control("DELETE", "faults")


# ── by OAuth


def test_a_program_connects_by_oauth_in_its_own_session(house, owner, teammate):
    begun = owner.initiate()
    told = begun.json()
    assert "Set-Cookie" not in begun.headers
    url = urlsplit(told["authorization_url"])
    asked = parse_qs(url.query)
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{house.stand_in.root}/auth"
    assert (asked["code_challenge_method"], told["expires_in"]) == (["S256"], 600)
    assert asked["callback_url"] == [f"{LOCAL}&state={told['state']}"]
    returned = owner.approved(begun)
    assert (returned["from"], returned["state"]) == ("app", told["state"])
    answer = owner.finish(returned)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["method"], answer.json()["state"]) == ("oauth", "active")
    assert not KEY.search(answer.text)
    wait_for(lambda: house.payer(owner.token) == owner.own)
    assert (teammate.told(), house.payer(teammate.token)) == (NOTHING, house.account)


def test_a_browser_connects_by_the_cookie_that_it_was_given(house, owner):
    begun = owner.initiate(None)
    cookie = begun.headers["Set-Cookie"]
    assert cookie.startswith("__Host-openrouter-connect=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=600"} <= set(cookie.split("; "))
    returned = owner.approved(begun)
    page = in_browser(house, returned, cookie_of(begun))
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>Connected</h1>" in page.text
    assert (page.headers["Referrer-Policy"], page.headers["X-Frame-Options"]) == ("no-referrer", "DENY")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Max-Age=0" in page.headers["Set-Cookie"]
    assert owner.told()["method"] == "oauth"
    wait_for(lambda: house.payer(owner.token) == owner.own)


def test_a_cookie_that_was_there_before_is_not_taken_over(house, owner, teammate):
    """Each begin has one of its own: nobody knows it who has set, or seen, another."""
    planted = cookie_of(teammate.initiate(None))
    begun = [owner.post("/oauth/initiate", {}, headers={"Cookie": cookie}) for cookie in ("x=1", planted, planted)]
    texts = [planted, *(cookie_of(answer) for answer in begun)]
    halves = [text.partition("=")[2].partition(".") for text in texts]
    assert len({session for session, _, _ in halves}) == 2
    assert len({cookie for _, _, cookie in halves}) == 4
    assert {len(cookie) for _, _, cookie in halves} == {43}
    returned = owner.approved(begun[-1])
    assert in_browser(house, returned, planted).status_code == 403
    assert owner.told() == NOTHING


def test_who_does_not_approve_is_not_connected(house, owner):
    begun = owner.initiate(None)
    returned = owner.approved(begun, "deny")
    assert returned["error"] == "access_denied"
    page = in_browser(house, returned, cookie_of(begun))
    assert page.status_code == 403
    assert "was not approved" in page.text
    assert owner.told() == NOTHING


def test_an_attackers_code_does_not_connect_the_attackers_account_to_a_victim(house, owner, teammate):
    """The victim's calls, and prompts, would go to the attacker's account."""
    attacker, victim = teammate, owner
    for victims_cookie in ("", cookie_of(victim.initiate(None))):
        theirs = attacker.approved(attacker.initiate(None))
        before = house.exchanges()
        refused = in_browser(house, theirs, victims_cookie)
        assert refused.status_code == 403, refused.text
        assert "was not begun in this session or browser" in refused.text
        assert house.exchanges() == before  # the code was not even shown to OpenRouter
    before = house.exchanges()
    refused = victim.finish(attacker.approved(attacker.initiate()))
    assert (refused.status_code, house.exchanges()) == (403, before)
    # Even with a state and a cookie of the victim's: the code belongs to another verifier.
    begun = victim.initiate(None)
    injected = attacker.approved(attacker.initiate(None)) | {"state": begun.json()["state"]}
    refused = in_browser(house, injected, cookie_of(begun))
    assert refused.status_code == 403
    assert "does not accept this code" in refused.text
    injected = attacker.approved(attacker.initiate()) | {"state": victim.initiate().json()["state"]}
    refused = victim.finish(injected)
    assert refused.status_code == 403
    assert "does not accept this code" in refusal_of(refused)
    assert (victim.told(), attacker.told()) == (NOTHING, NOTHING)
    assert house.payer(victim.token) == house.account


def test_a_state_is_good_for_its_session_once(house, owner):
    other_session = owner.another_session()
    refused = owner.finish(owner.approved(owner.initiate()), other_session)
    assert refused.status_code == 403
    assert "was not begun in this session" in refusal_of(refused)
    returned = owner.approved(owner.initiate())
    assert owner.finish(returned).status_code == 200
    assert owner.finish(returned).status_code == 403
    owner.post("/logout")
    begun = owner.initiate(None)
    returned, cookie = owner.approved(begun), cookie_of(begun)
    session_id, _, token = cookie.partition("=")[2].partition(".")
    forged = f"__Host-openrouter-connect={session_id}.{token[::-1]}"
    assert in_browser(house, returned, forged).status_code == 403
    assert in_browser(house, returned, cookie).status_code == 403  # used up by the one before
    assert owner.told() == NOTHING


def test_a_session_that_has_ended_connects_nothing(house, owner):
    begun = owner.initiate(None)
    returned = owner.approved(begun)
    assert house.gateway.post("/api/auth/logout", {}, owner.token).status_code == 200
    refused = in_browser(house, returned, cookie_of(begun))
    assert refused.status_code == 403
    owner.token = owner.another_session()
    assert owner.told() == NOTHING


def test_a_disabled_account_connects_nothing(house, owner, teammate):
    """Not even in the seconds in which its sessions are not known to have ended."""
    begun, theirs = owner.initiate(None), teammate.initiate(None)
    returned = owner.approved(begun)
    disable = users.update().where(users.c.id == owner.id).values(state="disabled")
    house.db.transact(lambda tx: tx.execute(disable))  # and nobody is told
    assert in_browser(house, returned, cookie_of(begun)).status_code == 403
    house.db.transact(lambda tx: tx.execute(users.update().where(users.c.id == owner.id).values(state="active")))
    assert owner.told() == NOTHING
    assert in_browser(house, teammate.approved(theirs), cookie_of(theirs)).status_code == 200


def test_what_openrouter_says_of_codes_is_told_with_what_to_do(house, owner):
    for scenario, status, says in (
        ("400", 502, "refused the exchange itself"),
        ("500", 502, "did not answer usefully"),
        ("drop", 502, "can't be reached"),
    ):
        returned = owner.approved(owner.initiate())
        house.stand_in.control("POST", "faults", scenario=scenario, path="/auth/keys", times=1)
        refused = owner.finish(returned)
        house.stand_in.control("DELETE", "faults")
        assert refused.status_code == status, (scenario, refused.text)
        assert says in refused.json()["message"]
    begun = owner.initiate(None)
    returned = owner.approved(begun)
    house.stand_in.control("POST", "settings", clock_offset_seconds=601)
    refused = in_browser(house, returned, cookie_of(begun))
    house.stand_in.control("POST", "settings", clock_offset_seconds=0)
    assert refused.status_code == 403
    assert "has expired" in refused.text
    assert "begin again" in refused.text
    assert owner.told() == NOTHING


def test_a_new_key_that_can_not_be_asked_yet_is_connected_all_the_same(house, owner):
    returned = owner.approved(owner.initiate())
    house.stand_in.control("POST", "faults", scenario="500", path="/key", times=1)
    answer = owner.finish(returned)
    house.stand_in.control("DELETE", "faults")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["label"], answer.json()["checked_at"]) == (None, None)
    assert owner.told("/user-info")["label"]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/callback",
        "http://evil.example/callback",
        "http://localhost.evil.example/",
        "http://localhost:3000@evil.example/",
        "http://127.0.0.1.evil.example/",
        "http://127.0.0.2:80/",
        "https://localhost/",
        f"{PUBLIC_URL}.evil.example/",
        f"{PUBLIC_URL}:444/",
        f"{PUBLIC_URL}@evil.example/",
        "javascript:alert(1)",
        "//evil.example/",
        "\\\\evil.example",
        "http://localhost:3000/\\evil",
        "http://localhost:3000/\r\nLocation: x",
        "http://localhost:3000/#fragment",
        "http://localhost:3000/?state=mine",
        "http://localhost:3000/?code=mine",
        "",
    ],
)
def test_the_browser_is_sent_back_to_known_places_only(house, url):
    refused = Person(house).post("/oauth/initiate", {"callback_url": url})
    assert refused.status_code == 400, refused.text
    assert refusal_of(refused).startswith("callback_url must")


@pytest.mark.parametrize(
    "url",
    [f"{PUBLIC_URL}/connected?x=1", PUBLIC_URL, "http://127.0.0.1:9/x", "http://localhost", "http://localhost:1/"],
)
def test_a_known_place_is_taken(house, url):
    begun = Person(house).initiate(url)
    assert parse_qs(urlsplit(begun.json()["authorization_url"]).query)["callback_url"][0].startswith(url)


def test_in_production_no_other_place_than_its_own_is_known(house, start, stand_in, tmp_path):
    production = House(start, stand_in, f"sqlite:///{tmp_path}/x.db", APP_ENV="production")
    person = Person(production)
    for url in ("http://localhost:3000/", "http://127.0.0.1:3000/"):
        refused = person.post("/oauth/initiate", {"callback_url": url})
        assert refused.status_code == 400
        assert refusal_of(refused) == f"callback_url must begin with {PUBLIC_URL}"
    person.initiate(f"{PUBLIC_URL}/connected")


def test_without_an_address_of_its_own_there_is_no_default(start, stand_in, tmp_path):
    person = Person(House(start, stand_in, f"sqlite:///{tmp_path}/x.db", PUBLIC_URL=""))
    refused = person.post("/oauth/initiate", {})
    assert refused.status_code == 400
    assert "callback_url is needed" in refusal_of(refused)
    assert person.finish(person.approved(person.initiate())).status_code == 200


# ── one connection, replaced and ended


def test_connecting_again_replaces_the_key(house, owner):
    first = owner.connect()
    second = owner.new_key()
    for _ in range(2):  # also by the same key once more
        assert owner.post("/auth/validate-key", {"api_key": second["key"]}).status_code == 200
    assert owner.finish(owner.approved(owner.initiate())).status_code == 200
    assert owner.told()["method"] == "oauth"
    rows = house.rows(pool_keys, owner_id=owner.id)
    assert [(row.state, row.api_key is None, row.api_key_hash is None) for row in rows] == [
        *[(PoolKeyState.DELETED, True, True)] * 3,
        (PoolKeyState.ACTIVE, False, False),
    ]
    old = {first["hash"], second["hash"]}
    wait_for(lambda: house.carrier(owner.token) not in old)
    assert not {house.carrier(owner.token) for _ in range(4)} & old
    assert house.payer(owner.token) == owner.own


def test_disconnecting_deletes_the_key_and_is_in_force_soon(house, owner):
    owner.connect()
    answer = owner.post("/logout")
    assert answer.status_code == 200
    assert "At OpenRouter the key lives on" in answer.json()["message"]
    [row] = house.rows(pool_keys, owner_id=owner.id)
    assert (row.state, row.api_key, row.api_key_hash) == (PoolKeyState.DELETED, None, None)
    assert house.rows(openrouter_accounts, user_id=owner.id) == []
    wait_for(lambda: house.payer(owner.token) == house.account)
    assert owner.told() == NOTHING
    assert house.gateway.get(f"{BASE}/user-info", owner.token).status_code == 404
    assert owner.post("/logout").status_code == 200


def test_a_key_that_openrouter_refuses_asks_to_connect_again(house, owner):
    key = owner.connect()
    rule = {"scenario": "401b", "path": "/key", "key": key["hash"]}
    house.stand_in.control("POST", "faults", **rule)
    refused = house.gateway.get(f"{BASE}/user-info", owner.token)
    house.stand_in.control("DELETE", "faults")
    assert refused.status_code == 409
    assert "connect your account again" in refusal_of(refused)


# ── what is noted


def test_both_ends_of_a_connection_are_in_the_audit_log_of_its_owner(house, owner, teammate):
    owner.connect()
    owner.post("/logout")
    owner.post("/logout")  # of nothing: no event
    items = house.gateway.get("/api/auth/events", owner.token).json()["items"]
    events = [(one["action"], one["actor"]) for one in items if one["action"].startswith("openrouter_")]
    actor = f"user/{owner.id}"
    assert events == [("openrouter_disconnected", actor), ("openrouter_connected", actor)]
    theirs = house.gateway.get("/api/auth/events", teammate.token).json()["items"]
    assert [one for one in theirs if one["action"].startswith("openrouter_")] == []
