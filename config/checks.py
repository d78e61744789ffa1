"""Checks of single settings by their text alone: each returns the value, or raises ValueError with what is accepted."""

from __future__ import annotations

import ipaddress
import json
import re
from urllib.parse import urlsplit

from pydantic import SecretStr

LOOPBACK = {"127.0.0.1", "localhost", "::1"}


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
    try:
        parts = urlsplit(value.get_secret_value()) if value else None
        _ = parts and parts.port
    except ValueError:  # its text can hold the password
        raise ValueError("is not a URL; write %23, %2F, %3F, %40 for # / ? @ in the password") from None
    if parts and parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    return value


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
