"""The stand-in for identity providers says what GitHub, Linux.do and an OpenID Connect provider document."""

import base64
import hashlib
import time

import pytest
import requests
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet

from tests.support.sign_on import agree, query_of

CALLBACK = "http://127.0.0.1:9/callback"
VERIFIER = "v" * 43
PATHS = {
    "github": ("/github/login/oauth/authorize", "/github/login/oauth/access_token", "/github/user"),
    "linuxdo": ("/linuxdo/oauth2/authorize", "/linuxdo/oauth2/token", "/linuxdo/api/user"),
    "oidc": ("/oidc/authorize", "/oidc/token", ""),
}
EACH = pytest.mark.parametrize("provider", list(PATHS))


def authorize_url(address, provider, **more):
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
    asked = {"client_id": "app", "redirect_uri": CALLBACK, "state": "the-state", "response_type": "code"}
    asked |= {"code_challenge": challenge, "code_challenge_method": "S256", "nonce": "the-nonce"} | more
    return requests.Request("GET", address + PATHS[provider][0], params=asked).prepare().url


def exchange(address, provider, code, **changes):
    sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    sent |= {"client_id": "app", "client_secret": "secret-of-app"} | changes
    return requests.post(address + PATHS[provider][1], data=sent, timeout=30)


def code_of(address, provider, **wishes):
    return query_of(agree(authorize_url(address, provider), **{"as": "ann"} | wishes))["code"]


@EACH
def test_a_page_asks_who_is_there_and_brings_the_state_back(identity_provider, provider):
    url = authorize_url(identity_provider, provider)
    page = requests.get(url, timeout=30)
    assert page.headers["Content-Type"].startswith("text/html")
    assert all(f"Log in as {name}" in page.text for name in ("ann", "bob", "cyd"))
    back = agree(url, **{"as": "ann"})
    assert back.startswith(f"{CALLBACK}?")
    assert query_of(back)["state"] == "the-state"
    assert query_of(agree(url, **{"as": "ann", "fault": "denied"}))["error"] == "access_denied"
    assert query_of(agree(url, **{"as": "ann", "fault": "wrong-state"}))["state"] != "the-state"


@EACH
def test_a_callback_elsewhere_is_not_registered(identity_provider, provider):
    url = authorize_url(identity_provider, provider, redirect_uri="https://evil.example/callback")
    assert requests.get(url, timeout=30, allow_redirects=False).status_code == 400


@EACH
def test_a_code_works_once(identity_provider, provider):
    code = code_of(identity_provider, provider)
    first, second = (exchange(identity_provider, provider, code) for _ in range(2))
    assert (first.status_code, first.json()["token_type"]) == (200, "bearer")
    assert second.status_code == (200 if provider == "github" else 400)
    assert second.json()["error"] == ("bad_verification_code" if provider == "github" else "invalid_grant")


@EACH
@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"client_secret": "wrong"},
        {"client_id": "other", "client_secret": "secret-of-other"},
        {"redirect_uri": f"{CALLBACK}/x"},
    ],
)
def test_a_code_is_exchanged_by_whom_it_was_made_for(identity_provider, provider, changes):
    refused = exchange(identity_provider, provider, code_of(identity_provider, provider), **changes)
    assert "access_token" not in refused.json()
    assert refused.json()["error"]


@EACH
def test_a_code_runs_out(identity_provider, provider):
    code = code_of(identity_provider, provider, fault="expired-code")
    assert "access_token" not in exchange(identity_provider, provider, code).json()


@pytest.mark.parametrize("provider", ["github", "linuxdo"])
def test_the_api_says_whose_token_it_is(identity_provider, provider):
    wishes = {"id": "77", "name": "Ann B.", "email": "ann@people.test", "silenced": "true", "trust_level": "1"}
    token = exchange(identity_provider, provider, code_of(identity_provider, provider, **wishes)).json()["access_token"]
    url = identity_provider + PATHS[provider][2]
    user = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30).json()
    assert (user["id"], user["login"], user["name"], user["email"]) == (77, "ann", "Ann B.", "ann@people.test")
    if provider == "linuxdo":
        assert (user["active"], user["silenced"], user["trust_level"]) == (True, True, 1)
    other = "linuxdo" if provider == "github" else "github"
    for headers in ({}, {"Authorization": "Bearer x"}):
        assert requests.get(url, headers=headers, timeout=30).status_code == 401
    answer = requests.get(identity_provider + PATHS[other][2], headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert answer.status_code == 401


def test_an_id_token_is_signed_for_its_client_and_its_log_in(identity_provider):
    issuer = f"{identity_provider}/oidc"
    metadata = requests.get(f"{issuer}/.well-known/openid-configuration", timeout=30).json()
    assert metadata["issuer"] == issuer
    keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=30).json())
    answer = exchange(identity_provider, "oidc", code_of(identity_provider, "oidc", id="77")).json()
    claims = jwt.decode(answer["id_token"], keys, ["RS256"]).claims
    assert (claims["iss"], claims["aud"], claims["sub"], claims["nonce"]) == (issuer, "app", "sub-77", "the-nonce")
    assert claims["iat"] <= time.time() < claims["exp"]
    forged = exchange(identity_provider, "oidc", code_of(identity_provider, "oidc", fault="bad-signature")).json()
    with pytest.raises(BadSignatureError):
        jwt.decode(forged["id_token"], keys, ["RS256"])


def test_what_nobody_serves_is_not_found(identity_provider):
    assert requests.get(f"{identity_provider}/x", timeout=30).status_code == 404
    assert requests.post(f"{identity_provider}/x", timeout=30).status_code == 404
