"""What was used, for those who may see it.

    statistics.py    sums by model, day and key; the fields of a filter
    shares.py  shares_asked.py  latency_shares.py  who spent what, and beside the time before; how long it took
    latency.py       how fast calls are answered, and how they fail
    row_filter.py    what only rows tell: statuses, reasons, amounts; in which order they come
    log_items.py     what the log says of a call: its tries, put together
    request_log.py   calls, newest first: filtered and paged here
    lost_tries.py    tries that brought nobody an answer, and may have been billed
    one_request.py   one call with each of its tries
    export.py        the log as a file: CSV or JSON lines
    retention.py     deletes old rows, at night

Sums -> statistics.py, shares.py, latency.py. Ledger rows -> request_log.py -> a page, or export.py; then retention.py.
"""
