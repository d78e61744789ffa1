"""Calls as statistics: what callers make up has no name of its own, and nothing an upstream says does harm."""

from __future__ import annotations

from billing.call_counts import MOST_MODELS, MOST_WAITING, CallCounts
from foundation.counts import BUCKETS, Counts


def ended(calls, model, outcome="complete", usage=None, cost_nano=None, **more):
    calls.ended.append((model, {"outcome": outcome, "total_ms": 40, **more}, usage, cost_nano))


def test_a_call_counts_by_model_and_outcome_with_its_times_tokens_and_cost():
    counts = Counts()
    calls = CallCounts(counts)
    ended(calls, "a/b", usage={"prompt_tokens": 7, "completion_tokens": 3}, cost_nano=1500, first_byte_ms=20)
    ended(calls, "a/b", "cut", cost_nano=500, error_type="provider_unavailable")
    ended(calls, "c/d")
    assert counts.copy() == {}, "nothing is counted on the path of a call"
    calls.count()
    calls.count()
    rows = counts.copy()
    assert rows["calls", "a/b", "complete"] == rows["calls", "a/b", "cut"] == rows["calls", "c/d", "complete"] == [1]
    assert (rows["tokens", "a/b", "prompt"], rows["tokens", "a/b", "completion"]) == ([7], [3])
    assert rows["cost_nano", "a/b"] == [2000]
    assert rows["errors", "provider_unavailable"] == [1]
    assert rows["first_byte_seconds", "a/b"][BUCKETS.index(0.025)] == 1
    assert rows["call_seconds", "a/b"][BUCKETS.index(0.05)] == 2
    assert rows["call_seconds", "a/b"][-1] == 0.08


def test_a_model_has_a_name_once_it_has_answered():
    counts = Counts()
    calls = CallCounts(counts)
    for number in range(1000):
        ended(calls, f"made-up/{number}", "refused", error_type="not_found")
    ended(calls, "a/b")
    ended(calls, "a/b", "refused", error_type="not_found")
    calls.count()
    assert {key for key in counts.copy() if key[0] == "calls"} == {
        ("calls", "other", "refused"),
        ("calls", "a/b", "complete"),
        ("calls", "a/b", "refused"),
    }


def test_so_many_models_have_names_an_earlier_process_counted():
    counts = Counts()
    for number in range(MOST_MODELS):
        counts.row("call_seconds", f"old/{number}", size=len(BUCKETS) + 2)
    calls = CallCounts(counts)
    ended(calls, "old/7")
    ended(calls, "new/1")
    calls.count()
    rows = counts.copy()
    assert rows["calls", "old/7", "complete"] == rows["calls", "other", "complete"] == [1]
    assert ("calls", "new/1", "complete") not in rows


def test_what_an_upstream_says_of_tokens_need_not_be_a_number():
    counts = Counts()
    calls = CallCounts(counts)
    for nonsense in ("many", None, -5, 1e400, [], {"a": 1}, True):
        ended(calls, "a/b", usage={"prompt_tokens": nonsense, "completion_tokens": 2})
    calls.count()
    assert counts.copy()["tokens", "a/b", "prompt"] == [0]
    assert counts.copy()["tokens", "a/b", "completion"] == [14]


def test_nothing_waits_where_nobody_counts_and_not_without_end_where_counting_hangs():
    unwanted, hanging = CallCounts(Counts(), are_wanted=False), CallCounts(Counts())
    for _ in range(MOST_WAITING + 10):
        ended(unwanted, "a/b")
        ended(hanging, "a/b")
    assert len(unwanted.ended) == 0
    assert len(hanging.ended) == MOST_WAITING


def test_a_retry_counts_by_what_was_wrong():
    counts = Counts()
    CallCounts(counts).note_retry("provider-limited")
    assert counts.copy() == {("retries", "provider-limited"): [1]}
