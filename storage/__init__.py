"""Tables by domain; tables.py is their face, from which all of them are imported, and has the older ones itself.

    alerts.py     what operators are told of by itself: alerts, messages, silences
    columns.py    what every table is made of
    jobs.py       what goes on at OpenRouter after a call: videos
    operators.py  what programs administer with: operator tokens
    routing.py    how calls find their model: aliases, rules
    spending.py   quotas, and what processes hold of them
    teams.py      people who share a quota
    usage.py      sums of what was used, by caller, and of how long calls took
    ways_in.py    what opens an account besides its key: recovery codes, reset links, second factors
    many_rows.py  many rows in few statements

A new table goes into the file of its domain, and its name into tables.py.
"""
