"""What one setting's text must be like: each check returns the value, or raises ValueError with what is accepted."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import SecretStr

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
DATABASE_SCHEMES = ("mysql", "mysql+mysqlconnector", "mysql+pymysql", "mariadb", "sqlite")
PLACEHOLDER = re.compile(
    r"change[-_ ]?(me|this|it)|your[-_ ]|dev[-_]?secret|placeholder|insecure|example", re.IGNORECASE
)
KNOWN_WEAK = re.compile(
    r"(secret|password|passw0rd|admin|root|test|default|mysql|openrouter)[-_]?\d*|\d+", re.IGNORECASE
)
# Parts of paths beside providers, methods of log-ins, and owners of other states of log-ins.
RESERVED_PROVIDERS = {"github", "linuxdo", "links", "token", "initiate", "callback"}
RESERVED_PROVIDERS |= {"session", "key", "password", "openrouter"}
# As browsers write them in `Origin`, where they are compared letter by letter. Apps have schemes of their own.
ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[a-z0-9_-][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::(?P<port>[1-9]\d{0,4}))?"
)
USUAL_PORTS = {("http", "80"), ("https", "443")}  # browsers leave these out
OPENROUTER_KEY = re.compile(r"sk-or-[A-Za-z0-9_\-]{16,200}")  # of pages' forms, too: for browsers the last - is escaped
Secrets = TypeVar("Secrets", SecretStr | None, tuple[SecretStr, ...])


def strong_secret(value: SecretStr | None) -> SecretStr | None:
    """At least 32 characters that nobody would guess, or nothing."""
    text = value.get_secret_value() if value else ""
    if text and (len(text) < 32 or _is_guessable(text)):
        raise ValueError("is known or weak; use at least 32 random characters, for example `openssl rand -base64 48`")
    return value


def strong_secrets(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """The same for each of several."""
    for secret in value:
        strong_secret(secret)
    return value


def _is_guessable(text: str) -> bool:
    """True for placeholders, for few different characters, and for a short piece over and over again."""
    repeats = any(text[size:] == text[:-size] for size in range(1, 17))
    return repeats or len(set(text)) < 10 or bool(PLACEHOLDER.search(text))


def is_weak_password(text: str) -> bool:
    """True for what is short, a placeholder, or among the first that anybody would try."""
    return len(text) < 8 or bool(KNOWN_WEAK.fullmatch(text) or PLACEHOLDER.search(text))


def fernet_keys(value: SecretStr) -> SecretStr:
    """Fernet keys, separated by commas or white space."""
    for key in filter(None, re.split(r"[\s,]+", value.get_secret_value())):
        try:
            decoded = base64.b64decode(key, altchars=b"-_", validate=True)
        except binascii.Error:
            decoded = b""
        if len(decoded) != 32 or len(set(decoded)) < 10:
            raise ValueError("is not a Fernet key: 32 random bytes in URL-safe base64, 44 characters each")
    return value


def openrouter_keys(value: Secrets) -> Secrets:
    """One OpenRouter key, several, or none."""
    for key in value if isinstance(value, tuple) else filter(None, [value]):
        if not OPENROUTER_KEY.fullmatch(key.get_secret_value()):
            raise ValueError("does not look like an OpenRouter key (sk-or-v1-...)")
    return value


def provider_name(value: str) -> str:
    """A name that no path and no method of log-ins has."""
    if value in RESERVED_PROVIDERS:
        raise ValueError(f"must not be one of {', '.join(sorted(RESERVED_PROVIDERS))}: they mean something else")
    return value


def url(value: str) -> str:
    """A URL of http or https with a host, and without user, query and fragment."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc or not re.fullmatch(r"[!-~]+", value):
        raise ValueError("must be a URL like https://host/path, without user, query or fragment")
    return value


def own_address(value: str) -> str:
    """Scheme, host and port, without `/` at the end."""
    if not re.fullmatch(r"https?://[^/?#]+/?", value):
        raise ValueError("must be an address without path, like https://host: callbacks are made from it")
    return url(value).rstrip("/")


def header_text(value: str) -> str:
    """Printable ASCII."""
    if not value.isprintable() or not value.isascii():
        raise ValueError("must be printable ASCII: it travels in a header")
    return value


def is_safe_to_call(value: str) -> bool:
    """True unless what is sent to this URL crosses a network in clear."""
    return urlsplit(value).scheme == "https" or urlsplit(value).hostname in LOOPBACK


def redis_url(value: SecretStr | None) -> SecretStr | None:
    """The URL of a Redis."""
    if value and _parts(value).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    return value


def database_url(value: SecretStr) -> SplitResult:
    """The parts of a URL of a database that several processes can share."""
    parts = _parts(value)
    if any(name.startswith("ssl") for name in parse_qs(parts.query, keep_blank_values=True)):
        raise ValueError("must not have ?ssl...: set DB_SSL_CA and DB_SSL_MODE, which mean the same for each driver")
    if parts.scheme not in DATABASE_SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(s + '://' for s in DATABASE_SCHEMES)}")
    if parts.scheme == "sqlite" and (parts.netloc or len(parts.path) < 2 or parts.path == "/:memory:"):
        raise ValueError("must name a file, sqlite:///path: several processes share it")
    return parts


def authorities(value: Path | None) -> Path | None:
    """A file with certificates in PEM."""
    try:
        is_usable = value is None or "-----BEGIN CERTIFICATE-----" in value.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        is_usable = False
    if not is_usable:
        raise ValueError("can't be used as a file of certificates in PEM")
    return value


def _parts(value: SecretStr) -> SplitResult:
    try:
        parts = urlsplit(value.get_secret_value())
        _ = parts.port
    except ValueError:  # its text can hold the password
        raise ValueError("is not a URL; write %23, %2F, %3F, %40 for # / ? @ in the password") from None
    return parts


def http_proxy(value: SecretStr | None) -> SecretStr | None:
    """The URL of an HTTP proxy, with or without user and password."""
    text = value.get_secret_value() if value else ""
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and parts.hostname and parts.port and parts.path in {"", "/"}
    except ValueError:  # its text can hold the password
        usable = None
    if text and (not usable or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", text)):
        raise ValueError("must be http://host:port or http://user:password@host:port; write %40 for @ in a password")
    return value


def list_of_objects(value: SecretStr | None) -> SecretStr | None:
    """A JSON list of objects."""
    try:
        items = json.loads(value.get_secret_value()) if value else []
    except (ValueError, RecursionError):  # its text holds keys
        items = None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("must be a JSON list of objects, as docs/upstreams.md shows it")
    return value


def networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Networks, addresses, or `unix`."""
    for text in value:
        try:
            _ = text == "unix" or ipaddress.ip_network(text)
        except ValueError:
            raise ValueError("must hold networks like 10.0.0.0/8, addresses, or `unix`") from None
    return value


def organizations(value: tuple[str, ...]) -> tuple[str, ...]:
    """Names of organisations at GitHub."""
    if not all(re.fullmatch(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", name) for name in value):
        raise ValueError("must hold names as they stand in addresses at GitHub: letters, digits, single hyphens")
    return value


def domains(value: tuple[str, ...]) -> tuple[str, ...]:
    """Names of hosts, made lower case."""
    if not all(re.fullmatch(r"(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{2,63}", name) for name in value):
        raise ValueError("must hold domains like example.com, without @")
    return tuple(name.lower() for name in value)


def origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Origins as browsers write them, or `*`."""
    for text in value:
        found = ORIGIN.fullmatch(text)
        if text != "*" and (not found or found.group("scheme", "port") in USUAL_PORTS):
            raise ValueError(
                "must hold origins as browsers write them, like https://app.example or http://localhost:3000: in small "
                "letters, without path, `/` at the end or the usual port; or `*`"
            )
    return value


def webhook_url(value: SecretStr | None) -> SecretStr | None:
    """A URL with a host; it may have a query, which often authorizes."""
    text = value.get_secret_value() if value else ""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
    except ValueError:  # its text may authorize
        usable = None
    if text and (not usable or "@" in parts.netloc or "#" in text or not re.fullmatch(r"[!-~]+", text)):
        raise ValueError("must be a URL like https://host/path, without user or fragment")
    return value


def webhook_secret(value: SecretStr | None) -> SecretStr | None:
    """A secret of Standard Webhooks."""
    prefix, _, key = value.get_secret_value().partition("_") if value else ("whsec", "", "")
    try:
        decoded = base64.b64decode(key, validate=True)
    except binascii.Error:
        decoded = b""
    if value and (prefix != "whsec" or not 24 <= len(decoded) <= 64 or len(set(decoded)) < 10):
        raise ValueError("must be whsec_ and 24 to 64 random bytes in base64: `echo whsec_$(openssl rand -base64 32)`")
    return value


def mail_address(value: str) -> str:
    """An address of e-mail in ASCII, or nothing."""
    if value and not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}", value):
        raise ValueError("must be an address like ops@example.org")
    return value


def mail_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    """The same for each of several."""
    return tuple(map(mail_address, value))
