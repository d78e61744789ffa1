"""What users and client keys may spend, and how often one may call.

    terms.py             what a quota promises: limits, windows, recovery
    subjects.py          whose a quota is
    budgets.py           what client keys may spend, shown with them
    rows.py              quotas in the database: set, shown, reset
    moves.py             what is spent, reserved and leased: how rows and slices change
    slices.py            admits calls from memory; a slice is leased, enlarged and given back here
    leased.py            one slice in memory
    leases.py            this process's slices in the database, and those of the dead
    outage_credit.py     what may be spent before quotas are known
    rate_limits.py       requests, tokens and parallel calls a minute
    window_counters.py   counters of those, in memory or in Redis

A call -> rate_limits.py -> slices.py -> leased.py; if that runs low -> moves.py, which locks the quota's row for it.
"""
