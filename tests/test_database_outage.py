"""The database goes away under load and comes back: no call fails for it, and nothing that it cost is forgotten."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.sandbox.conftest import Running
from tests.support.billing import Billing, status_of, user_of
from tests.support.gateway import Gateway, read_all, wait_for
from tests.support.mariadb import DatabaseServer

RATE = 50  # requests a second
LIMIT_NANO = 10**9
TOKENS = 40  # of every answer; a streamed one takes 40 ms, so that some clients can leave before its end
ANSWERS = f"stream?chunks={TOKENS}&pace_ms=1"
COST, RESERVED = 25_000, 35_000  # nano-dollars of a call, and what is reserved for it; about
QUESTION = b'{"model":"openai/gpt-4o-mini","max_tokens":%d,"stream":%b,"messages":[{"role":"user","content":"Hi"}]}'
PLAIN, STREAMED = QUESTION % (TOKENS, b"false"), QUESTION % (TOKENS, b"true")
LEFT = STREAMED + b" "  # the client of this one leaves


class World:
    """A database server that may stop, and gateways that keep accounts in it."""

    def __init__(self, server: DatabaseServer, billing: Billing) -> None:
        self.server = server
        self.billing = billing
        self.requests = 0

    def ask(self, gateway: Gateway, token: str, body: bytes = PLAIN) -> int:
        """One call, read to its end; its status."""
        with gateway.open_raw(body, f"Authorization: Bearer {token}\r\n") as connection:
            if body is LEFT:
                answer = connection.recv(4096)
                while b"data: {" not in answer and (more := connection.recv(4096)):
                    answer += more
                return status_of(answer)
            return status_of(read_all(connection))

    def new_user(self, gateways: list[Gateway], has_quota: bool = False) -> str:
        """Somebody whose quota, if any, is known to all these gateways, and a slice of it leased."""
        token = gateways[0].new_user()
        if has_quota:
            self.billing.set_quota(user_of(token), LIMIT_NANO)
            for number in range(1, len(gateways) + 1):
                wait_for(lambda token=token, number=number: self._has_slices(gateways, token, number))
        return token

    def _has_slices(self, gateways: list[Gateway], token: str, number: int) -> bool:
        self.ask(gateways[number - 1], token)
        self.requests += 1
        return len(self.billing.slices_of(user_of(token))) == number

    def warm_up(self, gateways: list[Gateway], tokens: list[str], calls: int, enough: int) -> None:
        """Have these users make so many calls at each gateway, until slices hold enough, in nano-dollars.

        A slice holds at least half of what was used in the last minute. What the database says of it is what the
        process has left only when every call was applied.
        """
        with ThreadPoolExecutor(8) as callers:
            places = [(gateway, token) for gateway in gateways for token in tokens] * calls
            assert set(callers.map(lambda place: self.ask(*place), places)) == {200}
        self.requests += len(places)
        self.billing.at_rest(self.requests)
        wait_for(lambda: all(min(self.billing.slices_of(user_of(token)).values()) > enough for token in tokens))

    def check(self, nothing_reserved: bool = False) -> None:
        self.billing.check(self.requests, nothing_reserved)


@pytest.fixture
def world(
    start: Callable[..., Gateway], stand_in: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outage")
    # As on a machine in use: what was committed outlives a kill.
    server = DatabaseServer(folder, "--innodb-flush-log-at-trx-commit=1")
    billing = Billing(start, stand_in, server.new_database(), folder)
    billing.fault(ANSWERS)
    yield World(server, billing)
    billing.close()
    if server.process.poll() is None:
        server.stop()


class Load:
    """Calls at a steady rate, whether or not answers come, from several users to several gateways in turns.

    In a round of 25 calls, each of two users with a quota makes one, and users without make the others.
    """

    def __init__(self, world: World, gateways: list[Gateway], limited: list[str], unlimited: list[str]) -> None:
        self._world = world
        self._gateways = gateways
        self._limited = limited
        self._unlimited = unlimited
        self._stopping = threading.Event()
        self._callers = ThreadPoolExecutor(32)
        self._calls: list[Future[int]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        begun, number = time.monotonic(), 0
        while not self._stopping.wait(max(0.0, begun + number / RATE - time.monotonic())):
            place = number % 25
            limited = place < len(self._limited)
            token = self._limited[place] if limited else self._unlimited[number // 2 % len(self._unlimited)]
            body = LEFT if place == 24 else (PLAIN, STREAMED)[number % 3 % 2]
            gateway = self._gateways[number % len(self._gateways)]
            self._calls.append(self._callers.submit(self._world.ask, gateway, token, body))
            number += 1

    def goes_on(self, seconds: float, calls: float) -> None:
        """For so long, and until so many more calls have been made, however slow the machine."""
        begun, before = time.monotonic(), len(self._calls)
        wait_for(lambda: time.monotonic() - begun >= seconds and len(self._calls) - before >= calls, 240)

    def stop(self) -> Counter[int]:
        """How many calls got which status."""
        self._stopping.set()
        self._thread.join()
        statuses = Counter(call.result() for call in self._calls)
        self._callers.shutdown()
        self._world.requests += len(self._calls)
        return statuses


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        pytest.param(5, signal.SIGKILL, id="5 s, killed"),
        pytest.param(30, signal.SIGKILL, id="30 s, killed", marks=pytest.mark.torture),
        pytest.param(30, signal.SIGTERM, id="30 s, stopped", marks=pytest.mark.torture),
    ],
)
def test_no_call_fails_while_the_database_is_away_and_none_is_forgotten(world, seconds, number):
    gateways = [world.billing.gateway(), world.billing.gateway()]
    limited = [world.new_user(gateways, has_quota=True) for _ in range(2)]
    unlimited = [world.new_user(gateways) for _ in range(4)]
    # Each slice is asked for a call a second: this is enough for three times the outage, on a slow machine too.
    world.warm_up(gateways, limited, calls=8 * (seconds + 5), enough=3 * (seconds + 5) * COST + 5 * RESERVED)
    load = Load(world, gateways, limited, unlimited)
    load.goes_on(1, RATE)
    world.server.stop(number)
    load.goes_on(seconds, RATE * seconds / 2)
    world.server.start()
    load.goes_on(1, RATE)
    statuses = load.stop()
    assert set(statuses) == {200}, statuses
    assert all("database_unreachable" in gateway.log() for gateway in gateways)
    world.check()
    assert [gateway.stop() for gateway in gateways] == [0, 0]
    world.check(nothing_reserved=True)


def journal(folder: Path) -> list[str]:
    """What has been written down and not been applied, by its files' names."""
    return [path.name for path in (folder / "journal").glob("*.jsonl") if path.stat().st_size]


def kill(gateway: Gateway) -> None:
    workers = psutil.Process(gateway.process.pid).children(recursive=True)
    gateway.stop(signal.SIGKILL)
    for worker in workers:
        worker.kill()
    psutil.wait_procs(workers, timeout=60)


def test_told_to_end_without_its_database_a_gateway_leaves_its_journal_to_the_next_one(world):
    folder = world.billing.folder / "data"
    gateway = world.billing.gateway(folder=folder)
    token = world.new_user([gateway], has_quota=True)
    world.warm_up([gateway], [token], calls=20, enough=5 * RESERVED)
    world.server.stop()
    for body in (PLAIN, STREAMED, LEFT):
        assert world.ask(gateway, token, body) == 200
        world.requests += 1
    assert gateway.stop() == 0
    assert "journal_left_behind" in gateway.log()
    assert journal(folder)
    world.server.start()
    following = world.billing.gateway(folder=folder)
    wait_for(lambda: "journal_adopted" in following.log())
    assert journal(folder) == []
    world.check()
    assert following.stop() == 0
    world.check(nothing_reserved=True)


def test_a_dead_gateways_journal_waits_for_the_database(world):
    folder = world.billing.folder / "data"
    gateway = world.billing.gateway(folder=folder)
    token = world.new_user([gateway], has_quota=True)
    world.warm_up([gateway], [token], calls=20, enough=5 * RESERVED)
    world.server.stop()
    for body in (PLAIN, STREAMED):
        assert world.ask(gateway, token, body) == 200
        world.requests += 1
    kill(gateway)
    left = journal(folder)
    assert left
    following = world.billing.gateway(folder=folder)
    assert world.ask(following, token) == 503
    assert journal(folder) == left
    world.server.start()
    wait_for(lambda: "journal_adopted" in following.log())
    world.check()
    assert following.stop() == 0
    world.check(nothing_reserved=True)
