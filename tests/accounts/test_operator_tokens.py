"""Operator tokens: stored as hashes, known by a name that is given once, and over by themselves."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from accounts import operator_tokens
from accounts.operator_tokens import OperatorTokens
from accounts.roles import TokenScope
from foundation.crypto import sha256_hex
from foundation.errors import BadRequest, Conflict, NotFound
from tables import operator_tokens as table

READ, DAY = TokenScope.READ, timedelta(days=1)


@pytest.fixture
def tokens(db, clock):
    return OperatorTokens(db, clock)


def test_a_token_is_known_by_its_hash_alone_and_ends_by_itself(db, clock, tokens):
    made, text = tokens.create("report", READ, DAY, "cli")
    other, others_text = tokens.create("deploy", TokenScope.EVERYTHING, 2 * DAY, "user/1")
    assert made.token_hint == f"{text[:8]}****"
    found = tokens.live.find(text)
    assert (found.id, found.actor, found.scope) == (made.id, "token/report", READ)
    with db.reading() as tx:
        stored = tx.execute(sa.select(table).where(table.c.id == made.id)).one()
    assert stored.token_hash == sha256_hex(text)
    assert text not in str(stored)
    clock.advance(hours=25)
    assert tokens.live.find(text) is None
    assert tokens.live.find(others_text).id == other.id
    assert [one.to_dict(clock.now())["state"] for one in tokens.page(1, 10)[0]] == ["active", "expired"]


def test_another_process_learns_of_a_token_and_of_its_end(db, clock, tokens):
    elsewhere = OperatorTokens(db, clock)
    made, text = tokens.create("report", READ, DAY, "cli")
    kept, others_text = tokens.create("deploy", READ, DAY, "cli")
    elsewhere.live.reload()
    assert elsewhere.live.find(text).id == made.id
    assert tokens.revoke(made.id).revoked_at == clock.now()
    assert tokens.live.find(text) is None
    elsewhere.live.reload()
    assert elsewhere.live.find(text) is None
    assert elsewhere.live.find(others_text).id == kept.id
    clock.advance(hours=1)
    assert tokens.revoke(made.id).revoked_at < clock.now()  # it stays when it was
    with pytest.raises(NotFound):
        tokens.revoke(99)


def test_a_name_is_given_once_and_for_all(tokens):
    tokens.revoke(tokens.create("report", READ, DAY, "cli")[0].id)
    with pytest.raises(Conflict, match="There is or was an operator token report"):
        tokens.create("report", READ, DAY, "cli")
    for name in ("", "Report", "-report", "rep ort", "r" * 49, "résumé", "report\n"):
        with pytest.raises(BadRequest, match="name must be"):
            tokens.create(name, READ, DAY, "cli")
    assert tokens.page(1, 10)[1] == 1


def test_there_are_so_many_at_once(monkeypatch, tokens):
    monkeypatch.setattr(operator_tokens, "MAX_UNREVOKED", 2)
    first, _ = tokens.create("a", READ, DAY, "cli")
    tokens.create("b", READ, DAY, "cli")
    with pytest.raises(Conflict, match="There are 2 operator tokens"):
        tokens.create("c", READ, DAY, "cli")
    tokens.revoke(first.id)
    tokens.create("c", READ, DAY, "cli")
