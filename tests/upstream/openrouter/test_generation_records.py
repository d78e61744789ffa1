"""Records of generations: asked for with the right key, nothing of our account in them, and plain words for faults."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from db import Database
from foundation.clock import Clock
from foundation.crypto import Envelopes
from foundation.errors import Busy, NotFound, UpstreamFailed, UpstreamTimeout
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tests.support.scripted_upstream import CLOSE, RESET, ScriptedUpstream, json_answer
from upstream.http import UpstreamHttp
from upstream.openrouter.generation_records import HIDDEN, MAX_ANSWER_BYTES, SHOWN, GenerationRecords, cleaned

TEXTS = ["sk-or-v1-" + digit * 64 for digit in "ab"]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    made = ScriptedUpstream()
    yield made
    made.close()


@pytest.fixture
def shown(db: Database, envelopes: Envelopes, upstream: ScriptedUpstream) -> Callable[..., bytes]:
    """Asks for a record that the first of two keys made, of an upstream that answers the two like this."""
    keys = PoolKeys(db, envelopes, Clock())
    ids = [keys.add(text, text[-3:], PoolKeySource.OPERATOR) for text in TEXTS]
    records = GenerationRecords(keys.authorizations, UpstreamHttp(upstream.url, 1))

    def ask(*answers: Any) -> bytes:
        upstream.play_in_turn("", *([answer] for answer in answers))
        return records.shown("gen-1", ids[0])

    return ask


def test_only_documented_fields_are_shown_and_nothing_of_our_account():
    first, second = (f"sk-or-v1-{secrets.token_hex(32)}" for _ in range(2))  # no test's process knows them
    record = {
        "id": "gen-1",
        "total_cost": 0.25,
        "workspace_id": "w",
        "app_id": 7,
        "external_user": "x",
        "new_field": "user_2sandbox000000",
        "user_agent": f"a client with {first} of user_2sandbox000000",
        "provider_responses": [{"status": 200, "note": second}],
    }
    shown = json.loads(cleaned(record))["data"]
    assert shown == {
        "id": "gen-1",
        "total_cost": 0.25,
        "user_agent": "a client with *** of ***",
        "provider_responses": [{"status": 200, "note": "***"}],
        **dict.fromkeys(HIDDEN),
    }
    assert not set(SHOWN) & set(HIDDEN)


FOUND = json_answer("200 OK", b'{"data":{"id":"gen-1","total_cost":0.25,"workspace_id":"w"}}')
NOT_FOUND = json_answer("404 Not Found", b'{"error":{"code":404,"message":"Generation gen-1 not found"}}')
KEY_REFUSED = json_answer("401 Unauthorized", b'{"error":{"code":401,"message":"User not found."}}')


@pytest.mark.parametrize("answers", [(FOUND, NOT_FOUND), (NOT_FOUND, FOUND), (KEY_REFUSED, FOUND)])
def test_the_key_of_the_call_is_asked_with_and_then_another(shown, answers):
    assert json.loads(shown(*answers))["data"] == {"id": "gen-1", "total_cost": 0.25, **dict.fromkeys(HIDDEN)}


@pytest.mark.parametrize(
    ("answers", "refusal"),
    [
        ((NOT_FOUND, NOT_FOUND), NotFound),
        ((KEY_REFUSED, NOT_FOUND), NotFound),
        ((KEY_REFUSED, KEY_REFUSED), Busy),
        ((json_answer("429 Too Many Requests", b"{}"),), Busy),
        ((json_answer("500 Oops", b"{}"),), UpstreamFailed),
        ((json_answer("200 OK", b"<html>"),), UpstreamFailed),
        ((json_answer("200 OK", b'{"data":[]}'),), UpstreamFailed),
        ((json_answer("200 OK", b"[]"),), UpstreamFailed),
        ((RESET,), UpstreamFailed),
        ((CLOSE,), UpstreamFailed),
        ((json_answer("200 OK", b"x" * (MAX_ANSWER_BYTES + 1)),), UpstreamTimeout),
    ],
)
def test_what_is_no_record_is_told_in_our_own_words(shown, answers, refusal):
    with pytest.raises(refusal) as told:
        shown(*answers)
    assert "User not found" not in told.value.message
