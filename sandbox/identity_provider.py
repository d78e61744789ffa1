"""A stand-in for GitHub, Linux.do and an OpenID Connect provider: for trying single sign-on here, and for its tests.

    python -m sandbox.identity_provider --port 0

It prints one line of JSON when it listens, {"listening": "http://127.0.0.1:PORT"}, and stops on SIGTERM or SIGINT.
GITHUB_URL and GITHUB_API_URL are then that address with /github, LINUXDO_URL with /linuxdo, OIDC_ISSUER with /oidc.
Any client id is registered, with the secret `secret-of-<client id>`, and with every callback on this machine or at a
name that nobody has (.test).

The pages where people agree ask who is there; `as=ann` in their query answers at once. Ann is made up on the spot, the
same each time, and `id`, `name`, `email`, `verified`, `avatar_url`, `active`, `silenced`, `trust_level` change her;
`groups`, parted by commas, are hers at the OpenID Connect provider and her organisations at GitHub, of which she was
but invited to `invited`. `fault` names what goes wrong:

    denied           she does not agree
    wrong-state      the browser comes back with another state
    expired-code     the code has run out when it is exchanged
    no-token         the token endpoint answers with an error's page
    slow             the token endpoint waits for so many seconds as `delay` says (60)
    redirect         the token endpoint redirects, to where it would answer
    redirect-user    so does the user endpoint
    no-user          the user endpoint answers 401
    other-audience   the ID token is for another client, though we asked for it
    other-issuer     the ID token is from another issuer
    other-nonce      the ID token is of another log-in
    no-nonce         the ID token is of no log-in
    old-token        the ID token has run out
    bad-signature    the ID token is signed with a key that is not in the JWKS, under the id of one that is
    unknown-key      the ID token is signed with a key whose id is not in the JWKS
    hs256            the ID token is signed with the client's secret
    unsigned         the ID token is not signed
    new-key          before it signs, the provider has replaced its key
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import secrets
import signal
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CODE_SECONDS = 600
PEOPLE = ("ann", "bob", "cyd")  # whom the pages offer
AUTHORIZE = {"/github/login/oauth/authorize", "/linuxdo/oauth2/authorize", "/oidc/authorize"}
TOKENS = {"/github/login/oauth/access_token", "/linuxdo/oauth2/token", "/oidc/token"}
USERS = {"/github/user", "/linuxdo/api/user"}
MEMBERSHIPS = "/github/user/memberships/orgs/"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass
class Grant:
    """What somebody agreed to: a code that works once, then an access token."""

    provider: str
    asked: dict[str, str]
    expires_at: float

    @property
    def fault(self) -> str:
        return self.asked.get("fault", "")


class Provider:
    """What the server remembers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.codes: dict[str, Grant] = {}
        self.access_tokens: dict[str, Grant] = {}
        self.key = new_key()

    def agree(self, provider: str, asked: dict[str, str]) -> str:
        """A code for what was asked."""
        code = secrets.token_urlsafe(20)
        late = 1 if asked.get("fault") == "expired-code" else -CODE_SECONDS
        with self.lock:
            self.codes[code] = Grant(provider, asked, time.time() - late)
        return code

    def redeem(self, provider: str, code: str, sent: dict[str, str]) -> Grant | str:
        """The grant of a code, which is used up; or the error of the token endpoint."""
        with self.lock:
            grant = self.codes.pop(code, None)
        wrong_code = "bad_verification_code" if provider == "github" else "invalid_grant"
        if grant is None or grant.provider != provider or grant.expires_at <= time.time():
            return wrong_code
        if sent.get("client_id") != grant.asked["client_id"] or not self.knows(sent):
            return "incorrect_client_credentials" if provider == "github" else "invalid_client"
        if sent.get("redirect_uri") != grant.asked["redirect_uri"]:
            return "redirect_uri_mismatch" if provider == "github" else "invalid_grant"
        challenge = grant.asked.get("code_challenge")
        if challenge and challenge != s256(sent.get("code_verifier", "")):
            return wrong_code
        return grant

    @staticmethod
    def knows(sent: dict[str, str]) -> bool:
        """Whether a client's secret is right."""
        return sent.get("client_secret") == f"secret-of-{sent.get('client_id')}"

    def id_token(self, issuer: str, grant: Grant) -> str:
        """The signed statement who somebody is, or what the fault makes of it."""
        asked, fault, now = grant.asked, grant.fault, int(time.time())
        person = person_of(asked)
        claims = {"iss": issuer, "sub": f"sub-{person['id']}", "aud": asked["client_id"], "iat": now, "exp": now + 300}
        claims |= {"nonce": asked.get("nonce"), "name": person["name"], "email": person["email"]}
        claims |= {"email_verified": person["verified"], "picture": person["avatar_url"]}
        if "groups" in asked:
            claims["groups"] = person["groups"]
        changes: dict[str, dict[str, Any]] = {
            "other-audience": {"aud": "somebody-else", "azp": asked["client_id"]},
            "other-issuer": {"iss": "https://elsewhere.test"},
            "other-nonce": {"nonce": "n" * 43},
            "old-token": {"iat": now - 7200, "exp": now - 3600},
        }
        claims |= changes.get(fault, {})
        if fault == "no-nonce" or claims["nonce"] is None:
            del claims["nonce"]
        if fault == "new-key":
            self.key = new_key()
        key: RSAKey | OctKey = new_key() if fault in {"bad-signature", "unknown-key"} else self.key
        key_id = key.kid if fault == "unknown-key" else self.key.kid
        if fault == "hs256":
            key = OctKey.import_key(f"secret-of-{asked['client_id']}")
            return jwt.encode({"alg": "HS256", "kid": key_id}, claims, key, ["HS256"])
        if fault == "unsigned":
            return ".".join([in_base64({"alg": "none", "typ": "JWT"}), in_base64(claims), ""])
        return jwt.encode({"alg": "RS256", "kid": key_id}, claims, key, ["RS256"])


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    provider: Provider
    address: str

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path in AUTHORIZE:
            self.authorize(url.path, dict(parse_qsl(url.query)))
        elif url.path in USERS:
            self.user(url.path.split("/")[1])
        elif url.path.startswith(MEMBERSHIPS):
            self.membership(url.path.removeprefix(MEMBERSHIPS))
        elif url.path == "/oidc/.well-known/openid-configuration":
            self.say(200, self.discovery())
        elif url.path == "/oidc/jwks":
            self.say(200, {"keys": [self.provider.key.as_dict(private=False)]})
        else:
            self.say(404, {"message": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path in TOKENS:
            self.token(self.path.split("/")[1], {name: values[0] for name, values in parse_qs(body.decode()).items()})
        else:
            self.say(404, {"message": "Not Found"})

    def authorize(self, path: str, asked: dict[str, str]) -> None:
        """Ask who is there and whether they agree, or send the browser back with the answer."""
        callback = asked.get("redirect_uri", "")
        host = urlsplit(callback).hostname or ""
        if not (host in LOOPBACK or host.endswith(".test")) or not asked.get("client_id"):
            self.say(400, {"error": "invalid_request", "error_description": "client_id or redirect_uri is not known"})
        elif not asked.get("as"):
            self.say_page(path, asked)
        else:
            state = "x" * 43 if asked.get("fault") == "wrong-state" else asked.get("state", "")
            if asked.get("fault") == "denied":
                answer = {"error": "access_denied", "error_description": "The user has denied access", "state": state}
            else:
                answer = {"code": self.provider.agree(path.split("/")[1], asked), "state": state}
                answer |= {"session_state": "s", "iss": self.issuer} if path.startswith("/oidc") else {}
            self.send(302, b"", Location=f"{callback}?{urlencode(answer)}")

    def say_page(self, path: str, asked: dict[str, str]) -> None:
        links = [({"as": name}, f"Log in as {name}") for name in PEOPLE] + [({"as": "ann", "fault": "denied"}, "Deny")]
        rows = [
            f'<p><a id="{html.escape(text.lower().replace(" ", "-"))}" '
            f'href="{html.escape(f"{path}?{urlencode(asked | more)}")}">{html.escape(text)}</a></p>'
            for more, text in links
        ]
        page = f"<!doctype html><title>Stand-in</title><h1>Stand-in: {path.split('/')[1]}</h1>{''.join(rows)}"
        self.send(200, page.encode(), **{"Content-Type": "text/html; charset=utf-8"})

    def token(self, provider: str, sent: dict[str, str]) -> None:
        """Exchange a code."""
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            name, _, secret = base64.b64decode(given).decode().partition(":")
            sent |= {"client_id": unquote(name), "client_secret": unquote(secret)}
        grant = self.provider.redeem(provider, sent.get("code", ""), sent)
        if isinstance(grant, str):
            # GitHub says so with 200.
            self.say(200 if provider == "github" else 400, {"error": grant, "error_description": "Refused"})
            return
        if grant.fault == "slow":
            time.sleep(float(grant.asked.get("delay", "60")))
        if grant.fault == "no-token":
            self.send(502, b"<h1>Bad gateway</h1>", **{"Content-Type": "text/html"})
            return
        if grant.fault == "redirect":
            grant.asked["fault"] = ""
            self.provider.codes[sent["code"]] = grant
            self.send(307, b"", Location=self.address + self.path)
            return
        access_token = secrets.token_urlsafe(20)
        self.provider.access_tokens[access_token] = grant
        answer: dict[str, object] = {"access_token": access_token, "token_type": "bearer"}
        answer["scope"] = grant.asked.get("scope", "")
        if provider != "github":
            answer["expires_in"] = 3600
        if provider == "oidc":
            answer["id_token"] = self.provider.id_token(self.issuer, grant)
        self.say(200, answer)

    def user(self, provider: str) -> None:
        """Who an access token is of."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        grant = self.provider.access_tokens.get(token) if scheme.lower() == "bearer" else None
        if grant is None or grant.provider != provider or grant.fault == "no-user":
            self.say(401, {"message": "Bad credentials"})
            return
        if grant.fault == "redirect-user":
            grant.asked["fault"] = ""
            self.send(302, b"", Location=self.address + self.path)
            return
        person = person_of(grant.asked)
        names = ["id", "login", "name", "email", "avatar_url"]
        names += ["active", "silenced", "trust_level"] if provider == "linuxdo" else []
        shown = {name: person[name] for name in names}
        self.say(200, shown | ({"username": person["login"]} if provider == "linuxdo" else {"type": "User"}))

    def membership(self, organisation: str) -> None:
        """Whether she is a member of an organisation; told to who was let to ask, and has asked for `read:org`."""
        token = self.headers.get("Authorization", "").partition(" ")[2]
        grant = self.provider.access_tokens.get(token)
        if grant is None or grant.provider != "github":
            self.say(401, {"message": "Bad credentials"})
        elif "read:org" not in grant.asked.get("scope", "").split():
            self.say(403, {"message": "You need at least read:org scope"})
        elif organisation in person_of(grant.asked)["groups"]:
            self.say(200, {"state": "active", "role": "member", "organization": {"login": organisation}})
        elif organisation == grant.asked.get("invited"):
            self.say(200, {"state": "pending", "role": "member", "organization": {"login": organisation}})
        else:
            self.say(404, {"message": "Not Found"})

    def discovery(self) -> dict[str, object]:
        """What an OpenID Connect provider says of itself."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
        }

    @property
    def issuer(self) -> str:
        return f"{self.address}/oidc"

    def say(self, status: int, document: dict[str, Any]) -> None:
        self.send(status, json.dumps(document).encode(), **{"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is for what to try."""


def person_of(asked: dict[str, str]) -> dict[str, Any]:
    """Somebody, as the name and the wishes in the query of the authorize page make them."""
    login = asked["as"]
    number = int(hashlib.sha256(login.encode()).hexdigest()[:7], 16) + 1
    return {
        "login": login,
        "id": int(asked.get("id", number)),
        "name": asked.get("name", login.title()),
        "email": asked.get("email", f"{quote(login)}@people.test"),
        "verified": asked.get("verified", "true") == "true",
        "groups": [name for name in asked.get("groups", "").split(",") if name],
        "avatar_url": asked.get("avatar_url", f"https://avatars.people.test/{quote(login)}.png"),
        "active": asked.get("active", "true") == "true",
        "silenced": asked.get("silenced", "false") == "true",
        "trust_level": int(asked.get("trust_level", "2")),
    }


def new_key() -> RSAKey:
    """A signing key with an id."""
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(8), "use": "sig", "alg": "RS256"})


def s256(verifier: str) -> str:
    """The challenge of a verifier of PKCE."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def in_base64(document: dict[str, Any]) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def main() -> None:
    """Serve until a signal says to stop."""
    parser = argparse.ArgumentParser(description="A stand-in for identity providers.")
    parser.add_argument("--port", type=int, default=0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    server.daemon_threads = True
    Handler.provider = Provider()
    Handler.address = f"http://127.0.0.1:{server.server_port}"
    print(json.dumps({"listening": Handler.address}), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
