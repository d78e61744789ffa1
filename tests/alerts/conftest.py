"""What the tests of alerts share: channels with somebody at their other end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from alerts.notice import AlertNotice
from tests.support.alarms import MailServer, Receiver, make_certificate


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def mail_server(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """One whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    made = MailServer(certificate)
    yield made
    made.close()


@pytest.fixture
def notice() -> AlertNotice:
    return a_notice()


def a_notice(**changes: Any) -> AlertNotice:
    values: dict[str, Any] = {
        "id": "alert-7-began",
        "says": "began",
        "kind": "disk-nearly-full",
        "subject": "host/one",
        "title": "Disk nearly full",
        "sentence": "one has 0.8 GB left on the disk of DATA_DIR.",
        "advice": "Make room before calls are refused.",
        "details": {"host": "one", "free": "0.8 GB"},
        "began_at": datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
        "ended_at": None,
        "link": "https://gateway.test/operator/alerts",
    }
    return AlertNotice(**values | changes)
