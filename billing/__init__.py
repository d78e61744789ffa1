"""Every cent: what a call may cost, what it did cost, and whether OpenRouter agrees.

    prices.py             what OpenRouter's models cost: a price is looked up here (other upstreams': destinations.py)
    forecast.py           what a call will probably cost, by what calls of its model did: so much is reserved
    meter.py              one call's accounting, from its reservation to its cost
    call_counts.py        calls by model and outcome, their times, tokens and cost: for statistics
    details.py            what its tokens and its cost consist of
    records.py            what a fact is: its states, its line, its checksum, what a row can hold
    journal.py  journal_files.py  facts in append-only files, until the database has them; those files in a backup
    drain.py              moves journals into the ledger, dead processes' too
    set_aside.py          facts that no row can hold, until they are mended
    ledger.py             a row for each try, settled once
    effects.py            what its changes mean for quotas and sums
    video_prices.py  video_jobs.py  what a video may cost; which call started its job, and what that did cost
    cost_lookup.py        asks what calls cost that ended without saying so
    refused_calls.py      calls that were refused at the door: rows, and sums of floods
    rollups.py  caller_sums.py  sums by hour and by day; what an older version left out of them
    latency.py  latency_rollups.py  how long calls take and how they fail; sums of that
    rehearsal.py          at a start: can this database keep accounts?
    daily_check.py  daily_check_rows.py  our sums beside OpenRouter's, every night; what that check found
    quotas/               what may be spent, and how often one may call
    reports/              statistics, the request log, its export and its end

prices.py -> forecast.py -> meter.py (asks quotas/) -> journal.py -> drain.py -> ledger.py -> rollups.py -> reports/
"""
