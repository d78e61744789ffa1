"""OpenRouter's own APIs, beside model calls.

    key_facts.py            keys as OpenRouter describes them; GET /key
    management_api.py       minting, listing, disabling and deleting keys, with the management key
    account_api.py          a user's own account: its key, or the code of its log-in
    generation_records.py   what a call was, from the pool key that made it; GET /generation
    video_jobs.py           jobs that make videos, and their films; GET /videos
    small_answers.py        how long and how large such answers may be
    model_list.py           the list of models for our callers, in memory
    model_filter.py         which of them somebody asks for
    catalogue.py            what else OpenRouter publishes, kept for minutes

An answer -> key_facts.py -> RemoteKey (in a list) or KeyAccount (of itself) -> the pool and the monitor.
"""
