"""What a page of another site can do with somebody's browser: every route, as such a page would ask it. Nothing.

A browser adds cookies by itself, and lets any page send forms and texts anywhere. It adds no Authorization header, and
sends JSON to another site only if that site agrees beforehand (CORS), which ours never does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest
import requests

from serving.door import PATHS
from tests.sandbox.conftest import Running
from tests.support.api_world import ADMIN_TOKEN, World, all_routes, declared
from tests.support.gateway import Gateway, wait_for
from tests.web.test_access_matrix import ROWS, Asked
from tests.web.test_mass_assignment import ALL_OF, CHANGES, changed
from tests.web.test_mass_assignment import BACKGROUND as OF_EVERY_REQUEST

EVIL = {"Origin": "https://evil.test", "Referer": "https://evil.test/", "Sec-Fetch-Site": "cross-site"}
OPERATIONS = declared()
BACKGROUND = OF_EVERY_REQUEST | {"quotas.reserved_nano", "quotas.spent_nano"}  # jobs are billed when they are over
# Anybody gets a challenge, which is good once for the browser that asked; no body is read.
CHALLENGE = "POST /api/auth/passkeys/log-in/challenge"
WRITES = sorted(set(CHANGES) - {CHALLENGE})
READS = [route for route in all_routes() if route.startswith("GET ")]
# What else a page may send without asking first.
KINDS_OF_FORMS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", None]
# The begin of a log-in is noted: whoever follows such a link comes to the provider's own page. And what OpenRouter has
# just said of somebody's account there.
NOTED_BY_READING = {
    "GET /api/auth/sso/{provider}": ALL_OF["oauth_states"],
    "GET /api/auth/sso/initiate": ALL_OF["oauth_states"],
    "GET /api/auth/github/login": ALL_OF["oauth_states"],
    "GET /api/v1/openrouter/user-info": ALL_OF["openrouter_accounts"],
}


@pytest.fixture(scope="module")
def world(
    start: Callable[..., Gateway], stand_in: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """On one kind of database only: what is refused does not come to it."""
    made = World(start, stand_in, f"sqlite:///{tmp_path_factory.mktemp('other-sites')}/x.db")
    made.owners_call()  # some routes are asked for it
    wait_for(lambda: "'settled'" in made.dump()["usage_ledger"]["state"])
    yield made
    made.close()


def kind_of(route: str) -> str:
    """Who may ask this route."""
    return "operator" if " /admin/" in route else "owner"


def cookies(world: World, token: str) -> dict[str, str]:
    """All of them, under every name that a program might look for a credential in."""
    session = {
        "session": token,
        "token": token,
        "access_token": token,
        "jwt": token,
        "Authorization": f"Bearer {token}",
    }
    more = {"refresh_token": world.owner.refresh_token, "sso": token, "__Host-sso": token}
    return (
        session | more | {"openrouter-connect": token, "__Host-openrouter-connect": token, "api_key": world.client_key}
    )


def ask(
    world: World, route: str, asked: Asked, headers: dict[str, str], data: bytes | None = None
) -> requests.Response:
    """Send what a row of the access matrix asks for, in another way."""
    method, _, template = route.partition(" ")
    url = world.gateway.url + template.format(**asked.parts or {}) + asked.query
    return requests.request(method, url, data=data, headers=headers, timeout=30, allow_redirects=False)


def clean(world: World) -> None:
    while world.cleanups:
        world.cleanups.pop()()


def with_cookies(world: World, kind: str) -> dict[str, str]:
    token = ADMIN_TOKEN if kind == "operator" else world.owner.token
    return EVIL | {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies(world, token).items())}


@pytest.mark.parametrize("route", [route for route, (row, _) in ROWS.items() if row.split()[0] == "401"])
def test_no_cookie_and_no_parameter_is_a_credential(world: World, route: str) -> None:
    kind = kind_of(route)
    asked = ROWS[route][1](world, kind)
    body = json.dumps(asked.body).encode() if asked.body is not None else None
    before = world.dump()
    headers = with_cookies(world, kind) | {"Content-Type": "application/json"}
    assert ask(world, route, asked, headers, body).status_code == 401
    token = ADMIN_TOKEN if kind == "operator" else world.owner.token
    joint = "&" if asked.query else "?"
    in_query = Asked(
        parts=asked.parts, query=f"{asked.query}{joint}{urlencode({'access_token': token, 'token': token})}"
    )
    assert ask(world, route, in_query, headers, body).status_code == 401
    assert changed(before, world.dump()) - BACKGROUND == set()
    clean(world)


@pytest.mark.parametrize("route", WRITES)
def test_no_form_changes_anything(world: World, route: str) -> None:
    """Not with all cookies; and what takes a body takes it as JSON alone, even from somebody who is logged in."""
    kind = kind_of(route)
    asked = ROWS[route][1](world, kind)
    takes_body = OPERATIONS[route].body is not None
    bodies = [json.dumps(asked.body or {}).encode()]
    if isinstance(asked.body, dict):
        bodies.append(urlencode(asked.body).encode())
    before = world.dump()
    for form in KINDS_OF_FORMS:
        headers = {"Content-Type": form} if form else {}
        for body in bodies:
            refused = ask(world, route, asked, with_cookies(world, kind) | headers, body)
            assert refused.status_code in {401, 415}, (form, refused.text)
            if takes_body:
                bearer = asked.bearer or world.credential(kind)
                refused = ask(world, route, asked, headers | {"Authorization": f"Bearer {bearer}"}, body)
                assert refused.status_code == 415, (form, refused.text)
    assert changed(before, world.dump()) - BACKGROUND == set()
    clean(world)


@pytest.mark.parametrize("route", READS)
def test_nothing_changes_by_being_read(world: World, route: str) -> None:
    """Else an image in a page of another site, or a link that is looked at in advance, would change it."""
    kind = kind_of(route)
    asked = ROWS[route][1](world, kind)
    bearer = asked.bearer or world.credential(kind)
    before = world.dump()
    for method in ("GET", "HEAD"):
        answer = ask(world, route.replace("GET", method), asked, {"Authorization": f"Bearer {bearer}"})
        assert answer.status_code < 500
    assert changed(before, world.dump()) - BACKGROUND <= NOTED_BY_READING.get(route, set())
    clean(world)


def test_no_other_site_is_told_that_it_may_ask_or_read(world: World) -> None:
    answers = []
    with requests.Session() as http:
        for path in sorted({route.partition(" ")[2] for route in all_routes()} | set(PATHS)):
            url = world.gateway.url + re.sub(r"\{\w+\}", "1", path)
            wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
            answers.append(http.options(url, headers=EVIL | wish, timeout=30))
            headers = EVIL | {"Authorization": f"Bearer {world.owner.token}"}
            answers.append(http.get(url, headers=headers, timeout=30, allow_redirects=False))
    told = [
        (answer.url, name)
        for answer in answers
        for name in answer.headers
        if name.lower().startswith("access-control-")
    ]
    assert told == []
