"""Logging in through somebody else, and linking such a log-in to an account.

    flow.py         the whole way: to the provider, back with a code, into a session
    provider.py     what every provider is asked, and what it tells
    providers.py    GitHub, Linux.do, OpenID Connect
    identities.py   which account belongs to whom there

flow.py -> accounts/one_time_states.py -> the provider, and back once -> providers.py -> identities.py -> a session.
"""
