"""Operator commands: `flask --app app <group> <command>`.

    groups.py           all groups
    printing.py         what commands share: services, --json, refusals, the audit log
    check.py            check
    settings.py         settings
    users.py            users
    teams.py            teams
    client_keys.py      keys: client keys
    quotas.py           quota
    pool.py             pool: pool keys
    upstreams.py        upstreams
    requests.py         requests
    aliases.py          aliases
    alerts.py           alerts
    model_rules.py      model-rules
    usage.py            logs, usage
    watched_keys.py     personal-keys: watched keys
    encryption_keys.py  encryption-keys
    audit.py            audit
    operator_tokens.py  operator-tokens
    backup.py           backup, restore

groups.py -> a command -> the nouns that its route uses -> printing.py -> a table, or JSON lines.
"""
