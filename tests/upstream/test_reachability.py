"""Whether an upstream is away: known only once our own question fails, and over as soon as anything is answered."""

import errno
import threading

import pytest

from foundation.errors import Busy
from tests.support.gateway import free_port, wait_for
from tests.support.scripted_upstream import CLOSE, RESET, ScriptedUpstream, json_answer
from upstream import reachability
from upstream.dial import dial_directly
from upstream.http import UpstreamHttp
from upstream.reachability import FAILURES, Reachability

PAGE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
REFUSED = json_answer("401 Unauthorized", b'{"error":{"message":"No cookie auth credentials found","code":401}}')


@pytest.fixture
def make(monkeypatch):
    """Makes what watches a base URL; its pauses are short."""
    monkeypatch.setattr(reachability, "FIRST_PAUSE_SECONDS", 0.02)
    made = []

    def watch(url, dial=dial_directly):
        http = UpstreamHttp(url, 1, dial)
        made.append((http, Reachability(http, "local")))
        return made[-1][1]

    yield watch
    for http, reach in made:
        reach.close()
        http.close()
    wait_for(lambda: not asking())


def asking():
    return [thread for thread in threading.enumerate() if thread.name == "ask-upstream"]


@pytest.fixture
def upstream():
    scripted = ScriptedUpstream()
    yield scripted
    scripted.close()


def fail(reach, times=FAILURES):
    for _ in range(times):
        reach.note_failure()


def test_it_is_away_once_three_calls_in_a_row_and_our_question_have_failed(make):
    reach = make(f"http://127.0.0.1:{free_port()}/api/v1")
    fail(reach, FAILURES - 1)
    assert not asking()
    reach.check()
    fail(reach, 1)
    wait_for(lambda: reach.is_away)
    with pytest.raises(Busy, match="upstream local can't be reached") as refused:
        reach.check()
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 6


def test_an_answer_in_between_begins_the_row_anew(make):
    reach = make(f"http://127.0.0.1:{free_port()}/api/v1")
    for _ in range(3):
        fail(reach, FAILURES - 1)
        reach.note_answer()
    assert not asking()


def test_a_question_for_which_there_is_no_file_tells_nothing(make):
    """What was known stays: there before, or away before."""
    files_left = threading.Event()
    asked = threading.Semaphore(0)

    def dial(host, port, deadline):
        asked.release()
        if not files_left.is_set():
            raise OSError(errno.EMFILE, "Too many open files")
        return dial_directly(host, port, deadline)

    reach = make(f"http://127.0.0.1:{free_port()}/api/v1", dial)
    fail(reach)
    wait_for(lambda: not asking())
    assert asked.acquire(timeout=10)
    assert not reach.is_away
    files_left.set()
    wait_for(lambda: fail(reach) or reach.is_away)  # the next question is due after a pause
    files_left.clear()
    while asked.acquire(blocking=False):
        pass
    for _ in range(3):  # the third began after the second had ended, and that one had no file
        assert asked.acquire(timeout=10)
    assert reach.is_away


@pytest.mark.parametrize(
    "answer", [REFUSED, json_answer("404 Not Found", b"{}"), json_answer("500 Oops", b"{}"), json_answer("200 OK", b"")]
)
def test_whoever_answers_our_question_is_there_whatever_calls_meet(make, upstream, answer):
    """One user's model may be dead, or one user's requests be such that the edge ends the connection."""
    upstream.play("", answer)
    reach = make(upstream.url)
    fail(reach, 50)
    wait_for(lambda: not asking())
    assert not reach.is_away
    reach.check()


@pytest.mark.parametrize("answer", [PAGE, CLOSE, RESET, b"nonsense"])
def test_the_edge_alone_is_no_answer(make, upstream, answer):
    upstream.play("", answer)
    reach = make(upstream.url)
    fail(reach)
    wait_for(lambda: reach.is_away)


def test_it_is_asked_again_and_again_until_it_is_back(make, caplog):
    port = free_port()
    reach = make(f"http://127.0.0.1:{port}/api/v1")
    fail(reach)
    wait_for(lambda: reach.is_away)
    fail(reach, 20)
    assert len(asking()) == 1
    back = ScriptedUpstream(port=port)
    wait_for(lambda: not reach.is_away)
    wait_for(lambda: not asking())
    back.close()
    assert [record.getMessage() for record in caplog.records] == ["upstream_away", "upstream_back"]


def test_a_call_that_is_answered_brings_it_back(make):
    reach = make(f"http://127.0.0.1:{free_port()}/api/v1")
    fail(reach)
    wait_for(lambda: reach.is_away)
    reach.note_answer()
    reach.check()
    wait_for(lambda: not asking())


def test_failures_that_go_on_are_no_reason_to_ask_all_the_time(make, upstream, monkeypatch):
    monkeypatch.setattr(reachability, "FIRST_PAUSE_SECONDS", 60.0)
    upstream.play("", json_answer("404 Not Found", b"{}", "Connection: close\r\n"))
    reach = make(upstream.url)
    for _ in range(50):
        fail(reach)
        wait_for(lambda: not asking())
    assert upstream._connections == 1


def test_nobody_asks_for_an_upstream_that_is_no_more(make):
    reach = make(f"http://127.0.0.1:{free_port()}/api/v1")
    fail(reach)
    wait_for(lambda: reach.is_away)
    reach.close()
    wait_for(lambda: not asking())
