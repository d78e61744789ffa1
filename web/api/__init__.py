"""The JSON API: a file for each family of URLs. What pages do too stands in functions below the routes.

    table.py                                   all of it, in order
    auth.py  password.py                       signing up and logging in, with a derived key or a password
    sessions.py  profile.py  own_data.py       sessions, what one is called; leaving with all that is kept of one
    recovery.py  second_factors.py             back in without the password; codes beside it
    passkeys.py  webauthn.py  step_up.py       keys in one's devices, and their JSON; proving again who one is
    sign_on.py  sign_on_names.py               log-ins elsewhere; other names of their paths
    client_keys.py  tokens.py  watched_keys.py     client keys, API tokens, watched keys
    connect.py  upstreams.py                   one's OpenRouter account; which pool keys carry one's calls
    openrouter.py                              what SDKs read of their key: records, limits, credits
    models.py  model_query.py                  the list of models; what may be asked of it
    anthropic_models.py  catalogue.py          the same for Anthropic's clients; what OpenRouter publishes
    plugins.py  favourites.py  videos.py       the same for plug-ins; favourite models; jobs that make videos
    quotas.py  teams.py  usage.py  shares.py   what one may spend, and with whom; what was used, and by whom
    health.py  metrics.py  latency.py          whether it can work; what Prometheus reads; how fast calls are
    admin_users.py  admin_invitations.py  admin_teams.py  for operators: accounts, invitations, teams
    admin_audit.py  admin_tokens.py  admin_settings.py  changes, operator tokens, which settings hold
    admin_client_keys.py  admin_quotas.py      everybody's client keys and quotas
    admin_pool.py  admin_upstreams.py          pool keys, other upstreams
    admin_aliases.py  admin_model_rules.py     other names for models, fallbacks and time-outs of them
    admin_usage.py  admin_check.py  admin_alerts.py  everybody's calls, the daily check, alerts

table.py -> a route -> @operation checks caller and body -> a noun of accounts, billing, pool or monitor.
"""
