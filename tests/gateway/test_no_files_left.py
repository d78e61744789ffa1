"""A gateway that may open no more files: callers hear that it is busy, and no upstream is blamed for it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.support.data_plane import WHOLE
from tests.support.gateway import Gateway, wait_for
from tests.support.rows import each_row
from tests.support.scripted_upstream import ScriptedUpstream, json_answer

REASON = "as many connections open as it may"
MODEL = "openai/gpt-4o-mini"
LAST = json_answer("200 OK", WHOLE, "Connection: close\r\n")  # so that each call needs a connection of its own


def processes(gateway: Gateway) -> list[int]:
    """The server's processes, its parent first."""
    parent = gateway.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


@contextmanager
def no_files_left(gateway: Gateway) -> Iterator[None]:
    """What is open stays open, and nothing else can be opened."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in processes(gateway)}
    try:
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


@each_row("server", ["granian", "gunicorn"])
def test_a_call_without_a_file_to_open_is_refused_and_the_upstream_is_not_blamed(
    start: Callable[..., Gateway], server: str
) -> None:
    upstream = ScriptedUpstream()
    upstream.play(MODEL, LAST)
    # By its name, because to look one up takes files too.
    address = f"http://localhost:{upstream.port}/api/v1"
    gateway = start(SERVER=server, OPENROUTER_API_URL=address, OPENROUTER_API_KEYS=f"sk-or-v1-{'a' * 64}")
    caller, another = gateway.new_user(), gateway.new_user()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {caller}"

        def call() -> requests.Response:
            return session.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)

        def calls_without_files() -> bool:
            """True if they got as far as the upstream: the journal, which begins files too, may refuse them before."""
            assert wait_for(lambda: call().status_code == 200)
            with no_files_left(gateway):
                refusals = [call() for _ in range(4)]  # one more than it takes to doubt an upstream
                assert session.get(f"{gateway.url}/livez", timeout=30).status_code == 200
            assert [refusal.status_code for refusal in refusals] == [503] * 4
            assert all("Retry-After" in refusal.headers for refusal in refusals)
            return all(REASON in refusal.json()["error"]["message"] for refusal in refusals)

        assert wait_for(calls_without_files)
    assert "no_files_left" in gateway.log()
    assert wait_for(lambda: gateway.chat(another).status_code == 200)
    assert "upstream_away" not in gateway.log()
    assert "upstream_unreachable" not in gateway.log()
    assert gateway.get("/api/health").json()["openrouter"] == {"status": "ok"}
    upstream.close()
