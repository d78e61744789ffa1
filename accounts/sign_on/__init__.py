"""Logging in through somebody else, and linking such a log-in to an account.

    flow.py         the whole way: to the provider, back with a code, into a session
    states.py       log-ins under way: a row from the redirect until the browser is back
    provider.py     what every provider is asked, and what it tells
    providers.py    GitHub, Linux.do, OpenID Connect
    identities.py   which account belongs to whom there

flow.py -> states.py -> the provider -> states.py, consumed once -> providers.py -> identities.py -> a session.
"""
