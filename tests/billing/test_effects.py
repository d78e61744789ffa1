"""What a changed row means: what moves in quotas, who has spent it, and what is added to the sums."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from billing.effects import Effects
from billing.quotas.moves import Move
from billing.rollups import EVERYBODY, UsageSums

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ROW: dict[str, Any] = {
    "process_id": "p",
    "user_id": 1,
    "client_key_id": None,
    "pool_key_id": 7,
    "upstream_id": None,
    "model": "a/b",
    "state": "dispatched",
    "user_quota_id": 3,
    "key_quota_id": None,
    "team_id": 0,
    "team_quota_id": None,
    "reserved_nano": 100,
    "cost_nano": None,
    "byok_nano": None,
    "prompt_tokens": None,
    "completion_tokens": None,
    "is_last": False,
    "outcome": None,
    "error_type": None,
    "is_stream": True,
    "first_byte_ms": None,
    "total_ms": None,
    "created_at": NOON,
}
SETTLED = ROW | {"state": "settled", "cost_nano": 30, "byok_nano": 5, "prompt_tokens": 2, "is_last": True}
DEAR = SETTLED | {"cost_nano": 130}
PENDING = ROW | {"state": "pending"}
UNKNOWN = ROW | {"state": "unknown", "is_last": True, "outcome": "failed"}


def effects_of(before: Any, after: Any, from_journal: bool = True, counts_byok: bool = False) -> Effects:
    effects = Effects(from_journal, connected={8}, counts_byok=counts_byok)
    effects.add(before, after)
    return effects


@pytest.mark.parametrize(
    ("before", "after", "move"),
    [
        (None, ROW, Move(opened=100)),
        (None, SETTLED, Move(through=30)),
        (None, DEAR, Move(through=130)),
        (ROW, PENDING, Move()),
        (ROW, SETTLED, Move(closed=100, back=70)),
        (ROW, DEAR, Move(closed=100, back=-30)),
        (ROW, UNKNOWN, Move(closed=100, back=100)),
        (UNKNOWN, SETTLED, Move()),
    ],
)
def test_what_was_reserved_moves_as_the_row_opens_and_closes(before, after, move):
    assert effects_of(before, after).moves == {("p", 3): move}


def test_of_what_its_process_never_counted_nothing_comes_back():
    assert effects_of(ROW, SETTLED, from_journal=False).moves == {("p", 3): Move(closed=100)}


@pytest.mark.parametrize(("counts_byok", "nano"), [(False, 30), (True, 35)])
def test_a_cost_counts_once_and_with_it_what_a_provider_bills_where_that_is_wanted(counts_byok, nano):
    assert effects_of(PENDING, SETTLED, counts_byok=counts_byok).spent == [("user/1", NOON, nano)]
    assert effects_of(SETTLED, SETTLED, counts_byok=counts_byok).spent == []


@pytest.mark.parametrize(
    ("pool_key_id", "client_key_id", "subjects"),
    [(7, None, ["user/1"]), (7, 4, ["user/1", "key/4"]), (8, None, []), (8, 4, ["key/4"])],
)
def test_a_users_own_account_pays_for_its_calls_and_client_keys_are_limited_all_the_same(
    pool_key_id, client_key_id, subjects
):
    after = SETTLED | {"pool_key_id": pool_key_id, "client_key_id": client_key_id}
    assert [subject for subject, *_ in effects_of(ROW, after).spent] == subjects


@pytest.mark.parametrize(
    ("before", "after", "sums"),
    [
        (None, ROW, UsageSums()),
        (ROW, SETTLED, UsageSums(requests=1, errors=1, prompt_tokens=2, cost_nano=30)),
        (ROW, SETTLED | {"outcome": "complete"}, UsageSums(requests=1, prompt_tokens=2, cost_nano=30)),
        (ROW, UNKNOWN, UsageSums(requests=1, errors=1, unknown=1)),
        (UNKNOWN, SETTLED, UsageSums(prompt_tokens=2, cost_nano=30, unknown=-1)),
    ],
)
def test_sums_change_by_what_has_changed(before, after, sums):
    assert list(effects_of(before, after).sums.values()) == [sums]


def test_a_teams_call_counts_in_its_quota_and_sums_unless_a_members_own_account_pays():
    held = {"team_id": 3, "team_quota_id": 9}
    effects = effects_of(ROW | held, SETTLED | held)
    assert effects.moves == {("p", quota): Move(closed=100, back=70) for quota in (3, 9)}
    assert [subject for subject, *_ in effects.spent] == ["user/1", "team/3"]
    assert [bucket.team_id for bucket in effects.sums] == [3]
    own = held | {"pool_key_id": 8}
    assert effects_of(ROW | own, SETTLED | own).spent == []
    assert [bucket.team_id for bucket in effects_of(ROW | own, SETTLED | own).sums] == [0]


LOST = SETTLED | {"is_last": False}


def test_what_nobody_is_charged_for_no_team_is_charged_for():
    lost = LOST | {"team_id": 3, "team_quota_id": None}
    effects = effects_of(ROW, lost)
    assert effects.spent == []
    assert {bucket.user_id: bucket.team_id for bucket in effects.sums} == {1: 3, EVERYBODY: 0}


def test_what_a_try_cost_that_another_one_followed_is_in_everybodys_sums_and_nobodys_quota():
    effects = effects_of(ROW, LOST)
    assert effects.spent == []
    assert effects.moves == {("p", 3): Move(closed=100, back=100)}
    sums = {bucket.user_id: sums for bucket, sums in effects.sums.items()}
    assert sums == {1: UsageSums(prompt_tokens=2), EVERYBODY: UsageSums(cost_nano=30)}


def test_a_users_own_account_has_paid_for_it_all_the_same():
    effects = effects_of(ROW, LOST | {"pool_key_id": 8, "client_key_id": 4})
    assert effects.spent == [("key/4", NOON, 30)]
    assert [sums.cost_nano for sums in effects.sums.values()] == [30]


def test_a_try_that_turns_out_to_be_the_last_is_its_callers_after_all():
    effects = effects_of(LOST, SETTLED)
    assert effects.spent == [("user/1", NOON, 30)]
    assert {bucket.user_id: sums.cost_nano for bucket, sums in effects.sums.items()} == {1: 30, EVERYBODY: -30}
