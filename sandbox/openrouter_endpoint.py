"""What the stand-in's endpoints beside calls of models share: a request, its answer, and what holds for all."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

from sandbox.http_server import Exchange, Reply
from sandbox.openrouter_accounts import Account, Books, Key
from sandbox.openrouter_faults import bad_request
from sandbox.openrouter_scenarios import Plan

KEYS_ON_A_PAGE = 100


@dataclass(slots=True)
class Settings:
    """What holds for every request that no fault and no scenario is set for."""

    defaults: Plan
    generation_404s: int = 0
    generation_same_key_only: bool = False
    duplicate_generation_ids: bool = False
    keys_on_a_page: int = KEYS_ON_A_PAGE
    video_ms: int = 3000
    video_bytes: int = 65_536


@dataclass(slots=True)
class Call:
    """A request to one of the endpoints, after authentication. `rest` is what follows the endpoint's path."""

    exchange: Exchange
    books: Books
    account: Account
    key: Key
    rest: str
    settings: Settings

    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.exchange.query, keep_blank_values=True, errors="replace"))

    def json_object(self) -> dict[str, Any]:
        """Return the body, which must be a JSON object."""
        try:
            document = orjson.loads(self.exchange.body)
        except orjson.JSONDecodeError:
            raise bad_request("Invalid JSON in request body") from None
        if not isinstance(document, dict):
            raise bad_request("Invalid input: expected object")
        return document


Endpoint = Callable[[Call], Reply]


def as_json(document: object, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(document))


def iso(seconds: float | None) -> str | None:
    """Return a time as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


def whole_number(name: str, text: str) -> int:
    """Return a number from a query, which must be whole and not negative."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise bad_request(f"{name}: Invalid input: expected number >=0")
    return int(text)
