"""API tokens: made, shown without their text, revoked by their owner alone."""

from __future__ import annotations

from datetime import timedelta
from math import inf

import pytest
import sqlalchemy as sa

from accounts.api_tokens import MAX_PER_USER, ApiToken, ApiTokens
from accounts.users import Users
from foundation.crypto import sha256_hex
from foundation.errors import BadRequest, Conflict, NotFound
from tables import api_tokens as table


@pytest.fixture
def people(db, clock):
    users = Users(db, b"k" * 32, clock)
    return [users.create(name, "hash") for name in ("owner", "teammate", "stranger")]


@pytest.fixture
def tokens(db, clock):
    return ApiTokens(db, clock)


def test_a_token_works_and_is_stored_only_as_a_hash(db, tokens, people):
    row, text = tokens.create(people[0], "dashboard", None)
    assert text.startswith("or_api_")
    assert row.token_hint == text[:9] + "****"
    assert tokens.live.find(text) == ApiToken(row.id, people[0], inf)
    with db.reading() as tx:
        stored = tx.execute(sa.select(table)).one()
    assert stored.token_hash == sha256_hex(text)
    assert text not in str(stored)


def test_each_user_sees_their_own(tokens, people):
    owner, teammate, stranger = people
    made = [tokens.create(owner, f"token {number}", None)[0].id for number in range(3)]
    tokens.create(teammate, "theirs", None)
    found, total = tokens.page(owner, 1, 2)
    assert ([row.id for row in found], total) == (made[:0:-1], 3)
    assert [row.id for row in tokens.page(owner, 2, 2)[0]] == made[:1]
    assert tokens.page(stranger, 1, 20) == ([], 0)


def test_only_the_owner_revokes_and_only_once(tokens, people):
    owner, teammate, stranger = people
    row, text = tokens.create(owner, "dashboard", None)
    for other in (teammate, stranger):
        with pytest.raises(NotFound):
            tokens.revoke(row.id, other)
    assert tokens.live.find(text)
    tokens.revoke(row.id, owner)
    assert tokens.live.find(text) is None
    assert tokens.page(owner, 1, 20) == ([], 0)
    with pytest.raises(NotFound):
        tokens.revoke(row.id, owner)


def test_a_token_expires(tokens, people, clock):
    _, text = tokens.create(people[0], "dashboard", clock.now() + timedelta(hours=1))
    assert tokens.live.find(text)
    clock.advance(hours=1)
    assert tokens.live.find(text) is None
    with pytest.raises(BadRequest, match="in the future"):
        tokens.create(people[0], "dashboard", clock.now())


def test_a_user_has_a_bounded_number_and_others_are_not_kept_from_theirs(tokens, people):
    owner, teammate, _ = people
    rows = [tokens.create(owner, "x", None)[0] for _ in range(MAX_PER_USER)]
    with pytest.raises(Conflict, match=f"You have {MAX_PER_USER} API tokens"):
        tokens.create(owner, "one more", None)
    assert tokens.create(teammate, "x", None)
    tokens.revoke(rows[0].id, owner)
    assert tokens.create(owner, "one more", None)
