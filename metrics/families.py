"""Every metric: its name, type, labels and meaning; and how what processes tell becomes one text for Prometheus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from config.version import VERSION
from foundation.counts import BUCKETS, Row
from foundation.money import NANO
from metrics.slots import Snapshot

PREFIX = "openrouter_proxy_"
Rows = Iterable[tuple[tuple[str, ...], Row]]
LIMITS = [*(repr(bucket) for bucket in BUCKETS), "+Inf"]


@dataclass(frozen=True)
class Family:
    """A family of counters, unless it is a histogram. key: what its rows are called; by: what one of them is worth."""

    key: str
    name: str
    labels: tuple[str, ...]
    help: str
    is_histogram: bool = False
    by: float = 1


@dataclass(frozen=True)
class Gauge:
    """of_all: makes one value of those of all living processes, the asked one's first."""

    name: str
    labels: tuple[str, ...]
    of_all: Callable[[Sequence[float]], float]
    help: str


def own(values: Sequence[float]) -> float:
    """The value of the process that was asked."""
    return values[0]


FAMILIES = (
    Family("calls", "calls", ("model", "outcome"), "Model calls that ended, refused ones too"),
    Family("errors", "errors", ("type",), "Model calls that failed, by the type of error that their callers were told"),
    Family("retries", "retries", ("type",), "Tries that were followed by another one, by what was wrong with them"),
    Family("first_byte_seconds", "first_byte_seconds", ("model",), "From a call to its first content", True),
    Family("call_seconds", "call_seconds", ("model",), "From a call to its end", True),
    Family("tokens", "tokens", ("model", "direction"), "Tokens that upstreams reported"),
    Family("cost_nano", "cost_usd", ("model",), "What calls cost, as far as it was known when they ended", by=1 / NANO),
    Family("log_ins", "log_ins", ("method", "result"), "Log-ins, recoveries and changes of keys, refused ones too"),
    Family("database", "database_seconds", ("use",), "Transactions, the wait for a connection included", True),
)
GAUGES = (
    Gauge("processes", (), sum, "Gateway processes on this host"),
    Gauge("threads", (), sum, "Their threads"),
    Gauge("requests_in_flight", ("lane",), sum, "Requests that are being answered"),
    Gauge("requests_limit", ("lane",), sum, "How many are answered at once at most"),
    Gauge("pool_keys", ("state",), own, "Shared keys of the pool that have not expired"),
    Gauge("pool_size", (), own, "Keys that the rotation keeps usable: POOL_SIZE"),
    Gauge("pool_expires_in_seconds", (), own, "Until the first of the shared keys expires"),
    Gauge("openrouter_up", (), min, "1 unless OpenRouter can't be reached"),
    Gauge("database_up", (), min, "1 unless the database does not answer"),
    Gauge("clock_skew_seconds", (), own, "How far this host's clock is ahead of the database's"),
    Gauge("journal_bytes", (), own, "What is written down on this host and is not in the database yet"),
    Gauge("journal_segments", (), own, "Files that this is in"),
    Gauge("journal_writable", (), min, "1 unless calls are refused because the journal can't be written"),
    Gauge("journal_set_aside", (), max, "Records that no row of the database can hold"),
    Gauge("journal_behind_seconds", (), max, "For how long the database has not taken what the journal holds"),
    Gauge("data_free_bytes", (), own, "Room on the disk of DATA_DIR"),
    Gauge("quota_leased_usd", (), sum, "What processes hold of quotas for the next calls"),
)


class _All(Collector):
    """All processes as one."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily(f"{PREFIX}build_info", "The program's version", labels=["version"])
        build.add_metric([VERSION], 1)
        yield build
        yield from self._counted()
        yield from self._gauges()

    def _counted(self) -> Iterator[Metric]:
        for family in FAMILIES:
            rows = sorted(self._rows(family.key).items())
            yield _histogram(family, rows) if family.is_histogram else _counter(family, rows)

    def _rows(self, key: str) -> dict[tuple[str, ...], Row]:
        found: dict[tuple[str, ...], Row] = {}
        for snapshot in self._snapshots:
            for (name, *labels), row in snapshot.counted.items():
                if name == key:
                    known = found.get(tuple(labels))
                    found[tuple(labels)] = [a + b for a, b in zip(known, row, strict=True)] if known else row
        return found

    def _gauges(self) -> Iterator[Metric]:
        values = defaultdict[tuple[str, ...], list[float]](list)
        for snapshot in self._snapshots:
            for key, value in snapshot.gauges.items():
                values[key].append(value)
        for gauge in GAUGES:
            metric = GaugeMetricFamily(PREFIX + gauge.name, gauge.help, labels=gauge.labels)
            for (name, *labels), told in values.items():
                if name == gauge.name:
                    metric.add_metric(labels, gauge.of_all(told))
            yield metric


def _counter(family: Family, rows: Rows) -> Metric:
    metric = CounterMetricFamily(PREFIX + family.name, family.help, labels=family.labels)
    for labels, row in rows:
        metric.add_metric(labels, row[0] * family.by)
    return metric


def _histogram(family: Family, rows: Rows) -> Metric:
    metric = HistogramMetricFamily(PREFIX + family.name, family.help, labels=family.labels)
    for labels, (*counts, total) in rows:
        metric.add_metric(labels, list(zip(LIMITS, accumulate(counts), strict=True)), total)
    return metric


def exposition(snapshots: Sequence[Snapshot], accept: str) -> tuple[bytes, str]:
    """All processes as one text, in the newest form that whoever asks accepts, and its content type."""
    write, content_type = choose_encoder(accept)
    return write(_All(snapshots)), content_type
