"""What the tests of real clients share: a gateway whose bill is watched, and programs that use it from outside."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, environment, wait_for

CLIENTS = Path(__file__).parent
OPEN_STATES = {"dispatched", "streaming", "pending"}


def new_client_key(gateway: Gateway, token: str, **wishes: Any) -> str:
    """A key of the user who has this access token."""
    answer = gateway.post("/api/api-keys", {"name": "An SDK", **wishes}, token)
    assert answer.status_code == 201, answer.text
    secret: str = answer.json()["key"]
    return secret


class Shop:
    """A gateway before the stand-in, whose keys are of an account that nobody else uses."""

    def __init__(self, start: Callable[..., Gateway], stand_in: Running) -> None:
        self.stand_in = stand_in
        self.account = stand_in.new_account()["id"]
        keys = [stand_in.new_key(account=self.account)["key"] for _ in range(3)]
        self.gateway = start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=",".join(keys))

    def bill(self) -> int:
        """What the account owes by now, in nano-dollars."""
        bill: int = self.stand_in.control("GET", "bill")["accounts"][self.account]["nano"]
        return bill


class Customer:
    """Somebody new at a shop, and the only one who pays there while a test runs."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.url = shop.gateway.url
        self._token = shop.gateway.new_user()
        self.key = new_client_key(shop.gateway, self._token)
        self._bill = shop.bill()

    def meets(self, scenario: str, times: int) -> None:
        """OpenRouter answers the next calls like this."""
        self.shop.stand_in.control("POST", "faults", scenario=scenario, times=times, account=self.shop.account)

    def log(self, requests: int) -> list[tuple[int, int]]:
        """Status and cost in nano-dollars of all requests, oldest first; so many, when the ledger knows them all.

        Asserts that they add up to what OpenRouter bills.
        """

        def find() -> list[Any] | None:
            items = self.shop.gateway.get("/api/usage/logs?page_size=100", self._token).json()["items"]
            is_open = OPEN_STATES & {item["state"] for item in items}
            return items if len(items) >= requests and not is_open else None

        items = wait_for(find)
        assert len(items) == requests
        assert sum(item["cost_nano"] or 0 for item in items) == self.shop.bill() - self._bill
        return [(item["status"], item["cost_nano"] or 0) for item in reversed(items)]


@pytest.fixture(scope="session")
def shop(start_for_all: Callable[..., Gateway], stand_in: Running) -> Shop:
    return Shop(start_for_all, stand_in)


@pytest.fixture
def customer(shop: Shop) -> Iterator[Customer]:
    yield Customer(shop)
    shop.stand_in.control("DELETE", "faults")


@pytest.fixture(scope="session")
def spent_key(shop: Shop) -> str:
    """A client key whose budget is used up."""
    return new_client_key(shop.gateway, shop.gateway.new_user(), budget={"limit_usd": 0})


@pytest.fixture
def key(gateway: Gateway, token: str) -> str:
    """A client key at the gateway that all tests share."""
    return new_client_key(gateway, token)


@pytest.fixture
def answers(caplog: pytest.LogCaptureFixture) -> Callable[[], list[int]]:
    """The statuses of all answers that Python's clients got in this test: each of them logs its HTTP client's."""
    for name in ("httpx", "httpx2"):
        caplog.set_level(logging.INFO, logger=name)

    def statuses() -> list[int]:
        records = [record for record in caplog.records if record.name in {"httpx", "httpx2"}]
        return [next(each for each in record.args if isinstance(each, int)) for record in records]

    return statuses


@pytest.fixture
def plays(customer: Customer, spent_key: str) -> Callable[..., None]:
    """Run the cases of a client outside of this process as this customer, and assert what came of each of them.

    results: by case, its result and the statuses of the answers it got. errors: by case, the error's name, a part of its
    words, and those statuses.
    """

    def run(
        program: str, script: str, results: dict[str, list[Any]], errors: dict[str, tuple[str, str, list[int]]]
    ) -> None:
        base_url = f"{customer.url}/v1"
        env = environment(
            BASE_URL=base_url,
            OPENAI_BASE_URL=base_url,
            OPENROUTER_BASE_URL=base_url,
            OPENROUTER_API_BASE=base_url,
            OPENAI_API_KEY=customer.key,
            OPENROUTER_API_KEY=customer.key,
            SPENT_KEY=spent_key,
            FAULTS=f"{customer.shop.stand_in.root}/sandbox/faults",
            ACCOUNT=customer.shop.account,
        )
        command = [program, CLIENTS / script]
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)
        assert ended.returncode == 0, ended.stderr
        told = json.loads(ended.stdout)
        words = {case: errors.get(case, ("", "", []))[1] for case in told["errors"]}
        shortened = {
            case: (name, words[case] if words[case] in message else message, answers)
            for case, (name, message, answers) in told["errors"].items()
        }
        assert told["results"] | shortened == results | errors

    return run
