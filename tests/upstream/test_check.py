"""What an operator is told of an upstream that is asked for its models, whatever it answers."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from db import Database
from foundation.crypto import Envelopes
from tables import upstreams as table
from tests.support.gateway import free_port
from tests.support.movable_clock import MovableClock
from tests.support.scripted_upstream import ScriptedUpstream, json_answer
from upstream.check import MAX_ANSWER_BYTES, Checked, check
from upstream.dial import GuardedDial
from upstream.registry import Upstreams

MANY = b'{"data": [' + b"[]," * 2_500_000 + b"[]]}"
KEY = "sk-test-0123456789abcdef-1234"


@pytest.fixture
def scripted() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstreams(db: Database, envelopes: Envelopes, clock: MovableClock) -> Upstreams:
    return Upstreams(db, envelopes, clock, GuardedDial(allow_private=True))


def add(upstreams: Upstreams, url: str, **fields: Any) -> Any:
    return upstreams.add(upstreams.check({"name": "local", "base_url": url} | fields), KEY)


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        ("200 OK", b'{"data": [{"id": "a"}, {"id": "b"}]}', Checked("local", ok=True, status=200, models=2)),
        ("200 OK", b'{"data": []}', Checked("local", ok=True, status=200, models=0)),
        ("401 Unauthorized", b"{}", Checked("local", status=401, reason="it does not take its key")),
        ("500 Oh", b"{}", Checked("local", status=500)),
    ],
)
def test_what_it_answers_is_told(upstreams, scripted, status, body, found):
    scripted.play("", json_answer(status, body))
    assert check(upstreams, add(upstreams, scripted.url)) == found
    assert KEY not in str(found)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b'{"data": {}}', b'{"data": "x"}', b"{", b"", b"[" * 100_000, b"\xff", b'{"data": ""}', MANY],
)
def test_what_is_no_list_of_models_is_no_answer(upstreams, scripted, body):
    scripted.play("", json_answer("200 OK", body))
    found = check(upstreams, add(upstreams, scripted.url))
    assert (found.ok, found.models, "no list of models" in found.reason) == (False, None, True)


def test_an_answer_of_millions_of_values_is_not_built(upstreams, scripted):
    """Else it would take most of a gigabyte, and hold up all other threads for seconds."""
    scripted.play("", json_answer("200 OK", MANY))
    upstream = add(upstreams, scripted.url)
    peaks: list[int] = []
    for ask in (lambda: None, lambda: check(upstreams, upstream)):
        tracemalloc.start()
        ask()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 5 * len(MANY)


def test_one_that_is_too_long_is_told(upstreams, scripted):
    scripted.play("", json_answer("200 OK", b" " * (MAX_ANSWER_BYTES + 1)))
    assert check(upstreams, add(upstreams, scripted.url)).reason == "no whole answer in 15 s and 8 MiB"


def test_the_path_that_is_missing_hints_at_the_base_url(upstreams, scripted):
    scripted.play("", json_answer("404 Not Found", b"{}"))
    assert "end in /v1" in check(upstreams, add(upstreams, scripted.url)).reason


def test_one_that_is_away_or_redirects_or_whose_key_does_not_open_is_told(upstreams, scripted, db):
    away = add(upstreams, f"http://127.0.0.1:{free_port()}", name="away")
    assert check(upstreams, away).reason
    scripted.play("", json_answer("302 Found", b"{}", "Location: http://127.0.0.1:1/\r\n"))
    assert check(upstreams, add(upstreams, scripted.url)).reason == "it redirects, which is not followed"
    db.transact(lambda tx: tx.execute(sa.update(table).where(table.c.id == away.id).values(api_key="broken")))
    broken = check(upstreams, away)
    assert (broken.ok, broken.status, KEY in str(broken)) == (False, None, False)
