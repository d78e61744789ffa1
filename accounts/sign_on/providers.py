"""Who people are elsewhere: GitHub, Linux.do, and any OpenID Connect provider, each by OAuth 2.0's code flow with PKCE.

Authlib makes the requests' parameters and checks ID tokens; what goes over the network goes through here: with a
time-out, without redirects, and without anything from the environment. Access tokens are used once and forgotten.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from accounts.sign_on.provider import (
    ANYBODY,
    IdentityProvider,
    ProviderFailed,
    ProviderProfile,
    SignOnAttempt,
    SignOnRule,
)
from config.settings import Config
from foundation.clock import Clock
from foundation.logs import event

log = logging.getLogger("sign-on")

TIMEOUT_SECONDS = 10.0
LEEWAY_SECONDS = 60  # between a provider's clock and ours
METADATA_SECONDS = 3600.0
JWKS_AGAIN_SECONDS = 60.0  # or ID tokens with made-up key ids would have us ask all the time
# Signatures with a public key only: with HS256 the key would be the client's secret, and with `none` there is none.
ID_TOKEN_ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
SUBJECT = re.compile(r"[!-~]{1,255}")  # no space: MariaDB compares without those at the end
AVATAR_URL = re.compile(r"https://[!-~]{1,492}")
MAX_NAME = 100
MAX_TRUST_LEVEL = 4


@dataclass(frozen=True)
class Client:
    """We, as a provider knows us, and how we reach it. proxy: the URL of an HTTP proxy; "" for none."""

    title: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""
    proxy: str = ""
    timeout_seconds: float = TIMEOUT_SECONDS

    def session(self, auth_method: str = "client_secret_basic") -> OAuth2Session:
        """A session of Authlib's, for one log-in."""
        session = OAuth2Session(
            self.client_id,
            self.client_secret,
            token_endpoint_auth_method=auth_method,
            scope=self.scope or None,
            code_challenge_method="S256",
        )
        session.trust_env = False  # a .netrc would replace the Authorization header
        if self.proxy:
            session.proxies = {"http": self.proxy, "https": self.proxy}
        return session

    def authorize_url(self, url: str, attempt: SignOnAttempt, state: str, **more: str) -> str:
        """Where the browser goes, from the provider's address for this."""
        with self.session() as session:
            made, _ = session.create_authorization_url(
                url, state, attempt.verifier, redirect_uri=attempt.callback, **more
            )
        return str(made)

    def exchange(self, session: OAuth2Session, url: str, attempt: SignOnAttempt, code: str) -> Mapping[str, Any]:
        """The tokens for a code; the session has the access token from now on. Raises what `doubts` knows."""
        tokens: Mapping[str, Any] = session.fetch_token(
            url,
            grant_type="authorization_code",
            code=code,
            redirect_uri=attempt.callback,
            code_verifier=attempt.verifier,
            timeout=self.timeout_seconds,
            allow_redirects=False,
        )
        return tokens

    def get(self, session: OAuth2Session, url: str, with_token: bool) -> dict[str, Any]:
        """The JSON object at this address. Raises what `doubts` knows."""
        found = self.find(session, url, with_token)
        if found is None:
            raise TypeError("there is nothing")
        return found

    def find(self, session: OAuth2Session, url: str, with_token: bool = True) -> dict[str, Any] | None:
        """The same; None if there is none, or not for whoever has logged in."""
        answer = session.get(
            url,
            headers={"Accept": "application/json"},
            timeout=self.timeout_seconds,
            allow_redirects=False,
            withhold_token=not with_token,
        )
        if answer.status_code in {403, 404}:
            return None
        found = answer.json() if answer.status_code == 200 else None
        if not isinstance(found, dict):
            raise TypeError(f"status {answer.status_code}")
        return found

    @contextmanager
    def doubts(self) -> Iterator[None]:
        """Raise ProviderFailed for whatever can be wrong with a provider's answers; their texts go nowhere."""
        try:
            yield
        except (
            requests.RequestException,
            AuthlibBaseError,
            JoseError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as error:
            event(log, "provider_failed", logging.WARNING, provider=self.title, error=type(error).__name__)
            raise ProviderFailed(self.title) from None


@dataclass(frozen=True)
class OAuthProvider:
    """A provider whose API tells whose access token it is. read: makes a profile of that.

    memberships_at: where it is asked, below its name, whether somebody is a member of each of the rule's groups.
    """

    client: Client
    issuer: str
    authorize_at: str
    tokens_at: str
    user_at: str
    read: Callable[[Mapping[str, Any]], ProviderProfile]
    auth_method: str = "client_secret_basic"
    rule: SignOnRule = ANYBODY
    memberships_at: str = ""

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.client.title

    def authorize_url(self, attempt: SignOnAttempt, state: str) -> str:
        """Where the browser goes."""
        return self.client.authorize_url(self.authorize_at, attempt, state)

    def profile(self, attempt: SignOnAttempt, code: str) -> ProviderProfile:
        """Who came back with this code. Raises ProviderFailed."""
        with self.client.doubts(), self.client.session(self.auth_method) as session:
            self.client.exchange(session, self.tokens_at, attempt, code)
            told = self.client.get(session, self.user_at, with_token=True)
            groups = frozenset(name for name in self.rule.groups if self._is_member(session, name))
            return replace(self.read(told), issuer=self.issuer, groups=groups)

    def _is_member(self, session: OAuth2Session, organisation: str) -> bool:
        """Whether they are an active member, and nothing else."""
        found = self.client.find(session, f"{self.memberships_at}/{organisation}")
        return found is not None and found.get("state") == "active"


class OidcProvider:
    """A provider that signs who somebody is. Its addresses and keys come from its discovery document."""

    def __init__(
        self, client: Client, issuer: str, clock: Clock, rule: SignOnRule = ANYBODY, groups_claim: str = "groups"
    ) -> None:
        self.title = client.title
        self.rule = rule
        self._groups_claim = groups_claim
        self._client = client
        self._issuer = issuer
        self._clock = clock
        self._metadata: dict[str, Any] = {}
        self._metadata_until = float("-inf")
        self._keys: KeySet | None = None
        self._keys_since = float("-inf")

    def authorize_url(self, attempt: SignOnAttempt, state: str) -> str:
        """Where the browser goes. Raises ProviderFailed."""
        with self._client.doubts():
            url = self._address("authorization_endpoint")
            return self._client.authorize_url(url, attempt, state, nonce=attempt.nonce)

    def profile(self, attempt: SignOnAttempt, code: str) -> ProviderProfile:
        """Who came back with this code. Raises ProviderFailed."""
        with self._client.doubts():
            url = self._address("token_endpoint")
            methods = self._metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
            method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
            with self._client.session(method) as session:
                tokens = self._client.exchange(session, url, attempt, code)
                claims = self._claims(session, tokens, attempt.nonce)
            names = (claims.get(name) for name in ("name", "preferred_username"))
            subject, picture = _subject(claims["sub"]), _avatar_url(claims.get("picture"))
            domain, groups = _verified_domain(claims), _groups(claims.get(self._groups_claim))
            return ProviderProfile(
                subject, _name(*names), picture, email_domain=domain, groups=groups, issuer=self._issuer
            )

    def _address(self, name: str) -> str:
        """One of the addresses in the discovery document, which is read again every hour."""
        if self._clock.monotonic() >= self._metadata_until:
            url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
            with self._client.session() as session:
                found = self._client.get(session, url, with_token=False)
            if found["issuer"] != self._issuer:
                raise ValueError("the discovery document is another issuer's")
            self._metadata, self._metadata_until = found, self._clock.monotonic() + METADATA_SECONDS
        address: str = self._metadata[name]
        if not address.startswith("https://") and self._issuer.startswith("https://"):
            raise ValueError("what is secret would cross the network in clear")
        return address

    def _claims(self, session: OAuth2Session, tokens: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """What the ID token says, once its signature, issuer, audience, nonce and times are found right."""
        registry = JWSRegistry(algorithms=ID_TOKEN_ALGORITHMS, strict_check_header=False)
        try:
            token = jwt.decode(tokens["id_token"], self._key_set(session), registry=registry)
        except InvalidKeyIdError:
            if self._clock.monotonic() < self._keys_since + JWKS_AGAIN_SECONDS:
                raise
            self._keys = None  # the provider has changed its keys
            token = jwt.decode(tokens["id_token"], self._key_set(session), registry=registry)
        expected = {
            "iss": {"essential": True, "value": self._issuer},
            "aud": {"essential": True, "value": self._client.client_id},
        }
        params = {"nonce": nonce, "client_id": self._client.client_id, "access_token": tokens.get("access_token")}
        claims = CodeIDToken(token.claims, token.header, expected, params)
        claims.validate(now=int(self._clock.timestamp()), leeway=LEEWAY_SECONDS)
        return token.claims

    def _key_set(self, session: OAuth2Session) -> KeySet:
        if self._keys is None:
            found = self._client.get(session, self._address("jwks_uri"), with_token=False)
            self._keys, self._keys_since = KeySet.import_key_set(found), self._clock.monotonic()  # type: ignore[arg-type]
        return self._keys


def github_profile(user: Mapping[str, Any]) -> ProviderProfile:
    """What GitHub's GET /user says. Raises TypeError, KeyError."""
    return ProviderProfile(
        str(_number(user["id"])), _name(user.get("name"), user.get("login")), _avatar_url(user.get("avatar_url"))
    )


def linuxdo_profile(user: Mapping[str, Any]) -> ProviderProfile:
    """What Linux.do's GET /api/user says. Raises TypeError, KeyError. What it does not say counts as the worse."""
    level = user.get("trust_level")
    return ProviderProfile(
        str(_number(user["id"])),
        _name(user.get("name"), user.get("username")),
        _avatar_url(user.get("avatar_url")),
        is_active=user.get("active") is True,
        is_silenced=user.get("silenced") is not False,
        trust_level=min(max(_number(level), 0), MAX_TRUST_LEVEL) if level is not None else 0,
    )


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError("no whole number")
    return value


def _subject(value: object) -> str:
    if not isinstance(value, str) or not SUBJECT.fullmatch(value):
        raise TypeError("no subject")
    return value


def _name(*candidates: object) -> str | None:
    """The first of these that people can read."""
    for candidate in candidates:
        if isinstance(candidate, str):
            name = "".join(one for one in candidate if one.isprintable()).strip()[:MAX_NAME]
            if name:
                return name
    return None


def _verified_domain(claims: Mapping[str, Any]) -> str | None:
    """The domain of an e-mail address that the provider says is verified."""
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str) or email.count("@") != 1:
        return None
    return email.partition("@")[2].lower()


def _groups(value: object) -> frozenset[str]:
    """A claim with groups: a list of texts, or one text."""
    values = value if isinstance(value, list) else [value]
    return frozenset(one for one in values if isinstance(one, str) and one)


def _avatar_url(value: object) -> str | None:
    return value if isinstance(value, str) and AVATAR_URL.fullmatch(value) else None


def configured_providers(config: Config, clock: Clock) -> dict[str, IdentityProvider]:
    """The providers that have a client id, by the name that stands in their paths."""
    found: dict[str, IdentityProvider] = {}
    proxy = config.outbound_proxy.get_secret_value() if config.outbound_proxy else ""
    if config.github_client_id and config.github_client_secret:
        secret = config.github_client_secret.get_secret_value()
        web = f"{config.github_url}/login/oauth"
        rule = SignOnRule(groups=frozenset(config.github_allowed_organizations))
        found["github"] = OAuthProvider(
            Client("GitHub", config.github_client_id, secret, "read:org" if rule.groups else "", proxy),
            config.github_url,
            f"{web}/authorize",
            f"{web}/access_token",
            f"{config.github_api_url}/user",
            github_profile,
            "client_secret_post",  # what GitHub documents
            rule,
            f"{config.github_api_url}/user/memberships/orgs",
        )
    if config.linuxdo_client_id and config.linuxdo_client_secret:
        secret = config.linuxdo_client_secret.get_secret_value()
        web = config.linuxdo_url
        found["linuxdo"] = OAuthProvider(
            Client("Linux.do", config.linuxdo_client_id, secret, "read", proxy),
            web,
            f"{web}/oauth2/authorize",
            f"{web}/oauth2/token",
            f"{web}/api/user",
            linuxdo_profile,
            rule=SignOnRule(min_trust_level=config.linuxdo_min_trust_level),
        )
    if config.oidc_client_id and config.oidc_client_secret:
        secret = config.oidc_client_secret.get_secret_value()
        rule = SignOnRule(frozenset(config.oidc_allowed_domains), frozenset(config.oidc_allowed_groups))
        scope = " ".join(["openid profile", *(["email"] if config.oidc_allowed_domains else []), *config.oidc_scopes])
        client = Client(config.oidc_name, config.oidc_client_id, secret, scope, proxy)
        found[config.oidc_name] = OidcProvider(client, config.oidc_issuer, clock, rule, config.oidc_groups_claim)
    return found
