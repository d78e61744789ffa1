"""Keys that fail in every way that OpenRouter knows, through a real gateway: what clients see, and the way back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from sandbox.openrouter_faults import ROWS as FAULTS
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, wait_for
from upstream.refusal import Refusal
from upstream.refusals import Lasts, Other, Row, classify

FREE_MODEL = "meta-llama/llama-3.3-70b-instruct:free"
# Until GET /key has been asked, or the first rest is over, and a call has tried.
SECONDS_UNTIL_WHOLE = 30


def row_of(label: str) -> Row:
    reply = FAULTS[label].reply({})
    return classify(Refusal(reply.status, json.loads(reply.body) if reply.body.startswith(b"{") else None))


def told(label: str) -> int:
    """The status that a client sees if no other key helps."""
    reply, row = FAULTS[label].reply({}), row_of(label)
    payload = json.loads(reply.body) if reply.body.startswith(b"{") else None
    return row.answer(Refusal(reply.status, payload)).status if row.answer else reply.status


RESTING = [label for label in FAULTS if row_of(label).lasts in {Lasts.REFUSED, Lasts.SPENT}]
NOT_RESTING = list({row_of(label).id: label for label in FAULTS if label not in RESTING}.values())  # one label a row


class Pool:
    """A gateway with keys of different accounts, at a stand-in whose faults are set key by key."""

    def __init__(self, start: Callable[..., Gateway], stand_in: Running, count: int) -> None:
        self.stand_in = stand_in
        self.keys = [stand_in.new_key() for _ in range(count)]
        self.gateway = start(
            OPENROUTER_API_URL=stand_in.address,
            OPENROUTER_API_KEYS=",".join(key["key"] for key in self.keys),
            SERVER_THREADS=32,
        )
        self.token = self.gateway.new_user()

    def fail(self, key: dict[str, Any], row: str, path: str = "/chat/completions") -> None:
        self.stand_in.control("POST", "faults", row=row, key=key["hash"], path=path)

    def mend(self) -> None:
        self.stand_in.control("DELETE", "faults")

    def call(self, **fields: Any) -> requests.Response:
        answer = self.gateway.chat(self.token, **fields)
        for key in self.keys:
            assert key["account"] not in answer.text
        assert "sk-or-" not in answer.text
        return answer

    def call_until_refused(self, key: dict[str, Any], **fields: Any) -> list[requests.Response]:
        """Call until the faults of this key have been met by a call."""
        answers: list[requests.Response] = []
        while not self.met(key):
            assert len(answers) < 300
            answers.append(self.call(**fields))
        return answers

    def met(self, key: dict[str, Any]) -> int:
        """How many calls have met the faults of this key. GET /key meets them too, whenever it is asked."""
        rules = self.stand_in.control("GET", "faults")["faults"]
        return sum(rule["used"] for rule in rules if rule["key"] == key["hash"] and rule["path"] != "/key")

    def requests_of(self, key: dict[str, Any]) -> int:
        return self.stand_in.control("GET", "bill")["keys"][key["hash"]]["requests"]

    def health(self) -> dict[str, Any]:
        return self.gateway.get("/api/health").json()["pool"]

    def is_whole(self) -> bool:
        """Every key carries calls again. Its calls are what tries whether the keys work."""
        assert self.call().status_code == 200
        return self.health()["usable"] == len(self.keys)


@pytest.fixture
def new_pool(start, stand_in) -> Iterator[Callable[[int], Pool]]:
    yield lambda count: Pool(start, stand_in, count)
    stand_in.control("DELETE", "faults")


def test_rows_that_are_not_the_keys_fault_show_clients_what_the_table_says_and_leave_the_pool_whole(new_pool):
    pool = new_pool(5)
    for turn, label in enumerate(NOT_RESTING):
        key = pool.keys[turn % 5]
        pool.fail(key, label)
        answers = pool.call_until_refused(key)
        allowed = {200} if row_of(label).other is not Other.NONE else {200, told(label)}
        assert {answer.status_code for answer in answers} <= allowed, label
        wait_for(lambda: pool.health() == {"status": "ok", "usable": 5, "known": 5, "refused": 0})
        pool.mend()
    before = [pool.requests_of(key) for key in pool.keys]
    wait_for(lambda: pool.is_whole() and all(pool.requests_of(k) > n for k, n in zip(pool.keys, before, strict=True)))


def test_keys_that_openrouter_refuses_are_seen_by_no_client_and_back_when_it_accepts_them(new_pool):
    """Three keys fail, each in another way, beside four that don't."""
    pool = new_pool(7)
    labels = [label for label in RESTING if row_of(label).lasts is Lasts.REFUSED]
    for turn, label in enumerate(labels):
        pool.fail(pool.keys[turn], label)
        pool.fail(pool.keys[turn], label, "/key")
        while pool.health()["refused"] <= turn:  # by a call that met it, or by a question that came first
            assert pool.call().status_code == 200, label
    met = [pool.met(key) for key in pool.keys[: len(labels)]]
    assert {pool.call().status_code for _ in range(30)} == {200}
    assert [pool.met(key) for key in pool.keys[: len(labels)]] == met  # no call meets them
    before = [pool.requests_of(key) for key in pool.keys]
    pool.mend()
    wait_for(
        lambda: pool.is_whole() and all(pool.requests_of(k) > n for k, n in zip(pool.keys, before, strict=True)),
        SECONDS_UNTIL_WHOLE,
    )


@pytest.mark.parametrize("label", RESTING)
def test_what_may_be_the_keys_fault_takes_none_out_while_openrouter_accepts_them(new_pool, label):
    """One caller's model is refused with every key; another's calls go on."""
    pool = new_pool(3)
    for _ in range(10):
        assert pool.call(model=f"sandbox/{label}").status_code == told(label)
        assert pool.call().status_code == 200
    # At once, or as soon as GET /key has answered what a refusal made doubtful.
    wait_for(lambda: pool.health() == {"status": "ok", "usable": 3, "known": 3, "refused": 0})


@pytest.mark.parametrize("quota", ["free_per_minute", "free_per_day"])
def test_an_account_without_free_requests_goes_on_with_models_that_cost(new_pool, stand_in, quota):
    pool = new_pool(5)
    poor = pool.keys[0]
    stand_in.control("PATCH", "accounts", id=poor["account"], **{quota: 0})
    stand_in.control("DELETE", "log")

    def free_calls() -> int:
        entries = stand_in.control("GET", "log")["requests"]
        return sum(entry["key_hash"] == poor["hash"] and entry["status"] == 429 for entry in entries)

    while not free_calls():
        assert pool.call(model=FREE_MODEL).status_code == 200
    for _ in range(15):
        assert pool.call(model=FREE_MODEL).status_code == 200
    assert free_calls() <= 2  # two if a new minute began meanwhile
    before = pool.requests_of(poor)
    wait_for(lambda: pool.call().status_code == 200 and pool.requests_of(poor) > before)
    assert pool.health()["usable"] == 5


def test_five_keys_that_were_revoked_are_told_and_back_within_seconds_of_their_return(new_pool):
    pool = new_pool(5)
    for key in pool.keys:
        pool.fail(key, "401b", "/")
    assert {pool.call().status_code for _ in range(5)} <= {502, 429}
    wait_for(lambda: pool.health() == {"status": "refused", "usable": 0, "known": 5, "refused": 5})
    health = pool.gateway.get("/api/health").json()
    assert health["status"] == "degraded"
    assert health["calls"]["failed"] == health["calls"]["last_minute"] == 5
    assert health["calls"]["why"]["key-refused"] >= 1
    answer = pool.call()
    assert (answer.status_code, int(answer.headers["Retry-After"]) <= 5) == (429, True)
    assert "outage_suspected" in pool.gateway.log()
    pool.mend()
    wait_for(lambda: pool.health()["usable"] == 5, SECONDS_UNTIL_WHOLE)
    assert pool.call().status_code == 200
    assert "outage_over" in pool.gateway.log()


def test_keys_that_were_revoked_before_any_call_are_found_out(new_pool, start, stand_in):
    keys = [stand_in.new_key() for _ in range(3)]
    for key in keys:
        stand_in.control("POST", "faults", row="401b", key=key["hash"], path="/")
    gateway = start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=",".join(key["key"] for key in keys))
    wait_for(lambda: gateway.get("/api/health").json()["pool"]["status"] == "refused")


def test_a_suspect_of_a_small_pool_is_back_when_openrouter_accepts_it(new_pool):
    pool = new_pool(1)
    [key] = pool.keys
    for path in ("/chat/completions", "/key"):
        pool.fail(key, "401b", path)
    assert pool.call().status_code in {502, 429}  # by the call, or by a question in the background just before it
    wait_for(lambda: pool.health()["refused"] == 1)
    answer = pool.call()
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    pool.mend()
    wait_for(lambda: pool.health()["usable"] == 1, SECONDS_UNTIL_WHOLE)
    assert pool.call().status_code == 200
