"""The log of changes, as operators read it."""

from __future__ import annotations

import pytest

from accounts.audit_log import AuditLog
from foundation.clock import Clock
from tests.support.gateway import ADMIN_TOKEN, Gateway, check_headers, refusal_of, wait_for


def audit(gateway: Gateway, query: str = ""):
    answer = gateway.get(f"/admin/audit{query}", ADMIN_TOKEN)
    assert answer.status_code == 200, answer.text
    check_headers(answer)
    return answer.json()


def test_a_change_is_found_with_who_made_it_from_where_in_which_request(administered, people):
    changed = administered.ask("PUT", f"/admin/quotas/user/{people.user_id}", {"limit_usd": 2.5}, people.admin)
    [entry] = audit(administered, f"?user_id={people.user_id}&action=quota_set")["items"]
    labels = {"actor_label", "user_label"}
    assert (
        set(entry) == {"id", "at", "actor", "action", "subject", "user_id", "address", "request_id", "details"} | labels
    )
    assert (entry["actor"], entry["subject"]) == (f"user/{people.admin_id}", f"user/{people.user_id}")
    assert (entry["address"], entry["request_id"]) == ("127.0.0.1", changed.headers["X-Request-Id"])
    assert entry["details"]["limit_usd"] == 2.5


def test_what_operators_read_of_a_person_is_summed_up_and_told_to_the_person(administered, people):
    path = f"/admin/users/{people.user_id}"
    for _ in range(5):
        assert administered.get(path, people.admin).status_code == 200
    for more in ("logs", "audit", "keys", "stats"):
        assert administered.get(f"/admin/{more}?user_id={people.user_id}", people.admin).status_code == 200
    reads = f"?user_id={people.user_id}&action=person_read&page_size=100"
    actor, whats = f"user/{people.admin_id}", {"account", "requests", "changes", "client keys", "usage"}

    def told() -> list[dict]:
        return [entry for entry in audit(administered, reads)["items"] if entry["actor"] == actor]

    found = wait_for(lambda: {entry["details"]["what"] for entry in told()} == whats and told())
    assert len(found) < 10
    listed = audit(administered, f"?user_id={people.user_id}&page_size=100")["items"]
    assert "person_read" not in {entry["action"] for entry in listed}
    own = administered.get("/api/auth/events?page_size=100", people.user).json()["items"]
    assert (actor, "person_read") in {(entry["actor"], entry["action"]) for entry in own}
    others = administered.get("/api/auth/events?page_size=100", people.admin).json()["items"]
    assert "person_read" not in {entry["action"] for entry in others}


def test_entries_come_newest_first_in_pages_and_by_action(administered, database):
    log = AuditLog(database, Clock())
    for number in range(5):
        log.record("cli", "tried", f"thing/{number}")
    found = audit(administered, "?action=tried&page=2&page_size=2")
    assert [entry["subject"] for entry in found["items"]] == ["thing/2", "thing/1"]
    assert (found["total"], found["page"], found["page_size"]) == (5, 2, 2)
    assert [entry["subject"] for entry in audit(administered, "?page_size=1")["items"]] == ["thing/4"]
    assert audit(administered, "?action=nothing")["items"] == []


@pytest.mark.parametrize(
    "query", ["user_id=x", "user_id=0", "actor=cli", "page_size=101", f"action={'x' * 65}", "action=é"]
)
def test_a_filter_that_is_not_understood_is_a_400(administered, query):
    refused = administered.get(f"/admin/audit?{query}", ADMIN_TOKEN)
    assert refused.status_code == 400
    refusal_of(refused)


def test_nobody_changes_or_deletes_an_entry(administered):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert administered.ask(method, "/admin/audit", {}, ADMIN_TOKEN).status_code == 405
