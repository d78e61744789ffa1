"""Replicas that are restarted in turn, behind a balancer that asks for readiness and behind nginx: no call fails."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.balancer import Nginx, TcpBalancer
from tests.support.gateway import Gateway, wait_for
from tests.support.scripted_upstream import SSE, ScriptedUpstream, chunked, json_answer

EVENT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
CALLERS = 8
LONG_EVENTS = 40


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    scripted.play("plain", json_answer("200 OK", b'{"id":"gen-1","choices":[{"message":{"content":"hi"}}]}'))
    scripted.play(
        "long", SSE, *[step for _ in range(LONG_EVENTS) for step in (chunked(EVENT, end=False), 0.05)], chunked(DONE)
    )
    yield scripted
    scripted.close()


class Load:
    """Callers who never try again; counts what they got.

    Some keep their connection from call to call. Not those of streams: one that outlasts the delay had no way to tell
    its client that the connection ends with it.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = f"{url}/v1/chat/completions", token
        self.found: Counter[str] = Counter()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _call(self, number: int) -> None:
        model = "long" if number < CALLERS // 4 else "plain"
        caller = requests.Session() if number % 2 and model == "plain" else requests
        while not self._ending.is_set():
            self.found[self._answer_to(caller, model)] += 1

    def _answer_to(self, caller: Any, model: str) -> str:
        body = {"model": model, "stream": model == "long", "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            answer = caller.post(self._url, json=body, headers=headers, timeout=60)
            events = answer.content.count(EVENT)
        except requests.RequestException as error:
            return f"{model} failed: {error!r}"
        if answer.status_code != 200:
            return f"{model} failed: {answer.status_code} {answer.text[:200]}"
        if model == "long" and (events != LONG_EVENTS or not answer.content.endswith(DONE)):
            return f"long failed: {events} events, {answer.content[-200:]!r}"
        return "answered"

    def end(self) -> Counter[str]:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        return self.found


@pytest.mark.parametrize("calls", [200, pytest.param(10_000, marks=pytest.mark.torture)])
@pytest.mark.parametrize("front", [TcpBalancer, Nginx])
def test_no_call_fails_while_replicas_are_restarted_in_turn(
    front: type[TcpBalancer | Nginx],
    calls: int,
    start: Callable[..., Gateway],
    upstream: ScriptedUpstream,
    tmp_path: Path,
) -> None:
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/shared.db",
        "ENCRYPTION_KEY": ENCRYPTION_KEY,
        "SECRET_KEY": SECRET_KEY,
        "OPENROUTER_API_URL": upstream.url,
        "OPENROUTER_API_KEYS": f"sk-or-v1-{'b' * 64}",
        "DRAIN_DELAY_SECONDS": 2,
    }
    replicas = [start(SERVER=server, **settings) for server in ("granian", "gunicorn")]
    balancer = front([replica.port for replica in replicas], tmp_path)
    load = Load(f"http://127.0.0.1:{balancer.port}", replicas[0].new_user())
    restarts = 0
    while restarts < len(replicas) or load.found.total() < calls:
        replica = replicas[restarts % len(replicas)]
        replica.process.send_signal(signal.SIGTERM)
        assert replica.process.wait(60) == 0
        replicas[restarts % len(replicas)] = again = start(
            SERVER=replica.settings["SERVER"], PORT=replica.port, **settings
        )
        wait_for(lambda again=again: again.get("/readyz").status_code == 200)
        restarts += 1
    found = load.end()
    balancer.close()
    assert set(found) == {"answered"}, f"{restarts} restarts: {found}"
