"""Numbers that only grow: bounded where others choose the labels, and none lost between threads."""

from __future__ import annotations

import threading

from foundation.counts import BUCKETS, HISTOGRAM, MOST_LABELS, Counts


def test_what_is_new_beyond_the_most_labels_counts_as_other():
    counts = Counts()
    for number in range(MOST_LABELS + 50):
        counts.add("errors", f"made-up-{number}")
    counts.add("errors", "made-up-3")
    counts.add("log_ins", "key", "succeeded")
    rows = counts.copy()
    assert len([key for key in rows if key[0] == "errors"]) == MOST_LABELS + 1
    assert rows["errors", "other"] == [50]
    assert rows["errors", "made-up-3"] == [2]
    assert rows["log_ins", "key", "succeeded"] == [1], "another family has room of its own"


def test_a_time_falls_into_the_first_bucket_that_holds_it():
    counts = Counts()
    for seconds in (0.0, BUCKETS[0], 0.3, BUCKETS[-1], 1e6):
        counts.observe(seconds, "database", "read")
    row = counts.copy()["database", "read"]
    assert len(row) == HISTOGRAM
    assert row[0] == 2, "a bucket holds its own limit"
    assert row[BUCKETS.index(0.5)] == 1
    assert (row[-3], row[-2]) == (1, 1)
    assert row[-1] == BUCKETS[0] + 0.3 + BUCKETS[-1] + 1e6


def test_no_thread_loses_a_count():
    counts = Counts()

    def work() -> None:
        for _ in range(5000):
            counts.add("errors", "timeout")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.copy()["errors", "timeout"] == [40_000]


def test_a_copy_does_not_grow_and_a_row_stays_the_same_object():
    counts = Counts()
    row = counts.row("cost_nano", "a/b")
    before = counts.copy()
    counts.add_all({("cost_nano", "a/b"): [5.0], ("calls", "a/b", "complete"): [2.0]})
    assert counts.row("cost_nano", "a/b") is row
    assert (before["cost_nano", "a/b"], row) == ([0.0], [5.0])
    assert counts.copy()["calls", "a/b", "complete"] == [2.0]


def test_a_row_of_another_shape_is_left_out():
    counts = Counts()
    counts.observe(1, "database", "read")
    counts.add_all({("database", "read"): [7.0], ("errors", "timeout"): [1.0]})
    assert sum(counts.copy()["database", "read"]) == 2, "one, and one second"
    assert counts.copy()["errors", "timeout"] == [1.0]
