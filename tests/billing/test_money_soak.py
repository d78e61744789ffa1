"""The soak itself: its arithmetic finds a difference of one nano-dollar wherever it is, and its clock moves a process's time."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.money_soak.audit import Books, differences
from tests.money_soak.available import why_not
from tests.money_soak.faults import Fault, run
from tests.money_soak.hosts import HostClock, compiler
from tests.support.usage_rows import latency_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TODAY = NOON.replace(hour=0)
AT_HEADERS = "sandbox/stream?break_at=headers"


def row(number: int, state: str, cost_nano: int | None, name: str | None, **more: Any) -> dict[str, Any]:
    return {
        "request_id": f"{number:032x}",
        "user_id": 1,
        "client_key_id": None,
        "model": "m",
        "state": state,
        "cost_nano": cost_nano,
        "generation_id": name,
        "is_last": True,
        "created_at": NOON,
        "pool_key_id": 4,
        "upstream_id": None,
        "team_id": 0,
        "is_stream": True,
        "outcome": "complete" if cost_nano else "failed",
        "error_type": None,
        "first_byte_ms": 300,
        "total_ms": 900,
        "completion_tokens": 5,
    } | more


def made(name: str, cost_nano: int, model: str = "m") -> dict[str, Any]:
    return {"id": name, "cost_nano": cost_nano, "model": model}


def sums(user_id: int, client_key_id: int, cost_nano: int, requests: int, unknown: int = 0) -> list[dict[str, Any]]:
    amounts = {"cost_nano": cost_nano, "requests": requests, "unknown": unknown}
    return [{"period": period, "user_id": user_id, "client_key_id": client_key_id, **amounts} for period in "hd"]


def caller(kind: str, number: int, cost_nano: int, requests: int, unknown: int = 0) -> list[dict[str, Any]]:
    amounts = {"cost_nano": cost_nano, "requests": requests, "unknown": unknown}
    return [{"period": period, "kind": kind, "subject_id": number, **amounts} for period in "hd"]


def quota(subject: str, spent_nano: int, limit_nano: int | None = 1000) -> dict[str, Any]:
    window = {"window_start": TODAY, "limit_nano": limit_nano}
    return {"subject": subject, "spent_nano": spent_nano, "reserved_nano": 0, **window}


@pytest.fixture
def books() -> Books:
    """Two users, one of whom calls with a client key too; a call of yesterday; one whose id nobody learnt."""
    ledger = [
        row(1, "settled", 100, "gen-1"),
        row(2, "settled", 20, "gen-2", client_key_id=7),
        row(3, "settled", 3, "gen-3", user_id=2),
        row(4, "settled", 50, "gen-4", created_at=NOON.replace(day=20)),
        row(5, "unknown", None, None, user_id=2),
        row(6, "void", None, None, user_id=2),
    ]
    bill = [made("gen-1", 100), made("gen-2", 20), made("gen-3", 3), made("gen-4", 50), made("gen-5", 9)]
    rollups = [*sums(0, 0, 173, 6, 1), *sums(1, 0, 150, 2), *sums(1, 7, 20, 1), *sums(2, 0, 3, 3, 1)]
    users = [*caller("u", 1, 170, 3), *caller("u", 2, 3, 3, 1)]
    keys = [*caller("k", 0, 153, 5, 1), *caller("k", 7, 20, 1)]
    quotas = [quota("user/1", 120), quota("key/7", 20), quota("user/2", 3, None)]
    return Books(bill, 182, ledger, rollups, users + keys, latency_of(ledger), quotas, [], {"gen-1"})


def test_books_that_agree_have_no_difference_and_name_what_nobody_learnt(books):
    assert differences(books) == []
    assert [each["id"] for each in books.unnamed] == ["gen-5"]


CHANGES: dict[str, tuple[Callable[[Books], Any], str]] = {
    "a bill": (lambda books: setattr(books, "billed_nano", 183), "cost 182 and it bills 183"),
    "a cost": (
        lambda books: books.ledger[0].update(cost_nano=101),
        "gen-1 was billed 100; its row is settled with 101",
    ),
    "an estimate": (lambda books: books.ledger[0].update(state="estimated"), "its row is estimated with 100"),
    "a lost row": (lambda books: books.ledger.pop(2), "2 answers of m|of user 2|user/2: 3 spent"),
    "a row twice": (lambda books: books.ledger.append(row(9, "settled", 3, "gen-9")), "gen-9 is in the ledger and was"),
    "an answer seen": (lambda books: setattr(books, "seen", {"gen-5"}), "gen-5 reached a client and has no row"),
    "an open row": (lambda books: books.ledger[4].update(state="pending"), "is still pending"),
    "a settled row without a cost": (lambda books: books.ledger[5].update(state="settled"), "is settled with None"),
    "nobody's answer": (lambda books: books.ledger.pop(4), "1 answers of m have no row that names them, and 0 rows"),
    "everybody's sums": (
        lambda books: books.rollups[0].update(cost_nano=174),
        "everybody by h: rows 173, roll-ups 174",
    ),
    "a user's sums": (lambda books: books.rollups[3].update(requests=3), "requests of user 1, client key 0 by d"),
    "a key's sums": (lambda books: books.rollups[4].update(cost_nano=19), "cost_nano of user 1, client key 7 by h"),
    "unknown ones": (lambda books: books.rollups[6].update(unknown=0), "unknown of user 2, client key 0 by h"),
    "sums of nobody": (lambda books: books.rollups.extend(sums(3, 0, 1, 0)), "user 3, client key 0 by h: rows 0"),
    "a user among callers": (lambda books: books.callers[0].update(cost_nano=171), "cost_nano of caller u1 by h"),
    "a key among callers": (lambda books: books.callers[-1].update(requests=2), "requests of caller k7 by d"),
    "nobody among callers": (lambda books: books.callers.extend(caller("u", -1, 1, 0)), "caller u-1 by h: rows 0"),
    "a time": (lambda books: books.ledger[0].update(total_ms=90), "times of user 1 in|times of model m in"),
    "a time twice": (
        lambda books: books.times[next(iter(books.times))].counts.update(["w/5"]),
        "times of all  in 2026-11-21 12:00:00+00:00 by h",
    ),
    "a quota": (lambda books: books.quotas[0].update(spent_nano=119), "user/1: 119 spent, rows since"),
    "a key's quota": (lambda books: books.quotas[1].update(spent_nano=21), "key/7: 21 spent"),
    "a window": (lambda books: books.quotas[0].update(window_start=NOON.replace(day=20)), "user/1: 120 spent"),
    "a reservation": (lambda books: books.quotas[2].update(reserved_nano=1), "user/2: 1 are still reserved"),
    "a limit": (lambda books: books.quotas[0].update(limit_nano=119), "more than the limit of 119"),
    "a slice": (lambda books: books.slices.append({"process_id": "p", "nano": 0}), "process p still holds 0"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_whatever_differs_by_one_nano_is_said(books, change, said):
    changed = copy.deepcopy(books)
    change(changed)
    found = differences(changed)
    assert found
    for each in said.split("|"):
        assert any(each in difference for difference in found), found


def test_what_a_used_connection_lost_may_have_been_sent_twice(books):
    books.ledger[4].update(model=AT_HEADERS)
    books.bill[4].update(model=AT_HEADERS)
    books.times = latency_of(books.ledger)
    for number, differ in ((1, False), (2, True)):
        books.bill.append(made(f"gen-1{number}", 9, AT_HEADERS))
        books.billed_nano += 9
        assert bool(differences(books)) is differ


@pytest.mark.skipif(not compiler(), reason="there is no C compiler")
def test_a_hosts_clock_moves_for_its_processes_while_they_run(tmp_path):
    clock = HostClock(tmp_path)
    program = (
        "import datetime, time\nwhile input(): print(time.time(), datetime.datetime.now().timestamp(), flush=True)"
    )
    command = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": clock.environment}
    with subprocess.Popen(command, **pipes) as process:
        for ahead in (0, 120, 26 * 3600, -26 * 3600, 0):
            clock.set_ahead(ahead)
            before = time.time()
            print("now", file=process.stdin, flush=True)
            told = [float(word) - ahead for word in process.stdout.readline().split()]
            assert all(before <= each <= time.time() for each in told)
        print(file=process.stdin, flush=True)


def test_faults_happen_one_at_a_time_in_their_order_and_end():
    happened: list[str] = []

    def fault(name: str) -> Fault:
        @contextmanager
        def happens():
            happened.append(name)
            yield
            happened.append(f"after {name}")

        return Fault(name, happens)

    run([fault("one"), fault("two")], 0.02, happened.append)
    assert happened == ["one", "one", "after one", "", "two", "two", "after two", ""]


def test_an_engine_that_is_not_there_says_why(monkeypatch):
    assert why_not("sqlite") == ""
    monkeypatch.setenv("PATH", "")
    assert why_not("mariadb") == "there is no MariaDB server"
    assert why_not("dolt") == "there is no dolt on the PATH"
