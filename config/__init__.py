"""Every setting, once.

    service.py       each setting of server, database and network: its name, type, bounds, default and help
    accounts.py      those of accounts and log-ins
    calls.py         those of OpenRouter, its keys, and calls
    spending.py      those of quotas, and of how long what was spent is kept
    alerts.py        those of alerts: where they go
    kinds.py         kinds of values that several of them have
    settings.py      all together, as programs get them
    rules.py         what settings must be like beside others
    checks.py        what the text of one setting must be like: URLs, networks, headers
    sources.py       where values come from: environment, secret files, `.env`; all faults; development's own secrets
    in_force.py      which value each setting has, and where it comes from: what operators are shown
    database_tls.py  how the connection to the database is secured
    env_file.py      how `.env` is read
    version.py       which version this is

The environment, env_file.py -> sources.py -> settings.py, which asks rules.py and checks.py -> one Config for all.
"""
