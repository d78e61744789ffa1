"""One message: what it says in few words, in a line and as JSON."""

from datetime import UTC, datetime

from tests.alerts.conftest import a_notice


def test_a_beginning_and_an_end_are_told_apart():
    began, ended = a_notice(), a_notice(says="ended", ended_at=datetime(2026, 11, 21, 13, 0, tzinfo=UTC))
    assert began.text == "Disk nearly full. one has 0.8 GB left on the disk of DATA_DIR."
    assert ended.headline == "Over: Disk nearly full"
    assert [(one["state"], one["began_at"], one["ended_at"]) for one in (began.to_dict(), ended.to_dict())] == [
        ("began", "2026-11-21T12:00:00+00:00", None),
        ("ended", "2026-11-21T12:00:00+00:00", "2026-11-21T13:00:00+00:00"),
    ]
    assert a_notice(link="").to_dict()["link"] is None
