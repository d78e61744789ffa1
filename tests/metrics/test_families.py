"""All processes as one text: counters and histograms added up, gauges each in its way, labels escaped."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from foundation.counts import BUCKETS, Counts
from metrics.families import FAMILIES, GAUGES, exposition
from metrics.slots import Snapshot

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def values(snapshots, accept=""):
    text, content_type = exposition(snapshots, accept)
    parse = openmetrics if content_type.startswith("application/openmetrics-text") else plain
    samples = [sample for family in parse(text.decode()) for sample in family.samples]
    return {
        (
            sample.name.removeprefix("openrouter_proxy_"),
            *(sample.labels[name] for name in sorted(sample.labels)),
        ): sample.value
        for sample in samples
    }


def process(calls, seconds, **gauges):
    counts = Counts()
    for _ in range(calls):
        counts.add("calls", "a/b", "complete")
    counts.observe(seconds, "database", "read")
    counts.row("cost_nano", "a/b")[0] = 1.5e9
    return Snapshot(counts.copy(), {(name,): value for name, value in gauges.items()})


def test_what_processes_counted_is_added_up():
    told = values([process(3, 0.02), process(4, 2), Snapshot({}, {})])
    assert told["calls_total", "a/b", "complete"] == 7
    assert told["cost_usd_total", "a/b"] == 3
    assert told["database_seconds_bucket", "0.025", "read"] == 1
    assert told["database_seconds_bucket", "2.5", "read"] == told["database_seconds_bucket", "+Inf", "read"] == 2
    assert (told["database_seconds_count", "read"], told["database_seconds_sum", "read"]) == (2, 2.02)


def test_gauges_are_those_of_all_the_worst_or_of_who_was_asked():
    asked = process(0, 1, threads=10, database_up=1, journal_behind_seconds=0, pool_size=5)
    other = process(0, 1, threads=20, database_up=0, journal_behind_seconds=40, pool_size=6)
    told = values([asked, other, Snapshot({("calls", "a/b", "complete"): [1.0]}, {})])
    expected = {"threads": 30, "database_up": 0, "journal_behind_seconds": 40, "pool_size": 5}
    assert {name: told[name,] for name in expected} == expected


def test_both_formats_say_the_same_and_escape_what_a_label_holds():
    evil = 'a/b"} 1\nopenrouter_proxy_calls_total{model="c\\'
    snapshot = Snapshot({("calls", evil, "complete"): [1.0]}, {})
    told = values([snapshot])
    assert told["calls_total", evil, "complete"] == 1
    assert [key for key in told if key[0] == "calls_total"] == [("calls_total", evil, "complete")]
    assert values([snapshot], OPENMETRICS) == told


def test_no_two_metrics_share_a_name_and_each_says_what_it_is():
    names = [one.name for one in (*FAMILIES, *GAUGES)]
    assert len(names) == len(set(names))
    assert all(one.help for one in (*FAMILIES, *GAUGES))
    assert [*BUCKETS] == sorted(BUCKETS)
