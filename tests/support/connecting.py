"""People who connect their own OpenRouter accounts to a real gateway, by key, by OAuth, and in a browser."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import sqlalchemy as sa

from config.settings import Config
from db import Database, database_url
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, new_derived_key, wait_for

ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
PUBLIC_URL = "https://gateway.example.net"
BASE = "/api/v1/openrouter"
LOCAL = "http://localhost:3000/back?from=app"
NOTHING = dict.fromkeys(
    ("method", "label", "connected_at", "checked_at", "limit_usd", "remaining_usd", "usage_usd")
) | {"connected": False, "state": "none"}
KEY = re.compile(r"sk-or-v1-[0-9a-f]{16}")


class House:
    """A gateway in which users get no keys of their own, unless they bring one; and the service's account."""

    def __init__(self, start: Callable[..., Gateway], stand_in: Running, url: str, **settings: Any) -> None:
        self.stand_in, self.start, self.url = stand_in, start, url
        self.account = stand_in.new_account(balance=1000)["id"]
        self.settings = {
            "DATABASE_URL": url,
            "SECRET_KEY": SECRET_KEY,
            "ENCRYPTION_KEY": ENCRYPTION_KEY,
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "OPENROUTER_API_URL": stand_in.address,
            "OPENROUTER_API_KEYS": stand_in.new_key(account=self.account)["key"],
            "PUBLIC_URL": PUBLIC_URL,
            "SERVER_THREADS": 32,
        } | settings
        self.gateway = start(**self.settings)
        self.db = Database(database_url(Config(database_url=url)))

    def carrier(self, token: str) -> str:
        """The hash of the key that has carried a call."""
        before = self.bill()
        answer = self.gateway.chat(token)
        assert answer.status_code == 200, answer.text
        [used] = [key for key, told in self.bill().items() if told["nano"] > before.get(key, {"nano": 0})["nano"]]
        return used

    def payer(self, token: str) -> str:
        """The account at OpenRouter that has paid for a call."""
        return self.bill()[self.carrier(token)]["account"]

    def bill(self) -> dict[str, Any]:
        return self.stand_in.control("GET", "bill")["keys"]

    def rows(self, table: sa.Table, **wanted: Any) -> list[Any]:
        with self.db.reading() as tx:
            return list(tx.execute(sa.select(table).filter_by(**wanted)))

    def exchanges(self) -> int:
        """How often OpenRouter was asked to redeem a code."""
        log = self.stand_in.control("GET", "log")["requests"]
        return sum(entry["path"] == "/api/v1/auth/keys" for entry in log)


class Person:
    """Somebody with an account at the gateway, and one at OpenRouter with so many dollars."""

    def __init__(self, house: House, balance: float = 50) -> None:
        self.house, self.gateway, self.stand_in = house, house.gateway, house.stand_in
        self.account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
        assert self.gateway.post("/register", self.account).status_code == 201
        self.token = self.another_session()
        self.own = self.stand_in.new_account(balance=balance)["id"]

    def another_session(self) -> str:
        told = self.gateway.post("/login", self.account).json()
        self.id = told["user"]["id"]
        return told["access_token"]

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        return self.gateway.post(BASE + path, body, self.token, **more)

    def told(self, path: str = "/status") -> Any:
        answer = self.gateway.get(BASE + path, self.token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def new_key(self, **wishes: Any) -> dict[str, str]:
        return self.stand_in.new_key(account=self.own, **wishes)

    def connect(self, **wishes: Any) -> dict[str, str]:
        """Connect with a key, and wait until calls use it."""
        key = self.new_key(**wishes)
        answer = self.post("/auth/validate-key", {"api_key": key["key"]})
        assert answer.status_code == 200, answer.text
        wait_for(lambda: self.house.payer(self.token) == self.own)
        return key

    def initiate(self, callback_url: str | None = LOCAL) -> requests.Response:
        answer = self.post("/oauth/initiate", {"callback_url": callback_url})
        assert answer.status_code == 200, answer.text
        return answer

    def approved(self, begun: requests.Response, decision: str = "approve") -> dict[str, str]:
        """Log in at OpenRouter; returns the parameters that the callback is called with."""
        location = self.stand_in.decide(begun.json()["authorization_url"], self.own, decision)
        return {name: value for name, [value] in parse_qs(urlsplit(location).query).items()}

    def finish(self, returned: dict[str, str], token: str | None = None) -> requests.Response:
        body = {name: returned[name] for name in ("code", "state")}
        return self.gateway.post(f"{BASE}/oauth/callback", body, token or self.token)


def cookie_of(answer: requests.Response) -> str:
    """As a browser would send it back."""
    return answer.headers["Set-Cookie"].partition(";")[0]


def in_browser(house: House, returned: dict[str, str], cookie: str = "") -> requests.Response:
    """OpenRouter's redirect to the gateway, which brings no bearer."""
    headers = {"Cookie": cookie} if cookie else {}
    url = f"{house.gateway.url}{BASE}/oauth/callback"
    return requests.get(url, params=returned, headers=headers, timeout=30, allow_redirects=False)


@pytest.fixture(scope="module")
def house(
    start: Callable[..., Gateway],
    stand_in: Running,
    modules_database_url: str,
) -> House:
    return House(start, stand_in, modules_database_url)


@pytest.fixture
def owner(house: House) -> Person:
    return Person(house)


@pytest.fixture
def teammate(house: House) -> Person:
    return Person(house)
