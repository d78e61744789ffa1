"""A server that is told to end, or to load itself again, waits for no page that keeps itself up to date."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from serving import ending
from tests.support.gateway import ADMIN_TOKEN, Gateway, wait_for
from tests.web.pages.conftest import Site
from tests.web.pages.operator_world import new_admin
from web.pages.operator_live import STREAM_SECONDS


def test_the_end_is_near_once_it_was_told_and_being_told_again_changes_nothing(monkeypatch):
    monkeypatch.setattr(ending, "_end", ending._ServerEnd())
    assert not (ending.is_near() or ending.is_here(0))
    ending.tell()
    ending.tell()
    assert ending.is_near()
    assert ending.is_here(0)
    assert not ending.is_here(60)


def test_between_the_announcement_and_the_end_lies_the_delay(monkeypatch):
    monkeypatch.setattr(ending, "_end", ending._ServerEnd())
    ending.delay_by(60)
    assert not ending.is_announced()
    ending.announce()
    assert ending.is_announced()
    assert not (ending.is_due() or ending.is_near() or ending.is_here(0))
    ending.delay_by(0)
    assert ending.is_due()
    ending.approach()
    assert ending.is_near()


@pytest.fixture(params=["granian", "gunicorn"])
def site(request: pytest.FixtureRequest, start: Callable[..., Gateway], stand_in: Any) -> Site:
    key = stand_in.new_key()["key"]
    settings = {"SERVER": request.param, "SERVER_THREADS": 8, "ADMIN_TOKEN": ADMIN_TOKEN}
    return Site(start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=key, **settings))


def begun_streams(site: Site) -> list[Iterator[bytes]]:
    """One of each kind, of which something has come."""
    admin = new_admin(site)
    answers = [admin.ask("GET", f"/operator/live/{part}") for part in ("pool", "logs")]
    assert [answer.status_code for answer in answers] == [200, 200]
    streams = [answer.iter_content(1024) for answer in answers]
    assert all(next(stream) for stream in streams)
    return streams


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_open_streams_hold_up_no_stop_and_no_reload(site, number):
    began = time.monotonic()
    streams = begun_streams(site)
    site.gateway.process.send_signal(number)
    for stream in streams:
        list(stream)  # up to its end
    assert time.monotonic() - began < STREAM_SECONDS  # when they would have ended by themselves
    if number == signal.SIGTERM:
        assert site.gateway.process.wait(60) == 0
    else:
        wait_for(lambda: is_answered(site))
        assert begun_streams(site)


def is_answered(site: Site) -> bool:
    try:
        return site.gateway.get("/api/health").ok
    except requests.RequestException:
        return False
