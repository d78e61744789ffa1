"""E-mail: over TLS with a certificate that is verified, to all addresses at once, and words for what is refused."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from alerts.mail import Mail
from alerts.notice import NotSent
from config.settings import Config
from tests.alerts.conftest import a_notice
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.alarms import MailServer
from tests.support.movable_clock import MovableClock


def mail(port: int, **more: Any) -> Mail:
    settings: dict[str, Any] = {
        "alert_email_to": "ops@gateway.test, more@gateway.test",
        "alert_email_from": "alerts@gateway.test",
        "smtp_host": "localhost",
        "smtp_port": port,
        "smtp_user": "user",
        "smtp_password": "correct horse",
    }
    secrets = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY}
    return Mail(Config(**settings | secrets | more), MovableClock())


def test_a_message_arrives_at_all_addresses(mail_server, notice):
    mail(mail_server.port).send(notice)
    [(to, message)] = mail_server.received
    assert to == ["ops@gateway.test", "more@gateway.test"]
    told = {name: message[name] for name in ("Subject", "From", "Message-ID", "Auto-Submitted", "Date")}
    assert told == {
        "Subject": "[OpenRouter Proxy] Disk nearly full",
        "From": "alerts@gateway.test",
        "Message-ID": "<alert-7-began@gateway.test>",
        "Auto-Submitted": "auto-generated",
        "Date": "Sat, 21 Nov 2026 12:00:00 +0000",
    }
    assert message.get_content().splitlines() == [
        "one has 0.8 GB left on the disk of DATA_DIR.",
        "",
        "Began: 2026-11-21 12:00:00 UTC",
        "",
        "Make room before calls are refused.",
        "",
        "https://gateway.test/operator/alerts",
    ]


def test_an_end_says_from_when_to_when(mail_server):
    ended_at = datetime(2026, 11, 21, 13, 0, tzinfo=UTC)
    mail(mail_server.port).send(a_notice(says="ended", ended_at=ended_at, link=""))
    [(_, message)] = mail_server.received
    assert message["Subject"] == "[OpenRouter Proxy] Over: Disk nearly full"
    assert message.get_content().splitlines()[2:] == [
        "Began: 2026-11-21 12:00:00 UTC",
        "Over: 2026-11-21 13:00:00 UTC",
    ]


def test_tls_from_the_first_byte_on(certificate, monkeypatch, notice):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    server = MailServer(certificate, is_tls_at_once=True)
    mail(server.port, smtp_security="tls").send(notice)
    server.close()
    assert len(server.received) == 1


@pytest.mark.parametrize("is_tls_at_once", [False, True])
def test_a_certificate_that_nobody_vouches_for_gets_no_message(certificate, notice, is_tls_at_once):
    server = MailServer(certificate, is_tls_at_once)
    with pytest.raises(NotSent, match="certificate is not trusted"):
        mail(server.port, smtp_security="tls" if is_tls_at_once else "starttls").send(notice)
    server.close()
    assert server.received == []


def test_a_certificate_of_another_name_gets_no_message(mail_server, notice):
    with pytest.raises(NotSent, match="certificate is not trusted"):
        mail(mail_server.port, smtp_host="127.0.0.1").send(notice)
    assert mail_server.received == []


def test_a_wrong_password_is_told_without_it(mail_server, notice):
    with pytest.raises(NotSent, match="SMTP_USER and SMTP_PASSWORD") as refused:
        mail(mail_server.port, smtp_password="battery staple").send(notice)
    assert "battery" not in str(refused.value)
    assert mail_server.received == []


def test_one_unknown_address_keeps_nobody_else_from_the_message(mail_server, notice, caplog):
    caplog.set_level(logging.WARNING)
    mail_server.refuses.add("more@gateway.test")
    mail(mail_server.port).send(notice)
    assert [to for to, _ in mail_server.received] == [["ops@gateway.test"]]
    assert "alert_recipients_refused" in caplog.text
    mail_server.refuses.add("ops@gateway.test")
    with pytest.raises(NotSent, match="none of the addresses"):
        mail(mail_server.port).send(notice)


def test_a_server_without_tls_or_without_anybody_is_told(notice):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    with pytest.raises(NotSent, match="can’t be reached"):
        mail(port).send(notice)
