"""A hundred calls at once, paid for ten: over workers, over replicas, on either database, ten go up and no more."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest

from gateway.attempts import MAX_TRIES
from tests.sandbox.conftest import Running
from tests.support.billing import (
    COMPLETION_NANO,
    MODEL,
    PROMPT_NANO,
    Billing,
    read_answers,
    send_all,
    status_of,
    user_of,
)
from tests.support.gateway import Gateway, body_of, wait_for

TOKENS = 200
CALLS, PAID = 100, 10
# Long enough that all the others come while the first are running.
RUNNING = f"stream?chunks={TOKENS}&delay_ms=500&pace_ms=0"


def body(stream: bool) -> bytes:
    document = {"model": MODEL, "stream": stream, "max_tokens": TOKENS, "messages": [{"role": "user", "content": "Hi"}]}
    return json.dumps(document).encode().ljust(140)


# What the gateway reserves of a call is little more than its cost: by ten times that, ten are paid for and not eleven.
COST = (4 + len("Hi") // 4) * PROMPT_NANO + TOKENS * COMPLETION_NANO
RESERVED = len(body(True)) // 2 * PROMPT_NANO + TOKENS * COMPLETION_NANO
LIMIT = PAID * RESERVED
assert PAID * COST <= LIMIT < PAID * COST + RESERVED


class Place:
    """Gateways whose users may each spend LIMIT."""

    def __init__(self, billing: Billing, gateways: list[Gateway]) -> None:
        self.billing = billing
        self.gateways = gateways
        self.requests = 0

    def begin(self, *scenarios: tuple[str, int | None]) -> str:
        """The token of somebody new. scenarios: what the stand-in does from now on."""
        self.billing.stand_in.control("DELETE", "faults")
        self.billing.stand_in.control("DELETE", "log")
        for scenario, times in scenarios:
            self.billing.fault(scenario, times)
        return self.gateways[0].new_user()

    def send(self, token: str, bodies: list[bytes]) -> list[socket.socket]:
        self.requests += len(bodies)
        return send_all(self.gateways, token, bodies)

    def ask(self, token: str) -> list[int]:
        """Each gateway once, one after the other."""
        self.requests += len(self.gateways)
        return [
            status_of(answer) for one in self.gateways for answer in read_answers(send_all([one], token, [body(False)]))
        ]

    def use_up(self, token: str, already: int) -> int:
        """Call until the quota is used up; how many calls there were, with those that went up already."""
        passed = already

        def is_refused() -> bool:
            nonlocal passed
            statuses = self.ask(token)
            assert set(statuses) <= {200, 402}
            passed += statuses.count(200)
            time.sleep(0.6)  # a refusal holds for half a second
            return passed >= PAID and set(statuses) == {402}

        wait_for(is_refused)
        return passed

    def check(self, **more: Any) -> None:
        self.billing.check(self.requests, **more)


@pytest.fixture(scope="module", params=["two workers on SQLite", "two replicas on MariaDB", "two replicas on SQLite"])
def place(
    request: pytest.FixtureRequest,
    start: Callable[..., Gateway],
    stand_in: Running,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("races")
    url = f"sqlite:///{folder}/races.db"
    if "MariaDB" in request.param:
        url = request.getfixturevalue("mariadb").new_database()
    billing = Billing(start, stand_in, url, folder)
    settings = {"QUOTA_USD": f"{LIMIT / 10**9:.9f}"}
    if "workers" in request.param:
        gateways = [billing.gateway(workers=2, **settings)]
    else:
        gateways = [billing.gateway(**settings), billing.gateway(**settings)]
    yield Place(billing, gateways)
    billing.close()
    for gateway in gateways:
        gateway.stop()


def refused_well(answers: Collection[bytes]) -> Counter[int]:
    """The statuses; asserts that whoever was refused was told so in a way that clients understand."""
    for answer in answers:
        if status_of(answer) == 402:
            told = json.loads(body_of(answer))
            assert told["error"]["type"] == "quota_exceeded"
            assert "does not cover this call" in told["message"]
        elif status_of(answer) == 503:
            assert b"\r\nretry-after:" in answer.lower()
        else:
            assert status_of(answer) == 200, answer[:300]
    return Counter(status_of(answer) for answer in answers)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_of_a_hundred_calls_at_once_as_many_go_up_as_are_paid_for(place, stream):
    token = place.begin((RUNNING, None))
    statuses = refused_well(read_answers(place.send(token, [body(stream)] * CALLS)))
    assert 1 <= statuses[200] <= PAID
    assert place.billing.calls() == {200: statuses[200]}
    # What one process had leased and could not use is there for the others.
    assert place.use_up(token, statuses[200]) == PAID
    assert place.billing.calls() == {200: PAID}
    place.check()
    assert place.billing.quota(user_of(token)).spent_nano == PAID * COST


def test_calls_one_after_the_other_use_the_budget_up_to_the_last(place):
    token = place.begin((f"stream?chunks={TOKENS}", None))
    assert place.use_up(token, 0) == PAID
    place.check()
    assert place.billing.quota(user_of(token)).spent_nano == PAID * COST


def test_tries_that_fail_first_do_not_make_room_for_more(place):
    failures = 2 * MAX_TRIES
    token = place.begin(("502", failures), (RUNNING, None))
    answers = read_answers(place.send(token, [body(stream=bool(number % 2)) for number in range(CALLS)]))
    # A call that is alone for long enough meets all the failures that it has tries for.
    failed = [answer for answer in answers if status_of(answer) == 502]
    assert len(failed) <= failures // MAX_TRIES
    statuses = refused_well([answer for answer in answers if answer not in failed])
    assert 1 <= statuses[200] <= PAID
    assert place.billing.calls() == {200: statuses[200], 502: failures}
    assert place.use_up(token, statuses[200]) == PAID
    place.check()


def test_clients_that_leave_pay_and_nobody_spends_more_than_there_is(place):
    """Their answers end early and so cost less, and others may come; together they stay within the budget."""
    token = place.begin((f"stream?chunks={TOKENS}&pace_ms=5", None))
    connections = place.send(token, [body(stream=number % 4 != 0) for number in range(CALLS)])
    staying = connections[::2]
    for connection in connections[1::2]:
        while (data := connection.recv(4096)) and b"data: {" not in data and not data.startswith(b"HTTP/1.1 4"):
            pass
        connection.close()
    refused_well(read_answers(staying))
    place.check()
    assert 0 < place.billing.quota(user_of(token)).spent_nano <= LIMIT
    assert place.billing.calls()[200] >= 1


def test_when_the_gateways_have_ended_nothing_is_reserved(place):
    token = place.begin((RUNNING, None))
    refused_well(read_answers(place.send(token, [body(stream=False)] * CALLS)))
    for gateway in place.gateways:
        assert gateway.stop() == 0
    place.check(nothing_reserved=True)
