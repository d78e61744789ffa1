"""The pages that people see in a browser: HTML from templates, parts of it swapped in by htmx.

    table.py                                   all of them, in order
    views.py                                   who looks, by a cookie; CSRF is checked here; language, policy, errors
    forms.py                                   forms, read as the API's bodies
    field_faults.py                            what is wrong with their fields, in words that are translated
    static_files.py                            scripts and styles, by their hashes
    sessions.py  profile.py                    logging in and out, one's account
    dashboard.py  playground.py  models.py     what one has used, a chat, the models
    first_steps.py                             what to do first, for users and for operators
    shares.py  stacked.py                      who spent what, and how that is drawn
    requests.py                                one's own requests; what the operator's log shares with it
    keys.py  connect.py  team.py               client keys, tokens and watched keys; one's account at OpenRouter; team
    operator.py  operator_live.py              for operators: overview, requests, audit; what changes while they look
    operator_users.py  operator_teams.py       accounts, teams
    operator_invitations.py                    invitations
    operator_quotas.py  operator_tokens.py     quotas; what programs administer with
    operator_pool.py  operator_upstreams.py    pool keys, other upstreams
    operator_latency.py  sparkline.py          how fast calls are answered; small charts
    operator_aliases.py                        other names for models
    operator_model_rules.py                    fallbacks, time-outs, choices of upstreams
    operator_system.py  operator_alerts.py     how the parts are; what operators are told of by itself

A request -> views.py -> a page -> the verb that web/api has for it -> a template, or the part that has changed.
"""
