"""Who people are, and what they call with.

    users.py              accounts: made, found, changed; the username only as a hash
    labels.py  roles.py  operator_tokens.py   what operators call people, and may do by their role or a token
    key_derivation.py  password_policy.py     the derived key of those who send a password; what a new one must be
    sessions.py           sessions: begun, refreshed, ended; a refresh token that is used again is noticed here
    known_sessions.py     which sessions there are and whose, in memory: no other's token is good
    client_keys.py  allow_lists.py  api_tokens.py   what programs call models with, and which; what only reads usage
    recovery_codes.py  reset_links.py  recovery.py   back in without the password, by a code or an operator's link
    passkeys.py  relying_party.py     keys in people's devices (WebAuthn); what is asked of those and verified
    second_factors.py  step_up.py     a code of an app, or a passkey, beside the password; proof before danger
    one_time_states.py    what was begun elsewhere and comes back once: log-ins, links, challenges
    everything.py         sessions, client keys and API tokens, ended together
    leaving.py  deleted.py   accounts deleted, and what is left of them
    caller.py  client_address.py  networks.py   who sent a request, what proved it, and from where
    user_agents.py        a browser in two words
    audit_log.py          who changed what
    audit_sums.py  refused_log_ins.py   what is summed up there; log-ins that were refused
    invitations.py        one-time links by which people sign up
    registration.py       who may sign up, and what their account begins with
    teams.py  favourite_models.py   who shares a quota; the models that people have marked
    sign_on/              logging in through GitHub, Linux.do, OpenID Connect

users.py + derived key -> sessions.py -> an access token -> auth.py, above, makes caller.py's Caller of it.
"""
