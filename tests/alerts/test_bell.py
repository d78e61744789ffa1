"""Alerts as a whole: from a fact to those who are told, with two replicas, a channel that is dead, and a test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from alerts.bell import Bell
from alerts.facts import Fact
from alerts.kinds import KINDS
from config.settings import Config
from foundation.clock import Clock
from services import Services, build
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.alarms import SECRET, MailServer, Receiver
from tests.support.gateway import wait_for

NOBODY = "http://127.0.0.1:1/"
DISK = KINDS["disk-nearly-full"]


@pytest.fixture
def new(migrated_database_url: str, receiver: Receiver) -> Iterator[Callable[..., Services]]:
    """Build services: each is what a replica of its own would have."""
    built: list[Services] = []

    def make(**more: Any) -> Services:
        settings: dict[str, Any] = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY, "quota_usd": None}
        settings |= {"database_url": migrated_database_url, "allow_private_upstreams": True}
        settings |= {"alert_webhook_url": receiver.url, "alert_webhook_secret": SECRET}
        built.append(build(Config(**settings | more)))
        return built[-1]

    yield make
    for one in built:
        one.db.close()


def by_mail(server: MailServer) -> dict[str, Any]:
    given = {"alert_email_to": "ops@gateway.test", "alert_email_from": "gateway@gateway.test"}
    return given | {
        "smtp_host": "localhost",
        "smtp_port": server.port,
        "smtp_user": "user",
        "smtp_password": "correct horse",
    }


def begin(bell: Bell, host: str = "one") -> None:
    """Something is wrong, as a round finds it."""
    bell.states.notice(DISK, Fact(f"host/{host}", 5e8, {"host": host, "free": "0.5 GB"}))
    [alert] = [one for one in bell.states.open() if one.subject == f"host/{host}"]
    bell.states.tell(alert)


def send_all(bell: Bell) -> None:
    for channel in bell.channels:
        bell.send_due(channel)


def test_two_replicas_ring_once(new, receiver):
    """Both look, both send, at the same time: with a pool that is empty, as one of them finds it."""
    bells = [new().bell for _ in range(2)]
    together = threading.Barrier(2)

    def live(bell: Bell) -> None:
        together.wait()
        bell.rounds.run_once()
        together.wait()
        begin(bell)
        together.wait()
        send_all(bell)

    threads = [threading.Thread(target=live, args=(bell,)) for bell in bells]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads(one.body)["state"] for one in receiver.posted] == ["began"]
    for bell in bells:
        for alert in bell.states.open():
            bell.states.end(alert)
        send_all(bell)
    assert [json.loads(one.body)["id"].split("-")[-1] for one in receiver.posted] == ["began", "ended"]


def test_a_message_has_the_sentence_and_the_way_to_the_page(new, receiver):
    bell = new(public_url="https://gateway.test").bell
    begin(bell)
    send_all(bell)
    [posted] = receiver.posted
    told = json.loads(posted.body)
    assert told["text"] == "Disk nearly full. one has 0.5 GB left on the disk of DATA_DIR."
    assert told["link"] == "https://gateway.test/operator/alerts"
    [message] = bell.messages.of([bell.states.open()[0].id])
    assert (message.state, message.tries, message.reason) == ("sent", 1, None)


def test_a_dead_webhook_keeps_no_mail_waiting_and_is_tried_again(new, mail_server, receiver):
    bell = new(**by_mail(mail_server)).bell
    receiver.statuses.append(500)
    begin(bell, "one")
    send_all(bell)
    assert len(mail_server.received) == 1
    states = {one.channel: (one.state, one.reason) for one in bell.messages.of([bell.states.open()[0].id])}
    assert states == {"webhook": ("waiting", "the receiver answered 500"), "email": ("sent", None)}
    begin(bell, "two")
    send_all(bell)
    assert [json.loads(one.body)["subject"] for one in receiver.posted] == ["host/one", "host/two"]


def test_a_test_says_what_became_of_it_at_each_channel(new, mail_server, receiver):
    bell = new(**by_mail(mail_server)).bell
    assert [(one.channel, one.target, one.ok) for one in bell.test()] == [
        ("webhook", "127.0.0.1", True),
        ("email", "ops@gateway.test", True),
    ]
    assert json.loads(receiver.posted[0].body)["state"] == "test"
    assert mail_server.received[0][1]["Subject"] == "[OpenRouter Proxy] Test"
    [failed] = new(alert_webhook_url=NOBODY).bell.test()
    assert (failed.ok, "ConnectionRefusedError" in str(failed.reason)) == (False, True)
    assert bell.states.open() == []


def test_without_channels_nothing_is_sent_and_all_is_seen(new, receiver):
    bell = new(alert_webhook_url=None, alert_webhook_secret=None).bell
    begin(bell)
    assert (bell.channels, bell.test(), list(bell.background())) == ([], [], ["alerts"])
    assert [one.told_at for one in bell.states.open()] == [None]


def test_a_running_service_looks_and_sends_by_itself(new, receiver, monkeypatch):
    """Threads and all: an empty pool is told, after it lasted."""
    services = new()
    monkeypatch.setitem(KINDS["pool-resting"].__dict__, "lasting", Clock().now() - Clock().now())
    services.clock.tell()
    stopping = threading.Event()
    threads = [threading.Thread(target=run, args=(stopping,)) for run in services.bell.background().values()]
    services.bell.rounds.run_once()
    services.bell.rounds.run_once()
    for thread in threads:
        thread.start()
    wait_for(lambda: receiver.posted, seconds=30)
    stopping.set()
    for thread in threads:
        thread.join()
    assert [json.loads(one.body)["kind"] for one in receiver.posted] == ["pool-resting"]


def test_a_process_reports_its_host(new):
    assert "host" in new()._told()
