"""Quotas are held by what calls really cost: without `max_tokens` too, at once too, and with the database away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox.conftest import Running
from tests.support.billing import MODEL, Billing, read_answers, send_all, status_of, user_of
from tests.support.gateway import Gateway, wait_for
from tests.support.mariadb import DatabaseServer

LEARNED_FROM = 5  # calls of each process
AT_ONCE, BUDGET = 100, 11  # calls; the budget is what so many of them cost
ORDINARY = 20
# Long enough that all the others come while the first are running.
RUNNING = "stream?chunks=200&delay_ms=500&pace_ms=0"


def body(stream: bool = False, **fields: object) -> bytes:
    """A call that does not say how long its answer may be."""
    document = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]} | fields
    return json.dumps(document).encode().ljust(120)


@pytest.fixture(params=["MariaDB", "SQLite"])
def billing(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], stand_in: Running, tmp_path: Path
) -> Iterator[Billing]:
    url = f"sqlite:///{tmp_path}/budgets.db"
    if request.param == "MariaDB":
        url = request.getfixturevalue("mariadb").new_database()
    found = Billing(start, stand_in, url, tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize("payer", ["user", "client key"])
def test_a_budget_of_eleven_calls_lets_ten_of_a_hundred_pass_and_never_twelve(billing, payer):
    """In two processes, which share it by slices; somebody else's calls have told them what the model costs."""
    billing.fault(RUNNING)
    gateways = [billing.gateway(), billing.gateway()]
    other, token = gateways[0].new_user(), gateways[0].new_user()
    answers = read_answers(send_all(gateways, other, [body()] * len(gateways) * LEARNED_FROM))
    assert {status_of(answer) for answer in answers} == {200}
    billing.at_rest(len(answers))
    cost = billing.bill() // len(answers)
    assert billing.bill() == cost * len(answers)
    if payer == "user":
        billing.set_quota(user_of(token), BUDGET * cost)
        # Known where a call that no quota of this size covers is refused; a model that does not exist costs nothing.
        unaffordable = body(model="nobody/knows", n=100)
        wait_for(
            lambda: {status_of(one) for one in read_answers(send_all(gateways, token, [unaffordable] * 2))} == {402}
        )
    else:
        budget = {"limit_usd": BUDGET * cost / 10**9, "period": "none"}
        token = gateways[0].post("/api/api-keys", {"name": "k", "budget": budget}, token).json()["key"]
        wait_for(lambda: all(gateway.get("/v1/models", token).ok for gateway in gateways))
    billing.stand_in.control("DELETE", "log")
    connections = send_all(gateways, token, [body()] * AT_ONCE)
    assert {status_of(one) for one in read_answers(send_all(gateways, other, [body()] * 2))} == {200}
    statuses = [status_of(answer) for answer in read_answers(connections)]
    assert set(statuses) == {200, 402}
    assert BUDGET - 1 <= statuses.count(200) <= BUDGET
    wait_for(lambda: billing.bill() == cost * (len(answers) + 2 + statuses.count(200)))


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A database server that may be stopped."""
    server = DatabaseServer(tmp_path_factory.mktemp("away"))
    yield server
    server.stop()


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 300}], ids=["no max_tokens", "max_tokens"])
def test_with_the_database_away_whoever_has_just_called_goes_on_for_twenty_calls(
    start, stand_in, tmp_path, own_server, fields
):
    billing = Billing(start, stand_in, own_server.new_database(), tmp_path)
    billing.fault("stream?chunks=10&pace_ms=0")
    gateway = billing.gateway(QUOTA_USD=10)
    tokens = [gateway.new_user(), gateway.new_user()]

    def call(token: str) -> int:
        [answer] = read_answers(send_all([gateway], token, [body(**fields)]))
        return status_of(answer)

    assert {call(token) for _ in range(LEARNED_FROM) for token in tokens} == {200}
    billing.at_rest(2 * LEARNED_FROM)
    own_server.stop()
    try:
        assert [call(token) for _ in range(ORDINARY) for token in tokens] == [200] * 2 * ORDINARY
    finally:
        own_server.start()
    billing.check(2 * (LEARNED_FROM + ORDINARY))
    billing.close()
