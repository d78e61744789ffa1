"""The upstreams' rows: checked, sealed key by key, one default at most, never shown with their keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from db import Database
from foundation.crypto import Envelopes, SealBroken
from foundation.errors import BadRequest, Conflict, NotFound
from tables import revisions
from tables import upstreams as table
from tests.support.movable_clock import MovableClock
from upstream.dial import GuardedDial
from upstream.registry import MAX_UPSTREAMS, Keep, Price, Upstreams

KEY = "sk-test-0123456789abcdef-1234"
GIVEN: dict[str, Any] = {"name": "openai", "base_url": "https://api.openai.com/v1/"}


def no_names(_host: str, _port: int) -> list[str]:
    raise OSError("no name server here")


@pytest.fixture
def upstreams(db: Database, envelopes: Envelopes, clock: MovableClock) -> Upstreams:
    return Upstreams(db, envelopes, clock, GuardedDial(allow_private=False, resolve=no_names))


def add(upstreams: Upstreams, api_key: str | None = KEY, **fields: Any) -> Any:
    return upstreams.add(upstreams.check(GIVEN | fields), api_key)


def change(upstreams: Upstreams, which: str, api_key: Any = Keep.KEY, **fields: Any) -> Any:
    return upstreams.change(which, upstreams.check(GIVEN | {"name": which} | fields), api_key)


def stored(db: Database) -> list[Any]:
    with db.reading() as tx:
        return list(tx.execute(sa.select(table).order_by(table.c.id)))


def revision(db: Database) -> int:
    with db.reading() as tx:
        return tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "upstreams"))


def test_a_new_upstream_has_its_defaults_and_hides_its_key(db, upstreams):
    before = revision(db)
    added = add(upstreams)
    assert revision(db) == before + 1
    shown = added.to_dict()
    assert shown.pop("created_at") == shown.pop("updated_at") == "2026-11-21T12:00:00.000+00:00"
    assert shown == {
        "id": added.id,
        "name": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key": "sk-***1234",
        "connect_timeout_seconds": 5,
        "timeout_seconds": 300,
        "idle_timeout_seconds": 120,
        "is_default": False,
        "is_active": True,
        "model_prefixes": {},
        "prices": {},
    }
    assert KEY not in str(stored(db))
    assert upstreams.keys([added.id]) == {added.id: KEY}
    assert upstreams.get("openai") == upstreams.get(str(added.id)) == added
    assert upstreams.rows() == [added]


def test_prices_and_prefixes_come_back_to_the_nano_dollar(upstreams):
    prices = {"gpt-4o": {"prompt": 2.5, "completion": 10}, "*": {"prompt": 0.000_000_001, "completion": 0}}
    added = add(upstreams, prices=prices, model_prefixes={"local/": "", "o/": "openai/"})
    assert added.terms.prices == {"gpt-4o": Price(2_500_000_000, 10_000_000_000), "*": Price(1, 0)}
    assert added.to_dict()["prices"] == prices
    assert added.to_dict()["model_prefixes"] == {"local/": "", "o/": "openai/"}


@pytest.mark.parametrize("short", ["x", "ollama", "elevenchars"])
def test_a_short_key_shows_nothing_of_itself_and_no_key_shows_as_none(upstreams, short):
    assert add(upstreams, short).to_dict()["api_key"] == "sk-***"
    assert add(upstreams, None, name="free").to_dict()["api_key"] is None
    assert upstreams.keys([upstreams.get("free").id]) == {upstreams.get("free").id: None}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": "openrouter"}, "name must"),
        ({"name": "OpenAI"}, "name must"),
        ({"name": "12"}, "name must"),
        ({"name": "x" * 65}, "name must"),
        ({"name": None}, "name must"),
        ({"name": "a/b"}, "name must"),
        ({"base_url": None}, "base_url must"),
        ({"base_url": "http://api.openai.com"}, "base_url can't be used: it must begin with https"),
        ({"base_url": "https://127.0.0.1"}, "base_url can't be used: .*not public"),
        ({"timeout_seconds": 0}, "timeout_seconds must be a whole number of seconds from 1 to 3600"),
        ({"connect_timeout_seconds": 61}, "connect_timeout_seconds must"),
        ({"idle_timeout_seconds": True}, "idle_timeout_seconds must"),
        ({"is_active": 1}, "is_active must"),
        ({"is_default": True, "is_active": False}, "is_default can't"),
        ({"model_prefixes": {"": "x"}}, "model_prefixes must"),
        ({"model_prefixes": {"a b": ""}}, "model_prefixes must"),
        ({"model_prefixes": {"a": None}}, "model_prefixes must"),
        ({"model_prefixes": ["a"]}, "model_prefixes must"),
        ({"model_prefixes": {f"{n:0128}": "x" * 128 for n in range(300)}}, "too long"),
        ({"prices": {"m": {"prompt": 1}}}, "prices must"),
        ({"prices": {"m": {"prompt": 1, "completion": -1}}}, "prices must"),
        ({"prices": {"m": {"prompt": 1, "completion": "1"}}}, "prices must"),
        ({"prices": {"m": {"prompt": True, "completion": 1}}}, "prices must"),
        ({"prices": {"m": {"prompt": float("nan"), "completion": 1}}}, "prices must"),
        ({"prices": {"m": {"prompt": 1, "completion": 1, "request": 1}}}, "prices must"),
        ({"prices": {"": {"prompt": 1, "completion": 1}}}, "prices must"),
        ({"prices": []}, "prices must"),
        ({"api_key": "x"}, "There is no field 'api_key'"),
        ({"id": 7}, "There is no field 'id'"),
    ],
)
def test_what_can_not_be_is_refused_with_what_is_accepted(db, upstreams, fields, complaint):
    with pytest.raises(BadRequest, match=complaint):
        upstreams.check(GIVEN | fields)
    assert stored(db) == []


@pytest.mark.parametrize("api_key", ["", "two words", "line\nbreak", "sk-\u00fc", "x" * 501, 7])
def test_a_key_that_is_no_header_is_refused(db, upstreams, api_key):
    with pytest.raises(BadRequest, match="api_key must"):
        add(upstreams, api_key)
    assert stored(db) == []


def test_names_are_unique(db, upstreams):
    add(upstreams)
    add(upstreams, name="other")
    with pytest.raises(Conflict, match="named openai"):
        add(upstreams)
    with pytest.raises(Conflict, match="named other"):
        change(upstreams, "openai", name="other")
    assert len(stored(db)) == 2


def test_a_replaced_upstream_keeps_its_key_unless_another_or_none_is_given(upstreams, clock):
    added = add(upstreams)
    clock.advance(seconds=1)
    changed = change(upstreams, "openai", timeout_seconds=7, base_url="https://api.openai.com/v2")
    assert (changed.terms.timeout_seconds, changed.api_key_hint) == (7, "1234")
    assert changed.updated_at > changed.created_at == added.created_at
    assert upstreams.keys([added.id]) == {added.id: KEY}
    assert change(upstreams, str(added.id), "sk-another-key-5678", name="openai").api_key_hint == "5678"
    assert upstreams.keys([added.id]) == {added.id: "sk-another-key-5678"}
    assert change(upstreams, "openai", None).api_key_hint is None
    assert upstreams.keys([added.id]) == {added.id: None}
    assert change(upstreams, "openai", name="renamed").terms.name == "renamed"


@pytest.mark.parametrize("url", ["https://evil.example/v1", "https://api.openai.com:8443/v1"])
def test_a_stored_key_never_goes_to_another_host(upstreams, url):
    added = add(upstreams)
    with pytest.raises(BadRequest, match="another host"):
        change(upstreams, "openai", base_url=url)
    assert upstreams.get("openai") == added
    assert change(upstreams, "openai", None, base_url=url).api_key_hint is None
    assert change(upstreams, "openai", base_url="https://third.example").terms.base_url == "https://third.example"


def test_at_most_one_is_the_default(upstreams):
    add(upstreams, name="one", is_default=True)
    add(upstreams, name="two", is_default=True)
    assert [one.terms.is_default for one in upstreams.rows()] == [False, True]
    change(upstreams, "one", is_default=True)
    assert [one.terms.is_default for one in upstreams.rows()] == [True, False]


def test_at_most_one_is_the_default_though_many_become_it_at_once(upstreams):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: add(upstreams, name=f"u{n}", is_default=True), range(8)))
    assert sum(one.terms.is_default for one in upstreams.rows()) == 1


def test_a_removed_upstream_is_gone_with_its_key(db, upstreams):
    add(upstreams)
    before = revision(db)
    assert upstreams.remove("openai").terms.name == "openai"
    assert stored(db) == []
    assert revision(db) == before + 1
    for attempt in (upstreams.get, upstreams.remove, lambda name: change(upstreams, name)):
        with pytest.raises(NotFound):
            attempt("openai")


@pytest.mark.parametrize("name", ["99", "9" * 30, "nobody", "\u00e4", "' OR 1=1", ""])
def test_what_is_not_there_is_not_found(upstreams, name):
    add(upstreams)
    with pytest.raises(NotFound):
        upstreams.get(name)


def test_pages_are_newest_first(upstreams):
    for name in "abc":
        add(upstreams, name=name)
    names = [[one.terms.name for one in upstreams.page(page, 2)[0]] for page in (1, 2, 3)]
    assert names == [["c", "b"], ["a"], []]
    assert upstreams.page(3, 2)[1] == 3


def test_a_ciphertext_moved_to_another_row_opens_nowhere_and_harms_no_other(db, upstreams):
    one, two = add(upstreams, name="one"), add(upstreams, "sk-another-key-5678", name="two")
    sealed = {row.id: row.api_key for row in stored(db)}
    db.transact(lambda tx: tx.execute(table.update().where(table.c.id == one.id).values(api_key=sealed[two.id])))
    keys = upstreams.keys([one.id, two.id])
    assert isinstance(keys[one.id], SealBroken)
    assert keys[two.id] == "sk-another-key-5678"


def test_there_is_an_end_to_how_many_there_may_be(upstreams):
    for number in range(MAX_UPSTREAMS):
        add(upstreams, name=f"u{number}")
    with pytest.raises(Conflict, match="at most"):
        add(upstreams, name="one-more")
    assert upstreams.page(1, 1)[1] == MAX_UPSTREAMS


def test_a_list_is_taken_in_once_whoever_begins(db, upstreams):
    before = revision(db)
    items = [(upstreams.check(GIVEN | {"name": name}), KEY) for name in ("one", "two")]
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: upstreams.add_if_none(items), range(4)))
    assert sorted(counts) == [0, 0, 0, 2]
    assert revision(db) > before
    assert [one.terms.name for one in upstreams.rows()] == ["one", "two"]


def test_a_list_with_a_name_twice_changes_nothing(db, upstreams):
    with pytest.raises(Conflict):
        upstreams.add_if_none([(upstreams.check(GIVEN), None)] * 2)
    assert stored(db) == []
