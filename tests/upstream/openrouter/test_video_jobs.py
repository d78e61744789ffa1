"""Jobs and films are asked for with the key that started them; what OpenRouter says is told in our words."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from foundation.errors import AppError
from tests.support.scripted_upstream import CLOSE, ScriptedUpstream, json_answer
from upstream.http import UpstreamHttp
from upstream.openrouter.video_jobs import VideoJobs

FIRST, SECOND = b"Authorization: Bearer first\r\n", b"Authorization: Bearer second\r\n"
NO_STATUS = (b"null", b"5", b"[]", b"{}")
FILM = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 10\r\n\r\n"


class World:
    def __init__(self) -> None:
        self.upstream = ScriptedUpstream()
        self.http = UpstreamHttp(self.upstream.url, 5)
        self.keys = [FIRST]
        self.videos = VideoJobs(lambda _: self.keys, self.http)

    def play(self, *answers: tuple[object, ...]) -> None:
        self.upstream.play_in_turn("", *answers)  # type: ignore[arg-type]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.http.close()
    made.upstream.close()


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (json_answer("404 Not Found", b"{}"), 404, "no such video"),
        (json_answer("401 Unauthorized", b"{}"), 503, "key that started this job is gone"),
        (json_answer("403 Forbidden", b"{}"), 503, "key that started this job is gone"),
        (json_answer("429 Too Many", b"{}"), 503, "at present"),
        (json_answer("500 Oh", b"{}"), 502, "status 500"),
        (json_answer("302 Found", b"{}"), 502, "status 302"),
        (json_answer("200 OK", b"[]"), 502, "did not answer with a job"),
        (json_answer("200 OK", b"<html>"), 502, "did not answer with a job"),
        *((json_answer("200 OK", b'{"status":%s}' % status), 502, "answer with a job") for status in NO_STATUS),
        (CLOSE, 502, "can't be reached"),
    ],
)
def test_refusals_are_told_in_our_words(world, answer, status, words):
    world.play((answer,))
    with pytest.raises(AppError, match=words) as refused:
        world.videos.get("job-1", 7)
    assert refused.value.status == status
    assert world.videos.find("job-1", 7) is None
    if status != 502 or "status" in words:
        with pytest.raises(AppError, match=words):
            world.videos.film("job-1", 0, 7)


def test_another_key_is_asked_with_if_the_first_may_not(world):
    world.keys = [FIRST, SECOND]
    refused = json_answer("401 Unauthorized", b"{}")
    world.play((refused,), (json_answer("200 OK", b'{"status":"pending"}'),), (refused,), (FILM, b"0123456789"))
    assert world.videos.get("job-1", 7) == {"status": "pending"}
    film = world.videos.film("job-1", 0, 7)
    assert b"".join(film) == b"0123456789"
    film.close()


def test_without_a_key_nobody_is_asked(world):
    world.keys = []
    for ask in (lambda: world.videos.get("job-1", 7), lambda: world.videos.film("job-1", 0, 7)):
        with pytest.raises(AppError, match="is gone"):
            ask()


def test_a_film_that_breaks_off_is_no_whole_one(world):
    world.play((FILM, b"01234", CLOSE))
    film = world.videos.film("job-1", 0, 7)
    assert (film.media, film.size) == ("video/mp4", "10")
    with pytest.raises(ConnectionAbortedError):
        b"".join(film)
    film.close()


def test_silence_within_a_film_is_told_so_that_a_client_that_has_gone_is_noticed_and_has_an_end(world, monkeypatch):
    monkeypatch.setattr("upstream.openrouter.video_jobs.TICK_SECONDS", 0.05)
    monkeypatch.setattr("upstream.openrouter.video_jobs.IDLE_SECONDS", 0.5)
    go_on, never = threading.Event(), threading.Event()
    world.play((FILM, b"01234", go_on, b"56", never))
    film = world.videos.film("job-1", 0, 7)
    assert [next(film), next(film)] == [b"01234", b""]
    go_on.set()
    pieces = []
    with pytest.raises(ConnectionAbortedError):
        while True:
            pieces.append(next(film))
    assert b"".join(pieces) == b"56"
    film.close()
    never.set()


@pytest.mark.parametrize("media", ["image/svg+xml", "", "application/javascript"])
def test_what_a_browser_might_run_is_bytes(world, media):
    world.play((FILM.replace(b"video/mp4", media.encode()), b"0123456789"))
    film = world.videos.film("job-1", 0, 7)
    assert film.media == "application/octet-stream"
    film.close()


def test_which_film_is_not_there_is_the_callers_to_know(world):
    world.play((json_answer("400 Bad Request", b"{}"),))
    with pytest.raises(AppError, match="`index` counts from 0") as refused:
        world.videos.film("job-1", 3, 7)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "header", ["Content-Type: text/html", "Content-Type: Application/JSON", "Content-Encoding: gzip"]
)
def test_what_is_no_film_is_not_taken_for_one(world, header):
    world.play((FILM.replace(b"Content-Type: video/mp4", header.encode()), b"0123456789"))
    with pytest.raises(AppError, match="did not answer with a film") as refused:
        world.videos.film("job-1", 0, 7)
    assert refused.value.status == 502
