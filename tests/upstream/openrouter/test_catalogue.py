"""OpenRouter's public documents: kept for minutes, one question at a time, an old answer rather than none."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from foundation.errors import AppError, NotFound
from tests.support.movable_clock import MovableClock
from upstream.connection import UpstreamError
from upstream.openrouter.catalogue import FRESH_SECONDS, KEPT, REST_SECONDS, Catalogue


class Upstream:
    """Answers what it is told to; counts the questions."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] | None = 200, b'{"data":[1]}'
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def get(self, path: str, authorization: bytes, seconds: float, most: int) -> tuple[int, bytes]:
        assert authorization == b""
        self.asked.append(path)
        assert self.open.wait(20)
        if self.answer is None:
            raise UpstreamError("away")
        return self.answer


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def catalogue(upstream: Upstream, clock: MovableClock) -> Catalogue:
    made: Any = Catalogue(upstream, clock)  # type: ignore[arg-type]
    return made


def test_an_answer_is_kept_for_minutes_and_longer_while_openrouter_is_away(catalogue, upstream, clock):
    assert not catalogue.is_fresh("/a")
    assert catalogue.get("/a") == catalogue.get("/a") == {"data": [1]}
    assert (catalogue.is_fresh("/a"), upstream.asked) == (True, ["/a"])
    clock.advance(seconds=FRESH_SECONDS + 1)
    assert not catalogue.is_fresh("/a")
    upstream.answer = None
    assert catalogue.get("/a") == {"data": [1]}
    assert catalogue.get("/a") == {"data": [1]}
    assert len(upstream.asked) == 2  # it rests after a failure
    upstream.answer = 200, b'{"data":[2]}'
    clock.advance(seconds=REST_SECONDS + 1)
    assert catalogue.get("/a") == {"data": [2]}


@pytest.mark.parametrize("answer", [None, (500, b"{}"), (200, b"["), (200, b"[1]"), (429, b"{}"), (404, b"{}")])
def test_without_an_answer_a_reason_is_given_once_for_all_who_wait(catalogue, upstream, clock, answer):
    upstream.answer = answer
    for _ in range(3):
        with pytest.raises(AppError):
            catalogue.get("/a")
    assert upstream.asked == ["/a"]


def test_what_is_gone_is_gone(catalogue, upstream, clock):
    catalogue.get("/a")
    clock.advance(seconds=FRESH_SECONDS + 1)
    upstream.answer = 404, b"{}"
    with pytest.raises(NotFound):
        catalogue.get("/a")


def test_of_many_who_ask_at_once_one_asks_and_others_are_not_kept_waiting(catalogue, upstream):
    catalogue.get("/b")
    upstream.open.clear()
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(catalogue.get("/a"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert catalogue.get("/b") == {"data": [1]}  # somebody innocent, meanwhile
    upstream.open.set()
    for thread in threads:
        thread.join(20)
    assert found == [{"data": [1]}] * 5
    assert upstream.asked == ["/b", "/a"]


def test_memory_is_bounded(catalogue, upstream):
    upstream.answer = 200, b'{"data":[{"id":"a/b","description":"long"},{"name":"no id"},7]}'
    for number in range(KEPT + 5):
        assert catalogue.get(f"/models?category={number}") == {"data": [{"id": "a/b"}]}
    assert not catalogue.is_fresh("/models?category=4")
    assert catalogue.is_fresh("/models?category=5")
