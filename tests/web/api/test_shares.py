"""Who spent what, over HTTP: everybody's for operators, one's own for everybody else, and nothing for bad questions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, user_id_of, wait_for
from tests.support.usage_rows import row, store

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
OWN, ALL = "/api/usage/shares", "/admin/usage/shares"


@pytest.fixture(scope="module")
def callers(administered: Gateway, database) -> tuple[str, str]:
    """Two users, of whom the first has spent three times as much."""
    found = administered.new_user(), administered.new_user()
    rows = [row(n, TODAY, user_id=user_id_of(found[n % 4 == 3]), cost_nano=10**9) for n in range(8)]
    rows.append(
        row(9, TODAY, user_id=user_id_of(found[0]), outcome="refused", state="void", cost_nano=None, pool_key_id=None)
    )
    store(database, rows)
    return found


def test_an_operator_sees_who_spent_what_and_users_their_own_alone(administered, callers):
    first, second = map(user_id_of, callers)
    shown(administered.ask("PATCH", f"/admin/users/{first}", {"label": "=marketing"}, ADMIN_TOKEN))
    found = shown(administered.get(ALL, ADMIN_TOKEN))
    assert [(one["id"], one["name"], one["cost_usd"], one["errors"]) for one in found["items"]] == [
        (first, f"{first} =marketing", 6.0, 1),
        (second, str(second), 2.0, 0),
    ]
    assert (found["by"], found["metric"], found["period"], found["totals"]["requests"]) == ("user", "cost", "day", 9)
    assert [sum(one["amounts"]) for one in found["series"]] == [6 * 10**9, 2 * 10**9]
    own = shown(administered.get(f"{OWN}?by=provider&metric=calls", callers[1]))
    assert [(one["name"], one["requests"]) for one in own["items"]] == [("openai", 2)]
    of_one = shown(administered.get(f"{ALL}?user_id={second}&by=model", ADMIN_TOKEN))
    assert of_one["totals"] == own["totals"]
    assert "marketing" not in administered.get(OWN, callers[0]).text
    reads = f"/admin/audit?action=person_read&user_id={second}"
    assert wait_for(lambda: shown(administered.get(reads, ADMIN_TOKEN))["total"])


def test_how_long_calls_took_is_told_of_ones_own_alone(administered, callers, database):
    slow = administered.new_user()
    store(database, [row(30, TODAY, user_id=user_id_of(slow), total_ms=60_000, cost_nano=0)])
    [own] = shown(administered.get(f"{OWN}?by=model&metric=p95", callers[1]))["items"]
    assert 810 <= own["p95_ms"] <= 990
    assert own["before"]["p95_ms"] is None
    first = shown(administered.get(f"{ALL}?metric=p95", ADMIN_TOKEN))["items"][0]
    assert (first["id"], 54_000 < first["p50_ms"] < 66_000) == (user_id_of(slow), True)
    assert administered.get(f"{OWN}?by=upstream&metric=p95", callers[1]).status_code == 400


def test_a_day_is_told_by_the_hour_and_what_is_longer_by_the_day(administered, callers):
    day = TODAY.date().isoformat()
    assert len(shown(administered.get(f"{ALL}?start={day}&end={day}", ADMIN_TOKEN))["times"]) == 24
    two = f"{ALL}?start={(TODAY - timedelta(days=1)).date()}T05:00Z&end={day}T04:00Z"
    assert len(shown(administered.get(two, ADMIN_TOKEN))["times"]) == 23
    week = shown(administered.get(f"{ALL}?start={(TODAY - timedelta(days=6)).date()}&end={day}", ADMIN_TOKEN))
    assert (week["period"], len(week["times"])) == ("day", 7)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{ALL}?by=team", "by must be"),
        (f"{ALL}?metric=joy", "metric must be"),
        (f"{ALL}?user_id=x", "user_id must be a whole number"),
        (f"{ALL}?start=2026-11-02&end=2026-11-01", "start must be before end"),
        (f"{ALL}?start=2024-01-01&end=2026-11-01", "at most 366 days apart"),
        (f"{ALL}?start=2026-11-01T05:00Z&end=2026-11-09", "must be days"),
        (f"{ALL}?page=2", "page"),
        (f"{ALL}?metric=p95&start=2026-11-01T05:00Z&end=2026-11-02", "must be days"),
        (f"{ALL}?metric=p50&by=upstream&user_id=1", "not by upstream"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(administered, path, words):
    answer = administered.get(path, ADMIN_TOKEN)
    assert (answer.status_code, words in refusal_of(answer)) == (400, True), answer.text


@pytest.mark.parametrize("query", ["by=user", "user_id=1"])
def test_users_can_not_ask_for_others(administered, callers, query):
    assert administered.get(f"{OWN}?{query}", callers[0]).status_code == 400
    assert administered.get(ALL, callers[0]).status_code == 403
