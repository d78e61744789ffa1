"""OpenRouter keys that carry calls: what is stored of them, which may be used, and how they are renewed.
api_key_manager.py at the root picks from them; key_rotation.py renews them.

    life.py             the states of a pool key, from intent to deleted
    keys.py             pool keys' rows, sealed: state, limits, owner, the moves between states
    names.py            short names, and which key one means
    choice.py           keys arranged so that a pick is cheap
    health.py           breakers, which keep a rest to its end; doubts, which GET /key settles
    probe.py            asks GET /key about keys
    shared.py           the keys that all users share, in memory
    dedicated.py        users' own keys, in memory
    verdicts.py         what GET /key's answers do to keys: in doubt, out, back
    connected.py        users' own accounts at OpenRouter
    credit.py           what is left at the account that pays for minted keys
    overview.py         the pool as operators see it
    rotation_questions.py  which keys OpenRouter refuses, asked at each pass
    rotation_plan.py    the steps of one pass; deletions are held back here (until when: replicas/lease.py)
    rotation_steps.py   what each step does, in an order that survives a crash

To a call: keys.py -> choice.py -> a PoolKey. Its end -> api_key_manager.py -> health.py -> probe.py -> verdicts.py.
In a rotation: rows and OpenRouter's list -> rotation_plan.py -> rotation_steps.py -> keys.py.
"""
