"""What Prometheus reads at GET /metrics, all processes on this host together; and traces of calls.

    slots.py      each process's counts, in a file of its own that others read and its successor continues
    gauges.py     how this process is at this moment: pool, database, journal, threads
    families.py   every metric's name, type, labels and meaning; the text that is answered
    scrape.py     one scrape, and what is written down for those that other processes answer
    traces.py     calls that are over, on their way to an OpenTelemetry collector
    spans.py      the spans that they become there; the only file that knows OpenTelemetry

Counters grow in foundation/counts.py, calls by billing/call_counts.py -> slots.py -> scrape.py -> families.py.
"""
