"""The operator's view of the daily checks: pages, newest first, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import usage_checks
from config import Config
from db import Database, database_url
from pool_keys import KeySource
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.gateway import Gateway, check_headers, refusal_of
from usage_checks import Check

ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
TEXT = "sk-or-v1-" + "7c" * 32
FIRST = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def checked(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], stand_in: Any, tmp_path_factory: Any
) -> Gateway:
    """A gateway with one key and 25 days of checks, once on each kind of database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('checks')}/x.db"
    else:
        url = request.getfixturevalue("mariadb").new_database()
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    gateway = start(DATABASE_URL=url, OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=TEXT, **secrets)
    for db in open_database(gateway):
        for number in range(25):
            day = FIRST + timedelta(days=number)
            figures = {"our_nano": 10**9, "activity_nano": 3 * 10**9 if number else None}
            totals = {"our_total_nano": 10**9, "usage_nano": None, "checked_at": day + timedelta(hours=25)}
            made = Check(day=day, pool_key_id=1, name="", source=KeySource.ENVIRONMENT, **figures, **totals)
            usage_checks.note(db, made, lambda _tx: None)
    return gateway


def open_database(gateway: Gateway) -> Iterator[Database]:
    db = Database(database_url(Config(database_url=gateway.settings["DATABASE_URL"])))
    yield db
    db.close()


def test_checks_are_shown_in_pages_newest_first(checked):
    answer = checked.get("/admin/usage-checks", ADMIN_TOKEN)
    assert answer.status_code == 200
    check_headers(answer)
    found = answer.json()
    assert {name: found[name] for name in ("total", "page", "page_size")} == {"total": 25, "page": 1, "page_size": 20}
    assert [item["day"] for item in found["items"]] == [f"2026-11-{day:02}" for day in range(25, 5, -1)]
    assert found["items"][0] == {
        "day": "2026-11-25",
        "key": found["items"][0]["key"],
        "source": "environment",
        "verdict": "used elsewhere too",
        "our_usd": 1.0,
        "activity_usd": 3.0,
        "difference_usd": 2.0,
        "our_total_usd": 1.0,
        "usage_usd": None,
        "total_difference_usd": None,
        "checked_at": "2026-11-26T01:00:00+00:00",
    }
    assert found["items"][0]["key"].startswith("env/")
    assert TEXT not in answer.text
    last = checked.get("/admin/usage-checks?page=5&page_size=6", ADMIN_TOKEN).json()
    assert [(item["day"], item["activity_usd"], item["verdict"]) for item in last["items"]] == [
        ("2026-11-01", None, "not known yet")
    ]
    assert checked.get("/admin/usage-checks?page=6&page_size=6", ADMIN_TOKEN).json()["items"] == []


@pytest.mark.parametrize(
    ("query", "accepted"),
    [
        ("page=0", "page must be a whole number from 1 to 1000000"),
        ("page=x", "page must be"),
        ("page=1000001", "page must be"),
        ("page_size=101", "page_size must be a whole number from 1 to 100"),
        ("page_size=-1", "page_size must be"),
        ("page_size=1e1", "page_size must be"),
    ],
)
def test_odd_pages_are_refused_with_what_is_accepted(checked, query, accepted):
    refused = checked.get(f"/admin/usage-checks?{query}", ADMIN_TOKEN)
    assert refused.status_code == 400
    assert accepted in refusal_of(refused)


def test_a_user_and_a_stranger_are_not_let_in(checked):
    for token in (None, checked.new_user(), "", ADMIN_TOKEN[:-1], f"{ADMIN_TOKEN}x"):
        refused = checked.get("/admin/usage-checks", token)
        assert refused.status_code == 401
        assert "send `Authorization: Bearer <ADMIN_TOKEN>`" in refusal_of(refused)
        assert "env/" not in refused.text


def test_a_gateway_without_an_admin_token_lets_nobody_in(gateway, token):
    for given in (None, token, ADMIN_TOKEN):
        assert gateway.get("/admin/usage-checks", given).status_code == 403
