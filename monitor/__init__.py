"""Watched keys: OpenRouter keys that people use elsewhere, and watch here. They carry no calls.

    watched_keys.py   rows: the sealed text, the state, what each day has cost; claims of who asks next
    sync.py           asks OpenRouter about them: at once, on demand, every hour

sync.py claims a row -> GET /key -> what it has spent since -> the days of watched_keys.py.
"""
