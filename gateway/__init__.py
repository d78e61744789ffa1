"""The data plane: one call, from its verified body to its last byte. openrouter_proxy.py at the root puts it together.

    request.py        a verified call, and which of its headers go up
    bodies.py         bodies in flight, and the memory that they share
    aliases.py        other names for models, by which the operator chooses
    model_rules.py    what the operator rules for calls of one model: fallbacks, time-out, choice of upstreams
    failures.py       kinds of failure, after which those are tried
    destinations.py   where it goes: OpenRouter with a pool key, or another upstream with its own key, prices and rests
    paces.py          how soon upstreams begin to answer, for a choice among several
    route.py          a call's way to one model there: what goes up, what it may cost
    router.py         which routes a call may take, and in which order
    outbound.py       the call on its way up: attempts, each written down and accounted for
    attempts.py       its tries: what is tried again, with which pool key, after which pause
    retry_budget.py   how much may be tried again, of whom
    attempt.py        one try: one pool key, one exchange, up to the first content
    forms.py          what kind of answer has come: a stream, JSON, a refusal
    answer.py         what goes back to the client: status, headers, body
    relay.py          the body on its way down, from the first content to its end
    response_cache.py  answers to exact repeats of a call, kept for minutes
    reasons.py        why it was refused or failed, for the log of requests
    latest_calls.py   how many calls of the last minute failed, and why

request.py -> router.py -> route.py -> outbound.py -> attempts.py -> attempt.py -> upstream/http.py, back by relay.py
"""
