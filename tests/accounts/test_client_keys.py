"""Client keys: what one may do, who may change it, and that nothing is half changed."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from accounts.allow_lists import MAX_MODELS
from accounts.client_keys import ClientKey, ClientKeys
from accounts.users import Users
from billing.quotas.rows import Quotas, put
from billing.quotas.terms import QuotaTerms
from config.settings import Config
from db import Database
from foundation.clock import Clock
from foundation.crypto import keyed_name, sha256_hex
from foundation.errors import BadRequest, Conflict, Forbidden, NotFound
from foundation.money import NANO
from tables import client_keys as table
from tables import quotas as quota_table
from tables import users as user_table
from tests.support.movable_clock import MovableClock
from tests.support.rows import each_row

BUDGET = QuotaTerms(5 * NANO, None, "month", "reset")
NO_BUDGET = partial(put, terms=None)
NEW = {"name": "nightly report"}


class House:
    """Three people, and their keys in one process."""

    def __init__(self, db: Database, clock: MovableClock, most: int = 50) -> None:
        self.db, self.clock = db, clock
        users = Users(db, b"k" * 32, clock)
        self.owner, self.teammate, self.stranger = (users.create(name, "h") for name in ("owner", "mate", "stranger"))
        self.keys = ClientKeys(db, clock, most)
        self.quotas = Quotas(db, Clock(), Config())

    def key(self, owner: int | None = None, budget: QuotaTerms | None = None, **fields: Any) -> tuple[Any, str]:
        return self.keys.create(owner or self.owner, NEW | fields, budget and partial(put, terms=budget))

    def rows(self, of: sa.Table) -> list[Any]:
        with self.db.reading() as tx:
            return list(tx.execute(sa.select(of).order_by(of.c.id)))


@pytest.fixture
def house(db: Database, clock: MovableClock) -> House:
    return House(db, clock)


# ── what a key may do


def test_a_key_without_limits_may_do_everything():
    key = ClientKey(1, 1)
    key.check_scope("chat")
    key.check_model([])
    key.check_model(["any/thing"])
    key.check_upstream("openrouter")


def test_a_key_is_for_its_apis_only():
    key = ClientKey(1, 1, scopes=frozenset({"embeddings", "chat"}))
    key.check_scope("chat")
    with pytest.raises(Forbidden, match="not for messages; it is for chat, embeddings"):
        key.check_scope("messages")


def test_a_key_reaches_its_upstreams_only():
    key = ClientKey(1, 1, upstreams=frozenset({"local"}))
    key.check_upstream("local")
    with pytest.raises(Forbidden, match="may not use the upstream 'openrouter'; it may use local"):
        key.check_upstream("openrouter")


@each_row(
    ("names", "is_allowed"),
    [
        (["openai/gpt-4o-mini"], True),
        (["anthropic/claude", "openai/gpt-4o-mini"], True),
        (["anthropic/"], True),
        (["openai/gpt-4o-mini:online"], False),
        (["openai/gpt-4o-min"], False),
        (["OpenAI/gpt-4o-mini"], False),
        (["xanthropic/claude"], False),
        (["openai/gpt-4o-mini", "openai/gpt-5"], False),
        (["openai/gpt-4o-mini", ""], False),
        ([""], False),
        ([], False),
        (["anthropic/*"], True),
        (["*"], False),
    ],
)
def test_every_model_that_is_named_must_be_allowed(names, is_allowed):
    key = ClientKey(1, 1, models=("anthropic/*", "openai/gpt-4o-mini"))
    if is_allowed:
        key.check_model(names)
    else:
        with pytest.raises(Forbidden, match=r"it may use anthropic/\*, openai/gpt-4o-mini"):
            key.check_model(names)


@given(st.text(max_size=20), st.text(max_size=20), st.lists(st.text(max_size=9), max_size=4))
def test_a_pattern_allows_what_begins_so_and_nothing_else(beginning, name, others):
    key = ClientKey(1, 1, models=(f"{beginning}*",))
    assert key.allows_model(beginning + name)
    assert key.allows_model(name) == name.startswith(beginning)
    exact = ClientKey(1, 1, models=tuple(other for other in others if not other.endswith("*")))
    assert exact.allows_model(name) == (name in exact.models)


# ── the keys of people


def test_a_key_works_and_is_stored_only_as_a_hash(house):
    row, text = house.key(scopes=["chat"], models=["a/*", "b/c"], upstreams=["local"], rpm=7)
    assert text.startswith("sk-auto-")
    assert row.key_hint == f"{text[:10]}****"
    found = house.keys.live.find(text)
    assert found == ClientKey(
        row.id,
        house.owner,
        frozenset({"chat"}),
        7,
        found.expires_at,
        models=("a/*", "b/c"),
        upstreams=frozenset({"local"}),
    )
    [stored] = house.rows(table)
    assert stored.key_hash == sha256_hex(text)
    assert text not in str(stored)
    assert text not in str(row.to_dict(house.clock.now(), None))


def test_nobody_elses_key_is_seen_changed_or_revoked(house):
    row, text = house.key()
    for other in (house.teammate, house.stranger):
        assert house.keys.page(1, 20, other) == ([], 0)
        assert house.keys.of_user(other, [row.id]) == []
        for refused in (
            lambda: house.keys.get(row.id, other),  # noqa: B023
            lambda: house.keys.change(row.id, {"name": "mine"}, other),  # noqa: B023
            lambda: house.keys.revoke(row.id, other),  # noqa: B023
        ):
            with pytest.raises(NotFound, match=f"There is no client key {row.id}"):
                refused()
    assert house.keys.get(row.id, house.owner) == row
    assert house.keys.live.find(text)


def test_a_change_is_of_what_is_named_and_in_force_at_once(house):
    row, text = house.key(scopes=["chat"], models=["a/*"], rpm=7, expires_at=house.clock.now() + timedelta(days=1))
    house.clock.advance(hours=1)
    changed = house.keys.change(row.id, {"models": ["b/*"], "rpm": None}, house.owner)
    assert (changed.models, changed.rpm, changed.scopes, changed.name) == (("b/*",), None, ("chat",), row.name)
    assert (changed.expires_at, changed.updated_at) == (row.expires_at, house.clock.now())
    assert house.keys.live.find(text).models == ("b/*",)
    assert house.keys.change(row.id, {"models": None}).models is None
    assert house.keys.live.find(text).models is None


def test_a_revoked_key_is_gone_for_good(house):
    row, text = house.key()
    revoked = house.keys.revoke(row.id, house.owner)
    assert revoked.state(house.clock.now()) == "revoked"
    assert house.keys.live.find(text) is None
    for gone in (lambda: house.keys.get(row.id), lambda: house.keys.revoke(row.id)):
        with pytest.raises(NotFound):
            gone()
    with pytest.raises(NotFound):
        house.keys.change(row.id, {"name": "back again"})
    assert house.keys.live.find(text) is None
    assert house.keys.get(row.id, with_revoked=True) == revoked


def test_keys_are_listed_newest_first_by_owner_and_state(house):
    active, expiring, gone = (house.key()[0].id for _ in range(3))
    theirs = house.key(house.teammate)[0].id
    house.keys.change(expiring, {"expires_at": house.clock.now() + timedelta(minutes=1)})
    house.keys.revoke(gone)
    house.clock.advance(minutes=1)

    def ids(**asked: Any) -> list[int]:
        rows, total = house.keys.page(1, 20, **asked)
        assert total == len(rows)
        return [row.id for row in rows]

    assert ids() == [theirs, expiring, active]
    assert ids(with_revoked=True) == [theirs, gone, expiring, active]
    assert ids(user_id=house.owner) == [expiring, active]
    assert [ids(state=state) for state in ("active", "expired", "revoked")] == [[theirs, active], [expiring], [gone]]
    assert ids(user_id=house.teammate, state="revoked") == []
    assert [row.id for row in house.keys.page(2, 1, with_revoked=True)[0]] == [gone]
    assert [row.id for row in house.keys.of_user(house.owner, [gone])] == [gone, expiring, active]
    assert [row.id for row in house.keys.of_user(house.owner, [])] == [expiring, active]


def test_a_user_has_a_bounded_number_however_many_are_made_at_once(db, clock):
    house = House(db, clock, most=5)
    made: list[int] = []

    def make() -> None:
        keys = ClientKeys(db, clock, 5)
        for _ in range(4):
            try:
                made.append(keys.create(house.owner, NEW, None)[0].id)
            except Conflict as error:
                assert "may have 5 client keys" in error.message

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 5
    assert house.key(house.teammate)
    house.keys.revoke(made[0])
    assert house.key()


def test_a_key_of_nobody_has_an_account_to_which_nobody_can_log_in(house):
    row, text = house.keys.create(None, NEW, None)
    other, _ = house.keys.create(None, NEW, None)
    assert house.keys.live.find(text).user_id == row.user_id != other.user_id
    account = next(user for user in house.rows(user_table) if user.id == row.user_id)
    assert (account.role, account.state, account.key_hash) == ("service", "active", "none")
    assert set(account.username_hash) - set("0123456789abcdef")  # which no name's hash has
    assert set(keyed_name(b"k", "any name")) <= set("0123456789abcdef")


def test_a_key_of_somebody_who_does_not_exist_is_refused_and_nothing_is_made(house):
    with pytest.raises(BadRequest, match="There is no user 999999"):
        house.keys.create(999_999, NEW, partial(put, terms=BUDGET))
    assert house.rows(table) == house.rows(quota_table) == []


# ── budgets


def test_a_budget_is_the_keys_quota_and_changes_with_it(house):
    row, _ = house.key(budget=BUDGET)
    assert house.quotas.find(f"key/{row.id}").terms == BUDGET
    house.keys.change(row.id, {"name": "other"})
    assert house.quotas.find(f"key/{row.id}").terms == BUDGET
    smaller = QuotaTerms(NANO, None, "day", "steady")
    house.keys.change(row.id, {}, also=partial(put, terms=smaller))
    assert house.quotas.own([f"key/{row.id}"])[f"key/{row.id}"].terms == smaller
    house.keys.change(row.id, {}, also=NO_BUDGET)
    assert house.quotas.find(f"key/{row.id}") is None


def test_a_key_without_a_budget_gets_no_quota(house):
    row, _ = house.key()
    house.keys.change(row.id, {}, also=NO_BUDGET)
    assert house.rows(quota_table) == []


def test_a_refused_change_leaves_key_and_budget_as_they_were(house):
    row, _ = house.key(budget=BUDGET)
    with pytest.raises(NotFound):
        house.keys.change(row.id, {"name": "mine"}, house.stranger, NO_BUDGET)
    with pytest.raises(BadRequest):
        house.keys.change(row.id, {"models": ["a*b"]}, also=NO_BUDGET)
    assert house.quotas.find(f"key/{row.id}").terms == BUDGET
    assert house.keys.get(row.id) == row


# ── bad input


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"description": "x" * 1001},
        {"description": "\x00"},
        {"scopes": []},
        {"scopes": ["chat", "admin"]},
        {"models": []},
        {"models": ["a b"]},
        {"models": ["*a"]},
        {"models": ["a**"]},
        {"models": [""]},
        {"models": ["é"]},
        {"models": ["x" * 256]},
        {"models": [f"a/{number}" for number in range(MAX_MODELS + 1)]},
        {"upstreams": []},
        {"upstreams": ["../x"]},
        {"upstreams": ["x" * 65]},
        {"rpm": 0},
        {"rpm": 1_000_001},
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_made(house, fields):
    with pytest.raises(BadRequest):
        house.key(**fields)
    assert house.rows(table) == []


def test_the_past_is_no_expiry(house):
    with pytest.raises(BadRequest, match="in the future"):
        house.key(expires_at=house.clock.now())
    row, _ = house.key()
    with pytest.raises(BadRequest, match="in the future"):
        house.keys.change(row.id, {"expires_at": house.clock.now() - timedelta(days=1)})


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE client_keys; --", '{"$ne": null}', "%", "<img src=x onerror=1>", "名前 🙂"]
)
def test_hostile_names_are_names(house, name):
    row, _ = house.key(name=name, description=name)
    assert house.keys.get(row.id).name == house.keys.page(1, 20)[0][0].description == name
