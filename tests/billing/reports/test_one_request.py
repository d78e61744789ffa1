"""One request: its tries in order, what its caller may see of them, and that nobody sees another's."""

from __future__ import annotations

import pytest

from billing.reports.one_request import get_request
from foundation.errors import NotFound
from tests.support.usage_rows import NOON, row, store


def test_a_request_has_its_tries_in_order_and_its_reason(db):
    first = row(1, NOON, is_last=False, state="void", cost_nano=None, http_status=429, error_type="key-limited")
    second = row(1, NOON, attempt=2, cost_nano=7, generation_id="gen-1", total_ms=900)
    store(db, [second, first, row(2, NOON)])
    found = get_request(db, first["request_id"])
    assert (found["tries"], found["cost_nano"], found["error_type"]) == (2, 7, None)
    assert [one["attempt"] for one in found["attempts"]] == [1, 2]
    assert (found["attempts"][0]["status"], found["attempts"][0]["error_type"]) == (429, "key-limited")
    assert (found["attempts"][1]["generation_id"], found["attempts"][1]["ms"]) == ("gen-1", 900)


def test_its_caller_sees_what_is_theirs_and_others_nothing(db):
    one = row(1, NOON, user_id=1, error_type="upstream_refused", error_message="no")
    store(db, [one])
    own = get_request(db, one["request_id"], user_id=1)
    assert own["error_message"] == "no"
    assert not {"user_id", "pool_key"} & own.keys()
    assert not {"pool_key", "status", "error_message"} & own["attempts"][0].keys()
    for user_id, request_id in ((2, one["request_id"]), (1, "x"), (None, "0" * 32)):
        with pytest.raises(NotFound, match="There is no request"):
            get_request(db, request_id, user_id)


def test_what_never_went_up_has_no_tries(db):
    refused = row(1, NOON, attempt=0, pool_key_id=None, state="void", cost_nano=None, http_status=429)
    store(db, [refused])
    assert get_request(db, refused["request_id"])["attempts"] == []
