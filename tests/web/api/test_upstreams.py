"""A user's own key, through a real gateway and the background service's passes: what calls get, and what the API tells."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
import requests

from accounts.users import Users, UserState
from config import sources
from config.settings import Config
from db import Database, database_url
from foundation.clock import Clock
from key_rotation import KeyRotation
from start_up import open_database
from tables import pool_keys
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, check_headers, environment, new_derived_key, refusal_of, wait_for
from tests.support.movable_clock import MovableClock
from upstream.openrouter.management_api import ManagementApi

ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
PATH = "/api/upstream"
CHOICES = ["dedicated_first", "shared_first", "dedicated_only"]


class Person:
    """Somebody with an account at the gateway."""

    def __init__(self, house: House) -> None:
        self.gateway = house.gateway
        account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
        assert self.gateway.post("/register", account).status_code == 201
        told = self.gateway.post("/login", account).json()
        self.id, self.token = told["user"]["id"], told["access_token"]

    def put(self, body: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.put(self.gateway.url + PATH, json=body, headers=headers, timeout=30)

    def choose(self, choice: str) -> None:
        answer = self.put({"choice": choice})
        assert (answer.status_code, answer.json()["choice"]) == (200, choice), answer.text

    def upstream(self) -> Any:
        answer = self.gateway.get(PATH, self.token)
        assert answer.status_code == 200, answer.text
        check_headers(answer)
        return answer.json()


class House:
    """A gateway, its background service and an account at the stand-in."""

    def __init__(self, start: Callable[..., Gateway], stand_in: Running, url: str, **settings: Any) -> None:
        self.stand_in = stand_in
        self.account = stand_in.new_account(balance=1000)
        self.settings = {
            "DATABASE_URL": url,
            "SECRET_KEY": SECRET_KEY,
            "ENCRYPTION_KEY": ENCRYPTION_KEY,
            "DEPLOYMENT_ID": secrets.token_hex(8),
            "OPENROUTER_API_URL": stand_in.address,
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "POOL_SIZE": 2,
            "DEDICATED_KEYS": "on",
            "SERVER_THREADS": 32,
        } | settings
        self.gateway = start(**self.settings)
        self.rotate()
        wait_for(lambda: self.gateway.get("/api/health").json()["pool"]["usable"] == self.settings["POOL_SIZE"])

    def rotate(self) -> None:
        """A pass of the background service; in this process, because a start of its own takes longest of all here."""
        config = sources.load(environment(**self.settings))
        db, envelopes = open_database(config)
        api = ManagementApi(config.openrouter_api_url, self.account["management_key"])
        assert KeyRotation(db, envelopes, api, config, Clock()).run_once()
        db.close()

    def db(self) -> Database:
        return Database(database_url(Config(database_url=self.settings["DATABASE_URL"])))

    def row(self, owner: int) -> Any:
        db = self.db()
        with db.reading() as tx:
            row = tx.execute(pool_keys.select().where(pool_keys.c.owner_id == owner)).one()
        db.close()
        return row

    def set_state(self, person: Person, state: UserState) -> None:
        db = self.db()
        Users(db, b"", MovableClock()).set_state(person.id, state)
        db.close()

    def spent_by_hash(self) -> dict[str, int]:
        keys = self.stand_in.control("GET", "bill")["keys"]
        return {key: told["nano"] for key, told in keys.items() if told["account"] == self.account["id"]}

    def served_by(self, person: Person) -> str:
        """Whose key paid for a call: own, shared, or another's."""
        before = self.spent_by_hash()
        answer = self.gateway.chat(person.token)
        assert answer.status_code == 200, answer.text
        [used] = [key for key, nano in self.spent_by_hash().items() if nano > before.get(key, 0)]
        db = self.db()
        with db.reading() as tx:
            owner = tx.execute(pool_keys.select().where(pool_keys.c.api_key_hash == used)).one().owner_id
        db.close()
        return "shared" if owner is None else "own" if owner == person.id else "another's"

    def refusal(self, person: Person, status: int) -> requests.Response:
        """What calls get once they are refused with this status."""
        found: list[requests.Response] = []

        def is_refused() -> bool:
            found.append(self.gateway.chat(person.token))
            return found[-1].status_code == status

        wait_for(is_refused)
        return found[-1]

    def limit(self, person: Person, usd: float) -> None:
        path = f"/keys/{self.row(person.id).api_key_hash}"
        assert self.stand_in.call("PATCH", path, self.account["management_key"], json={"limit": usd}).ok


@pytest.fixture(scope="module")
def house(
    start: Callable[..., Gateway],
    stand_in: Running,
    modules_database_url: str,
) -> House:
    return House(start, stand_in, modules_database_url)


@pytest.fixture
def person(house: House) -> Person:
    """Somebody with a key of their own."""
    made = Person(house)
    house.rotate()
    wait_for(lambda: house.served_by(made) == "own")
    return made


@pytest.fixture(scope="module")
def plain(start: Callable[..., Gateway], stand_in: Running, tmp_path_factory: pytest.TempPathFactory) -> House:
    """A house in which users have no keys of their own."""
    return House(start, stand_in, f"sqlite:///{tmp_path_factory.mktemp('plain')}/x.db", DEDICATED_KEYS="off")


# ── three people, three choices


def test_owner_other_and_who_has_no_key_each_get_what_they_chose(house):
    owner, other = Person(house), Person(house)
    house.rotate()
    without = Person(house)
    for person in (owner, other):
        for choice, expected in zip(CHOICES, ["own", "shared", "own"], strict=True):
            person.choose(choice)
            wait_for(lambda person=person, expected=expected: house.served_by(person) == expected)
            assert [house.served_by(person) for _ in range(5)] == [expected] * 5
    for choice in CHOICES[:2]:
        without.choose(choice)
        assert house.served_by(without) == "shared"
    without.choose("dedicated_only")
    refused = house.refusal(without, 503)
    assert "is being made" in refusal_of(refused)
    assert refused.headers["Retry-After"] == "30"
    house.rotate()
    wait_for(lambda: house.gateway.chat(without.token).status_code == 200)
    assert house.served_by(without) == "own"


def test_a_spent_key_lets_the_shared_ones_step_in_or_not_as_the_choice_says(house, person):
    assert house.served_by(person) == "own"
    house.limit(person, 0.000000001)
    assert house.served_by(person) == "shared"  # seen by nobody: the refusal was tried again
    person.choose("shared_first")
    assert house.served_by(person) == "shared"
    person.choose("dedicated_only")
    refused = house.refusal(person, 402)
    assert "your own openrouter key" in refusal_of(refused).lower()
    assert refused.headers["x-should-retry"] == "false"
    wait_for(lambda: person.upstream()["dedicated"]["state"] == "resting")
    house.limit(person, 5)  # as its reset would
    wait_for(lambda: house.gateway.chat(person.token).status_code == 200)
    assert house.served_by(person) == "own"


def test_the_first_refusal_of_an_own_key_says_so_where_no_other_may_step_in(house, person):
    for choice, expected in (("shared_first", "shared"), ("dedicated_only", "own")):
        person.choose(choice)
        wait_for(lambda expected=expected: house.served_by(person) == expected)
    house.limit(person, 0.000000001)
    for stream in (False, True):
        refused = house.gateway.chat(person.token, stream=stream)
        assert refused.status_code == 402
        assert "What your own OpenRouter key may still spend" in refused.text
        assert "sk-or" not in refused.text


# ── what the API tells


def test_what_is_told_of_a_key_follows_it_through_its_life(house):
    person = Person(house)
    empty = {"is_connected": False, "limit_usd": None, "remaining_usd": None, "limit_reset": "monthly"}
    assert person.upstream() == {"choice": "dedicated_first", "dedicated": {"state": "being_made", **empty}}
    house.rotate()
    wait_for(lambda: house.served_by(person) == "own")
    house.rotate()
    wait_for(lambda: person.upstream()["dedicated"]["remaining_usd"] < 5)
    told = person.upstream()["dedicated"]
    assert (told["state"], told["limit_usd"], told["limit_reset"]) == ("active", 5.0, "monthly")
    assert 4.9 < told["remaining_usd"] < 5
    row = house.row(person.id)
    text = house.gateway.get(PATH, person.token).text
    for secret in (row.api_key_hash, row.api_key_hash[:12], row.name, row.api_key, "sk-or"):
        assert secret not in text
    house.set_state(person, UserState.SILENCED)
    house.rotate()
    wait_for(lambda: person.upstream()["dedicated"] == {"state": "none", **empty})
    person.choose("shared_first")
    house.set_state(person, UserState.DISABLED)
    wait_for(lambda: house.gateway.get(PATH, person.token).status_code == 403)


def test_a_choice_is_ones_own(house, person):
    other = Person(house)
    person.choose("dedicated_only")
    other.choose("shared_first")
    assert [one.upstream()["choice"] for one in (person, other, Person(house))] == [
        "dedicated_only",
        "shared_first",
        "dedicated_first",
    ]


@pytest.mark.parametrize("token", [None, "x", ADMIN_TOKEN], ids=["no token", "no JWT", "operator"])
def test_a_stranger_is_told_nothing(house, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for method, body in (("GET", None), ("PUT", {"choice": "shared_first"})):
        refused = requests.request(method, house.gateway.url + PATH, json=body, headers=headers, timeout=30)
        assert refused.status_code == 401
        refusal_of(refused)


@pytest.mark.parametrize(
    "body", [{}, {"choice": None}, {"choice": "own"}, {"choice": ["dedicated_first"]}, {"choice": "DEDICATED_FIRST"}]
)
def test_a_bad_choice_is_told_what_is_accepted_and_changes_nothing(house, body):
    person = Person(house)
    person.choose("shared_first")
    refused = person.put(body)
    assert refused.status_code == 400
    assert refusal_of(refused) == f"choice must be one of {', '.join(CHOICES)}"
    assert person.upstream()["choice"] == "shared_first"
    assert person.put([]).status_code == 400


def test_where_it_is_switched_off_calls_get_shared_keys_and_a_choice_is_refused(plain):
    person = Person(plain)
    plain.rotate()
    assert plain.served_by(person) == "shared"
    told = person.upstream()
    assert (told["choice"], told["dedicated"]["state"]) == ("dedicated_first", "off")
    refused = person.put({"choice": "dedicated_only"})
    assert refused.status_code == 409
    assert "DEDICATED_KEYS is off" in refusal_of(refused)
    assert person.put({"choice": "x"}).status_code == 400
    assert plain.served_by(person) == "shared"


# ── what operators see


def test_operators_see_the_shared_keys_and_users_own_if_they_ask(house, person):
    def items(query: str) -> Any:
        answer = house.gateway.get(f"/admin/pool?page_size=100{query}", ADMIN_TOKEN)
        assert answer.status_code == 200, answer.text
        return answer.json()

    shared = items("")
    assert [one["owner_id"] for one in shared["items"]] == [None, None]
    assert (shared["total"], shared["usable"]) == (2, 2)
    [own] = items(f"&owner={person.id}")["items"]
    assert (own["owner_id"], own["name"]) == (person.id, house.row(person.id).name)
    everything = items("&owner=any")
    assert everything["total"] > 2
    assert everything["usable"] == 2
    assert {own["name"], *(one["name"] for one in shared["items"])} <= {one["name"] for one in everything["items"]}
    assert items("&owner=999999")["items"] == []
    for wrong in ("", "me", "-1", "1.5", "9" * 19):
        refused = house.gateway.get(f"/admin/pool?owner={wrong}", ADMIN_TOKEN)
        assert refused.status_code == 400
        assert "owner must be shared, any, or a user's id" in refusal_of(refused)
