"""In steady state the database is asked by the clock, not by calls: its own log of statements says so."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.sandbox.conftest import Running
from tests.support.billing import Billing, user_of
from tests.support.gateway import Gateway, new_derived_key, wait_for
from tests.support.mariadb import DatabaseServer

CONNECTIONS = 4
FEW, MANY = 200, 2000
PER_SECOND = 100  # of all background threads together, when each of their rounds finds something: about half of it


@dataclass
class Statements:
    """What the database was asked, by kind: numbers and texts left out. seconds: in which time."""

    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Watched:
    """A gateway whose statements the database server writes down."""

    def __init__(self, server: DatabaseServer, billing: Billing, gateway: Gateway) -> None:
        self.server = server
        self.billing = billing
        self.gateway = gateway

    @contextmanager
    def counting(self) -> Iterator[Statements]:
        """The statements of the gateway until the end of the block."""
        said, begun = Statements(), time.monotonic()
        self.server.execute("TRUNCATE mysql.general_log")
        yield said
        said.seconds = time.monotonic() - begun
        mine = "user_host LIKE 'gateway[%' AND command_type IN ('Query', 'Execute')"
        for [text] in self.server.execute(
            f"SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE {mine}"
        ):
            said.kinds[kind_of(str(text))] += 1

    def call(self, token: str, count: int, max_tokens: int | None = 20) -> None:
        """So many calls, plain and streamed, over a few connections that stay open."""
        bodies = [chat(stream, max_tokens) for stream in (False, True)]

        def some(_: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
            for number in range(count // CONNECTIONS):
                headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                connection.request("POST", "/v1/chat/completions", bodies[number % 2], headers)
                answer = connection.getresponse()
                assert (answer.status, bool(answer.read())) == (200, True)
            connection.close()

        with ThreadPoolExecutor(CONNECTIONS) as callers:
            list(callers.map(some, range(CONNECTIONS)))


def chat(stream: bool, max_tokens: int | None) -> bytes:
    messages = [{"role": "user", "content": "Hi"}]
    document = {"model": "openai/gpt-4o-mini", "stream": stream, "messages": messages}
    return json.dumps(document if max_tokens is None else document | {"max_tokens": max_tokens}).encode()


def kind_of(statement: str) -> str:
    """A statement without its values; lists of any length are alike."""
    bare = re.sub(r"'(?:[^'\\]|\\.)*'|\b\d[\d.]*\b|NULL|true|false", "?", statement)
    return re.sub(r"[?(),\s]*\?[?(),\s]*", " ? ", bare)[:200]


@pytest.fixture(scope="module")
def watched(
    start: Callable[..., Gateway], stand_in: Running, tmp_path_factory: pytest.TempPathFactory, mariadb: DatabaseServer
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("statements")
    url = mariadb.new_database()
    mariadb.execute("CREATE USER gateway@'127.0.0.1'")
    mariadb.execute("GRANT ALL ON *.* TO gateway@'127.0.0.1'")
    mariadb.execute("SET GLOBAL log_output = 'TABLE'")
    mariadb.execute("SET GLOBAL general_log = ON")
    billing = Billing(start, stand_in, url.replace("root@", "gateway@"), folder)
    billing.fault("stream?pace_ms=0")
    gateway = billing.gateway(SERVER_THREADS=16)
    yield Watched(mariadb, billing, gateway)
    mariadb.execute("SET GLOBAL general_log = OFF")
    mariadb.execute("DROP USER gateway@'127.0.0.1'")
    billing.close()
    gateway.stop()


def test_a_request_that_asks_the_database_is_seen_to_do_so(watched):
    account = {"username": "asks@example.com", "derived_key": new_derived_key()}
    assert watched.gateway.post("/register", account).status_code == 201
    tokens = watched.gateway.post("/login", account).json()
    with watched.counting() as said:
        for _ in range(20):
            tokens = watched.gateway.post("/api/auth/refresh", {"refresh_token": tokens["refresh_token"]}).json()
    assert [count for kind, count in said.kinds.items() if kind.startswith("UPDATE user_sessions ")] == [20]


@pytest.mark.parametrize("has_quota", [False, True], ids=["without quota", "with quota"])
@pytest.mark.parametrize("has_key", [False, True], ids=["access token", "client key"])
def test_ten_times_the_calls_ask_the_database_no_more_often(watched, has_quota, has_key):
    token = watched.gateway.new_user()
    if has_quota:
        watched.billing.set_quota(user_of(token), 10**9)
        wait_for(lambda: watched.call(token, 4) or watched.billing.slices_of(user_of(token)))
    if has_key:
        fields = {"name": "k", "models": ["openai/*"], "rpm": 1_000_000}
        token = watched.gateway.post("/api/api-keys", fields, token).json()["key"]
    watched.call(token, FEW)
    for count in (FEW, MANY):
        with watched.counting() as said:
            watched.call(token, count)
        assert [kind for kind, times in said.kinds.items() if times >= MANY / 2] == []
        assert said.kinds.total() <= PER_SECOND * (said.seconds + 1)


@pytest.mark.parametrize("max_tokens", [20, None], ids=["max_tokens", "no max_tokens"])
def test_less_than_one_call_in_twenty_changes_a_slice_in_the_database(watched, max_tokens):
    token = watched.gateway.new_user()
    watched.billing.set_quota(user_of(token), 10**9)
    wait_for(lambda: watched.call(token, 4, max_tokens) or watched.billing.slices_of(user_of(token)))
    watched.call(token, FEW, max_tokens)
    with watched.counting() as said:
        watched.call(token, MANY, max_tokens)
    changes = sum(count for kind, count in said.kinds.items() if kind.startswith(("UPDATE quota", "INSERT INTO quota")))
    assert changes < MANY / 20


def test_the_list_of_models_asks_the_database_nothing(watched):
    token = watched.gateway.new_user()
    wait_for(lambda: watched.gateway.get("/v1/models", token).status_code == 200)
    with watched.counting() as said:
        for _ in range(FEW):
            assert watched.gateway.get("/v1/models", token).status_code == 200
    assert said.kinds.total() <= PER_SECOND * (said.seconds + 1)
    assert [kind for kind, times in said.kinds.items() if times >= FEW / 2] == []
