"""Links by which an operator lets somebody set a password: once, for an hour, the newest alone; their owner is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from accounts.reset_links import LIFE, ResetLinkRefused, ResetLinks
from accounts.users import Users, add_service_account
from foundation.errors import Conflict, NotFound
from tables import reset_links as table


@pytest.fixture
def links(db, clock):
    return ResetLinks(db, clock)


@pytest.fixture
def users(db, clock):
    return Users(db, b"k" * 32, clock)


def redeem(db, links, link):
    db.transact(lambda tx: links.redeem(tx, link))


def test_a_link_is_good_once_and_for_an_hour_and_the_newest_alone(db, users, links, clock):
    ann, bob = users.create("ann", "x"), users.create("bob", "x")
    first, second = links.create(ann, "user/9")[1], links.create(ann, "user/9")[1]
    others = links.create(bob, "user/9")[1]
    with pytest.raises(ResetLinkRefused):
        links.get_open(first)
    found = links.get_open(second)
    assert (found.user_id, found.created_by) == (ann, "user/9")
    redeem(db, links, found)
    for late in (lambda: links.get_open(second), lambda: redeem(db, links, found)):
        with pytest.raises(ResetLinkRefused):
            late()
    assert links.get_open(others).user_id == bob
    clock.advance(seconds=LIFE.total_seconds() + 1)
    for text in (others, "reset_unknown", ""):
        with pytest.raises(ResetLinkRefused):
            links.get_open(text)
    with db.reading() as tx:
        assert second not in str(tx.execute(sa.select(table)).all())


def test_of_many_at_once_one_uses_a_link(db, users, links):
    found = links.get_open(links.create(users.create("ann", "x"), "cli")[1])

    def race(_: int) -> bool:
        try:
            redeem(db, links, found)
        except ResetLinkRefused:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(race, range(6))) == 1


def test_there_is_none_for_nobody_and_for_an_account_without_a_person(db, links, clock):
    service = db.transact(lambda tx: add_service_account(tx, clock.now()))
    with pytest.raises(NotFound):
        links.create(10**6, "cli")
    with pytest.raises(Conflict):
        links.create(service, "cli")


def test_its_owner_is_told_once_but_not_by_the_link_itself(db, users, links, clock):
    ann, bob = users.create("ann", "x"), users.create("bob", "x")
    link, _ = links.create(ann, "user/9")
    redeem(db, links, link)
    assert links.tell(ann, but=link.id) == []
    assert links.tell(bob) == []
    [told] = links.tell(ann)
    now = clock.now().isoformat(timespec="seconds")
    assert told.notice() == {"type": "reset_link", "at": now, "used_at": now}
    assert links.tell(ann) == []
