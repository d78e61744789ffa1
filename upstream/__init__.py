"""The other side: connections, what refusals mean, and services besides OpenRouter.

    safe_address.py   which URLs and addresses may be connected to
    dial.py           how a connection leaves: directly, through a proxy, or only to safe addresses
    connection.py     one connection: being made, in use, idle
    http.py           one request and its answer over it: send, head, body as it comes, abort
    known_keys.py     the keys that calls are sent with, hidden in whatever comes back
    reachability.py   whether it can be reached: learnt from calls, asked when in doubt
    refusal.py        one refusal as it came: its status, its words, how long it asks to wait
    refusals.py       what each refusal means: here is decided what rests for it, and how long at first
    refusal_body.py   what a refusal's body says, whatever it looks like
    disclosure.py     what clients may see of a refusal
    registry.py       other upstreams: rows, sealed keys, prices
    check.py          whether one of them answers and takes its key
    openrouter/       OpenRouter's own APIs

dial.py -> connection.py -> http.py -> an answer; if it refuses, its row of refusals.py says what follows.
"""
